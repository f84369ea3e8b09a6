"""What a gRPC request for a prediction must not do."""

from __future__ import annotations

import struct
from typing import Any

from tritonclient.grpc import service_pb2 as pb

from ..case import Case, grpc
from .bodies import ONES, ROW
from .grpc_bodies import INFER, ONES_BYTES, ROW_BYTES, identity, request, simple_raw, simple_typed, tensor
from .rest_binary import text_blob


def _first(
    name: str = "INPUT0", datatype: str = "INT32", shape: list[int] | None = None, raw: bytes = ROW_BYTES
) -> Any:
    """A raw request for `simple` whose first input is changed."""
    first = tensor(name, datatype, [1, 16] if shape is None else shape)
    return request("simple", [first, tensor("INPUT1", "INT32", [1, 16])], raw, ONES_BYTES)


def _typed_first(field: str, values: Any, datatype: str = "INT32") -> Any:
    """A typed request for `simple` whose first input has other contents."""
    second = tensor("INPUT1", "INT32", [1, 16], "int_contents", ONES)
    return request("simple", [tensor("INPUT0", datatype, [1, 16], field, values), second])


def _two_fields() -> Any:
    message = simple_typed()
    message.inputs[0].contents.fp32_contents.extend([1.0] * 16)
    return message


def _mixed() -> Any:
    message = simple_typed()
    message.raw_input_contents.append(ROW_BYTES)
    return message


_PLAIN = [tensor("INPUT0", "INT32", [1, 16]), tensor("INPUT1", "INT32", [1, 16])]
_OUT = pb.ModelInferRequest.InferRequestedOutputTensor

_RULES: dict[str, Any] = {
    "no model name": request("", _PLAIN, ROW_BYTES, ONES_BYTES),
    "unknown model": request("nobody", _PLAIN, ROW_BYTES, ONES_BYTES),
    "unknown version": simple_raw(model_version="9"),
    "version is a word": simple_raw(model_version="abc"),
    "version negative": simple_raw(model_version="-1"),
    "broken bytes": b"\xff\xff\xff\xff",
    "cut bytes": simple_raw().SerializeToString()[:-5],
    "an empty message": b"",
    "no inputs": request("simple", []),
    "one input missing": request("simple", _PLAIN[:1], ROW_BYTES),
    "an unknown input": _first(name="INPUT9"),
    "an input twice": request("simple", [_PLAIN[0], _PLAIN[0]], ROW_BYTES, ROW_BYTES),
    "an input too many": request("simple", [*_PLAIN, tensor("INPUT2", "INT32", [1, 16])], *[ROW_BYTES] * 3),
    "an input without a name": _first(name=""),
    "no data type": _first(datatype=""),
    "data type in small letters": _first(datatype="int32"),
    "data type unknown": _first(datatype="INT31"),
    "data type another": _first(datatype="FP32"),
    "data type BF16": _first(datatype="BF16"),
    "no shape": _first(shape=[]),
    "shape negative": _first(shape=[-1, 16]),
    "shape twice negative": _first(shape=[-1, -16]),
    "shape one axis": _first(shape=[16]),
    "shape three axes": _first(shape=[1, 16, 1]),
    "shape too wide": _first(shape=[1, 17], raw=ROW_BYTES + b"\0\0\0\0"),
    "shape huge": _first(shape=[2**62, 16]),
    "shape whose product overflows": _first(shape=[2**32, 2**32]),
    "zero rows": request("simple", [tensor(n, "INT32", [0, 16]) for n in ("INPUT0", "INPUT1")], b"", b""),
    "different rows": request("simple", [_PLAIN[0], tensor("INPUT1", "INT32", [2, 16])], ROW_BYTES, ONES_BYTES * 2),
    "raw one byte short": _first(raw=ROW_BYTES[:-1]),
    "raw one element short": _first(raw=ROW_BYTES[:-4]),
    "raw one element long": _first(raw=ROW_BYTES + b"\0\0\0\0"),
    "raw empty": _first(raw=b""),
    "raw one missing": request("simple", _PLAIN, ROW_BYTES),
    "raw one too many": request("simple", _PLAIN, ROW_BYTES, ONES_BYTES, ONES_BYTES),
    "raw and typed together": _mixed(),
    "neither raw nor typed": request("simple", _PLAIN),
    "typed in the wrong field": _typed_first("int64_contents", ROW),
    "typed in two fields": _two_fields(),
    "typed one short": _typed_first("int_contents", ROW[:15]),
    "typed one too many": _typed_first("int_contents", [*ROW, 16]),
    "typed as floats": _typed_first("fp32_contents", [float(n) for n in ROW]),
    "typed as bytes": _typed_first("bytes_contents", [ROW_BYTES]),
    "typed over INT8": identity("INT8", [1, 1], field="int_contents", values=[128]),
    "typed under INT8": identity("INT8", [1, 1], field="int_contents", values=[-129]),
    "typed over UINT8": identity("UINT8", [1, 1], field="uint_contents", values=[256]),
    "typed over UINT16": identity("UINT16", [1, 1], field="uint_contents", values=[65536]),
    "typed over INT16": identity("INT16", [1, 1], field="int_contents", values=[32768]),
    "typed half floats": identity("FP16", [1, 1], field="fp32_contents", values=[1.0]),
    "typed, zero elements": identity("FP32", [1, 0]),
    "typed, zero elements with one": identity("FP32", [1, 0], field="fp32_contents", values=[1.0]),
    "raw BYTES, a length cut off": identity("BYTES", [1, 1], b"\x04\x00"),
    "raw BYTES, an element cut off": identity("BYTES", [1, 1], b"\x04\0\0\0ab"),
    "raw BYTES, one element too few": identity("BYTES", [1, 2], text_blob(b"a")),
    "raw BYTES, one element too many": identity("BYTES", [1, 1], text_blob(b"a", b"b")),
    "raw booleans other than 0 and 1": identity("BOOL", [1, 2], b"\x02\xff"),
    "an unknown output": simple_raw(outputs=[_OUT(name="OUTPUT9")]),
    "an output without a name": simple_raw(outputs=[_OUT(name="")]),
    "a reserved parameter": simple_raw(parameters={"triton_final": pb.InferParameter(bool_param=True)}),
    "a parameter without a value": simple_raw(parameters={"a": pb.InferParameter()}),
    "three axes for two": request("identity_fp32", [tensor("INPUT0", "FP32", [1, 1, 1])], struct.pack("<f", 1)),
}

CASES: tuple[Case, ...] = tuple(grpc(f"grpc rules: {name}", INFER, message) for name, message in _RULES.items())
