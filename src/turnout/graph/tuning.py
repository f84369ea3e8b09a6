"""The threshold of a cascade from labelled rows: the cheapest one that is as right as is wanted, and how sure that is.

Accuracies have Wilson's interval (E. B. Wilson, 1927). Two cascades are compared on the same rows, so their difference
has an interval for paired proportions, that of D. G. Bonett and R. M. Price (2012): it holds where they hardly differ.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from turnout.core.errors import InvalidInput
from turnout.core.tensors import Array

#: 95 of 100 intervals hold what they are about.
Z = 1.959963984540054
#: Choices of thresholds that are tried where there are several; where there is one, all that make a difference are.
_TRIED = 4096
#: Halvings of the rows, on one half of which a threshold is chosen that is tried on the other.
_HALVINGS = 10
_LEAST_ROWS = 20
#: Points of a curve.
_SHOWN = 101


class Labelled(NamedTuple):
    """A step on labelled rows: how sure it was of each, whether it was right, and what it took (seconds a row)."""

    name: str
    confidence: Array
    correct: Array
    seconds: float


class Point(NamedTuple):
    """What a cascade would be with some thresholds. low, high: of its accuracy. asked: the share of rows by step."""

    thresholds: tuple[float, ...]
    accuracy: float
    low: float
    high: float
    asked: tuple[float, ...]
    seconds: float

    @property
    def escalated(self) -> float:
        """The share of the rows that the first step is not sure of."""
        return self.asked[1]


class Tuned(NamedTuple):
    """What was found. curve: from nobody going on to all; alone: each step without a cascade; best: the most accurate.

    loss: by how much the chosen one is less accurate than the best, and the interval of that. held_out: the mean
    accuracy and share going on where the threshold is chosen on one half of the rows and tried on the other.
    """

    rows: int
    chosen: Point
    best: Point
    alone: tuple[Point, ...]
    curve: tuple[Point, ...]
    loss: tuple[float, float, float]
    held_out: tuple[float, float]


class Wish(NamedTuple):
    """How right it has to be: within `tolerance` of the best there is, or at least `target`. sure: with certainty."""

    tolerance: float = 0.005
    target: float | None = None
    sure: bool = False


def wilson(right: float, rows: int) -> tuple[float, float]:
    """The 95 % interval of a share."""
    share = right / rows
    middle = (share + Z * Z / (2 * rows)) / (1 + Z * Z / rows)
    half = Z * math.sqrt(share * (1 - share) / rows + Z * Z / (4 * rows * rows)) / (1 + Z * Z / rows)
    return max(0.0, middle - half), min(1.0, middle + half)


def paired(better: int, worse: int, rows: int) -> tuple[float, float, float]:
    """By how much one share is above another of the same rows, and the 95 % interval of that.

    better, worse: in how many rows only the one, or only the other, was right.
    """
    up, down = (better + 1) / (rows + 2), (worse + 1) / (rows + 2)
    half = Z * math.sqrt(max(0.0, up + down - (up - down) ** 2) / (rows + 2))
    middle = up - down
    return (better - worse) / rows, max(-1.0, middle - half), min(1.0, middle + half)


def tune(steps: Sequence[Labelled], wish: Wish, top: float = math.inf, seed: int = 0) -> Tuned:
    """The cheapest thresholds that are as right as is wished. top: the greatest threshold that there may be.

    Raises InvalidInput where no threshold is, or there are too few rows to tell.
    """
    rows = len(steps[0].correct)
    if rows < _LEAST_ROWS:
        raise InvalidInput("too few rows to tell", field="rows", expected=f"{_LEAST_ROWS} or more", got=str(rows))
    tried = _Tried(steps, top)
    best = tried.best()
    chosen = tried.cheapest(best, wish)
    lost = tried.against(best, [chosen])[0]
    less, low, high = paired(int(lost[1]), int(lost[0]), rows)
    alone = tuple(_alone(steps, number) for number in range(len(steps)))
    curve = tuple(tried.point(number) for number in tried.spread(chosen))
    held_out = _held_out(steps, wish, top, seed)
    return Tuned(rows, tried.point(chosen), tried.point(best), alone, curve, (less, low, high), held_out)


def answered_by(steps: Sequence[Labelled], thresholds: Sequence[float]) -> Array:
    """The number of the step that answers each row: the first one that is sure."""
    found = np.full(len(steps[0].correct), len(steps) - 1)
    for number in reversed(range(len(thresholds))):
        found[steps[number].confidence >= thresholds[number]] = number
    return found


def evaluate(steps: Sequence[Labelled], thresholds: Sequence[float]) -> Point:
    """What a cascade with these thresholds is on these rows."""
    by = answered_by(steps, thresholds)
    asked = [float((by >= number).mean()) for number in range(len(steps))]
    return _point(steps, tuple(thresholds), int(_right(steps, by).sum()), asked)


def _right(steps: Sequence[Labelled], by: Array) -> Array:
    return np.choose(by, [step.correct for step in steps]).astype(bool)


def _point(steps: Sequence[Labelled], thresholds: tuple[float, ...], right: int, asked: Sequence[float]) -> Point:
    rows = len(steps[0].correct)
    low, high = wilson(right, rows)
    seconds = sum(step.seconds * share for step, share in zip(steps, asked, strict=True))
    return Point(thresholds, right / rows, low, high, tuple(asked), seconds)


def _alone(steps: Sequence[Labelled], number: int) -> Point:
    asked = [float(other == number) for other in range(len(steps))]
    return _point(steps, (), int(steps[number].correct.sum()), asked)


class _Tried:
    """The choices of thresholds that make a difference, the cheapest first; of many steps a grid of them."""

    def __init__(self, steps: Sequence[Labelled], top: float) -> None:
        self._steps = steps
        if len(steps) == 2:
            self._all_of_one(top)
        else:
            self._grid(top)

    def _all_of_one(self, top: float) -> None:
        """Every threshold: in the order of confidence, the first rows go on and the others stay."""
        first, last = self._steps
        self._order = np.argsort(first.confidence, kind="stable")
        sorted_ = first.confidence[self._order]
        starts = np.flatnonzero(np.r_[True, sorted_[1:] != sorted_[:-1]])
        starts = starts[(sorted_[starts] > -np.inf) & (sorted_[starts] <= top)]
        self.thresholds: list[tuple[float, ...]] = [
            (_short(sorted_[at - 1] if at else -np.inf, sorted_[at]),) for at in starts
        ]
        if -np.inf < sorted_[-1] < top:
            self.thresholds.append((_short(sorted_[-1], min(top, max(2.0 * sorted_[-1], sorted_[-1] + 1.0))),))
            starts = np.r_[starts, len(sorted_)]
        self._starts = starts
        stays, goes = first.correct[self._order].astype(int), last.correct[self._order].astype(int)
        rows = len(sorted_)
        self.right = np.r_[0, goes.cumsum()][starts] + (stays.sum() - np.r_[0, stays.cumsum()][starts])
        self.asked = np.stack([np.ones(len(starts)), starts / rows], axis=1)
        self._better = np.r_[0, (stays & ~goes & 1).cumsum()]
        self._worse = np.r_[0, (goes & ~stays & 1).cumsum()]
        self._price()

    def _grid(self, top: float) -> None:
        each = max(2, int(_TRIED ** (1 / (len(self._steps) - 1))))
        cuts = [_cuts(step.confidence, top, each) for step in self._steps[:-1]]
        self.thresholds = list(itertools.product(*cuts))
        points = [evaluate(self._steps, thresholds) for thresholds in self.thresholds]
        rows = len(self._steps[0].correct)
        self.right = np.array([round(point.accuracy * rows) for point in points])
        self.asked = np.array([point.asked for point in points])
        self._price()

    def _price(self) -> None:
        if not self.thresholds:
            raise InvalidInput(
                "no threshold makes a difference", field="confidence",
                expected=f"probabilities from {self._steps[0].name}, or values with measure `value`",
            )  # fmt: skip
        self.seconds = self.asked @ np.array([step.seconds for step in self._steps])
        self.cheapest_first = np.argsort(self.seconds, kind="stable")

    def point(self, number: int) -> Point:
        """One of them."""
        return _point(self._steps, self.thresholds[number], int(self.right[number]), self.asked[number].tolist())

    def best(self) -> int:
        """The cheapest of the most accurate."""
        right = self.right[self.cheapest_first]
        return int(self.cheapest_first[right.argmax()])

    def against(self, best: int, numbers: Sequence[int] | Array) -> Array:
        """For each of these: in how many rows only it was right, and in how many only the best was."""
        if len(self._steps) > 2:
            return np.array([self._against(best, number) for number in numbers])
        here, there = self._starts[np.asarray(numbers)], self._starts[best]
        better, worse = self._better[there] - self._better[here], self._worse[there] - self._worse[here]
        return np.stack([np.where(here <= there, better, -worse), np.where(here <= there, worse, -better)], axis=1)

    def _against(self, best: int, number: int) -> tuple[int, int]:
        one, other = (_right(self._steps, answered_by(self._steps, self.thresholds[n])) for n in (number, best))
        return int((one & ~other).sum()), int((other & ~one).sum())

    def cheapest(self, best: int, wish: Wish) -> int:
        """The cheapest that is as right as is wished. Raises InvalidInput where none is."""
        rows = len(self._steps[0].correct)
        order = self.cheapest_first
        wanted = wish.target if wish.target is not None else self.right[best] / rows - wish.tolerance
        fits = self.right[order] / rows >= wanted - 1e-12
        if wish.sure and wish.target is not None:
            fits &= np.array([wilson(int(right), rows)[0] >= wish.target for right in self.right[order]])
        elif wish.sure:
            lost = self.against(best, order)
            fits &= np.array([paired(int(up), int(down), rows)[1] >= -wish.tolerance for up, down in lost])
        if fits.any():
            return int(order[fits.argmax()])
        least = paired(0, 0, rows)[2] if wish.target is None else 0.0
        found = self.point(best)
        raise InvalidInput(
            "no threshold is as right as that" + (" with certainty" if wish.sure else ""),
            field="target" if wish.target is not None else "tolerance",
            expected=f"{least:.4f} or more with {rows} rows" if wish.target is None else f"at most {found.low:.4f}"
            if wish.sure else f"at most {found.accuracy:.4f}",
            got=f"{wish.tolerance if wish.target is None else wish.target:g}",
        )  # fmt: skip

    def spread(self, chosen: int) -> list[int]:
        """A few of them for a curve, in the order of what they cost: as accurate as any that is not dearer."""
        count = min(_SHOWN, len(self.cheapest_first))
        if len(self._steps) == 2:
            numbers = self.cheapest_first[np.linspace(0, len(self.cheapest_first) - 1, count).round().astype(int)]
        else:  # of a grid, those that nothing cheaper is as right as
            right = self.right[self.cheapest_first]
            ahead = np.r_[True, right[1:] > np.maximum.accumulate(right)[:-1]]
            numbers = self.cheapest_first[ahead]
        return sorted({int(number) for number in numbers} | {chosen}, key=lambda number: float(self.seconds[number]))


def _cuts(confidences: Array, top: float, count: int) -> list[float]:
    """Thresholds that part the rows into parts of about equal size."""
    known = np.unique(confidences[np.isfinite(confidences) & (confidences <= top)])
    if not len(known):
        return []
    at = np.unique(np.linspace(0, len(known) - 1, min(count - 1, len(known))).round().astype(int))
    found = [_short(known[place - 1] if place else -np.inf, known[place]) for place in at]
    if known[-1] < top:
        found.append(_short(known[-1], min(top, max(2.0 * known[-1], known[-1] + 1.0))))
    return found


def _short(low: float, high: float) -> float:
    """The number with the fewest digits that is above the one and not above the other."""
    low, high = float(low), float(high)
    if low == -math.inf:
        return float(min(0, math.floor(high)))
    for digits in range(17):
        found: float = math.floor(round(high * 10**digits, 6)) / 10**digits
        if low < found <= high:
            return found
    return high


def _held_out(steps: Sequence[Labelled], wish: Wish, top: float, seed: int) -> tuple[float, float]:
    """The mean accuracy and share going on, of thresholds chosen on one half of the rows and tried on the other."""
    chance = np.random.default_rng(seed)
    rows = len(steps[0].correct)
    found: list[Point] = []
    for _ in range(_HALVINGS if len(steps) == 2 else 1):
        order = chance.permutation(rows)
        for ours, theirs in itertools.permutations((order[: rows // 2], order[rows // 2 :])):
            try:
                tried = _Tried(_part(steps, ours), top)
                chosen = tried.cheapest(tried.best(), wish)
            except InvalidInput:
                continue  # half of the rows may say too little
            found.append(evaluate(_part(steps, theirs), tried.thresholds[chosen]))
    if not found:
        return math.nan, math.nan
    return float(np.mean([one.accuracy for one in found])), float(np.mean([one.escalated for one in found]))


def _part(steps: Sequence[Labelled], rows: Array) -> list[Labelled]:
    return [step._replace(confidence=step.confidence[rows], correct=step.correct[rows]) for step in steps]
