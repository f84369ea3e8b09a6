"""A hand-written service on Granian's own interface (RSGI), the fastest that a Python framework offers.

Started as `granian --interface rsgi --workers 1 --runtime-mode st --loop uvloop --no-ws granian_app:app`.
"""

import numpy as np
import orjson
from onnx_model import MODELS, load

sessions = {name: load(name) for name in MODELS}
JSON = [("content-type", "application/json")]


async def app(scope, protocol):
    path = scope.path
    if not path.endswith("/infer"):
        protocol.response_bytes(200, JSON, b'{"ready":true}')
        return
    body = await protocol()
    name = path.split("/")[3]
    length = int(scope.headers.get("inference-header-content-length") or 0)
    message = orjson.loads(body[:length] if length else body)
    tensor = message["inputs"][0]
    if length:
        rows = np.frombuffer(body, np.float32, offset=length).reshape(tensor["shape"])
    else:
        rows = np.array(tensor["data"], np.float32).reshape(tensor["shape"])
    (answer,) = sessions[name].run(None, {"x": rows})
    output = {"name": "probabilities", "datatype": "FP32", "shape": answer.shape}
    reply = {"model_name": name, "id": message["id"], "outputs": [output]}
    if length:
        output["parameters"] = {"binary_data_size": answer.nbytes}
        head = orjson.dumps(reply)
        headers = [
            ("content-type", "application/octet-stream"),
            ("inference-header-content-length", str(len(head))),
        ]
        protocol.response_bytes(200, headers, head + answer.tobytes())
        return
    output["data"] = answer.ravel()
    protocol.response_bytes(200, JSON, orjson.dumps(reply, option=orjson.OPT_SERIALIZE_NUMPY))
