"""How values of any size are distributed, in few numbers that can be added up over routers."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

from turnout.core.tensors import Array

_Key = TypeVar("_Key")
#: Each class of values is this many times as wide as the one before, so a quantile is right to within 5 percent.
_STEP = math.log(1.1)
#: What is nearer to 0, or further from it, counts as this.
_LEAST, _MOST = 1e-12, 1e15
#: A sum stays a number that JSON can say.
_LARGEST = sys.float_info.max


class Sketch:
    """Counts of values of 0 or more by classes whose bounds grow by 10 percent, with their sum and the largest."""

    __slots__ = ("_classes", "count", "largest", "total", "zeros")

    def __init__(self) -> None:
        self.count = self.zeros = 0
        self.total = self.largest = 0.0
        self._classes: dict[int, int] = {}

    @property
    def mean(self) -> float:
        """The mean of all values; NaN without any."""
        return self.total / self.count if self.count else math.nan

    def add(self, value: float) -> None:
        """Takes one finite value; what is below 0 counts as 0."""
        self.count += 1
        if value <= 0.0:
            self.zeros += 1
            return
        self.total = min(self.total + value, _LARGEST)
        self.largest = max(self.largest, value)
        place = math.ceil(math.log(min(max(value, _LEAST), _MOST)) / _STEP)
        self._classes[place] = self._classes.get(place, 0) + 1

    def add_each(self, values: Array) -> None:
        """Takes many finite values."""
        if values.size <= 4:
            for value in values.tolist():
                self.add(value)
            return
        above = values[values > 0.0]
        self.count += values.size
        self.zeros += values.size - above.size
        if above.size:
            with np.errstate(over="ignore"):
                self.total = min(self.total + float(above.sum()), _LARGEST)
            self.largest = max(self.largest, float(above.max()))
            places = np.ceil(np.log(above.clip(_LEAST, _MOST)) / _STEP).astype(np.int64)
            for place, times in zip(*(found.tolist() for found in np.unique(places, return_counts=True)), strict=True):
                self._classes[place] = self._classes.get(place, 0) + times

    def quantile(self, share: float) -> float:
        """What this share of the values is at most, to within 5 percent; NaN without any."""
        if not self.count:
            return math.nan
        wanted = max(1.0, share * self.count)
        seen = self.zeros
        if seen >= wanted:
            return 0.0
        for place in sorted(self._classes):
            seen += self._classes[place]
            if seen >= wanted:
                return min(math.exp((place - 0.5) * _STEP), self.largest)
        return self.largest

    def plus(self, other: Sketch) -> Sketch:
        """Both together."""
        found = Sketch()
        found.count, found.zeros = self.count + other.count, self.zeros + other.zeros
        found.total, found.largest = min(self.total + other.total, _LARGEST), max(self.largest, other.largest)
        found._classes = added(self._classes, other._classes)
        return found

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        classes = {str(place): count for place, count in sorted(self._classes.items())}
        return {
            "count": self.count,
            "zeros": self.zeros,
            "total": self.total,
            "largest": self.largest,
            "classes": classes,
        }

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Sketch:
        """The reverse of `to_json`."""
        found = cls()
        found.count, found.zeros = int(said["count"]), int(said["zeros"])
        found.total, found.largest = float(said["total"]), float(said["largest"])
        found._classes = {int(place): int(count) for place, count in said["classes"].items()}
        return found


def added(one: Mapping[_Key, int], other: Mapping[_Key, int]) -> dict[_Key, int]:
    """Counts of both by their keys."""
    return dict(one) | {key: one.get(key, 0) + count for key, count in other.items()}
