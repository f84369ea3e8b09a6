"""What a rollout remembers, what it is shown, and what it decides: plain data that goes through JSON unchanged."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from operator import lt
from typing import Any, Literal, cast

import msgspec

from turnout.deploy.rollout.policy import RolloutPolicy
from turnout.deploy.rollout.statistics import Sums
from turnout.deploy.rollout.weights import traffic_at
from turnout.graph.evidence import Evidence

_NOTHING = Sums(0, 0.0, 0.0)


class Phase(enum.Enum):
    """Where a rollout is."""

    PENDING = "pending"
    SHADOW = "shadow"
    CANARY = "canary"
    PROMOTING = "promoting"
    STABLE = "stable"
    PAUSED = "paused"
    INCONCLUSIVE = "inconclusive"
    ROLLED_BACK = "rolled_back"


#: Phases in which it goes on by itself.
RUNNING = frozenset({Phase.SHADOW, Phase.CANARY, Phase.PROMOTING})
#: Phases in which the new version may have traffic and is watched.
WATCHED = RUNNING | {Phase.PAUSED, Phase.INCONCLUSIVE}

Readiness = Literal["ready", "loading", "failed", "missing"]


class Pairs(msgspec.Struct, frozen=True):
    """How many requests both versions answered, how many of them differently, and how many more the shadow failed."""

    count: int = 0
    differ: int = 0
    failed: int = 0

    def plus(self, now: Pairs, before: Pairs) -> Pairs:
        """These, and what came between two states of the same counts."""
        return Pairs(
            self.count + now.count - before.count,
            self.differ + now.differ - before.differ,
            self.failed + now.failed - before.failed,
        )


class Observed(msgspec.Struct, kw_only=True, frozen=True):
    """What is seen at one moment. Counts only grow; where one gets smaller, they have begun anew.

    evidence: by version. judge: values of the judge's metric by version. pairs: of the new version's shadow. versions:
    whether each can answer; `failed` means that it has been given up (it cannot be loaded, or keeps crashing), and one
    that is left out is not known of. age: seconds since the counts were heard of. weights: those in force in all
    routers, None where that is not known. sticky: whether requests of one unit stay together, so that their counts say
    little of the shares. last_stable: how many revisions ago the new version was the stable one; None where it never
    was.
    """

    evidence: Mapping[str, Evidence] = {}
    judge: Mapping[str, Sums] = {}
    pairs: Pairs = Pairs()
    versions: Mapping[str, Readiness] = {}
    age: float = 0.0
    weights: Mapping[str, float] | None = None
    sticky: bool = False
    last_stable: int | None = None


class Counts(msgspec.Struct, kw_only=True, frozen=True):
    """What was counted since some moment."""

    evidence: Mapping[str, Evidence] = {}
    judge: Mapping[str, Sums] = {}
    pairs: Pairs = Pairs()

    def of(self, version: str) -> Evidence:
        """The evidence of a version; empty where there is none."""
        return self.evidence.get(version) or Evidence()

    def values(self, version: str) -> Sums:
        """The judge's values of a version."""
        return self.judge.get(version, _NOTHING)

    def plus(self, now: Counts, before: Counts) -> Counts:
        """These, and what came between two states of the same counts. What began anew meanwhile adds nothing."""
        return self if now.begins_anew(before) else _grown(self, now, before)

    def since(self, before: Counts) -> Counts:
        """What came after an earlier state of these."""
        return _grown(Counts(), self, before)

    def begins_anew(self, before: Counts) -> bool:
        """Whether some count is smaller than it was: then a difference would mean nothing, and for no version."""
        for name, seen in before.evidence.items():
            now = self.of(name)
            if now.requests < seen.requests or now.errors < seen.errors or now.degraded < seen.degraded:
                return True
            if any(map(lt, now.latency, seen.latency)):
                return True
        if any(self.values(name).size < seen.size for name, seen in before.judge.items()):
            return True
        return self.pairs.count < before.pairs.count or self.pairs.failed < before.pairs.failed


def _grown(counts: Counts, now: Counts, before: Counts) -> Counts:
    """The counts, and what came between two states of others."""
    evidence = {name: counts.of(name).plus(seen.since(before.of(name))) for name, seen in now.evidence.items()}
    judge = {name: counts.values(name).plus(seen.minus(before.values(name))) for name, seen in now.judge.items()}
    return Counts(
        evidence={**counts.evidence, **evidence},
        judge={**counts.judge, **judge},
        pairs=counts.pairs.plus(now.pairs, before.pairs),
    )


class Move(msgspec.Struct, frozen=True):
    """At some time (seconds since the epoch) the new version's weight became so many percent, in this phase."""

    at: float
    weight: float
    phase: Phase


class RolloutState(msgspec.Struct, kw_only=True, frozen=True):
    """A rollout, whole. Times are seconds since the epoch, weights percents of the new version.

    stable: the version that it is compared with. traffic: the percents before it began. step: the place among the
    policy's weights, -1 before the first. weight: what it shall have now; before: what it had in the step before.
    reason: why it is where it is. back_to: what was interrupted; by: who did that. began, entered: when the rollout and
    the step did; both move on by the length of a pause. moved: when the weight last changed. stopped: when the pause
    began. forced: when the weight was in force everywhere. looked: when it was last decided.
    applied: whether it ever was. seen: the counts as they were
    last shown. counts: of this step so far. settled: those of this step from before its weight had come into force;
    None until then. reference: what the stable version showed in the step before. judged: the judge's values of earlier
    steps, canary and stable. rose: when each version last answered. passed: gates that are open for this step. asked:
    when each webhook was last asked. moves: how the weight has changed.
    """

    policy: RolloutPolicy
    stable: str
    traffic: Mapping[str, float]
    phase: Phase = Phase.PENDING
    step: int = -1
    weight: float = 0.0
    before: float = 0.0
    reason: str = "it waits for start"
    back_to: Phase | None = None
    by: Literal["", "person", "gate", "mismatch", "stuck"] = ""
    began: float = 0.0
    entered: float = 0.0
    moved: float = 0.0
    stopped: float = 0.0
    forced: float = 0.0
    looked: float = 0.0
    applied: bool = True
    seen: Counts = Counts()
    counts: Counts = Counts()
    settled: Counts | None = None
    reference: Evidence | None = None
    judged: tuple[tuple[Sums, Sums], ...] = ()
    rose: Mapping[str, float] = {}
    passed: tuple[str, ...] = ()
    asked: Mapping[str, float] = {}
    moves: tuple[Move, ...] = ()

    @property
    def wanted(self) -> dict[str, float]:
        """Percents by version that shall be in force."""
        if self.phase is Phase.PENDING:
            return dict(self.traffic)
        return traffic_at(self.weight, self.policy.to, self.stable, self.traffic)

    @property
    def target(self) -> float:
        """The weight of this step, in percent; never below what the version had before."""
        had = self.traffic.get(self.policy.to, 0.0)
        return max(self.policy.weights[self.step], had) if self.step >= 0 else had

    @property
    def clean(self) -> Counts:
        """What was counted while the step's whole weight was in force."""
        return Counts() if self.settled is None else self.counts.since(self.settled)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; `state_from_json` gives the same state back."""
        return cast(dict[str, Any], msgspec.to_builtins(self, enc_hook=_encode))


def state_from_json(said: Any) -> RolloutState:
    """The reverse of `RolloutState.to_json`. Raises msgspec.ValidationError."""
    return msgspec.convert(said, RolloutState, dec_hook=_decode)


def _encode(value: Any) -> Any:
    if isinstance(value, Evidence):
        return value.to_json()
    raise TypeError(f"{type(value).__name__} is no part of a rollout")


def _decode(kind: type, said: Any) -> Any:
    if kind is Evidence:
        return Evidence.from_json(said)
    raise TypeError(f"{kind.__name__} is no part of a rollout")


class Finding(msgspec.Struct, kw_only=True, frozen=True):
    """What one guard, the judge or the mismatch alarm found.

    verdict: `breached`, `fine` (nothing is shown against it), `proved` (of the judge: it is shown), `waiting` (too
    little is known). evidence, needed: natural logarithms, what speaks against it and from where on that is enough.
    canary, stable: how many requests or values were looked at.
    """

    name: str
    verdict: Literal["breached", "fine", "proved", "waiting"]
    limit: float
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    evidence: float | None = None
    needed: float | None = None
    canary: int = 0
    stable: int = 0


class Call(msgspec.Struct, kw_only=True, frozen=True):
    """A webhook that shall be called now; what it answered goes to `answered`."""

    url: str
    when: Literal["pre_step", "pre_promote", "rollback", "event"]
    timeout: float
    body: Mapping[str, Any]


class Decision(msgspec.Struct, kw_only=True, frozen=True):
    """What shall be now.

    state: to go on with. weights: percents that shall be in force and are not; None where there is nothing to do.
    shadow: percent of requests that shall also be sent to the new version. words: why. findings: of guards and judge.
    calls: webhooks to call. changed: whether the state has to be stored before anything is done; else only counts have
    grown, which the next look would find again. refused: a command was not possible, and `words` say why.
    """

    state: RolloutState
    weights: Mapping[str, float] | None = None
    shadow: float = 0.0
    words: str = ""
    findings: Sequence[Finding] = ()
    calls: Sequence[Call] = ()
    changed: bool = False
    refused: bool = False
