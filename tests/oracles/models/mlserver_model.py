"""The catalog as a custom runtime of MLServer."""

from __future__ import annotations

import os
import sys

from mlserver import MLModel  # type: ignore[import-not-found]  # lives in the oracle's environment
from mlserver.codecs import NumpyCodec  # type: ignore[import-not-found]
from mlserver.types import InferenceRequest, InferenceResponse  # type: ignore[import-not-found]

sys.path.insert(0, os.environ["ORACLE_MODELS"])

from catalog import BY_NAME
from compute import compute


class CatalogModel(MLModel):
    """Decodes with MLServer's own numpy codec, so its rules on types and shapes are what is seen."""

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        entry = BY_NAME[self.name]
        if entry.inputs[0].datatype == "BYTES":
            return self._echo(payload)
        inputs = {tensor.name: NumpyCodec.decode_input(tensor) for tensor in payload.inputs}
        outputs = compute(entry.kind, inputs)
        encoded = [NumpyCodec.encode_output(name, value) for name, value in outputs.items()]
        return InferenceResponse(id=payload.id, model_name=self.name, model_version=self.version, outputs=encoded)

    def _echo(self, payload: InferenceRequest) -> InferenceResponse:
        tensor = payload.inputs[0]
        output = {"name": "OUTPUT0", "datatype": "BYTES", "shape": tensor.shape, "data": tensor.data}
        return InferenceResponse(id=payload.id, model_name=self.name, model_version=self.version, outputs=[output])
