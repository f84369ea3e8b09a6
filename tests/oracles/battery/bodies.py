"""Bodies that work, to be changed by one thing at a time."""

from __future__ import annotations

import json
from typing import Any

SIMPLE = "/v2/models/simple/infer"
ROW = list(range(16))
ONES = [1] * 16
#: Rows for `tiny` whose probabilities are 0.5 and 0.5, 0 and 1: the same in every arithmetic.
TINY_ROWS = [[0.0, 0.0, 0.0, -0.5], [200.0, 0.0, 0.0, -0.5]]


def tensor(name: str, datatype: str, shape: list[Any], data: Any, **more: Any) -> dict[str, Any]:
    """One input in JSON."""
    return {"name": name, "datatype": datatype, "shape": shape, "data": data} | more


def simple(rows: int = 1, *, first: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A request for `simple`; `first` changes fields of INPUT0, a value of None drops the field."""
    changed = tensor("INPUT0", "INT32", [rows, 16], ROW * rows) | (first or {})
    kept = {key: value for key, value in changed.items() if value is not None}
    return {"inputs": [kept, tensor("INPUT1", "INT32", [rows, 16], ONES * rows)]} | more


def simple_text(old: str, new: str, rows: int = 1) -> str:
    """The JSON of a good request with one piece of its text replaced."""
    text = json.dumps(simple(rows))
    if old not in text:
        raise ValueError(f"{old!r} does not stand in the body")
    return text.replace(old, new, 1)


def identity(datatype: str, shape: list[Any], data: Any, **more: Any) -> dict[str, Any]:
    """A request for the identity model of that data type."""
    return {"inputs": [tensor("INPUT0", datatype, shape, data)]} | more


def identity_path(datatype: str) -> str:
    """Where that identity model answers."""
    return f"/v2/models/identity_{datatype.lower()}/infer"
