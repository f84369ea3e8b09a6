"""MLServer with a runtime that calls onnxruntime (it ships none for ONNX).

`parallel_workers` is 0: the model runs in the server's own process, which is two to three times faster here than one
parallel worker. Adaptive batching stays off: see `benchmarks/peers.py`.
"""

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse
from onnx_model import load


class OnnxModel(MLModel):
    async def load(self):
        self.session = load(self.name)
        return True

    async def predict(self, payload):
        rows = NumpyCodec.decode_input(payload.inputs[0]).astype(np.float32, copy=False)
        (answer,) = self.session.run(None, {"x": rows})
        output = NumpyCodec.encode_output("probabilities", answer)
        return InferenceResponse(id=payload.id, model_name=self.name, outputs=[output])
