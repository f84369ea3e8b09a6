"""What is known of one variant: counts that only grow, kept where the requests pass, cheap enough for each of them."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from operator import add, sub
from typing import Any

from turnout.core.errors import Failure, Fault, InvalidOutput

#: How many times as high each latency bucket ends as the one before.
STEP = 1.02
#: Upper bounds of the latency buckets in seconds: 0.1 ms to 79 s.
BOUNDS: Sequence[float] = tuple(1e-4 * STEP**power for power in range(687))
_COUNTS = ("requests", "errors", "invalid", "degraded", "late")


class Evidence:
    """Cumulative counts of the requests that a split assigned to one variant; direct requests are not among them.

    errors: the variant failed, be it that a fallback answered then; a caller's mistake is none. invalid: those of the
    errors that were answers which break their contract. degraded: somebody else answered in the end. late: those of
    the errors that were deadlines. latency: how many took at most `BOUNDS[i]` seconds; what failed is not among them.
    """

    __slots__ = ("degraded", "errors", "invalid", "late", "latency", "requests")

    def __init__(self) -> None:
        self.requests = self.errors = self.invalid = self.degraded = self.late = 0
        self.latency = [0] * (len(BOUNDS) + 1)

    def __repr__(self) -> str:
        return "Evidence(" + ", ".join(f"{name}={getattr(self, name)}" for name in _COUNTS) + ")"

    def answered(self, seconds: float) -> None:
        """One request was answered by the variant."""
        self.requests += 1
        self.latency[bisect_left(BOUNDS, seconds)] += 1

    def failed(self, failure: BaseException) -> None:
        """One request was not: a caller's mistake counts as a request without latency."""
        self.requests += 1
        if isinstance(failure, Failure) and failure.fault is not Fault.CALLER:
            self.errors += 1
            self.invalid += isinstance(failure, InvalidOutput)
            self.late += failure.code.name == "DEADLINE_EXCEEDED"

    def quantile(self, share: float) -> float:
        """Seconds that this share of the answered requests took at most, to within 2 %; NaN without any."""
        seen = list(accumulate(self.latency))
        wanted = share * seen[-1]
        if not wanted:
            return math.nan
        bucket = bisect_left(seen, wanted)
        return BOUNDS[bucket] if bucket < len(BOUNDS) else math.inf

    def plus(self, other: Evidence) -> Evidence:
        """Both together, as of two routers."""
        return self._with(other, add)

    def since(self, earlier: Evidence) -> Evidence:
        """What came after an earlier state of the same counts."""
        return self._with(earlier, sub)

    def to_json(self) -> dict[str, Any]:
        """The counts that are not 0."""
        said: dict[str, Any] = {name: count for name in _COUNTS if (count := getattr(self, name))}
        latency = {str(i): count for i, count in enumerate(self.latency) if count}
        return said | ({"latency": latency} if latency else {})

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Evidence:
        """The reverse of `to_json`."""
        found = cls()
        for name in _COUNTS:
            setattr(found, name, int(said.get(name, 0)))
        for place, count in said.get("latency", {}).items():
            found.latency[int(place)] = int(count)
        return found

    def _with(self, other: Evidence, put: Callable[[int, int], int]) -> Evidence:
        found = Evidence()
        for name in _COUNTS:
            setattr(found, name, put(getattr(self, name), getattr(other, name)))
        found.latency = list(map(put, self.latency, other.latency))  # there are hundreds: this is quickest
        return found
