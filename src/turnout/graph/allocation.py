"""Which variant has which buckets: changed by moving as few of them as possible, and never one of a growing variant.

An allocation is computed from the weights and from the allocation before, by arithmetic alone. It is kept with the
revision that it belongs to, so every router has the same one, and going back to a revision goes back to its buckets.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from turnout.core.errors import InvalidInput

#: A bucket is 0.01 percent of the units.
BUCKETS = 10_000
Range = tuple[int, int]


class Allocation(NamedTuple):
    """The buckets of each variant as ranges [start, stop), those that it got last at the end."""

    ranges: Mapping[str, Sequence[Range]]

    def count(self, variant: str) -> int:
        """How many buckets a variant has."""
        return sum(stop - start for start, stop in self.ranges.get(variant, ()))

    def percent(self, variant: str) -> float:
        """Its share of the units."""
        return self.count(variant) * 100 / BUCKETS

    def find(self, place: int) -> str:
        """The variant that has this bucket. For many look-ups see `starts`."""
        starts, variants = self.starts()
        return variants[bisect_right(starts, place) - 1]

    def starts(self) -> tuple[list[int], list[str]]:
        """Where ranges begin, in order, and whose each is."""
        every = sorted((start, stop, name) for name, ranges in self.ranges.items() for start, stop in ranges)
        return [start for start, _, _ in every], [name for _, _, name in every]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; `from_json` gives the same allocation back."""
        return {name: [[start, stop] for start, stop in ranges] for name, ranges in self.ranges.items()}

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Allocation:
        """The reverse of `to_json`. Raises InvalidInput where not every bucket has exactly one variant."""
        try:
            found = cls({str(name): tuple((int(a), int(b)) for a, b in ranges) for name, ranges in said.items()})
        except (TypeError, ValueError, AttributeError):
            raise InvalidInput("not an allocation", expected='{"v1": [[0, 10000]]}', got=repr(said)[:80]) from None
        at = 0
        for start, stop in sorted(piece for ranges in found.ranges.values() for piece in ranges):
            if start != at or stop <= start:
                raise InvalidInput(f"bucket {min(at, start)} has not exactly one variant", got=f"[{start}, {stop}]")
            at = stop
        if at != BUCKETS:
            raise InvalidInput(f"bucket {at} has not exactly one variant", expected=f"{BUCKETS} buckets")
        return found


def allocate(weights: Mapping[str, float], before: Allocation | None = None) -> Allocation:
    """The allocation for these weights (percent), with as many buckets as possible left where they are.

    A variant whose weight does not shrink keeps every bucket it had. One that shrinks gives up those that it got
    last, so that growing and shrinking again leads back. The order of the weights does not matter.
    """
    wanted = bucket_counts(weights)
    if before is None:
        return Allocation(_dealt(dict.fromkeys(sorted(wanted), ()), [(0, BUCKETS)], wanted, first=True))
    free: list[Range] = []
    kept: dict[str, Sequence[Range]] = {}
    for name in sorted({*before.ranges, *wanted}):
        ranges = list(before.ranges.get(name, ()))
        surplus = sum(stop - start for start, stop in ranges) - wanted.get(name, 0)
        while surplus > 0:
            start, stop = ranges.pop()
            cut = max(start, stop - surplus)
            if cut > start:
                ranges.append((start, cut))
            free.append((cut, stop))
            surplus -= stop - cut
        if name in wanted:
            kept[name] = ranges
    return Allocation(_dealt(kept, free, wanted, first=False))


def bucket_counts(weights: Mapping[str, float]) -> dict[str, int]:
    """How many buckets each weight (percent) stands for. Raises InvalidInput unless they are shares of 100 percent."""
    counts: dict[str, int] = {}
    for name, weight in weights.items():
        count = round(weight * BUCKETS / 100) if math.isfinite(weight) else -1
        if not 0 <= count <= BUCKETS or not math.isclose(count * 100 / BUCKETS, weight, abs_tol=1e-9):
            raise InvalidInput(
                "not a share", field=f"traffic.{name}", expected="0 to 100 percent in steps of 0.01", got=f"{weight:g}"
            )
        counts[name] = count
    if sum(counts.values()) != BUCKETS:
        raise InvalidInput(
            "the shares do not sum to 100",
            field="traffic",
            expected="100 percent in all",
            got=f"{sum(counts.values()) * 100 / BUCKETS:g}",
            example="traffic: {v1: 90, v2: 10}",
        )
    return counts


def _dealt(
    kept: Mapping[str, Sequence[Range]], free: Iterable[Range], wanted: Mapping[str, int], *, first: bool
) -> dict[str, Sequence[Range]]:
    """What each keeps and, in the order of their names, what it needs of the free buckets."""
    pool = list(free)[::-1]
    dealt: dict[str, Sequence[Range]] = {}
    for name in sorted(kept):
        ranges = list(kept[name])
        need = wanted[name] - sum(stop - start for start, stop in ranges)
        while need > 0:
            start, stop = pool.pop()
            # A first deal goes upwards; later ones take what was given up last, from its end.
            taken = (start, min(stop, start + need)) if first else (max(start, stop - need), stop)
            if taken != (start, stop):
                pool.append((taken[1], stop) if first else (start, taken[0]))
            need -= taken[1] - taken[0]
            if ranges and ranges[-1][1] == taken[0]:
                ranges[-1] = (ranges[-1][0], taken[1])
            else:
                ranges.append(taken)
        dealt[name] = tuple(ranges)
    return dealt
