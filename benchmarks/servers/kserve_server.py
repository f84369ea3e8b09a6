"""KServe's own model server: REST and gRPC, latency logging and access log off."""

import sys

from kserve import InferOutput, InferResponse, Model, ModelServer
from onnx_model import MODELS, load


class OnnxModel(Model):
    def __init__(self, name):
        super().__init__(name, return_response_headers=False)
        self.session = load(name)
        self.ready = True

    async def predict(self, payload, headers=None, response_headers=None):
        (answer,) = self.session.run(None, {"x": payload.inputs[0].as_numpy()})
        output = InferOutput("probabilities", list(answer.shape), "FP32")
        output.set_data_from_numpy(answer, binary_data=payload.use_binary_outputs)
        return InferResponse(payload.id, self.name, [output], use_binary_outputs=payload.use_binary_outputs)


ModelServer(
    http_port=int(sys.argv[1]), grpc_port=int(sys.argv[2]), workers=1, enable_latency_logging=False, event_loop="uvloop"
).start([OnnxModel(name) for name in MODELS])
