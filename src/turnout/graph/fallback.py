"""Somebody always answers: the first of several steps that can, each within its slice of the deadline.

The first step is what should answer; the others stand in for it. A step that fails, is too late, or would foreseeably
be, is followed by the next one. A caller's own mistake is never covered up.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from time import monotonic
from typing import Any

from turnout.core.errors import DeadlineExceeded, Failure
from turnout.core.messages import Context, InferRequest, InferResponse, Journey, StepTrace
from turnout.core.servable import Servable
from turnout.graph.attempt import Times, within
from turnout.graph.fallback_policy import FallbackPolicy
from turnout.graph.last_good import LastGood
from turnout.graph.observed import KEPT, Observed
from turnout.graph.reasons import PREDICTED_TIMEOUT, TIMEOUT, reason_of
from turnout.graph.split import target_of
from turnout.graph.tree import expected

logger = logging.getLogger("turnout")
_new = tuple.__new__
_PATIENCE = 30.0  # of a drill without a deadline (seconds)
_DRILLS_AT_ONCE = 4
_SAMPLED = 3  # of four answers that came one is looked at, once enough are known
_ASKED = (True, 1, "1", "true", "True")


class FallbackMemory:
    """What a fallback remembers: latencies by step; who stood in how often, and why; how the drills ended."""

    def __init__(self) -> None:
        self.observed: dict[str, Observed] = {}
        #: By (step, reason); a request that nobody could answer is under step "".
        self.answers: Counter[tuple[str, str]] = Counter()
        #: Hedges that were started, and those that were of use.
        self.hedges = self.hedged = 0
        #: By the step that answered; "" for nobody, "late" for one past the deadline.
        self.drills: Counter[str] = Counter()
        self.drilling: set[asyncio.Task[None]] = set()
        self.owed = 0.0


class Step:
    """One step as the fallback sees it. `reserved`: seconds to be left for those behind it."""

    __slots__ = ("instant", "name", "observed", "reserved", "servable")

    def __init__(self, name: str, servable: Servable, observed: Observed) -> None:
        self.name = name
        self.servable: Any = servable  # one that is instant has `answer` too
        self.observed = observed
        self.instant = bool(getattr(servable, "instant", False))
        self.reserved = 0.0


def slice_of(left: float, reserved: float, keep: float) -> float:
    """Seconds that a step gets of those that are left: without the margin, and what the others need; 40 % at least."""
    return left * keep - min(reserved, left * 0.5)


class Fallback:
    """Holds steps by name, in order; the first is the one that should answer.

    An instant step (`Constant`, `LastGood`) answers at once and so may come at the very end of a deadline.
    """

    def __init__(
        self,
        steps: Mapping[str, Servable],
        policy: FallbackPolicy | None = None,
        memory: FallbackMemory | None = None,
        *,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.policy = policy or FallbackPolicy()
        self.memory = memory or FallbackMemory()
        observed = self.memory.observed
        self._steps = [Step(name, one, observed.setdefault(name, Observed())) for name, one in steps.items()]
        self._first, self._others = self._steps[0], self._steps[1:]
        self._infer_first: Callable[[InferRequest], Coroutine[Any, Any, InferResponse]] = self._first.servable.infer
        self._observed = self._first.observed
        self._last_good = [one.servable for one in self._others if isinstance(one.servable, LastGood)]
        self._extras = bool(self._last_good) or (self.policy.drill > 0.0 and bool(self._others))
        self._keep = 1.0 - self.policy.margin if self._others else 1.0
        self._timeout = math.inf if self.policy.timeout is None else self.policy.timeout
        self._hedges = self.policy.hedge is not None and bool(self._others)
        self._version = -1
        self._reserved = 0.0
        self._times = Times()
        self._clock = clock

    def __repr__(self) -> str:
        hedge = f", hedge {self.policy.hedge:g}" if self.policy.hedge is not None else ""
        return f"Fallback({' -> '.join(step.name for step in self._steps)}{hedge})"

    @property
    def children(self) -> Mapping[str, Servable]:
        """The steps in their order."""
        return {step.name: step.servable for step in self._steps}

    async def infer(self, request: InferRequest) -> InferResponse:
        """The first step's answer, or another's. Raises what the first step raised where nobody answers."""
        observed = self._observed
        if observed.version != self._version:
            self._reserve()
        started = self._clock()
        left = request[3][1] - started  # request.context.deadline, by place: quicker, and every request is here
        mine = self._timeout
        if left < math.inf:
            mine = left * self._keep  # `slice_of`, written out
            if self._reserved:
                mine -= min(self._reserved, left * 0.5)
            if self._timeout < mine:  # noqa: PLR1730  min() costs more
                mine = self._timeout
            if mine <= 0.0:
                return await self._stand_in(request, _late(), TIMEOUT, started)
        if mine < observed.floor and observed.expects_miss(mine, started, self.policy.predict):
            return await self._stand_in(request, _too_late(), PREDICTED_TIMEOUT, started)
        if self._hedges and mine < math.inf:
            return await self._infer_hedged(request, started, left, mine)
        try:
            if mine == math.inf:
                response = await self._infer_first(request)
            else:
                until = started + mine
                response = await within(self._infer_first(with_deadline(request, until)), until, self._times)
        except Exception as problem:  # noqa: BLE001  whatever it is, the next step may do better
            if isinstance(problem, DeadlineExceeded):
                observed.missed()
            failed = problem
        else:
            observed.asked = asked = observed.asked + 1
            if not asked & _SAMPLED or asked < KEPT or observed.misses:
                observed.answered(self._clock() - started)
            if self._extras:
                self._after(request, response)
            return response
        return await self._stand_in(request, failed, reason_of(failed), started)

    async def _infer_hedged(self, request: InferRequest, started: float, left: float, mine: float) -> InferResponse:
        """As above; near its end the first step is not given up but gets company, and its own answer still counts.

        It may go on to the margin, because the other answer is there by then.
        """
        observed, policy = self._observed, self.policy
        most = min(left * self._keep, self._timeout)
        after = min(mine, observed.doubtful_after(most, policy.hedge or 1.0))
        until = started + most
        traces: list[StepTrace] = []

        beside: list[asyncio.Task[tuple[str, InferResponse] | None]] = []

        def early() -> float:
            if not (wants_original(request) or target_of(request)):
                self.memory.hedges += 1
                quiet = with_deadline(request, request.context.deadline, quiet=True)
                beside.append(asyncio.get_running_loop().create_task(self._others_answer(quiet, traces)))
            return until

        begins = started + max(0.0, after)
        try:
            going = self._infer_first(with_deadline(request, until))
            response = await within(going, min(begins, until), self._times, early)
        except asyncio.CancelledError:
            _drop(beside)
            raise
        except Exception as raised:  # noqa: BLE001  as in infer
            if isinstance(raised, DeadlineExceeded):
                observed.missed()
            problem = raised
        else:
            _drop(beside)
            observed.answered(self._clock() - started)
            if self._extras:
                self._after(request, response)
            return response
        if not beside:
            return await self._stand_in(request, problem, reason_of(problem), started)
        reason = reason_of(problem)
        if reason not in policy.on:
            _drop(beside)
            raise problem
        try:
            found = await beside[0]
        except asyncio.CancelledError:
            _drop(beside)
            raise
        self.memory.hedged += found is not None
        return self._stood_in(request, found, problem, reason, started, traces)

    async def _stand_in(self, request: InferRequest, problem: Exception, reason: str, started: float) -> InferResponse:
        """Another step's answer. Raises the problem where it is the caller's, or nobody can or may answer."""
        if reason not in self.policy.on or not self._others or wants_original(request) or target_of(request):
            raise problem  # also to who has named a version: an answer of another is not what was asked for
        traces: list[StepTrace] = []
        found = await self._others_answer(request, traces)
        return self._stood_in(request, found, problem, reason, started, traces)

    def _stood_in(
        self,
        request: InferRequest,
        found: tuple[str, InferResponse] | None,
        problem: Exception,
        reason: str,
        started: float,
        traces: Sequence[StepTrace],
    ) -> InferResponse:
        journey = request.context.journey
        if journey is not None and journey.steps is not None:
            seconds = self._clock() - started
            journey.steps.append(
                StepTrace("fallback", self._first.name, type(problem).__name__, seconds, detail=reason)
            )
            journey.steps += traces
        self.memory.answers[found[0] if found else "", reason] += 1
        if found is not None and not isinstance(problem, Failure):
            logger.error("step %s failed, and somebody else has answered", self._first.name, exc_info=problem)
        if found is None:
            raise problem
        if journey is not None:
            journey.degraded = reason
        return found[1]

    async def _others_answer(self, request: InferRequest, traces: list[StepTrace]) -> tuple[str, InferResponse] | None:
        """The name and the answer of the first other step that has one. Raises a caller's mistake."""
        for step in self._others:
            started = self._clock()
            try:
                if step.instant:
                    response = step.servable.answer(request)
                else:
                    response = await self._try(step, request, started)
            except Exception as problem:
                if not reason_of(problem):
                    raise
                traces.append(StepTrace("fallback", step.name, type(problem).__name__, self._clock() - started))
                continue
            traces.append(StepTrace("fallback", step.name, "answered", self._clock() - started))
            return step.name, response
        return None

    async def _try(self, step: Step, request: InferRequest, started: float) -> InferResponse:
        """One step's answer within its slice. Raises DeadlineExceeded, and what the step raises."""
        left = request.context.deadline - started
        behind = step is not self._others[-1]
        mine = slice_of(left, step.reserved, self._keep) if behind and left < math.inf else left
        if mine <= 0.0:
            raise _late()
        if step.observed.expects_miss(mine, started, self.policy.predict):
            raise _too_late()
        until = started + mine
        try:
            response: InferResponse = await within(
                step.servable.infer(with_deadline(request, until)), until, self._times
            )
        except DeadlineExceeded:
            step.observed.missed()
            raise
        step.observed.answered(self._clock() - started)
        return response

    def _reserve(self) -> None:
        """How much each step leaves for those behind it: what they have taken, 95 times of 100."""
        self._version = self._observed.version
        behind = 0.0
        for step in reversed(self._steps):
            step.reserved = behind
            if not step.instant:
                known = step.observed.p95
                behind += known if step.observed.count >= 8 and not math.isnan(known) else 2.0 * expected(step.servable)
        self._reserved = self._first.reserved

    def _after(self, request: InferRequest, response: InferResponse) -> None:
        journey = request.context.journey
        if journey is None or not (journey.degraded or journey.direct):
            for last_good in self._last_good:
                last_good.remember(request, response)
        if self.policy.drill:
            memory = self.memory
            memory.owed += self.policy.drill
            if memory.owed >= 100.0:
                memory.owed -= 100.0
                if len(memory.drilling) < _DRILLS_AT_ONCE:
                    task = asyncio.get_running_loop().create_task(self._drill(request))
                    memory.drilling.add(task)
                    task.add_done_callback(memory.drilling.discard)

    async def _drill(self, request: InferRequest) -> None:
        """Answers a copy as if the first step had failed; that it can is counted, and the answer thrown away."""
        memory = self.memory
        now = self._clock()
        until = min(request.context.deadline, now + _PATIENCE)
        try:
            found = await self._others_answer(with_deadline(request, until, quiet=True), [])
        except Exception:
            logger.exception("a fallback drill has failed")
            found = None
        late = self._clock() > until
        memory.drills["late" if late else found[0] if found is not None else ""] += 1


def with_deadline(request: InferRequest, deadline: float, *, quiet: bool = False) -> InferRequest:
    """The request with another deadline; `quiet`: nobody hears what happens to it. A third of what `_replace` costs."""
    model, inputs, rows, context, version, outputs, parameters, reply = request
    id_, _, protocol, caller, attributes, journey, avoid = context
    heard: Journey | None = None if quiet else journey
    inner = _new(Context, (id_, deadline, protocol, caller, attributes, heard, avoid))
    return _new(InferRequest, (model, inputs, rows, inner, version, outputs, parameters, reply))


def wants_original(request: InferRequest) -> bool:
    """Whether the caller would rather have a failure than an answer of somebody else."""
    if request.parameters and request.parameters.get("fail_on_degraded") in _ASKED:
        return True
    attributes = request.context.attributes
    return attributes is not None and (attributes.header("x-fail-on-degraded") or "").lower() in ("1", "true")


def _drop(beside: Sequence[asyncio.Task[Any]]) -> None:
    """Ends what was started beside the first step: nobody needs it."""
    for task in beside:
        task.cancel()


def _late() -> DeadlineExceeded:
    return DeadlineExceeded("the time for this step of a fallback was over before its answer was there")


def _too_late() -> DeadlineExceeded:
    return DeadlineExceeded("the deadline is sooner than an answer can be expected")
