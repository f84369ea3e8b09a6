"""What a request for a prediction must not do: each rule as a case that breaks it."""

from __future__ import annotations

from typing import Any

from ..case import Case, http
from .bodies import ONES, ROW, SIMPLE, identity, identity_path, simple, tensor

_GOOD = simple()["inputs"]

_INPUTS: dict[str, Any] = {
    "missing one": [_GOOD[0]],
    "missing all": [],
    "null": None,
    "an object": {"name": "INPUT0"},
    "a string": "INPUT0",
    "of numbers": [1, 2],
    "of null": [None, None],
    "unknown name": [_GOOD[0], _GOOD[1] | {"name": "INPUT9"}],
    "one too many": [*_GOOD, tensor("INPUT2", "INT32", [1, 16], ONES)],
    "one twice": [_GOOD[0], _GOOD[0]],
    "one twice and the other": [_GOOD[0], _GOOD[0], _GOOD[1]],
    "of different rows": [_GOOD[0], tensor("INPUT1", "INT32", [2, 16], ONES * 2)],
}

_FIRST: dict[str, dict[str, Any]] = {
    "no name": {"name": None},
    "name is a number": {"name": 3},
    "name is empty": {"name": ""},
    "name in small letters": {"name": "input0"},
    "no datatype": {"datatype": None},
    "datatype is a number": {"datatype": 32},
    "datatype is empty": {"datatype": ""},
    "datatype in small letters": {"datatype": "int32"},
    "datatype unknown": {"datatype": "INT31"},
    "datatype of numpy": {"datatype": "float32"},
    "datatype another integer": {"datatype": "INT64"},
    "datatype a float": {"datatype": "FP32"},
    "datatype BYTES": {"datatype": "BYTES"},
    "datatype BF16": {"datatype": "BF16"},
    "no shape": {"shape": None},
    "shape is a number": {"shape": 16},
    "shape is a string": {"shape": "1,16"},
    "shape is empty": {"shape": []},
    "shape of strings": {"shape": ["1", "16"]},
    "shape of floats": {"shape": [1.0, 16.0]},
    "shape of fractions": {"shape": [1.5, 16]},
    "shape of null": {"shape": [None, 16]},
    "shape of lists": {"shape": [[1], [16]]},
    "shape of booleans": {"shape": [True, 16]},
    "shape negative": {"shape": [-1, 16]},
    "shape twice negative": {"shape": [-1, -16]},
    "shape one axis": {"shape": [16]},
    "shape three axes": {"shape": [1, 16, 1]},
    "shape too wide": {"shape": [1, 17], "data": [*ROW, 16]},
    "shape too narrow": {"shape": [1, 15], "data": ROW[:15]},
    "shape transposed": {"shape": [16, 1]},
    "shape huge": {"shape": [4611686018427387904, 16]},
    "shape beyond 64 bits": {"shape": [36893488147419103232, 16]},
    "shape whose product overflows": {"shape": [4294967296, 4294967296]},
    "zero rows": {"shape": [0, 16], "data": []},
    "no data": {"data": None},
    "data empty": {"data": []},
    "data one short": {"data": ROW[:15]},
    "data one too many": {"data": [*ROW, 16]},
    "data a number": {"data": 1},
    "data a string": {"data": "0123456789abcdef"},
    "data an object": {"data": {"0": 1}},
    "data of strings": {"data": [str(n) for n in ROW]},
    "data of booleans": {"data": [True] * 16},
    "data of null": {"data": [None] * 16},
    "data one null": {"data": [*ROW[:15], None]},
    "data of objects": {"data": [{}] * 16},
    "data of fractions": {"data": [n + 0.5 for n in ROW]},
    "data one fraction": {"data": [*ROW[:15], 0.5]},
    "data one string": {"data": [*ROW[:15], "15"]},
    "data one boolean": {"data": [*ROW[:15], True]},
    "data over the type": {"data": [*ROW[:15], 2147483648]},
    "data under the type": {"data": [*ROW[:15], -2147483649]},
    "data over 64 bits": {"data": [*ROW[:15], 2**64]},
    "data far over 64 bits": {"data": [*ROW[:15], 10**40]},
}

#: Values that do not fit the data type of the identity model they are sent to.
_VALUES: tuple[tuple[str, str, Any], ...] = (
    ("UINT8", "too large", [256]),
    ("UINT8", "negative", [-1]),
    ("INT8", "too large", [128]),
    ("INT8", "too small", [-129]),
    ("UINT16", "too large", [65536]),
    ("INT16", "too large", [32768]),
    ("UINT32", "negative", [-1]),
    ("UINT32", "too large", [4294967296]),
    ("UINT64", "negative", [-1]),
    ("UINT64", "too large", [18446744073709551616]),
    ("INT64", "too large", [9223372036854775808]),
    ("INT64", "a fraction", [0.5]),
    ("INT64", "a large float", [1e18]),
    ("FP32", "too large", [1e39]),
    ("FP32", "a string", ["1.5"]),
    ("FP32", "a boolean", [True]),
    ("FP32", "null", [None]),
    ("FP64", "a string", ["nan"]),
    ("FP64", "null", [None]),
    ("BOOL", "one", [1]),
    ("BOOL", "two", [2]),
    ("BOOL", "a string", ["true"]),
    ("BOOL", "a float", [1.0]),
    ("BOOL", "null", [None]),
    ("BYTES", "a number", [1]),
    ("BYTES", "a float", [1.5]),
    ("BYTES", "a boolean", [True]),
    ("BYTES", "null", [None]),
    ("BYTES", "an object", [{"b64": "AA=="}]),
)

#: Edges of shapes, on a model with two free axes.
_SHAPES: tuple[tuple[str, list[Any], Any], ...] = (
    ("zero rows", [0, 2], []),
    ("zero by zero", [0, 0], []),
    ("zero columns, two rows", [2, 0], []),
    ("zero columns, nested", [2, 0], [[], []]),
    ("zero columns, with data", [1, 0], [1.0]),
    ("three axes", [1, 1, 1], [1.0]),
    ("one axis", [1], [1.0]),
    ("no axis", [], [1.0]),
    ("no axis, a bare number", [], 1.0),
    ("wide", [1, 1000], list(range(1000))),
)

CASES: tuple[Case, ...] = (
    *(http(f"inputs: {name}", "POST", SIMPLE, {"inputs": value}) for name, value in _INPUTS.items()),
    http("inputs: no member", "POST", SIMPLE, {"id": "a"}),
    *(http(f"input: {name}", "POST", SIMPLE, simple(first=change)) for name, change in _FIRST.items()),
    *(
        http(f"values: {datatype} {name}", "POST", identity_path(datatype), identity(datatype, [1, 1], value))
        for datatype, name, value in _VALUES
    ),
    *(
        http(f"shapes: {name}", "POST", identity_path("FP32"), identity("FP32", shape, data))
        for name, shape, data in _SHAPES
    ),
)
