"""A model of Triton's python back end that calls onnxruntime: the requests of a batch joined, run once, split."""

import numpy as np
import triton_python_backend_utils as pb
from onnx_model import load


class TritonPythonModel:
    def initialize(self, args):
        self.session = load(args["model_name"])

    def execute(self, requests):
        inputs = [pb.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        rows = inputs[0] if len(inputs) == 1 else np.concatenate(inputs)
        (answer,) = self.session.run(None, {"x": rows})
        ends = np.cumsum([len(rows) for rows in inputs])[:-1]
        return [
            pb.InferenceResponse([pb.Tensor("probabilities", np.ascontiguousarray(part))])
            for part in np.split(answer, ends)
        ]
