"""`expected.json`: what a model answers for its example, how far an answer may be off, and where it is."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from turnout.core.errors import InvalidInput, SelfTestFailed
from turnout.core.signature import Signature, TensorSpec
from turnout.core.tensors import Array, Tensors
from turnout.formats.examples import array_of, of_records, tensors_of

NAME = "expected.json"
#: How far a number may be off where nothing is said, as a part of its size (and at all, below 1).
TOLERANCE = 1e-5
MAX_BYTES = 64 << 20


class Expected(NamedTuple):
    """Outputs by name ("" for an answer without one: the model's first), tolerances by output name ("" for all others).

    max_seconds: how long the example may take, once warm.
    """

    outputs: Tensors
    tolerances: Mapping[str, float]
    max_seconds: float | None


def read_json(path: Path) -> Any:
    """A JSON document of bounded size. Raises SelfTestFailed."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise SelfTestFailed(f"{path.name} is larger than {MAX_BYTES >> 20} MiB: a few rows are enough")
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as problem:
        raise SelfTestFailed(f"{path.name} cannot be read ({problem})") from None


def read_expected(path: Path, signature: Signature) -> Expected:
    """The file, in any form that a Turnout protocol answers in. Raises SelfTestFailed where it is none."""
    document = read_json(path)
    settings = document if isinstance(document, dict) else {}
    try:
        outputs = _outputs(document, {spec.name: spec.columns for spec in signature.outputs})
    except InvalidInput as problem:
        raise SelfTestFailed(f"{path.name} holds no outputs: {problem}") from None
    tolerance = settings.get("tolerance", {})
    tolerances = dict(tolerance) if isinstance(tolerance, dict) else {"": tolerance}
    seconds = settings.get("max_seconds")
    if not all(_is_number(value) for value in tolerances.values()):
        raise SelfTestFailed(
            f"{path.name}: tolerance is a number of 0 or more, or one for each output; got {tolerance}"
        )
    if seconds is not None and not (_is_number(seconds) and seconds > 0):
        raise SelfTestFailed(f"{path.name}: max_seconds is a number of seconds above 0; got {seconds}")
    unknown = [name for name in tolerances if name and "" not in outputs and name not in outputs]
    if unknown:
        raise SelfTestFailed(f"{path.name}: there is a tolerance for {unknown[0]!r}, and no such output")
    return Expected(outputs, tolerances, seconds)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def _outputs(document: Any, columns: Mapping[str, Sequence[str]]) -> Tensors:
    if isinstance(document, dict):
        if "outputs" in document:
            inner = document["outputs"]
            return tensors_of({"inputs": inner}) if isinstance(inner, list) else _by_name(inner)
        if "predictions" in document:
            return _outputs(document["predictions"], columns)
        return _by_name({key: value for key, value in document.items() if key not in {"tolerance", "max_seconds"}})
    if isinstance(document, list) and document and all(isinstance(row, dict) for row in document):
        return of_records([_flat(row, columns) for row in document])
    return {"": array_of(document, "predictions")}


def _flat(record: Mapping[str, Any], columns: Mapping[str, Sequence[str]]) -> Mapping[str, Any]:
    """A record as it is written for people has `{"a": 0.9, "b": 0.1}` for an output of named columns."""
    return {
        name: [value.get(column) for column in columns[name]]
        if isinstance(value, dict) and set(value) == set(columns.get(name, ()))
        else value
        for name, value in record.items()
    }


def _by_name(outputs: Any) -> Tensors:
    if not isinstance(outputs, dict) or not outputs:
        raise InvalidInput("no outputs by name", expected='{"label": ["a", "b"]}', got=type(outputs).__name__)
    return {str(name): array_of(values, str(name)) for name, values in outputs.items()}


class Difference(NamedTuple):
    """One element that is not what was expected; `place` is its index, the row first."""

    output: str
    place: tuple[int, ...]
    expected: Any
    got: Any
    tolerance: float

    def said(self, spec: TensorSpec, *, batched: bool) -> str:
        """One line for a person."""
        parts = [self.output]
        if self.place:
            parts.append(f"row {self.place[0]}" if batched else f"[{self.place[0]}]")
        if len(self.place) == 2 and len(spec.columns) > self.place[1]:
            parts.append(f"column {spec.columns[self.place[1]]!r}")
        elif len(self.place) > 1:
            parts.append(f"element {list(self.place[1:])}")
        text = f"{', '.join(parts)}: expected {_shown(self.expected)}, got {_shown(self.got)}"
        if isinstance(self.expected, float) and isinstance(self.got, float):
            text += f", difference {abs(self.expected - self.got):.3g} (tolerance {self.tolerance:g})"
        return text


def _shown(value: Any) -> str:
    if isinstance(value, bytes):
        return json.dumps(value.decode(errors="backslashreplace"), ensure_ascii=False)
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def differences(signature: Signature, outputs: Tensors, expected: Expected) -> Iterator[Difference]:
    """Every element that differs, output by output. Raises SelfTestFailed where names or shapes do not fit."""
    names = [spec.name for spec in signature.outputs]
    for said, want in expected.outputs.items():
        name = said or names[0]
        if name not in outputs:
            raise SelfTestFailed(f"{NAME} names the output {name!r}; the model gives {', '.join(names)}")
        got = outputs[name]
        want = _fitting(want, got)
        if got.shape != want.shape:
            raise SelfTestFailed(
                f"{NAME} has the shape {list(want.shape)} for {name!r}, and the model answered {list(got.shape)}"
            )
        tolerance = expected.tolerances.get(said, expected.tolerances.get("", TOLERANCE))
        yield from _elements(name, got, want, tolerance)


def _fitting(want: Array, got: Array) -> Array:
    """JSON writes a row of one number as a number, and a column of gaps as nothing."""
    if want.ndim + 1 == got.ndim and got.shape[-1] == 1:
        return want[..., None]
    return want[..., 0] if want.ndim == got.ndim + 1 and want.shape[-1] == 1 else want


def _elements(name: str, got: Array, want: Array, tolerance: float) -> Iterator[Difference]:
    if got.dtype.kind == "f" and want.dtype.kind in "fiub":
        here, there = got.astype(np.float64), want.astype(np.float64)
        with np.errstate(invalid="ignore"):
            near = np.isfinite(there) & (np.abs(here - there) <= tolerance * np.maximum(1.0, np.abs(there)))
        wrong = ~(near | (here == there) | (np.isnan(here) & np.isnan(there)))
    elif got.dtype.kind == "O" and want.dtype.kind == "O":
        wrong = np.array([a != b for a, b in zip(got.flat, want.flat, strict=True)], dtype=bool).reshape(got.shape)
        here, there = got, want
    elif "O" in (got.dtype.kind, want.dtype.kind):
        wrong, here, there = np.ones(got.shape, dtype=bool), got, want
    else:
        wrong, here, there = got != want, got, want
    for place in zip(*np.nonzero(np.atleast_1d(wrong)), strict=True):
        at: Sequence[int] = [int(axis) for axis in place] if wrong.ndim else []
        yield Difference(name, tuple(at), _item(there, at), _item(here, at), tolerance)


def _item(array: Array, at: Sequence[int]) -> Any:
    value = array[tuple(at)]
    return value.item() if isinstance(value, (np.generic, np.ndarray)) else value
