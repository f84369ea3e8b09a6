"""The choice between versions: named by the caller, else by a rule, else by the bucket of the request's unit."""

from __future__ import annotations

import random
from asyncio import CancelledError
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import NamedTuple

import msgspec

from turnout.core.errors import DeadlineExceeded, Failure, InvalidInput, ModelFailed, PermissionDenied, VersionNotFound
from turnout.core.messages import InferRequest, InferResponse, StepTrace
from turnout.core.servable import Servable
from turnout.core.signature import Signature
from turnout.graph.allocation import BUCKETS, Allocation
from turnout.graph.evidence import Evidence
from turnout.graph.rules import Rule, RulePolicy, first_rule
from turnout.graph.sticky import StickyPolicy, bucket_of

#: The header by which a caller names the version that shall answer.
ROUTE_TO = "x-route-to"
DIRECT, RULE, ONLY, STICKY, RANDOM = "direct", "rule", "only", "sticky", "random"


class SplitPolicy(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How the requests of an endpoint are shared out. `direct`: whether a caller may name the version himself."""

    sticky: StickyPolicy | None = None
    rules: Sequence[RulePolicy] = ()
    direct: bool = True


class Route(NamedTuple):
    """Where a request goes and why; `variant` is "" where chance decides. Kinds: direct, rule, only, sticky, random."""

    variant: str
    kind: str
    why: str


class SplitState:
    """What a split remembers while its tree is rebuilt: how requests found their variants, and its chance.

    `sticky`, `random`: by their unit's bucket, or for want of a unit (or of a policy) each by itself. What had no
    choice, because one variant has all of the traffic, is not among them.
    """

    __slots__ = ("chance", "direct", "random", "rule", "sticky")

    def __init__(self, seed: int | None = None) -> None:
        self.chance = random.Random(seed)  # noqa: S311  chance between versions is no secret
        self.direct = self.rule = self.sticky = self.random = 0

    def to_json(self) -> dict[str, int]:
        """The counts by the kind of the choice."""
        return {kind: getattr(self, kind) for kind in (DIRECT, RULE, STICKY, RANDOM)}


def target_of(request: InferRequest) -> str:
    """The version that the caller has named, "" if none: by header, or because a node before this has said so."""
    journey = request.context.journey
    if journey is not None and journey.direct:
        return journey.variant
    attributes = request.context.attributes
    return (attributes.header(ROUTE_TO) or "") if attributes is not None else ""


class Split:
    """Sends each request to one of the versions `arms`; those without a share are reached by name and by rule only.

    What is sent by chance or by bucket counts as evidence of its variant. What a caller or a rule has sent does not:
    it was not assigned by chance, so a difference between versions might be one between those who were sent there.
    """

    def __init__(
        self,
        endpoint: str,
        arms: Mapping[str, Servable],
        allocation: Allocation,
        evidence: Mapping[str, Evidence],
        policy: SplitPolicy | None = None,
        state: SplitState | None = None,
        signature: Signature | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Raises InvalidInput where a share or a rule leads to no arm, or a column is not in the signature."""
        self._endpoint = endpoint
        self._arms = dict(arms)
        self._allocation = allocation
        self._policy = policy = policy or SplitPolicy()
        self._state = state or SplitState()
        self._clock = clock
        for place, rule in enumerate(policy.rules):
            self._check(rule.to, f"rules[{place}].to")
        self._starts, names = allocation.starts()
        for name in names:
            self._check(name, f"traffic.{name}")
        self._slots = [(name, self._arms[name], evidence[name]) for name in names]
        self._only = self._slots[0] if len(set(names)) == 1 else None
        self._rules = [Rule(rule, signature) for rule in policy.rules]
        self._unit = policy.sticky.reader(signature) if policy.sticky is not None else None
        self._bucket = bucket_of(policy.sticky.salt if policy.sticky is not None else "", endpoint)

    def __repr__(self) -> str:
        shares = " ".join(f"{name}={self._allocation.percent(name):g}%" for name in self._arms)
        policy = self._policy
        sticky = f" sticky by {policy.sticky.kind} {policy.sticky.name}" if policy.sticky is not None else ""
        rules = f" after {len(self._rules)} rules" if self._rules else ""
        return f"Split({shares}{sticky}{rules})"

    @property
    def children(self) -> Mapping[str, Servable]:
        return self._arms

    async def infer(self, request: InferRequest) -> InferResponse:
        """Raises VersionNotFound or PermissionDenied for a version that a caller names, and what the arm raises."""
        context = request.context
        journey = context.journey
        state = self._state
        if (context.attributes is not None or (journey is not None and journey.direct)) and (
            target := target_of(request)
        ):
            variant, arm = target, self._direct(target)
            state.direct += 1
            kind, evidence = DIRECT, None
        elif self._rules and (rule := first_rule(self._rules, request)) is not None:
            variant, arm = rule.to, self._arms[rule.to]
            state.rule += 1
            kind, evidence = RULE, None
        elif self._only is not None:
            variant, arm, evidence = self._only
            kind = ONLY
        elif self._unit is not None and (unit := self._unit(request)) is not None:
            variant, arm, evidence = self._slots[bisect_right(self._starts, self._bucket(unit)) - 1]
            state.sticky += 1
            kind = STICKY
        else:
            variant, arm, evidence = self._slots[bisect_right(self._starts, int(state.chance.random() * BUCKETS)) - 1]
            state.random += 1
            kind = RANDOM
        if journey is not None:
            journey.variant = variant
            journey.counted = evidence is not None
            if kind is DIRECT:
                journey.direct = True
            if journey.steps is not None:
                return await self._traced(request, variant, arm, evidence)
        if evidence is None:
            return await arm.infer(request)
        clock = self._clock
        begun = clock()
        try:
            response = await arm.infer(request)
        except BaseException as problem:
            evidence.failed(self._failure(problem, context.deadline))
            raise
        evidence.answered(clock() - begun)
        return response

    def explain_route(self, request: InferRequest) -> Route:
        """Where this request would go, and why; nothing is counted, and nobody is asked.

        Raises VersionNotFound or PermissionDenied as `infer` does.
        """
        if target := target_of(request):
            self._direct(target)
            return Route(target, DIRECT, f"the caller has named {target}")
        if (rule := first_rule(self._rules, request)) is not None:
            return Route(rule.to, RULE, f"rule {self._rules.index(rule) + 1} sends it to {rule.to}: {rule}")
        shares = ", ".join(f"{name} {share:g} %" for name in self._arms if (share := self._allocation.percent(name)))
        if self._only is not None:
            return Route(self._only[0], ONLY, f"{self._only[0]} has all of the traffic")
        sticky = self._policy.sticky
        if sticky is None or self._unit is None:
            return Route("", RANDOM, f"each request by chance: {shares}")
        unit = self._unit(request)
        if unit is None:
            return Route("", RANDOM, f"it has no {sticky.kind} {sticky.name}, so by chance: {shares}")
        place = self._bucket(unit)
        variant = self._allocation.find(place)
        return Route(
            variant, STICKY, f"its {sticky.kind} {sticky.name} is in bucket {place} of {BUCKETS}, one of {variant}'s"
        )

    async def _traced(
        self, request: InferRequest, variant: str, arm: Servable, evidence: Evidence | None
    ) -> InferResponse:
        """As `infer`, for a caller who wants to know what happened."""
        context = request.context
        journey = context.journey
        begun = self._clock()
        why = self._why(request, variant)
        outcome = "answered"
        try:
            response = await arm.infer(request)
        except BaseException as problem:
            found = self._failure(problem, context.deadline)
            outcome = type(found).__name__
            if evidence is not None:
                evidence.failed(found)
            raise
        else:
            if evidence is not None:
                evidence.answered(self._clock() - begun)
            return response
        finally:
            if journey is not None and journey.steps is not None:
                journey.steps.append(StepTrace("split", variant, outcome, self._clock() - begun, detail=why))

    def _why(self, request: InferRequest, variant: str) -> str:
        route = self.explain_route(request)
        return f"{route.why}; it was {variant}" if route.kind == RANDOM else route.why

    def _failure(self, problem: BaseException, deadline: float) -> BaseException:
        """What a problem says of the variant: a wait that was broken off at its deadline was too long."""
        if isinstance(problem, CancelledError):
            return DeadlineExceeded("too late") if self._clock() >= deadline else problem
        return problem if isinstance(problem, Failure) else ModelFailed(type(problem).__name__)

    def _direct(self, target: str) -> Servable:
        if not self._policy.direct:
            raise PermissionDenied(
                f"callers of {self._endpoint!r} may not choose the version that answers: leave {ROUTE_TO} out"
            )
        arm = self._arms.get(target)
        if arm is None:
            raise VersionNotFound(
                f"{self._endpoint!r} has no version {target[:80]!r}; there are: {', '.join(sorted(self._arms))}"
            )
        return arm

    def _check(self, name: str, field: str) -> None:
        if name not in self._arms:
            raise InvalidInput("no such version", field=field, expected=", ".join(sorted(self._arms)), got=repr(name))
