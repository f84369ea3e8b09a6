"""How one output of two versions differs, row by row, in numbers that can be added up over routers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from turnout.core.tensors import Array
from turnout.graph.request_value import as_text
from turnout.graph.sketch import Sketch, added

#: The labels that a flip matrix tells apart; what is beyond goes under this name.
MAX_LABELS = 20
OTHER = "(other)"
_MAX_LABEL_LENGTH = 64
#: Of a row, so many values are compared: others wait meanwhile.
MAX_WIDTH = 65_536
_SLACK = 1e-3


class Rows(NamedTuple):
    """What came of a comparison, one element a row: whether they agree, and how far apart they are.

    `flipped` are those whose class is another one, or that cannot be compared. A difference that is no finite number
    is the largest there is.
    """

    agreed: Array
    flipped: Array
    distance: Array


class Difference:
    """What is known of one output. `kind`: "label", "scores" (a probability for each class), "number" or "values".

    Labels agree where they are equal, scores where the same class is the likeliest, all else where it is within the
    tolerance. close: rows within the tolerance, whatever their class. unlike: rows that could not be compared, of
    another shape or type. odd: rows with a NaN or an infinity on one side only. distance: of a row, the largest of its
    absolute differences.
    """

    __slots__ = ("agreed", "close", "distance", "flips", "kind", "odd", "rows", "unlike")

    def __init__(self) -> None:
        self.kind = ""
        self.rows = self.agreed = self.close = self.unlike = self.odd = 0
        self.flips: dict[tuple[str, str], int] = {}
        self.distance = Sketch()

    def add(self, primary: Array, shadow: Array, rows: int, tolerance: float, relative: float) -> Rows:
        """Compares the first `rows` rows; near is what differs by at most `tolerance + relative * |primary|`."""
        one, other = _rows_of(primary, rows), _rows_of(shadow, rows)
        self.rows += rows
        if one is None or other is None or one.shape != other.shape or not _sort(one) == _sort(other) != "":
            self.unlike += rows
            return Rows(np.zeros(rows, np.bool_), np.ones(rows, np.bool_), np.zeros(rows))
        one, other = one[:, :MAX_WIDTH], other[:, :MAX_WIDTH]
        if _sort(one) == "text":
            near, distance = (one == other).all(axis=1), np.zeros(rows)
        else:
            near, distance = self._measure(one, other, tolerance, relative)
        flipped = self._count_flips(one, other)
        agreed = near if flipped is None else ~flipped
        self.agreed += int(agreed.sum())
        self.close += int(near.sum())
        return Rows(agreed, np.zeros(rows, np.bool_) if flipped is None else flipped, distance)

    def plus(self, other: Difference) -> Difference:
        """Both together."""
        found = Difference()
        found.kind = (
            self.kind if self.kind == other.kind or not other.kind else (other.kind if not self.kind else "values")
        )
        for name in ("rows", "agreed", "close", "unlike", "odd"):
            setattr(found, name, getattr(self, name) + getattr(other, name))
        found.flips = _bounded(added(self.flips, other.flips))
        found.distance = self.distance.plus(other.distance)
        return found

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "kind": self.kind,
            **{name: getattr(self, name) for name in ("rows", "agreed", "close", "unlike", "odd")},
            "flips": [[was, became, count] for (was, became), count in sorted(self.flips.items())],
            "distance": self.distance.to_json(),
        }

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Difference:
        """The reverse of `to_json`."""
        found = cls()
        found.kind = str(said["kind"])
        for name in ("rows", "agreed", "close", "unlike", "odd"):
            setattr(found, name, int(said[name]))
        found.flips = {(str(was), str(became)): int(count) for was, became, count in said["flips"]}
        found.distance = Sketch.from_json(said["distance"])
        return found

    def _measure(self, one: Array, other: Array, tolerance: float, relative: float) -> tuple[Array, Array]:
        a, b = one.astype(np.float64, copy=False), other.astype(np.float64, copy=False)
        with np.errstate(invalid="ignore", over="ignore"):
            apart = np.abs(a - b)
            distance = apart.max(axis=1, initial=0.0)
            if math.isfinite(distance.sum()):  # so nearly always: no NaN and no infinity on either side
                self.distance.add_each(distance)
                return np.asarray((apart <= tolerance + relative * np.abs(a)).all(axis=1)), distance
            same = (a == b) | ((a != a) & (b != b))  # noqa: PLR0124  NaN beside NaN is no difference
            apart = np.where(same, 0.0, apart)
            near = (apart <= tolerance + relative * np.abs(np.where(np.isfinite(a), a, 0.0))).all(axis=1)
        distance = apart.max(axis=1, initial=0.0)
        finite = np.isfinite(distance)
        self.odd += int((~finite).sum())
        self.distance.add_each(distance[finite])
        return np.asarray(near), np.where(finite, distance, np.finfo(np.float64).max)

    def _count_flips(self, one: Array, other: Array) -> Array | None:
        """Which rows changed their class; None where the output has no classes."""
        kind = "values"
        was: Sequence[str] = ()
        became: Sequence[str] = ()
        flipped: Array | None = None
        if one.shape[1] == 1:
            kind = "number" if "f" in one.dtype.kind + other.dtype.kind else "label"
            if kind == "label":
                was, became = _labels(one[:, 0]), _labels(other[:, 0])
                flipped = np.asarray(one[:, 0] != other[:, 0], np.bool_)
        elif one.dtype.kind == other.dtype.kind == "f" and _are_scores(one) and _are_scores(other):
            kind = "scores"
            places = one.argmax(axis=1), other.argmax(axis=1)
            was, became = ([str(place) for place in side.tolist()] for side in places)
            flipped = places[0] != places[1]
        self.kind = kind if self.kind in {"", kind} else "values"
        if flipped is None:
            return None
        for label, later, flip in zip(was, became, flipped.tolist(), strict=True):
            # Labels are short: those of two long texts may be the same one, and those of 1 and true are not.
            pair = (label, (later if later != label else OTHER) if flip else label)
            self.flips[pair] = self.flips.get(pair, 0) + 1
        if len(self.flips) > MAX_LABELS:  # no more pairs than that: no more labels either
            self.flips = _bounded(self.flips)
        return flipped


def _rows_of(array: Array, rows: int) -> Array | None:
    """One row of values for each row of the request; None where the output has other rows."""
    if array.ndim == 0 or (rows == 1 and array.shape[0] != 1):
        return array.reshape(1, -1) if rows == 1 else None
    return array[:rows].reshape(rows, -1) if array.shape[0] >= rows else None


def _sort(array: Array) -> str:
    """What may be compared with each other; "" for what no output is."""
    return "number" if array.dtype.kind in "biuf" else "text" if array.dtype.kind in "OUS" else ""


def _are_scores(rows: Array) -> bool:
    """Whether each row is a probability for each of several classes."""
    with np.errstate(invalid="ignore"):
        return bool((rows >= -_SLACK).all() and (np.abs(rows.sum(axis=1, dtype=np.float64) - 1.0) <= _SLACK).all())


def _labels(values: Array) -> list[str]:
    return [(as_text(value) or "")[:_MAX_LABEL_LENGTH] for value in values.tolist()]


def _bounded(flips: Mapping[tuple[str, str], int]) -> dict[tuple[str, str], int]:
    """With the most frequent labels only; pairs of all others are counted under `OTHER`."""
    seen: dict[str, int] = {}
    for pair, count in flips.items():
        for label in pair:
            if label != OTHER:
                seen[label] = seen.get(label, 0) + count
    if len(seen) <= MAX_LABELS:
        return dict(flips)
    kept = set(sorted(seen, key=lambda label: (-seen[label], label))[:MAX_LABELS])
    found: dict[tuple[str, str], int] = {}
    for (was, became), count in flips.items():
        pair = (was if was in kept else OTHER, became if became in kept else OTHER)
        found[pair] = found.get(pair, 0) + count
    return found
