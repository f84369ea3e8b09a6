"""Two models are run on the same rows, and every difference between their answers is found and judged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from turnout.core.signature import Signature
from turnout.core.tensors import Array, Tensors, join_rows, slice_rows

Predict = Callable[[Tensors], Tensors]
CHUNK = 512
_WORST = 5


@dataclass(frozen=True)
class Tolerance:
    """How far a twin's number may be from the original's: absolute + relative x the original's size.

    Labels have to be the same. The one exception is a tie: where the original's own two best probabilities are no
    further apart than the tolerance allows each of them to be off, either label is right.
    """

    absolute: float = 1e-5
    relative: float = 1e-4


@dataclass(frozen=True)
class Answers:
    """What a model gave for rows: outputs (undefined where it failed), and its complaint for each row it refused."""

    outputs: Mapping[str, Array]
    failed: Mapping[int, str]
    rows: int


@dataclass
class Found:
    """The differences of one output. `outside`, `ties`: rows over the tolerance, and labels that differ in a tie."""

    max_absolute: float = 0.0
    max_relative: float = 0.0
    outside: int = 0
    ties: int = 0

    def add(self, other: Found) -> None:
        """Takes the other's differences too."""
        self.max_absolute = max(self.max_absolute, other.max_absolute)
        self.max_relative = max(self.max_relative, other.max_relative)
        self.outside += other.outside
        self.ties += other.ties


@dataclass
class Differences:
    """All that differs between two models over some rows.

    only_original_failed, only_twin_failed: rows that one of them refused and the other answered. worst: the rows
    furthest outside, as records with both answers.
    """

    rows: int = 0
    outputs: dict[str, Found] = field(default_factory=dict)
    only_original_failed: int = 0
    only_twin_failed: int = 0
    worst: list[dict[str, Any]] = field(default_factory=list)

    @property
    def inside(self) -> bool:
        """Whether the twin may stand for the original on these rows."""
        failed = self.only_original_failed or self.only_twin_failed
        return not failed and not any(found.outside for found in self.outputs.values())

    def add(self, other: Differences) -> None:
        """Takes the other's differences too."""
        self.rows += other.rows
        self.only_original_failed += other.only_original_failed
        self.only_twin_failed += other.only_twin_failed
        for name, found in other.outputs.items():
            self.outputs.setdefault(name, Found()).add(found)
        self.worst = sorted([*self.worst, *other.worst], key=lambda one: -one["off"])[:_WORST]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "rows": self.rows,
            "outputs": {name: vars(found) for name, found in self.outputs.items()},
            "only_original_failed": self.only_original_failed,
            "only_twin_failed": self.only_twin_failed,
            "worst": self.worst,
        }


def answers(predict: Predict, rows: Tensors, size: int = CHUNK) -> Answers:
    """What a model gives for each row, in batches of `size`; a batch that fails is halved to the rows that do."""
    count = len(next(iter(rows.values())))
    failed: dict[int, str] = {}
    parts: list[tuple[int, int, Tensors]] = []
    for start in range(0, count, size):
        parts += _answered(predict, rows, start, min(start + size, count), failed)
    outputs: dict[str, Array] = {}
    if parts:
        for name, array in parts[0][2].items():
            whole = np.zeros((count, *array.shape[1:]), dtype=array.dtype)
            if array.dtype.kind == "O":
                whole.fill(b"")
            outputs[name] = whole
        for start, stop, answer in parts:
            for name, whole in outputs.items():
                whole[start:stop] = answer[name]
    return Answers(outputs, failed, count)


def _answered(
    predict: Predict, rows: Tensors, start: int, stop: int, failed: dict[int, str]
) -> Iterator[tuple[int, int, Tensors]]:
    try:
        with np.errstate(all="ignore"):
            answer = predict(slice_rows(rows, start, stop))
        if any(array.shape[0] != stop - start for array in answer.values()):
            raise ValueError("another number of rows came back")
    except Exception as problem:  # noqa: BLE001  whatever a model raises is its answer to these rows
        if stop - start == 1:
            failed[start] = f"{type(problem).__name__}: {' '.join(str(problem).split())[:200]}"
            return
        middle = (start + stop) // 2
        yield from _answered(predict, rows, start, middle, failed)
        yield from _answered(predict, rows, middle, stop, failed)
        return
    yield start, stop, answer


def compare(original: Answers, twin: Answers, rows: Tensors, signature: Signature, tolerance: Tolerance) -> Differences:
    """The differences between two models' answers to the same rows."""
    both = np.array([row not in original.failed and row not in twin.failed for row in range(original.rows)], dtype=bool)
    result = Differences(
        original.rows,
        only_original_failed=len(set(original.failed) - set(twin.failed)),
        only_twin_failed=len(set(twin.failed) - set(original.failed)),
    )
    off = np.zeros(original.rows)
    for row in set(original.failed) ^ set(twin.failed):
        off[row] = np.inf
    tied = _ties(original, tolerance)
    for spec in signature.outputs:
        if spec.name not in original.outputs or spec.name not in twin.outputs:
            continue
        mine, its = original.outputs[spec.name], twin.outputs[spec.name]
        if spec.name == "label" or mine.dtype.kind in "Ob":
            found, here = _labels(mine, its, both, tied)
        else:
            found, here = _numbers(mine, its, both, tolerance)
        result.outputs[spec.name] = found
        off = np.maximum(off, here)
    for row in np.argsort(-off, kind="stable")[:_WORST]:
        if off[row] > 1.0:
            result.worst.append(_record(int(row), float(off[row]), original, twin, rows))
    return result


def _ties(original: Answers, tolerance: Tolerance) -> Array:
    """The rows in which the original's two best probabilities may change places inside the tolerance."""
    probabilities = original.outputs.get("probabilities")
    if probabilities is None or probabilities.ndim != 2 or probabilities.shape[1] < 2:
        return np.zeros(original.rows, dtype=bool)
    best = np.sort(probabilities, axis=1)[:, -2:].astype(np.float64)
    result: Array = best[:, 1] - best[:, 0] <= 2 * tolerance.absolute + tolerance.relative * best.sum(axis=1)
    return result


def _labels(mine: Array, its: Array, both: Array, tied: Array) -> tuple[Found, Array]:
    differ = mine != its
    differ = differ.reshape(len(differ), -1).any(axis=1) & both
    outside = differ & ~tied
    return Found(outside=int(outside.sum()), ties=int((differ & tied).sum())), np.where(outside, np.inf, 0.0)


def _numbers(mine: Array, its: Array, both: Array, tolerance: Tolerance) -> tuple[Found, Array]:
    """`off` is how many times the tolerance a row's worst number is away; NaN and infinity have to be the same."""
    left = mine.reshape(len(mine), -1).astype(np.float64)
    right = its.reshape(len(its), -1).astype(np.float64)
    with np.errstate(all="ignore"):
        same = (left == right) | (np.isnan(left) & np.isnan(right))
        gap = np.where(same, 0.0, np.abs(left - right))
        gap = np.where(np.isfinite(gap), gap, np.inf)
        room = tolerance.absolute + tolerance.relative * np.abs(left)
        off = np.where(same, 0.0, np.where(np.isfinite(room), gap / room if room.size else gap, np.inf))
        relative = np.where(same | (left == 0), 0.0, gap / np.abs(left))
    off = np.where(np.isnan(off), np.inf, off).max(axis=1, initial=0.0) * both
    off = np.where(np.isnan(off), 0.0, off)  # infinitely far in a row that does not count
    gap, relative = gap[both], relative[both]
    found = Found(_largest(gap), _largest(relative), int((off > 1.0).sum()))
    return found, off


def _largest(values: Array) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.max(initial=0.0))


def _record(row: int, off: float, original: Answers, twin: Answers, rows: Tensors) -> dict[str, Any]:
    def said(found: Answers) -> Any:
        return found.failed.get(row) or {name: plain(array[row]) for name, array in found.outputs.items()}

    return {
        "off": off if np.isfinite(off) else 1e308,
        "row": {name: plain(array[row]) for name, array in rows.items()},
        "original": said(original),
        "twin": said(twin),
    }


def plain(value: Any) -> Any:
    """Values as JSON takes them: text decoded, odd numbers as text, long rows cut."""
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")[:200]
    if isinstance(value, np.ndarray):
        flat = [plain(one) for one in value.ravel()[:32].tolist()]
        return [*flat, "..."] if value.size > 32 else flat
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    return value


def one_by_one(predict: Predict, rows: Tensors, most: int) -> tuple[Tensors, Answers]:
    """The answers to some rows, each alone, as single requests get them."""
    count = len(next(iter(rows.values())))
    picked = np.unique(np.linspace(0, count - 1, min(most, count)).astype(int))
    few = join_rows([slice_rows(rows, at, at + 1) for at in picked.tolist()])
    return few, answers(predict, few, 1)
