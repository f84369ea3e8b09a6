"""KServe protocol v1 and TensorFlow Serving's REST predict."""

from __future__ import annotations

from typing import Any

from ..case import Case, http
from .bodies import TINY_ROWS

PREDICT = "/v1/models/linear:predict"
_ROWS = [[1.0, 2.0, 3.0, 4.0], [0.0, 0.5, -1.0, 2.0]]

_BODIES: dict[str, Any] = {
    "instances": {"instances": _ROWS},
    "one instance": {"instances": _ROWS[:1]},
    "whole numbers": {"instances": [[1, 2, 3, 4]]},
    "inputs, column form": {"inputs": _ROWS},
    "inputs by name": {"inputs": {"x": _ROWS}},
    "instances by name": {"instances": [{"x": row} for row in _ROWS]},
    "instances by an unknown name": {"instances": [{"y": row} for row in _ROWS]},
    "instances, one by name": {"instances": [{"x": _ROWS[0]}, _ROWS[1]]},
    "instances and inputs": {"instances": _ROWS, "inputs": _ROWS},
    "with the signature's name": {"signature_name": "serving_default", "instances": _ROWS},
    "with an unknown signature": {"signature_name": "nobody", "instances": _ROWS},
    "signature name is a number": {"signature_name": 1, "instances": _ROWS},
    "unknown member": {"instances": _ROWS, "colour": "blue"},
    "neither": {"rows": _ROWS},
    "an empty object": {},
    "no instances": {"instances": []},
    "instances null": {"instances": None},
    "instances an object": {"instances": {"x": _ROWS}},
    "instances a number": {"instances": 1},
    "instances a string": {"instances": "abc"},
    "inputs a number": {"inputs": 1},
    "instances too short": {"instances": [[1.0, 2.0]]},
    "instances too long": {"instances": [[1.0, 2.0, 3.0, 4.0, 5.0]]},
    "instances ragged": {"instances": [[1.0, 2.0, 3.0, 4.0], [1.0]]},
    "instances too deep": {"instances": [_ROWS]},
    "instances flat": {"instances": [1.0, 2.0, 3.0, 4.0]},
    "instances of strings": {"instances": [["a", "b", "c", "d"]]},
    "instances of numbers in strings": {"instances": [["1", "2", "3", "4"]]},
    "instances of null": {"instances": [[None, 1.0, 2.0, 3.0]]},
    "instances of booleans": {"instances": [[True, False, True, False]]},
    "a list": _ROWS,
    "a number": 3,
    "null": None,
}

_PATHS: tuple[tuple[str, str, str], ...] = (
    ("root", "GET", "/"),
    ("models", "GET", "/v1/models"),
    ("model", "GET", "/v1/models/linear"),
    ("model with a slash", "GET", "/v1/models/linear/"),
    ("model, unknown", "GET", "/v1/models/nobody"),
    ("version", "GET", "/v1/models/linear/versions/1"),
    ("version, unknown", "GET", "/v1/models/linear/versions/9"),
    ("signature", "GET", "/v1/models/linear/metadata"),
    ("get predict", "GET", PREDICT),
    ("put predict", "PUT", PREDICT),
)


def _v1(name: str, method: str, target: str, body: Any = b"", **more: Any) -> Case:
    return http(f"v1: {name}", method, target, body, oracles=("kserve",), follows="kserve", **more)


CASES: tuple[Case, ...] = (
    *(_v1(f"path {name}", method, target) for name, method, target in _PATHS),
    *(_v1(name, "POST", PREDICT, body) for name, body in _BODIES.items()),
    _v1("two outputs", "POST", "/v1/models/tiny:predict", {"instances": TINY_ROWS}),
    _v1("digits of an FP32", "POST", "/v1/models/identity_fp32:predict", {"instances": [[0.1]]}),
    _v1("a model that raises", "POST", "/v1/models/raises:predict", {"instances": [[1.0]]}),
    _v1("unknown model", "POST", "/v1/models/nobody:predict", {"instances": _ROWS}),
    _v1("encoded name", "POST", "/v1/models/line%61r:predict", {"instances": _ROWS}),
    _v1("with a version", "POST", "/v1/models/linear/versions/1:predict", {"instances": _ROWS}),
    _v1("with an unknown version", "POST", "/v1/models/linear/versions/9:predict", {"instances": _ROWS}),
    _v1("unknown verb", "POST", "/v1/models/linear:guess", {"instances": _ROWS}),
    _v1("explain", "POST", "/v1/models/linear:explain", {"instances": _ROWS}),
    _v1("no verb", "POST", "/v1/models/linear", {"instances": _ROWS}),
    _v1("empty body", "POST", PREDICT, b""),
    _v1("broken json", "POST", PREDICT, '{"instances": ['),
    _v1("nan", "POST", PREDICT, '{"instances": [[NaN, 1, 2, 3]]}'),
    _v1("a content type of text", "POST", PREDICT, {"instances": _ROWS}, headers=[("Content-Type", "text/plain")]),
    _v1("no content type", "POST", PREDICT, {"instances": _ROWS}, headers=[("Content-Type", "")]),
)
