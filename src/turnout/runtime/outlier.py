"""A replica that fails or crawls while its peers do not is left out for a while, and asked again with a copy.

Pure: what is seen of each replica goes in with the time, a verdict comes out. Compared is always with the peers: where
all of them fail, it is the model or the rows, and leaving one out would help nobody.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence

import msgspec

from turnout.core.errors import InvalidInput

#: Time that any batch may take beside what is expected, before it is called slow (seconds).
_ALLOWANCE = 0.001
#: No batch is slow that took less than so many times what was expected.
_LEAST = 2.0
#: How long a replica rests after a batch that failed: the first time in a row, doubled up to so many times (seconds).
_REST, _DOUBLED = 0.01, 3
#: Good batches in a row after which an earlier ejection is forgotten.
_FORGIVEN = 100


class OutlierPolicy(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """failures: so many batches in a row that failed whole, while a peer answers. slow: a batch is slow that takes so
    many times what those of the peers take (their median); slow_batches: so many of them in a row.

    seconds: how long a replica is left out, doubled each further time, up to max_seconds. share: of the replicas at
    most this share is left out, but always one may be where there are two, and never the last one.
    """

    failures: int = 5
    slow: float = 5.0
    slow_batches: int = 3
    seconds: float = 1.0
    max_seconds: float = 5.0
    share: float = 0.5

    def __post_init__(self) -> None:
        """Raises InvalidInput."""
        for name in ("failures", "slow_batches"):
            if getattr(self, name) < 1:
                raise InvalidInput("too small", field=name, expected="at least 1", got=str(getattr(self, name)))
        if not 1.0 < self.slow < math.inf:
            raise InvalidInput("not a multiple", field="slow", expected="above 1", got=str(self.slow))
        if not 0.0 < self.seconds <= self.max_seconds < math.inf:
            got = f"seconds {self.seconds:g}, max_seconds {self.max_seconds:g}"
            raise InvalidInput("not durations", field="seconds", expected="above 0, at most max_seconds", got=got)
        if not 0.0 <= self.share <= 1.0:
            raise InvalidInput("not a share", field="share", expected="0 to 1", got=str(self.share))


class Verdict(enum.Enum):
    """What to do about a replica after one of its batches."""

    FINE = "fine"
    DOUBTFUL = "doubtful"  # ask the others first: nothing is known of them, or it is too early
    REST = "rest"  # ask only the others for a moment: the quickest to be free again is who fails at once
    EJECT = "eject"
    READMIT = "readmit"


class Standing:
    """What is known of one replica: what it did in a row, how slow it is (1: as expected), and until when it is out."""

    __slots__ = ("failures", "good", "probing", "ratio", "slow", "times", "until")

    def __init__(self) -> None:
        self.failures = 0
        self.slow = 0
        self.good = 0
        self.ratio = math.nan
        #: Monotonic seconds; infinity while a probe is inside, 0 while it is not left out.
        self.until = 0.0
        self.probing = False
        self.times = 0


class Outliers:
    """The standings of a version's replicas. `ejections` counts how often one was left out."""

    def __init__(self, policy: OutlierPolicy | None = None) -> None:
        self.policy = policy or OutlierPolicy()
        self.ejections = 0
        self._standings: dict[object, Standing] = {}

    @property
    def out(self) -> int:
        """How many are left out now."""
        return sum(standing.until > 0.0 for standing in self._standings.values())

    def judge(
        self, place: object, places: Sequence[object], seconds: float, expected: float, now: float, *, failed: bool
    ) -> Verdict:
        """Takes one batch: what it took and was expected to take (seconds), and whether all of it failed."""
        standing = self._standings.get(place)
        if standing is None:
            standing = self._standings[place] = Standing()
        ratio = seconds / (expected + _ALLOWANCE)
        slow = ratio > _LEAST and self._is_slow(place, places, ratio)
        if standing.until:
            return self._judge_probe(standing, now, good=not (failed or slow)) if standing.probing else Verdict.FINE
        if failed:
            standing.failures += 1
            standing.good = 0
        else:
            standing.failures = 0
            standing.good += 1
            standing.ratio = ratio if math.isnan(standing.ratio) else 0.5 * (standing.ratio + ratio)
            standing.slow = standing.slow + 1 if slow else 0
            if not slow:
                if standing.times and standing.good >= _FORGIVEN:
                    standing.times = 0
                return Verdict.FINE
        over = standing.failures >= self.policy.failures or standing.slow >= self.policy.slow_batches
        if over and self._others_do_better(place, places, failed=failed) and self._may_eject(places):
            self._eject(standing, now)
            return Verdict.EJECT
        rests = failed and self.policy.share > 0.0 and self._others_do_better(place, places, failed=True)
        return Verdict.REST if rests else Verdict.DOUBTFUL

    def due(self, now: float) -> list[object]:
        """The replicas that were left out for long enough and shall be asked again; each is named once."""
        found = [place for place, one in self._standings.items() if 0.0 < one.until <= now and not one.probing]
        for place in found:
            self._standings[place].until = math.inf
        return found

    def probe(self, place: object) -> None:
        """A probe is on its way there."""
        self._standings[place].probing = True

    def passed(self, place: object, now: float) -> None:
        """A batch ended in a way that says nothing: after a probe the next one follows."""
        standing = self._standings.get(place)
        if standing is not None and standing.probing:
            standing.probing = False
            standing.until = now

    def is_out(self, place: object) -> bool:
        """Whether it is left out."""
        standing = self._standings.get(place)
        return standing is not None and standing.until > 0.0

    def seconds_out(self, place: object, now: float) -> float:
        """For how much longer it is left out."""
        return self._standings[place].until - now

    def rest(self, place: object) -> float:
        """How long one rests that has failed (seconds)."""
        return float(_REST * 2.0 ** min(self._standings[place].failures - 1, _DOUBLED))

    def forget(self, place: object) -> None:
        """It is gone, or begins anew."""
        self._standings.pop(place, None)

    def _judge_probe(self, standing: Standing, now: float, *, good: bool) -> Verdict:
        standing.probing = False
        if not good:
            self._eject(standing, now)
            return Verdict.EJECT
        standing.until = 0.0
        standing.failures = standing.slow = standing.good = 0
        standing.ratio = math.nan
        return Verdict.READMIT

    def _eject(self, standing: Standing, now: float) -> None:
        policy = self.policy
        standing.until = now + min(policy.seconds * 2.0**standing.times, policy.max_seconds)
        standing.times = min(standing.times + 1, 30)
        standing.failures = standing.slow = 0
        self.ejections += 1

    def _peers(self, place: object, places: Sequence[object]) -> list[Standing]:
        return [
            one
            for other in places
            if other is not place and (one := self._standings.get(other)) is not None and not one.until
        ]

    def _is_slow(self, place: object, places: Sequence[object], ratio: float) -> bool:
        known = sorted([one.ratio for one in self._peers(place, places) if not math.isnan(one.ratio)])
        median = 0.5 * (known[len(known) // 2] + known[(len(known) - 1) // 2]) if known else 1.0
        return ratio > self.policy.slow * median

    def _others_do_better(self, place: object, places: Sequence[object], *, failed: bool) -> bool:
        """Whether one of the peers is known to do well; what is merely unknown says nothing."""
        peers = self._peers(place, places)
        if failed:
            return any(one.good and not one.failures for one in peers)
        return any(not math.isnan(one.ratio) for one in peers)

    def _may_eject(self, places: Sequence[object]) -> bool:
        out = sum([self.is_out(place) for place in places])
        return self.policy.share > 0.0 and out < min(len(places) - 1, max(1, int(self.policy.share * len(places))))
