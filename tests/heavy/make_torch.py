"""PyTorch: TorchScript, an exported program, and safetensors with an architecture of torch or of plain numpy."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import safetensors.numpy
import safetensors.torch
import torch
from keeping import ROWS, Keep

warnings.simplefilter("ignore")
keep = Keep(sys.argv[1])
x = np.random.default_rng(0).standard_normal((ROWS, 4)).astype(np.float32)
CLOSE = (1e-5, 1e-6)
NET = """
import torch

class Net(torch.nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(4, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, 3))

    def forward(self, x):
        return torch.softmax(self.layers(x), -1)
"""
PLAIN = """
import numpy as np

class Linear:
    def __init__(self, weights, scale):
        self.weights = {name: value * scale for name, value in weights.items()}

    def predict(self, inputs):
        return {"score": inputs["x"] @ self.weights["matrix"] + self.weights["bias"]}
"""
INPUTS = [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
names: dict[str, object] = {"__name__": "net"}
source = Path(sys.argv[1]) / "net.py"
source.write_text(NET)
sys.path.insert(0, sys.argv[1])
from net import Net  # noqa: E402  it is written above

torch.manual_seed(0)
module = Net(8).eval()
with torch.inference_mode():
    want = module(torch.from_numpy(x)).numpy()

torch.jit.script(module).save(f"{keep.folder}/script.pt")
shapes = {"x": {0: torch.export.Dim("batch")}}
torch.export.save(
    torch.export.export(module, (torch.zeros(2, 4),), dynamic_shapes=shapes), f"{keep.folder}/program.pt2"
)
for name, artifact, wrong in (("script", "script.pt", ".pt2"), ("program", "program.pt2", ".ts")):
    keep(
        name,
        artifact,
        format="torch",
        rows={"x": x},
        expected={"output": want},
        tolerance=CLOSE,
        inputs={"x": ["FP32", -1, 4]},
        served=True,
        wrong_suffix=wrong,
        after="import torch; assert torch.get_num_threads() == 1",
    )

folder = Path(sys.argv[1]) / "weights"
folder.mkdir()
safetensors.torch.save_model(module, str(folder / "model.safetensors"))
(folder / "net.py").write_text(NET)
(folder / "architecture.json").write_text(
    json.dumps({"class": "net.py:Net", "arguments": {"hidden": 8}, "inputs": INPUTS})
)
keep(
    "torch-architecture",
    "weights",
    format="safetensors",
    rows={"x": x},
    expected={"output": want},
    tolerance=CLOSE,
    served=True,
    essential=["architecture.json", "model.safetensors", "net.py"],
)

folder = Path(sys.argv[1]) / "plain"
folder.mkdir()
matrix, bias = np.random.default_rng(1).standard_normal((4, 2)).astype(np.float32), np.ones(2, np.float32)
safetensors.numpy.save_file({"matrix": matrix}, str(folder / "model-1.safetensors"))
safetensors.numpy.save_file({"bias": bias}, str(folder / "model-2.safetensors"))
(folder / "linear.py").write_text(PLAIN)
(folder / "architecture.json").write_text(
    json.dumps({"class": "linear.py:Linear", "arguments": {"scale": 2.0}, "inputs": INPUTS})
)
keep(
    "plain-architecture",
    "plain",
    format="safetensors",
    rows={"x": x},
    expected={"score": x @ (matrix * 2) + bias * 2},
    split=CLOSE,
    served=True,
    damage=False,
)
