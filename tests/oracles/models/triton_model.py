"""The catalog as a model of Triton's python back end: one file, copied into every model's directory."""

from __future__ import annotations

import json
import os
import sys

import numpy as np
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]  # Triton's stub provides it

sys.path.insert(0, os.environ["ORACLE_MODELS"])

from catalog import BY_NAME
from compute import compute


class TritonPythonModel:
    """The interface that Triton's stub process looks for."""

    def initialize(self, args: dict[str, str]) -> None:
        self.entry = BY_NAME[json.loads(args["model_config"])["name"]]

    def execute(self, requests: list) -> list:
        return [self._answer(request) for request in requests]

    def _answer(self, request: object) -> object:
        inputs = {t.name: pb_utils.get_input_tensor_by_name(request, t.name).as_numpy() for t in self.entry.inputs}
        try:
            outputs = compute(self.entry.kind, inputs)
        except ValueError as problem:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(problem)))
        tensors = [pb_utils.Tensor(name, np.ascontiguousarray(value)) for name, value in outputs.items()]
        return pb_utils.InferenceResponse(output_tensors=tensors)
