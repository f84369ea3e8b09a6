"""gRPC requests that work, to be changed by one thing at a time."""

from __future__ import annotations

import struct
from typing import Any

from tritonclient.grpc import service_pb2 as pb

from .bodies import ONES, ROW

SERVICE = "/inference.GRPCInferenceService/"
INFER = SERVICE + "ModelInfer"

ROW_BYTES = struct.pack("<16i", *ROW)
ONES_BYTES = struct.pack("<16i", *ONES)

#: Where the typed contents of each data type stand.
FIELDS = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def tensor(name: str, datatype: str, shape: list[int], field: str = "", values: Any = ()) -> Any:
    """One input, with typed contents where a field is named."""
    message = pb.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape)
    if field:
        getattr(message.contents, field).extend(values)
    return message


def request(model: str, inputs: list[Any], *raw: bytes, **more: Any) -> Any:
    """A ModelInferRequest."""
    return pb.ModelInferRequest(model_name=model, inputs=inputs, raw_input_contents=raw, **more)


def simple_raw(rows: int = 1, **more: Any) -> Any:
    """A good request for `simple` with its tensors as bytes."""
    inputs = [tensor(name, "INT32", [rows, 16]) for name in ("INPUT0", "INPUT1")]
    return request("simple", inputs, ROW_BYTES * rows, ONES_BYTES * rows, **more)


def simple_typed(**more: Any) -> Any:
    """A good request for `simple` with typed contents."""
    inputs = [
        tensor("INPUT0", "INT32", [1, 16], "int_contents", ROW),
        tensor("INPUT1", "INT32", [1, 16], "int_contents", ONES),
    ]
    return request("simple", inputs, **more)


def identity(datatype: str, shape: list[int], *raw: bytes, field: str = "", values: Any = ()) -> Any:
    """A request for the identity model of that data type."""
    return request(f"identity_{datatype.lower()}", [tensor("INPUT0", datatype, shape, field, values)], *raw)
