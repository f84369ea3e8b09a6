"""LitServe with its batching on; one model for each server, because each has its own worker process.

python litserve_server.py PORT MODEL MAX_BATCH
"""

import sys

import litserve
import numpy as np
from onnx_model import load


class OnnxApi(litserve.LitAPI):
    def setup(self, device):
        self.session = load(sys.argv[2])

    def decode_request(self, request):
        return request["id"], np.array(request["x"], np.float32)

    def batch(self, inputs):
        return inputs

    def predict(self, inputs):
        if isinstance(inputs, tuple):
            inputs = [inputs]
        rows = np.concatenate([rows for _, rows in inputs])
        (answer,) = self.session.run(None, {"x": rows})
        ends = np.cumsum([len(rows) for _, rows in inputs])[:-1]
        return [(identity, part) for (identity, _), part in zip(inputs, np.split(answer, ends), strict=True)]

    def unbatch(self, output):
        return output

    def encode_response(self, output):
        if isinstance(output, list):
            (output,) = output
        return {"id": output[0], "probabilities": output[1].tolist()}


if __name__ == "__main__":
    api = OnnxApi(max_batch_size=int(sys.argv[3]), batch_timeout=0)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=1, log_level="warning", access_log=False,
               generate_client_file=False)  # fmt: skip
