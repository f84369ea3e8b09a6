"""Requests are also sent to versions whose answers nobody gets: to compare them, at no caller's cost.

The primary is begun first and its answer goes out at once. A shadow runs in a task of its own with a deadline of its
own, few at a time; what it raises, and how long it hangs, nobody sees. Both answers are compared when both are there.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from asyncio import CancelledError
from collections.abc import Callable, Mapping, Sequence
from time import monotonic

import msgspec

from turnout.core.errors import DeadlineExceeded, Failure, Fault, InvalidInput
from turnout.core.messages import InferRequest, InferResponse
from turnout.core.servable import Servable
from turnout.core.signature import Signature
from turnout.core.tensors import byte_size
from turnout.graph.pairs import Comparison, Pair, PairPolicy
from turnout.graph.shadow_record import ShadowCounts, ShadowRecord
from turnout.graph.split import target_of

logger = logging.getLogger("turnout")


class ShadowPolicy(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How much one shadow gets: a share of the requests (percent), and of those only what it can bear.

    max_in_flight, max_bytes: requests, and bytes of their inputs, that it may have at once; others are dropped and
    counted. deadline: seconds after which it is not waited for. compare: how its answers are compared.
    """

    percent: float = 100.0
    max_in_flight: int = 64
    max_bytes: int = 64 << 20
    deadline: float = 10.0
    compare: PairPolicy = PairPolicy()

    def __post_init__(self) -> None:
        if not 0.0 <= self.percent <= 100.0:
            raise InvalidInput("not a share", field="percent", expected="0 to 100", got=str(self.percent))
        for name in ("max_in_flight", "max_bytes"):
            if getattr(self, name) < 1:
                raise InvalidInput("too small", field=name, expected="at least 1", got=str(getattr(self, name)))
        if not 0.0 < self.deadline < math.inf:
            raise InvalidInput("not a duration", field="deadline", expected="above 0 s", got=str(self.deadline))


class ShadowState:
    """What shadows remember while their tree is rebuilt: what became of requests, what is in flight, and chance."""

    __slots__ = ("chance", "closed", "held_bytes", "record", "tasks")

    def __init__(self, seed: int | None = None) -> None:
        self.chance = random.Random(seed)  # noqa: S311  which requests are compared is no secret
        self.record = ShadowRecord()
        self.closed = False
        self.tasks: dict[str, set[asyncio.Task[None]]] = {}
        self.held_bytes: dict[str, int] = {}

    def close(self) -> None:
        """Ends all shadows that are in flight, uncounted, and begins no more."""
        self.closed = True
        for task in [task for tasks in self.tasks.values() for task in tasks]:
            task.cancel()


class Shadow:
    """Answers as `primary` does, and lets the versions `shadows` answer a share of the requests too.

    Requests for which the caller has named a version are left alone, and so are those that the shadow answers anyway.
    """

    def __init__(
        self,
        primary: Servable,
        shadows: Mapping[str, tuple[Servable, ShadowPolicy]],
        state: ShadowState,
        signature: Signature | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Raises InvalidInput for a segment by a column that the signature has not."""
        self._primary = primary
        self._state = state
        self._clock = clock
        self._shadows = [_Mirror(name, *shadow, state, signature, clock) for name, shadow in shadows.items()]

    def __repr__(self) -> str:
        return f"Shadow({' '.join(f'{one.name}={one.policy.percent:g}%' for one in self._shadows)})"

    @property
    def children(self) -> Mapping[str, Servable]:
        return {"primary": self._primary} | {f"shadow {one.name}": one.servable for one in self._shadows}

    async def infer(self, request: InferRequest) -> InferResponse:
        """Raises what the primary raises, and nothing else."""
        chance = self._state.chance.random
        drawn = [one for one in self._shadows if one.policy.percent > chance() * 100.0]
        if not drawn or target_of(request):
            return await self._primary.infer(request)
        # Begun in the loop's next pass: then the primary is in its queue, and it is known which version it is.
        watch = _Watch(request)
        loop = asyncio.get_running_loop()
        loop.call_soon(_begin, drawn, watch)
        clock = self._clock
        begun = clock()
        try:
            response = await self._primary.infer(request)
        except BaseException as problem:
            late = isinstance(problem, CancelledError) and clock() >= request.context.deadline
            watch.ended(DeadlineExceeded("too late") if late else problem, clock() - begun, loop)
            raise
        watch.ended(response, clock() - begun, loop)
        return response


class _Watch:
    """What is known of a request at the primary, and who waits to compare it."""

    __slots__ = ("outcome", "request", "seconds", "variant", "waiting")

    def __init__(self, request: InferRequest) -> None:
        self.request = request
        self.outcome: InferResponse | BaseException | None = None
        self.seconds = 0.0
        self.variant = ""
        self.waiting: list[Callable[[], None]] = []

    @property
    def assigned(self) -> str:
        """The version that the primary's split has chosen, as far as that is known."""
        if self.variant:
            return self.variant
        journey = self.request.context.journey
        if journey is not None and journey.variant:
            return journey.variant
        return self.outcome.version if isinstance(self.outcome, InferResponse) else ""

    @property
    def unfit(self) -> bool:
        """Whether there is nothing to compare: the caller went away, made a mistake, or has named a version."""
        journey, outcome = self.request.context.journey, self.outcome
        if isinstance(outcome, CancelledError | GeneratorExit) or (journey is not None and journey.direct):
            return True
        return isinstance(outcome, Failure) and outcome.fault is Fault.CALLER

    def ended(self, outcome: InferResponse | BaseException, seconds: float, loop: asyncio.AbstractEventLoop) -> None:
        """Takes what the primary came to. Whoever waits for it goes on when the answer is out."""
        self.variant = self.assigned  # what a fallback writes later is not the primary's
        self.outcome, self.seconds = outcome, seconds
        for go_on in self.waiting:
            loop.call_soon(go_on)
        self.waiting.clear()


class _Mirror:
    """One shadow: sends it requests, and brings pairs together."""

    def __init__(
        self,
        name: str,
        servable: Servable,
        policy: ShadowPolicy,
        state: ShadowState,
        signature: Signature | None,
        clock: Callable[[], float],
    ) -> None:
        self.name = name
        self.servable = servable
        self.policy = policy
        self._state = state
        self._clock = clock
        self._comparison = Comparison(policy.compare, signature)
        self._tasks = state.tasks.setdefault(name, set())
        self._complained = False

    @property
    def _counts(self) -> ShadowCounts:
        return self._state.record.count(self.name)

    def begin(self, watch: _Watch) -> None:
        """Sends it the request, unless there is no use in that or it has enough to do."""
        counts = self._counts
        counts.drawn += 1
        if watch.unfit or watch.assigned == self.name or self._state.closed:
            counts.skipped += 1
            return
        held = self._state.held_bytes
        nbytes = byte_size(watch.request.inputs)
        had = held.get(self.name, 0)
        if len(self._tasks) >= self.policy.max_in_flight or (had and had + nbytes > self.policy.max_bytes):
            counts.busy += 1
            return
        counts.sent += 1
        held[self.name] = had + nbytes
        task = asyncio.get_running_loop().create_task(self._run(watch))
        self._tasks.add(task)

        def gone(ended: asyncio.Task[None]) -> None:
            self._tasks.discard(ended)
            held[self.name] -= nbytes

        task.add_done_callback(gone)

    async def _run(self, watch: _Watch) -> None:
        """The shadow's own way: whatever happens on it ends here."""
        task = asyncio.current_task()
        begun = self._clock()
        context = watch.request.context
        request = watch.request._replace(context=context._replace(deadline=begun + self.policy.deadline, journey=None))
        outcome: InferResponse | BaseException
        timer = asyncio.get_running_loop().call_later(self.policy.deadline, task.cancel) if task is not None else None
        try:
            outcome = await self.servable.infer(request)
        except CancelledError:
            if self._state.closed:
                return
            outcome = DeadlineExceeded("the shadow took too long")
        except (Exception, SystemExit) as problem:  # noqa: BLE001  nobody may notice what a shadow does
            outcome = problem
        finally:
            if timer is not None:
                timer.cancel()
        seconds = self._clock() - begun
        counts = self._counts
        if isinstance(outcome, InferResponse):
            counts.answered += 1
        else:
            counts.failed += 1
            counts.late += isinstance(outcome, DeadlineExceeded)
        if watch.outcome is None:
            watch.waiting.append(lambda: self._compare(watch, outcome, seconds))
        else:
            self._compare(watch, outcome, seconds)

    def _compare(self, watch: _Watch, outcome: InferResponse | BaseException, seconds: float) -> None:
        """Adds a pair to what is known; a fault in comparing is a line in the log, once."""
        primary = watch.outcome
        if primary is None or watch.unfit or not watch.assigned:
            self._counts.left += 1
            return
        journey = watch.request.context.journey
        id = (journey.prediction_id if journey is not None else "") or watch.request.context.id
        try:
            pairs = self._state.record.pair(watch.assigned, self.name)
            self._comparison.add(pairs, Pair(watch.request, id, primary, watch.seconds, outcome, seconds))
        except Exception:
            if not self._complained:
                self._complained = True
                logger.exception("answers of %s and of its shadow %s cannot be compared", watch.assigned, self.name)


def _begin(drawn: Sequence[_Mirror], watch: _Watch) -> None:
    for one in drawn:
        one.begin(watch)
