"""The limit for any server: onnxruntime called in a loop, no sockets. Prints one JSON object: cell -> calls a second.

python in_process.py SECONDS MODEL:ROWS ...
"""

import json
import sys
import time

import numpy as np
from onnx_model import load

FEATURES = {"tiny": 4, "mlp": 784, "heavy": 784}
seconds = float(sys.argv[1])
rates = {}
for cell in sys.argv[2:]:
    name, rows = cell.split(":")
    session = load(name)
    random = np.random.default_rng(1)
    inputs = [random.random((int(rows), FEATURES[name]), np.float32) for _ in range(16)]
    session.run(None, {"x": inputs[0]})
    calls, start, now = 0, time.perf_counter(), 0.0
    while now < seconds:
        session.run(None, {"x": inputs[calls % 16]})
        calls += 1
        now = time.perf_counter() - start
    rates[cell] = calls / now
print(json.dumps(rates))
