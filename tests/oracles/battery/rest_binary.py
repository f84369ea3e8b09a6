"""The binary tensor extension: tensors after the JSON header, and games with its length."""

from __future__ import annotations

import json
import struct
from typing import Any

from ..case import HEADER_LENGTH, Case, http
from .bodies import ONES, ROW, SIMPLE, TINY_ROWS, identity_path, simple, tensor

Header = dict[str, Any]
ROW_BYTES = struct.pack("<16i", *ROW)
ONES_BYTES = struct.pack("<16i", *ONES)
BINARY_TYPE = "application/octet-stream"


def framed(
    name: str, target: str, header: Header | str, blobs: bytes, *, length: str | None = None,
    content_type: str = BINARY_TYPE, **more: Any,
) -> Case:  # fmt: skip
    """A request with blobs after its JSON; `length` writes another length than the right one."""
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    said = str(len(text)) if length is None else length
    headers = [("Content-Type", content_type), (HEADER_LENGTH, said)]
    return http(f"binary: {name}", "POST", target, text + blobs, headers=headers, **more)


def blob(name: str, datatype: str, shape: list[int], size: Any) -> Header:
    """One input whose data follow as bytes."""
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}}


def both(first: Any = 64, second: Any = 64, **more: Any) -> Header:
    """The header of a good request for `simple`, with the sizes as given."""
    inputs = [blob("INPUT0", "INT32", [1, 16], first), blob("INPUT1", "INT32", [1, 16], second)]
    return {"inputs": inputs} | more


def one(datatype: str, shape: list[int], data: bytes, **more: Any) -> Header:
    """The header for an identity model."""
    return {"inputs": [blob("INPUT0", datatype, shape, len(data))]} | more


def text_blob(*elements: bytes) -> bytes:
    """BYTES elements, each after its length."""
    return b"".join(struct.pack("<I", len(e)) + e for e in elements)


ALL_BINARY: Header = {"parameters": {"binary_data_output": True}}

_TYPES: dict[str, bytes] = {
    "BOOL": b"\x01\x00\x01",
    "UINT8": b"\x00\x01\xff",
    "UINT16": struct.pack("<3H", 0, 1, 65535),
    "UINT32": struct.pack("<3I", 0, 1, 2**32 - 1),
    "UINT64": struct.pack("<3Q", 0, 1, 2**64 - 1),
    "INT8": struct.pack("<3b", -128, 0, 127),
    "INT16": struct.pack("<3h", -(2**15), 0, 2**15 - 1),
    "INT32": struct.pack("<3i", -(2**31), 0, 2**31 - 1),
    "INT64": struct.pack("<3q", -(2**63), 0, 2**63 - 1),
    "FP16": struct.pack("<3e", 0.5, -2.0, 65504.0),
    "FP32": struct.pack("<3f", 0.1, float("nan"), float("-inf")),
    "FP64": struct.pack("<3d", 0.1, float("nan"), float("inf")),
    "BYTES": text_blob(b"", b"text", "\u20ac".encode()),
}


def _types() -> list[Case]:
    cases = []
    for datatype, data in _TYPES.items():
        path, shape = identity_path(datatype), [1, 3]
        cases += [
            framed(f"{datatype} in", path, one(datatype, shape, data), data),
            framed(f"{datatype} in and out", path, one(datatype, shape, data, **ALL_BINARY), data),
            framed(f"{datatype} zero elements", path, one(datatype, [1, 0], b"", **ALL_BINARY), b""),
        ]
    return cases


def _out(value: Any) -> Header:
    return {"outputs": [{"name": "OUTPUT0", "parameters": {"binary_data": value}}, {"name": "OUTPUT1"}]}


_GOOD = ROW_BYTES + ONES_BYTES
_LENGTH = len(json.dumps(both()))
_BYTES = identity_path("BYTES")

_LENGTHS: dict[str, str] = {
    "zero": "0",
    "negative": "-1",
    "one short": str(_LENGTH - 1),
    "one long": str(_LENGTH + 1),
    "beyond the body": "100000",
    "the whole body": str(_LENGTH + 128),
    "beyond 64 bits": "99999999999999999999999",
    "a word": "abc",
    "empty": "",
    "a fraction": "10.5",
    "with a plus": f"+{_LENGTH}",
    "with white space": f"  {_LENGTH}  ",
    "hexadecimal": hex(_LENGTH),
    "leading zeros": f"000{_LENGTH}",
    "two numbers": f"{_LENGTH}, {_LENGTH}",
}

_SIZES: dict[str, Any] = {
    "one short": 63,
    "one element short": 60,
    "one element long": 68,
    "zero": 0,
    "negative": -64,
    "huge": 2**62,
    "beyond 64 bits": 2**70,
    "a string": "64",
    "a float": 64.0,
    "a fraction": 64.5,
    "null": None,
    "a boolean": True,
    "a list": [64],
}

CASES: tuple[Case, ...] = (
    *_types(),
    framed("simple", SIMPLE, both(), _GOOD),
    framed("simple, all outputs binary", SIMPLE, both(**ALL_BINARY), _GOOD),
    framed("simple, with an id", SIMPLE, both(id="a1", **ALL_BINARY), _GOOD),
    framed("content type json", SIMPLE, both(), _GOOD, content_type="application/json"),
    framed("one input in JSON", SIMPLE, {"inputs": [both()["inputs"][0], simple()["inputs"][1]]}, ROW_BYTES),
    framed("the first in JSON", SIMPLE, {"inputs": [simple()["inputs"][0], both()["inputs"][1]]}, ONES_BYTES),
    framed("blobs in the order of the inputs", SIMPLE, {"inputs": both()["inputs"][::-1]}, ONES_BYTES + ROW_BYTES),
    framed("one output binary", SIMPLE, both(**_out(True)), _GOOD),
    framed("an output against the request's flag", SIMPLE, both(**_out(False), **ALL_BINARY), _GOOD),
    framed("no output binary by its flag", SIMPLE, both(parameters={"binary_data_output": False}), _GOOD),
    framed("flag is a string", SIMPLE, both(parameters={"binary_data_output": "true"}), _GOOD),
    framed("flag is a number", SIMPLE, both(parameters={"binary_data_output": 1}), _GOOD),
    http("binary: outputs only, inputs in JSON", "POST", SIMPLE, simple(**ALL_BINARY)),
    http("binary: one output only, inputs in JSON", "POST", SIMPLE, simple(**_out(True))),
    framed("data and size together", SIMPLE,
           {"inputs": [both()["inputs"][0] | {"data": ROW}, both()["inputs"][1]]}, _GOOD),
    framed("neither data nor size", SIMPLE,
           {"inputs": [{"name": "INPUT0", "datatype": "INT32", "shape": [1, 16]}, both()["inputs"][1]]}, ONES_BYTES),
    framed("bytes left over", SIMPLE, both(), _GOOD + b"\0\0\0\0"),
    framed("one byte left over", SIMPLE, both(), _GOOD + b"\0"),
    framed("bytes missing", SIMPLE, both(), _GOOD[:-4]),
    framed("no bytes at all", SIMPLE, both(), b""),
    framed("all JSON, with the header", SIMPLE, simple(), b""),
    framed("all JSON, bytes left over", SIMPLE, simple(), b"\0\0\0\0"),
    framed("a broken JSON header", SIMPLE, json.dumps(both())[:-1], _GOOD),
    http("binary: sizes without the length header", "POST", SIMPLE, json.dumps(both()).encode() + _GOOD,
         headers=[("Content-Type", BINARY_TYPE)]),
    http("binary: sizes without the length header and no bytes", "POST", SIMPLE, both()),
    *(framed(f"length {name}", SIMPLE, both(), _GOOD, length=value) for name, value in _LENGTHS.items()),
    *(framed(f"size {name}", SIMPLE, both(value), _GOOD) for name, value in _SIZES.items()),
    framed("sizes that swap bytes", SIMPLE, both(60, 68), _GOOD),
    framed("another data type of the same size", SIMPLE,
           {"inputs": [blob("INPUT0", "FP32", [1, 16], 64), both()["inputs"][1]]}, _GOOD),
    framed("zero rows", SIMPLE,
           {"inputs": [blob("INPUT0", "INT32", [0, 16], 0), blob("INPUT1", "INT32", [0, 16], 0)]}, b""),
    framed("booleans other than 0 and 1", identity_path("BOOL"), one("BOOL", [1, 2], b"\x02\xff"), b"\x02\xff"),
    framed("BYTES, not text, in and out", _BYTES, one("BYTES", [1, 1], text_blob(b"\xff\xfe\0"), **ALL_BINARY),
           text_blob(b"\xff\xfe\0")),
    framed("BYTES, not text, out in JSON", _BYTES, one("BYTES", [1, 1], text_blob(b"\xff\xfe")),
           text_blob(b"\xff\xfe")),
    framed("BYTES, a length cut off", _BYTES, one("BYTES", [1, 1], b"\x04\x00"), b"\x04\x00"),
    framed("BYTES, an element cut off", _BYTES, one("BYTES", [1, 1], b"\x04\0\0\0ab"), b"\x04\0\0\0ab"),
    framed("BYTES, a length of 4 GB", _BYTES, one("BYTES", [1, 1], b"\xff\xff\xff\xffab"), b"\xff\xff\xff\xffab"),
    framed("BYTES, one element too few", _BYTES, one("BYTES", [1, 2], text_blob(b"a")), text_blob(b"a")),
    framed("BYTES, one element too many", _BYTES, one("BYTES", [1, 1], text_blob(b"a", b"b")), text_blob(b"a", b"b")),
    framed("two outputs of two types", "/v2/models/tiny/infer",
           {"inputs": [blob("x", "FP32", [1, 4], 16)], **ALL_BINARY}, struct.pack("<4f", *TINY_ROWS[1])),
    framed("mixed with JSON outputs of two types", "/v2/models/tiny/infer",
           {"inputs": [tensor("x", "FP32", [1, 4], TINY_ROWS[1])],
            "outputs": [{"name": "label"}, {"name": "probabilities", "parameters": {"binary_data": True}}]}, b""),
    http("raw: one tensor", "POST", "/v2/models/vector/infer", struct.pack("<3f", 1, 2, 3),
         headers=[("Content-Type", BINARY_TYPE), (HEADER_LENGTH, "0")]),
    http("raw: a model with rows", "POST", identity_path("FP32"), struct.pack("<3f", 1, 2, 3),
         headers=[("Content-Type", BINARY_TYPE), (HEADER_LENGTH, "0")]),
    http("raw: a model of two inputs", "POST", SIMPLE, ROW_BYTES,
         headers=[("Content-Type", BINARY_TYPE), (HEADER_LENGTH, "0")]),
    http("raw: half an element", "POST", "/v2/models/vector/infer", b"\0\0\0\0\0\0",
         headers=[("Content-Type", BINARY_TYPE), (HEADER_LENGTH, "0")]),
    http("raw: no bytes", "POST", "/v2/models/vector/infer", b"",
         headers=[("Content-Type", BINARY_TYPE), (HEADER_LENGTH, "0")]),
)  # fmt: skip
