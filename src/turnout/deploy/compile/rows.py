"""Rows to prove with: real ones, ones drawn from what the model has seen, and ones at the edges of its decisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from turnout.core.signature import Signature, TensorSpec
from turnout.core.tensors import DTYPES, Array, Tensors, join_rows, slice_rows
from turnout.deploy.compile.seen import Column, Seen

#: Sizes of numbers that are tried, one column at a time, to find where the twin stops being equal.
SIZES = (1e3, 1e6, 1e9, 1e12, 1e18, 1e30, 3.4028234e38, 3.4028235677973366e38, 1e60, 1e150, 1e300)
UNSEEN = "never seen before"
_FREE = 8
_EDGE_COLUMNS = 64


@dataclass(frozen=True)
class Group:
    """Rows of one kind: "given", "recorded", "generated", "threshold"."""

    kind: str
    rows: Tensors
    count: int


@dataclass(frozen=True)
class Edge:
    """Rows with one odd value in one column each: `kind` is nan, inf, unseen, or a size."""

    kind: str
    column: Column
    size: float
    rows: Tensors


class Rows:
    """Makes rows for a signature from what was seen. The same seed makes the same rows."""

    def __init__(self, signature: Signature, seen: Mapping[Column, Seen], seed: int) -> None:
        self._signature = signature
        self._seen = seen
        self._random = np.random.default_rng(seed)

    def generated(self, count: int, real: Tensors | None = None) -> Tensors:
        """Rows with each column drawn from its range, its categories, its thresholds, or sometimes zero.

        With real rows at hand, half of the values come from them, so that most rows look like them.
        """
        return {spec.name: self._input(spec, count, real) for spec in self._signature.inputs}

    def at_thresholds(self, most: int, base: Tensors) -> Tensors | None:
        """For numbers at which the model decides: rows with just this number, and with those next to it."""
        found: list[tuple[Column, float]] = []
        for column, seen in self._seen.items():
            datatype = self._dtype(column)
            if datatype.kind == "f":
                found += [(column, value) for turn in seen.turns for value in _beside(turn, datatype)]
            elif datatype.kind in "iu":
                found += [(column, value) for turn in seen.turns for value in (np.floor(turn), np.ceil(turn))]
        if not found:
            return None
        if len(found) > most:
            picked = self._random.choice(len(found), most, replace=False)
            found = [found[at] for at in sorted(picked.tolist())]
        have = len(next(iter(base.values())))
        rows = _copied(base, self._random.integers(0, have, len(found)))
        for row, ((name, at), value) in enumerate(found):
            _cell(rows[name], row, at)[...] = _within(value, rows[name].dtype)
        return rows

    def edges(self, base: Tensors) -> list[Edge]:
        """Odd values, one column at a time over a few base rows; for wide inputs only some of the columns."""
        made: list[Edge] = []
        few = slice_rows(base, 0, 3)
        for name in [spec.name for spec in self._signature.inputs]:
            columns = [column for column in self._seen if column[0] == name]
            if len(columns) > _EDGE_COLUMNS:
                columns = [columns[at] for at in np.linspace(0, len(columns) - 1, _EDGE_COLUMNS).astype(int)]
            for column in columns:
                datatype = self._dtype(column)
                if datatype.kind == "f":
                    made.append(Edge("nan", column, 0.0, _with(few, column, [np.nan])))
                    made.append(Edge("inf", column, 0.0, _with(few, column, [np.inf, -np.inf])))
                if datatype.kind == "O":
                    made.append(Edge("unseen", column, 0.0, _with(few, column, [UNSEEN.encode(), b"", "é ".encode()])))
                elif datatype.kind in "fiu":
                    top = float(np.finfo(datatype).max if datatype.kind == "f" else np.iinfo(datatype).max)
                    for size in SIZES:
                        if size <= top:
                            signs = [size] if datatype.kind == "u" else [size, -size]
                            made.append(Edge("size", column, size, _with(few, column, signs)))
        return made

    def _dtype(self, column: Column) -> np.dtype[Any]:
        spec = self._signature.input(column[0])
        return DTYPES["FP64"] if spec is None else spec.dtype

    def _input(self, spec: TensorSpec, count: int, real: Tensors | None) -> Array:
        shape = [count, *(_FREE if size == -1 else size for size in spec.shape[1:])]
        made = np.empty(shape, dtype=spec.dtype)
        for column, seen in self._seen.items():
            if column[0] == spec.name:
                part = made if column[1] < 0 else made[:, column[1]]
                part[...] = self._values(seen, spec, part.shape)
        if real is not None and spec.name in real and made.shape[1:] == real[spec.name].shape[1:]:
            source = real[spec.name][self._random.integers(0, len(real[spec.name]), count)]
            made = np.where(self._random.random(made.shape) < 0.5, source, made).astype(spec.dtype)
        return made

    def _values(self, seen: Seen, spec: TensorSpec, shape: Sequence[int]) -> Array:
        random, size = self._random, tuple(shape)
        if spec.datatype == "BYTES":
            return self._texts(seen, size)
        if spec.datatype == "BOOL":
            return random.random(size) < 0.5
        low, high = seen.span
        made = random.uniform(low, high, size)
        turns = np.array(sorted(turn for turn in seen.turns if low <= turn <= high))
        if len(turns):
            made = np.where(random.random(size) < 0.2, random.choice(turns, size), made)
        made = np.where(random.random(size) < 0.03, random.choice([0.0, -0.0], size), made)
        if spec.dtype.kind in "iu":
            edges = np.iinfo(spec.dtype)
            made = np.clip(np.round(made), max(edges.min, -(2.0**62)), min(edges.max, 2.0**62))
        return made.astype(spec.dtype)

    def _texts(self, seen: Seen, size: tuple[int, ...]) -> Array:
        known = [text.encode() for text in (*seen.known, *seen.others)] or [b"a", b"b"]
        total = int(np.prod(size))
        made = np.empty(total, dtype=object)
        for at in range(total):
            words = int(self._random.integers(1, 12)) if seen.words else 1
            made[at] = b" ".join(known[int(one)] for one in self._random.integers(0, len(known), words))
        return made.reshape(size)


def _beside(turn: float, datatype: np.dtype[Any]) -> list[float]:
    """A threshold, its neighbours in FP32 and, where the input has them, those in FP64."""
    with np.errstate(over="ignore"):
        single = np.float32(turn)
        found = {float(single), *(float(np.nextafter(single, np.float32(way))) for way in (-np.inf, np.inf))}
    if datatype.itemsize == 8:
        found |= {turn, *(float(np.nextafter(turn, way)) for way in (-np.inf, np.inf))}
    return sorted(value for value in found if np.isfinite(value))


def _within(value: float, datatype: np.dtype[Any]) -> Any:
    if datatype.kind in "iu":
        edges = np.iinfo(datatype)
        return int(min(max(value, edges.min), edges.max))
    return value


def _copied(base: Tensors, picked: Array) -> dict[str, Array]:
    return {name: array[picked].copy() for name, array in base.items()}


def _cell(array: Array, row: int, at: int) -> Array:
    if at >= 0:
        return array[row, at : at + 1]
    return array[row : row + 1] if array.ndim == 1 else array[row].reshape(-1)[:1]


def _with(base: Tensors, column: Column, values: Sequence[Any]) -> Tensors:
    """Each base row with each of the values in the column."""
    name, at = column
    parts = []
    for value in values:
        rows = {key: array.copy() for key, array in base.items()}
        for row in range(len(rows[name])):
            _cell(rows[name], row, at)[...] = (
                _within(value, rows[name].dtype) if not isinstance(value, bytes) else value
            )
        parts.append(rows)
    return join_rows(parts)
