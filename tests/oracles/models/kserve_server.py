"""The catalog on KServe's own model server, which reads --http_port and --grpc_port by itself."""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer  # type: ignore[import-not-found]

sys.path.insert(0, os.environ["ORACLE_MODELS"])

from catalog import CATALOG, NUMPY_TYPES, Entry
from compute import compute


class CatalogModel(Model):
    """Answers protocol v1 bodies (plain dictionaries) and v2 requests."""

    def __init__(self, entry: Entry) -> None:
        super().__init__(entry.name)
        self.entry = entry
        self.ready = True

    def get_input_types(self) -> list[dict[str, Any]]:
        return [{"name": t.name, "datatype": t.datatype, "shape": list(t.shape)} for t in self.entry.inputs]

    def get_output_types(self) -> list[dict[str, Any]]:
        return [{"name": t.name, "datatype": t.datatype, "shape": list(t.shape)} for t in self.entry.outputs]

    def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:
        if isinstance(payload, InferRequest):
            return self._predict_tensors(payload)
        rows = payload["instances"] if "instances" in payload else payload["inputs"]
        tensor = self.entry.inputs[0]
        outputs = compute(self.entry.kind, {tensor.name: np.array(rows, dtype=NUMPY_TYPES[tensor.datatype])})
        if len(outputs) == 1:
            return {"predictions": next(iter(outputs.values())).tolist()}
        columns = {name: value.tolist() for name, value in outputs.items()}
        return {"predictions": [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]}

    def _predict_tensors(self, payload: InferRequest) -> InferResponse:
        outputs = compute(self.entry.kind, {tensor.name: tensor.as_numpy() for tensor in payload.inputs})
        encoded = []
        types = {t.name: t.datatype for t in self.entry.outputs}
        for name, value in outputs.items():
            output = InferOutput(name=name, shape=list(value.shape), datatype=types[name])
            output.set_data_from_numpy(value)  # bytes or JSON: the server decides on what was asked
            encoded.append(output)
        return InferResponse(
            response_id=payload.id or "",  # as a KServe runtime written by hand does
            model_name=self.name,
            infer_outputs=encoded,
            requested_outputs=payload.request_outputs,
            use_binary_outputs=payload.use_binary_outputs,
        )


if __name__ == "__main__":
    ModelServer(workers=1, enable_latency_logging=False).start([CatalogModel(entry) for entry in CATALOG])
