"""What became of the requests that were also sent to shadows: counts and pairs that can be added up over routers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from turnout.graph.pairs import Pairs

_COUNTS = ("drawn", "sent", "skipped", "busy", "answered", "failed", "late", "left")


class ShadowCounts:
    """Of one shadow. drawn: chosen by its share; of those, sent to it, or skipped because it answers them anyway or
    the caller made a mistake, or dropped because it was busy. Of those sent: answered, failed, late (failed too), or
    left because the primary's caller went away.
    """

    __slots__ = _COUNTS

    def __init__(self) -> None:
        self.drawn = self.sent = self.skipped = self.busy = 0
        self.answered = self.failed = self.late = self.left = 0

    def to_json(self) -> dict[str, int]:
        """All counts."""
        return {name: getattr(self, name) for name in _COUNTS}

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> ShadowCounts:
        """The reverse of `to_json`."""
        found = cls()
        for name in _COUNTS:
            setattr(found, name, int(said.get(name, 0)))
        return found

    def plus(self, other: ShadowCounts) -> ShadowCounts:
        """Both together."""
        return self.from_json({name: getattr(self, name) + getattr(other, name) for name in _COUNTS})


class ShadowRecord:
    """Counts by the shadow's version, and pairs by the versions (primary, shadow)."""

    __slots__ = ("counts", "pairs")

    def __init__(self) -> None:
        self.counts: dict[str, ShadowCounts] = {}
        self.pairs: dict[tuple[str, str], Pairs] = {}

    def count(self, shadow: str) -> ShadowCounts:
        """The counts of one shadow."""
        return self.counts.setdefault(shadow, ShadowCounts())

    def pair(self, primary: str, shadow: str) -> Pairs:
        """The pairs of two versions."""
        return self.pairs.setdefault((primary, shadow), Pairs())

    def forget(self, version: str) -> None:
        """Drops all that is known of a version, for one that is not served any more or comes with other content."""
        self.counts.pop(version, None)
        for key in [key for key in self.pairs if version in key]:
            del self.pairs[key]

    def plus(self, other: ShadowRecord) -> ShadowRecord:
        """Both together, as of two routers."""
        found = ShadowRecord()
        for one in (self, other):
            for name, counts in one.counts.items():
                found.counts[name] = found.count(name).plus(counts)
            for key, pairs in one.pairs.items():
                found.pairs[key] = found.pair(*key).plus(pairs)
        return found

    def to_json(self, *, inputs: bool = True) -> dict[str, Any]:
        """As plain JSON values; without `inputs` for those who may see predictions only."""
        return {
            "shadows": {name: counts.to_json() for name, counts in self.counts.items()},
            "pairs": [
                {"primary": primary, "shadow": shadow, **pairs.to_json(inputs=inputs)}
                for (primary, shadow), pairs in self.pairs.items()
            ],
        }

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> ShadowRecord:
        """The reverse of `to_json`."""
        found = cls()
        found.counts = {str(name): ShadowCounts.from_json(counts) for name, counts in said["shadows"].items()}
        found.pairs = {(str(one["primary"]), str(one["shadow"])): Pairs.from_json(one) for one in said["pairs"]}
        return found
