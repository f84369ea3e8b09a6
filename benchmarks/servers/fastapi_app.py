"""A hand-written FastAPI service: uvicorn with uvloop and httptools, orjson both ways, no access log.

`async def` and not `def`: for these models the hop to FastAPI's thread pool costs more than the prediction. The body
is read as it came: a pydantic model for the inputs would be slower. The binary tensor extension is spoken too.
"""

import sys

import numpy as np
import orjson
import uvicorn
from fastapi import FastAPI, Request, Response
from onnx_model import MODELS, load

app = FastAPI()
sessions = {name: load(name) for name in MODELS}


@app.get("/v2/health/ready")
async def ready():
    return {"ready": True}


@app.post("/v2/models/{name}/infer")
async def infer(name: str, request: Request):
    body = await request.body()
    length = int(request.headers.get("inference-header-content-length", 0))
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
        return Response(
            head + answer.tobytes(),
            media_type="application/octet-stream",
            headers={"Inference-Header-Content-Length": str(len(head))},
        )
    output["data"] = answer.ravel()
    return Response(orjson.dumps(reply, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")


uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), loop="uvloop", http="httptools", access_log=False,
            log_level="warning", backlog=4096)  # fmt: skip
