"""The root of every tree: what callers call. It says who answered, under which revision, and under which id.

A prediction id reads `R<revision>-<variant>-<token>`: `variant` is the place of the assigned version among the
endpoint's version names in their order by text (`x` where none was assigned), `token` 24 random hex digits. So a label
that comes days later can be attributed to a revision and a version without looking the prediction up. The token is
random, not counted: nobody can guess the id of another's prediction, and 10^12 ids of any number of routers
hold two equal ones with a chance of one in 10^5. A request has one id, however many rows it has.
"""

from __future__ import annotations

import math
import os
import re
from asyncio import CancelledError
from collections.abc import Callable, Iterator, Mapping
from time import monotonic
from typing import NamedTuple

import msgspec

from turnout.core.errors import Cancelled, DeadlineExceeded, Failure, InvalidInput
from turnout.core.messages import InferRequest, InferResponse, Journey, StepTrace
from turnout.core.servable import Servable
from turnout.graph.evidence import Evidence

_TOKEN_BYTES = 12
_DRAWN = 256
_new = tuple.__new__
_ID = re.compile(r"R([0-9]{1,15})-([0-9]{1,6}|x)-([0-9a-f]{24})")
#: Different answerers that are remembered and counted apart; more can only come from a faulty node.
_MOST = 4096


class EndpointPolicy(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """deadline: seconds that a request has where its caller gives no deadline or a longer one; None for no bound."""

    deadline: float | None = None

    def __post_init__(self) -> None:
        """Raises InvalidInput."""
        if self.deadline is not None and not 0 < self.deadline < math.inf:
            raise InvalidInput(
                "not a duration", field="deadline", expected="seconds above 0, as 0.15", got=repr(self.deadline)
            )


class PredictionId(NamedTuple):
    """What a prediction id says. `variant`: the place among the version names of that revision; None for none."""

    revision: int
    variant: int | None
    token: str

    def version(self, versions: Mapping[str, str] | tuple[str, ...]) -> str:
        """The name of the variant, given the version names of that revision; "" where there is none."""
        names = sorted(versions)
        return names[self.variant] if self.variant is not None and self.variant < len(names) else ""


def parse_prediction_id(text: str) -> PredictionId:
    """The parts of a prediction id. Raises InvalidInput."""
    found = _ID.fullmatch(text)
    if found is None:
        raise InvalidInput(
            "not a prediction id",
            field="prediction_id",
            expected="what an answer said as x-prediction-id, like R3-0-5f1b8c0e9d7a4b3c2d1e0f9a",
            got=repr(text[:60]),
        )
    return PredictionId(int(found[1]), None if found[2] == "x" else int(found[2]), found[3])


def tokens(draw: Callable[[int], bytes] = os.urandom) -> Iterator[str]:
    """Random hex digits without end, `_TOKEN_BYTES` at a time; drawn in advance, which makes each cheap."""
    step = 2 * _TOKEN_BYTES
    while True:
        drawn = draw(_DRAWN * _TOKEN_BYTES).hex()
        for at in range(0, len(drawn), step):
            yield drawn[at : at + step]


class Answered:
    """One way in which requests end: which variant they were assigned to, who answered, and why somebody else did.

    `outcome` is "answered", "degraded", or the code of a failure; `count` only grows.
    """

    __slots__ = ("count", "degraded", "outcome", "variant", "version")

    def __init__(self, variant: str, version: str, degraded: str, outcome: str) -> None:
        self.variant = variant
        self.version = version
        self.degraded = degraded
        self.outcome = outcome
        self.count = 0


class EndpointCounts:
    """An endpoint's memory: how its requests ended. It outlives the tree that is built anew for other weights."""

    __slots__ = ("_kinds",)

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, str, str, str], Answered] = {}

    def kind(self, variant: str, version: str, degraded: str, outcome: str) -> Answered:
        """The count of this way of ending."""
        key = (variant, version, degraded, outcome)
        found = self._kinds.get(key)
        if found is None:
            if len(self._kinds) >= _MOST:
                key = ("", "", "", outcome)
            found = self._kinds.setdefault(key, Answered(*key))
        return found

    def all(self) -> list[Answered]:
        """Every way in which a request has ended so far."""
        return list(self._kinds.values())


class _Seal(NamedTuple):
    """What is known in advance of an answer by one version to a request that was assigned to one variant."""

    variant: str
    served_by: str
    digest: str
    id_start: str
    answered: Answered


def _outcome(problem: BaseException, deadline: float) -> str:
    """The code of what a request ended with; whoever cancels one that is late means its deadline."""
    if isinstance(problem, Failure):
        return problem.code.name
    if isinstance(problem, CancelledError):
        return (DeadlineExceeded if monotonic() >= deadline else Cancelled).code.name
    return Failure.code.name


class Endpoint:
    """Serves a tree under a name. `versions` are its versions by name with the digest of each.

    evidence: the variants' counts that the split keeps, for what only the root can see: that somebody else answered.
    """

    __slots__ = (
        "_child", "_only", "_seals", "_token", "_watched", "counts", "deadline", "default", "evidence", "name",
        "refuse_now", "revision", "versions",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        child: Servable,
        *,
        revision: int = 0,
        versions: Mapping[str, str],
        default: str = "",
        policy: EndpointPolicy | None = None,
        evidence: Mapping[str, Evidence] | None = None,
        counts: EndpointCounts | None = None,
        random: Iterator[str] | None = None,
    ) -> None:
        self.name = name
        self.revision = revision
        self.versions = dict(versions)
        self.default = default
        self._only = next(iter(versions)) if len(versions) == 1 else ""
        self.evidence = evidence or {}
        self.counts = counts or EndpointCounts()
        limit = policy.deadline if policy is not None else None
        #: Seconds that a request has at most, infinite without a bound; for doors, which watch the clock.
        self.deadline = math.inf if limit is None else limit
        #: Why a request would be refused at this moment; None where the child does not say it for sure.
        self.refuse_now: Callable[..., Failure | None] | None = getattr(child, "refuse_now", None)
        self._child = child
        self._watched = limit is not None
        self._token = (random or tokens()).__next__
        self._seals: dict[tuple[str, str], _Seal] = {}

    def __repr__(self) -> str:
        bound = "" if self.deadline == math.inf else f", deadline {self.deadline:g} s"
        return f"Endpoint({self.name}, revision {self.revision}, versions {', '.join(sorted(self.versions))}{bound})"

    @property
    def children(self) -> Mapping[str, Servable]:
        """What answers."""
        return {"": self._child}

    @property
    def only_child(self) -> Servable:
        """What answers, without what this adds."""
        return self._child

    def only_seal(self, version: str) -> tuple[tuple[str, str], _Seal]:
        """Where is kept what is said of answers by a version that no split has chosen, and that."""
        return ("", version), self._seal("", version)

    def identify(self, version: str, digest: str) -> None:
        """The digest of a version's files is known now: answers from here on say it."""
        self.versions[version] = digest
        self._seals.clear()

    async def infer(self, request: InferRequest) -> InferResponse:
        """The child's answer, under the endpoint's name. Raises what the child raises."""
        context = request.context
        journey = context.journey
        if journey is None:  # the nodes below write why an answer is degraded, and that is counted
            journey = Journey()
            context = context._replace(journey=journey)
            request = request._replace(context=context)
        started = 0.0
        if self._watched or journey.steps is not None:
            started = monotonic()
            if context.deadline > started + self.deadline:
                context = context._replace(deadline=started + self.deadline)
                request = request._replace(context=context)
        try:
            response = await self._child.infer(request)
        except BaseException as problem:
            self.failed(journey, problem, context.deadline)
            if journey.steps is not None:
                kind = type(problem).__name__
                journey.steps.append(StepTrace("endpoint", self.name, kind, monotonic() - started))
            raise
        self.sign(journey, response.version)
        if journey.steps is not None:
            self._trace(journey.steps, journey.served_by, response, monotonic() - started)
        if response.model == self.name:
            return response
        outputs, _, version, parameters, queued, predicted, rows = response  # less than half of what `_replace` costs
        return _new(InferResponse, (outputs, self.name, version, parameters, queued, predicted, rows))

    def sign(self, journey: Journey, version: str) -> None:
        """Writes who has answered, and counts it."""
        variant = journey.variant
        seal = self._seals.get((variant, version)) or self._seal(variant, version)
        journey.variant, journey.served_by, journey.digest, id_start, answered = seal
        journey.revision = self.revision
        journey.prediction_id = id_start + self._token()
        if journey.degraded:
            self._degraded(journey, version)
        else:
            answered.count += 1

    def _degraded(self, journey: Journey, version: str) -> None:
        self.counts.kind(journey.variant, version, journey.degraded, "degraded").count += 1
        evidence = self.evidence.get(journey.variant)
        if evidence is not None and journey.counted:
            evidence.degraded += 1

    def _trace(self, steps: list[StepTrace], served_by: str, response: InferResponse, seconds: float) -> None:
        """What the version itself took, unless the answer was kept from another request; and the whole."""
        if response.batch_rows and not any(step.outcome == "hit" for step in steps):
            detail = f"in a batch of {response.batch_rows} rows"
            taken = response.queue_seconds + response.predict_seconds
            steps.append(StepTrace("version", served_by, "answered", taken, response.queue_seconds, detail))
        steps.append(StepTrace("endpoint", self.name, "answered", seconds))

    def failed(self, journey: Journey, problem: BaseException, deadline: float) -> None:
        """Writes which variant has failed, the one that was assigned or the only one that there is, and counts it."""
        outcome = _outcome(problem, deadline)
        variant = journey.variant or self._only
        seal = self._seal(variant, variant)
        journey.variant = variant
        journey.served_by = seal.served_by if variant else ""
        journey.digest = seal.digest
        journey.revision = self.revision
        journey.prediction_id = seal.id_start + self._token()
        self.counts.kind(variant, variant, journey.degraded, outcome).count += 1

    def _seal(self, variant: str, version: str) -> _Seal:
        """What is said of the answer, made once for each pair. Without a split the version is its own variant."""
        key = (variant, version)
        found = self._seals.get(key)
        if found is not None:
            return found
        assigned = variant or version
        names = sorted(self.versions)
        place = str(names.index(assigned)) if assigned in self.versions else "x"
        if len(self._seals) >= _MOST:
            self._seals.clear()
        seal = self._seals[key] = _Seal(
            assigned,
            f"{self.name}@{version}" if version else self.name,
            self.versions.get(version, ""),
            f"R{self.revision}-{place}-",
            self.counts.kind(assigned, version, "", "answered"),
        )
        return seal
