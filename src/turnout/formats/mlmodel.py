"""The signature in an MLmodel file. The one file that knows MLflow's model directory, without MLflow or YAML."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from turnout.core.errors import LoadFailed
from turnout.core.signature import Signature, TensorSpec
from turnout.core.tensors import dtype_name
from turnout.formats.examples import UNNAMED

_COLUMN_TYPES = {
    "boolean": "BOOL",
    "integer": "INT32",
    "long": "INT64",
    "float": "FP32",
    "double": "FP64",
    "string": "BYTES",
    "binary": "BYTES",
}


def read_mlmodel(path: Path) -> Signature | None:
    """The inputs an MLmodel file declares, or None if it declares none. Raises LoadFailed for a damaged one."""
    text = path.read_text(encoding="utf-8", errors="replace")
    block = re.search(r"^signature:[ ]*\n((?:[ \t]+.*\n?|\n)+)", text, re.MULTILINE)
    if block is None:
        return None
    scalar = _scalar(block[1], "inputs")
    if scalar is None:
        return None
    try:
        entries = json.loads(scalar)
    except ValueError as problem:
        raise LoadFailed(f"{path.name}: the signature's inputs are not JSON ({problem})") from None
    if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries) or not entries:
        raise LoadFailed(f"{path.name}: the signature's inputs are not a list of columns or tensors")
    return Signature(tuple(_specs(entries, path.name)), (), lenient=True)


def _scalar(block: str, key: str) -> str | None:
    """The text of one entry, quoted as YAML writes it when it folds long lines; None if it is null or missing."""
    start = re.search(rf"^[ \t]+{key}:[ ]*", block, re.MULTILINE)
    if start is None:
        return None
    rest = block[start.end() :]
    if rest.startswith("'"):
        quoted = re.match(r"'((?:[^']|'')*)'", rest)
        return None if quoted is None else _unfold(quoted[1]).replace("''", "'")
    if rest.startswith('"'):
        quoted = re.match(r'"((?:[^"\\]|\\.)*)"', rest, re.DOTALL)
        if quoted is None:
            return None
        joined = re.sub(r"\\\n[ \t]*(\\(?=[ \t]))?", "", quoted[1])
        return str(json.loads('"' + re.sub(r"\\(x..|U.{8}|.)", _as_json, _unfold(joined)) + '"'))
    plain = rest.split("\n", 1)[0].strip()
    return None if plain in {"", "null", "~"} else plain


def _as_json(escape: re.Match[str]) -> str:
    """An escape of YAML's double quotes as JSON writes it, where the two differ."""
    kind = escape[1][0]
    if kind == " ":
        return " "
    if kind in "xU":
        return json.dumps(chr(int(escape[1][1:], 16)))[1:-1]
    return escape[0]


def _unfold(text: str) -> str:
    return re.sub(r"[ \t]*\n[ \t]*", lambda found: "\n" * (found[0].count("\n") - 1) or " ", text)


def _specs(entries: Sequence[dict[str, Any]], label: str) -> Iterator[TensorSpec]:
    for number, entry in enumerate(entries):
        name = str(entry.get("name") or (UNNAMED if len(entries) == 1 else f"{UNNAMED}_{number}"))
        kind = entry.get("type")
        if kind == "tensor":
            described = entry.get("tensor-spec") or {}
            try:
                datatype = dtype_name(np.dtype(str(described["dtype"])))
                shape = tuple(int(size) for size in described["shape"])
            except (KeyError, TypeError, ValueError) as problem:
                raise LoadFailed(f"{label}: the tensor {name!r} has no usable dtype and shape ({problem})") from None
            yield TensorSpec(name, datatype, shape)
        elif kind in _COLUMN_TYPES:
            required = entry.get("required", True) is not False
            yield TensorSpec(name, _COLUMN_TYPES[kind], (-1,), (name,), text=kind != "binary", optional=not required)
        else:
            raise LoadFailed(
                f"{label}: the column {name!r} has the type {kind!r}; plain columns and tensors can be served "
                f"({', '.join(_COLUMN_TYPES)}). Give a signature"
            )
