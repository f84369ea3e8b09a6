"""Predictions that work: every data type in JSON, forms of `data`, ids, parameters, requested outputs."""

from __future__ import annotations

from typing import Any

from ..case import Case, http
from .bodies import ONES, ROW, SIMPLE, TINY_ROWS, identity, identity_path, simple, tensor

_VALUES: dict[str, list[Any]] = {
    "BOOL": [True, False, True],
    "UINT8": [0, 1, 255],
    "UINT16": [0, 1, 65535],
    "UINT32": [0, 1, 4294967295],
    "UINT64": [0, 9007199254740993, 18446744073709551615],
    "INT8": [-128, 0, 127],
    "INT16": [-32768, 0, 32767],
    "INT32": [-2147483648, 0, 2147483647],
    "INT64": [-9223372036854775808, 9007199254740993, 9223372036854775807],
    "FP32": [0.1, -3.4028234e38, 1.17549435e-38],
    "FP64": [0.1, 1.7976931348623157e308, 5e-324],
    "BYTES": ["", "text", "h\u00e9 \u20ac \U0001f600"],
}


def _types() -> list[Case]:
    cases = []
    for datatype, values in _VALUES.items():
        path = identity_path(datatype)
        cases += [
            http(f"types: {datatype} flat", "POST", path, identity(datatype, [1, 3], values)),
            http(f"types: {datatype} nested", "POST", path, identity(datatype, [1, 3], [values])),
            http(f"types: {datatype} two rows", "POST", path, identity(datatype, [2, 3], [values, values[::-1]])),
            http(f"types: {datatype} zero elements", "POST", path, identity(datatype, [1, 0], [])),
        ]
    return cases


_PARAMETERS = {
    "none": {},
    "string": {"who": "me"},
    "int": {"n": 3},
    "bool": {"yes": True},
    "float": {"x": 1.5},
    "several": {"a": "b", "c": 1, "d": False},
    "unicode": {"\u20ac": "\U0001f600"},
    "null": {"n": None},
    "list": {"n": [1]},
    "object": {"n": {"m": 1}},
    "reserved name": {"triton_final": True},
    "sequence": {"sequence_id": 1, "sequence_start": True, "sequence_end": True},
    "priority": {"priority": 1},
    "timeout": {"timeout": 1000000},
}

_OUTPUTS = {
    "first": [{"name": "OUTPUT0"}],
    "second": [{"name": "OUTPUT1"}],
    "both": [{"name": "OUTPUT0"}, {"name": "OUTPUT1"}],
    "both reversed": [{"name": "OUTPUT1"}, {"name": "OUTPUT0"}],
    "none listed": [],
    "twice the same": [{"name": "OUTPUT0"}, {"name": "OUTPUT0"}],
    "unknown": [{"name": "OUTPUT9"}],
    "one unknown": [{"name": "OUTPUT0"}, {"name": "OUTPUT9"}],
    "an input's name": [{"name": "INPUT0"}],
    "empty name": [{"name": ""}],
    "no name": [{}],
    "name is a number": [{"name": 1}],
    "a string": ["OUTPUT0"],
    "not a list": {"name": "OUTPUT0"},
    "null": None,
    "with a shape": [{"name": "OUTPUT0", "shape": [1, 16], "datatype": "INT32"}],
    "in JSON by its flag": [{"name": "OUTPUT0", "parameters": {"binary_data": False}}],
    "with an unknown parameter": [{"name": "OUTPUT0", "parameters": {"colour": "blue"}}],
    "flag is a string": [{"name": "OUTPUT0", "parameters": {"binary_data": "yes"}}],
    "flag is a number": [{"name": "OUTPUT0", "parameters": {"binary_data": 1}}],
    "parameters not an object": [{"name": "OUTPUT0", "parameters": 1}],
}

_IDS = {
    "text": "abc",
    "empty": "",
    "unicode": "\u20ac-\U0001f600",
    "control characters": 'a"\\\n\u0001',
    "long": "x" * 300,
    "uuid": "9d2f5a6c-3f0e-4a7e-8a51-2f6c1b1f6f01",
    "number": 7,
    "null": None,
    "list": ["a"],
    "bool": True,
}

_FORMS: dict[str, object] = {
    "flat": ROW,
    "nested": [ROW],
    "nested once too often": [[ROW]],
    "each number in a list": [[n] for n in ROW],
    "cut in two": [ROW[:8], ROW[8:]],
    "ragged": [ROW[:4], ROW[4:]],
    "mixed depth": [[*ROW[:8], ROW[8:]]],
    "whole floats": [float(n) for n in ROW],
}

CASES: tuple[Case, ...] = (
    *_types(),
    *(http(f"forms: {name}", "POST", SIMPLE, simple(first={"data": data})) for name, data in _FORMS.items()),
    *(http(f"ids: {name}", "POST", SIMPLE, simple(id=value)) for name, value in _IDS.items()),
    *(http(f"parameters: {name}", "POST", SIMPLE, simple(parameters=value)) for name, value in _PARAMETERS.items()),
    http("parameters: not an object", "POST", SIMPLE, simple(parameters=[1])),
    http("parameters: of an input", "POST", SIMPLE, simple(first={"parameters": {"colour": "blue"}})),
    http("parameters: of an input, not an object", "POST", SIMPLE, simple(first={"parameters": 3})),
    http("parameters: of an input, a list inside", "POST", SIMPLE, simple(first={"parameters": {"a": [1]}})),
    *(http(f"outputs: {name}", "POST", SIMPLE, simple(outputs=value)) for name, value in _OUTPUTS.items()),
    http("infer: two rows", "POST", SIMPLE, simple(2)),
    http("infer: eight rows", "POST", SIMPLE, simple(8)),
    http("infer: nine rows", "POST", SIMPLE, simple(9)),
    http("infer: inputs in the other order", "POST", SIMPLE, {"inputs": simple()["inputs"][::-1]}),
    http("infer: unknown members beside", "POST", SIMPLE, simple(colour="blue", first={"colour": "blue"})),
    http("infer: model_name in the body", "POST", SIMPLE, simple(model_name="other")),
    http("infer: with a version", "POST", "/v2/models/simple/versions/1/infer", simple()),
    http("infer: with an unknown version", "POST", "/v2/models/simple/versions/9/infer", simple()),
    http("infer: unknown model", "POST", "/v2/models/nobody/infer", simple()),
    http("infer: unknown model, bad body", "POST", "/v2/models/nobody/infer", "{"),
    http("infer: encoded name", "POST", "/v2/models/simp%6ce/infer", simple()),
    http("infer: with a slash at the end", "POST", "/v2/models/simple/infer/", simple()),
    http("infer: with a query", "POST", SIMPLE + "?x=1", simple()),
    http("infer: no row axis", "POST", "/v2/models/vector/infer", identity("FP32", [3], [1, 2.5, -0.0])),
    http("infer: no row axis, empty", "POST", "/v2/models/vector/infer", identity("FP32", [0], [])),
    http("infer: two outputs of two types", "POST", "/v2/models/tiny/infer",
         {"inputs": [tensor("x", "FP32", [2, 4], TINY_ROWS)]}),
    http("infer: a model that raises", "POST", "/v2/models/raises/infer",
         {"inputs": [tensor("x", "FP32", [1, 1], [1.0])]}),
    http("infer: sums that overflow", "POST", SIMPLE,
         {"inputs": [tensor("INPUT0", "INT32", [1, 16], [2147483647] * 16), tensor("INPUT1", "INT32", [1, 16], ONES)]}),
    http("infer: text with a nul", "POST", identity_path("BYTES"), identity("BYTES", [1, 1], ["a\u0000b"])),
    http("infer: text that is long", "POST", identity_path("BYTES"), identity("BYTES", [1, 1], ["x" * 5000])),
    http("infer: negative zero", "POST", identity_path("FP64"), identity("FP64", [1, 1], [-0.0])),
    http("infer: whole numbers for floats", "POST", identity_path("FP32"), identity("FP32", [1, 3], [1, -2, 3])),
    http("infer: a float written with an exponent", "POST", identity_path("FP64"),
         '{"inputs":[{"name":"INPUT0","datatype":"FP64","shape":[1,2],"data":[1e2,1E-2]}]}'),
    http("infer: a big whole number for FP64", "POST", identity_path("FP64"), identity("FP64", [1, 1], [2**60])),
    http("infer: half floats in JSON", "POST", identity_path("FP16"), identity("FP16", [1, 2], [1.0, 2.0])),
)  # fmt: skip
