"""A version that keeps failing is left alone for a while: its callers are refused at once, or answered by a fallback.

What counts is what the version did: a caller's mistake, a full queue and a missing worker say nothing of it.
"""

from __future__ import annotations

import math
from asyncio import CancelledError
from collections.abc import Callable, Mapping
from time import monotonic

import msgspec

from turnout.core.errors import CircuitOpen, Failure, Fault, InvalidInput, NotReady, QueueFull
from turnout.core.messages import InferRequest, InferResponse, StepTrace
from turnout.core.servable import Servable

_SLICES = 10
#: A failure of the server that is none of the version: it was never asked.
_NOT_ASKED = (QueueFull, NotReady, CircuitOpen)


class CircuitBreakerPolicy(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """failures: so many in a row open it. ratio: so does this share of the last `window` seconds, of `minimum` requests
    at least; 0 for never.

    slow: an answer that takes longer (seconds) counts as a failure; None for never. open_seconds: how long it stays
    open, twice as long after each probe that fails, up to `max_open_seconds`. probes: requests at once that are let
    through then. successes: so many of them in a row close it.
    """

    failures: int = 5
    ratio: float = 0.5
    window: float = 10.0
    minimum: int = 20
    slow: float | None = None
    open_seconds: float = 1.0
    max_open_seconds: float = 30.0
    probes: int = 1
    successes: int = 1

    def __post_init__(self) -> None:
        """Raises InvalidInput."""
        for name in ("failures", "minimum", "probes", "successes"):
            if getattr(self, name) < 1:
                raise InvalidInput("too small", field=name, expected="at least 1", got=str(getattr(self, name)))
        for name in ("window", "open_seconds", "max_open_seconds", "slow"):
            seconds = getattr(self, name)
            if seconds is not None and not 0.0 < seconds < math.inf:
                raise InvalidInput("not a duration", field=name, expected="seconds above 0", got=str(seconds))
        if not 0.0 <= self.ratio <= 1.0:
            raise InvalidInput("not a share", field="ratio", expected="0 to 1", got=str(self.ratio))
        if self.max_open_seconds < self.open_seconds:
            raise InvalidInput(
                "shorter than open_seconds",
                field="max_open_seconds",
                expected=f"at least {self.open_seconds:g}",
                got=f"{self.max_open_seconds:g}",
            )


class Circuit:
    """What a breaker remembers, and the decision: functions of this state, the policy and the time (monotonic seconds).

    `state` is "closed", "open" or "half-open"; `opened` counts how often it was opened.
    """

    __slots__ = ("_bad", "_good", "_slice_ends", "_times", "in_a_row", "opened", "probing", "state", "until")

    def __init__(self) -> None:
        self.state = "closed"
        self.opened = 0
        #: When it becomes half-open; while half-open, until when its probes are waited for.
        self.until = 0.0
        #: Failures in a row while closed, successes in a row while half-open.
        self.in_a_row = 0
        #: Probes on their way.
        self.probing = 0
        self._times = 0
        self._slice_ends = -math.inf
        self._good = [0] * _SLICES
        self._bad = [0] * _SLICES

    def __repr__(self) -> str:
        return f"Circuit({self.state}, {self.in_a_row} in a row, {sum(self._bad)} of {self.seen} bad)"

    @property
    def seen(self) -> int:
        """Requests that count in the window."""
        return sum(self._bad) + sum(self._good)

    def admit(self, policy: CircuitBreakerPolicy, now: float) -> bool:
        """Whether one more request may pass. While half-open that is a probe, which must come to an end."""
        if self.state == "closed":
            return True
        if self.state == "open":
            if now < self.until:
                return False
            self.state, self.in_a_row, self.probing = "half-open", 0, 0
        if self.probing >= policy.probes and now < self.until:
            return False
        self.probing += 1
        self.until = now + policy.open_seconds  # a probe that never ends must not keep the circuit half-open for ever
        return True

    def succeeded(self, policy: CircuitBreakerPolicy, now: float, *, probe: bool) -> None:
        """One request was answered well."""
        if self.state == "closed":
            self.in_a_row = 0
            if now >= self._slice_ends:
                self._turn(policy, now)
            self._good[0] += 1
        elif probe and self.state == "half-open":
            self.probing = max(0, self.probing - 1)
            self.in_a_row += 1
            if self.in_a_row >= policy.successes:
                self._close()

    def failed(self, policy: CircuitBreakerPolicy, now: float, *, probe: bool) -> None:
        """One request failed, or was too slow."""
        if probe:
            if self.state == "half-open":
                self._open(policy, now)
            return
        if self.state != "closed":
            return  # it began before: nothing new
        self.in_a_row += 1
        if now >= self._slice_ends:
            self._turn(policy, now)
        self._bad[0] += 1
        if self.in_a_row >= policy.failures or self._ratio_is_over(policy):
            self._open(policy, now)

    def passed(self, *, probe: bool) -> None:
        """One request ended in a way that says nothing."""
        if probe and self.state == "half-open":
            self.probing = max(0, self.probing - 1)

    def _ratio_is_over(self, policy: CircuitBreakerPolicy) -> bool:
        seen = self.seen
        return bool(policy.ratio) and seen >= policy.minimum and sum(self._bad) >= policy.ratio * seen

    def _open(self, policy: CircuitBreakerPolicy, now: float) -> None:
        self.until = now + min(policy.open_seconds * 2.0**self._times, policy.max_open_seconds)
        self._times = min(self._times + 1, 30)
        self.state = "open"
        self.opened += 1
        self.probing = self.in_a_row = 0

    def _close(self) -> None:
        self.state = "closed"
        self.in_a_row = self.probing = self._times = 0
        self._slice_ends = -math.inf
        self._good = [0] * _SLICES
        self._bad = [0] * _SLICES

    def _turn(self, policy: CircuitBreakerPolicy, now: float) -> None:
        """Begins a new tenth of the window, and forgets those that have left it."""
        length = policy.window / _SLICES
        gone = _SLICES
        if self._slice_ends > -math.inf:
            gone = min(_SLICES, int((now - self._slice_ends) / length) + 1)
        self._good = [0] * gone + self._good[: _SLICES - gone]
        self._bad = [0] * gone + self._bad[: _SLICES - gone]
        self._slice_ends = now + length


class CircuitBreaker:
    """Raises CircuitOpen instead of asking a child that has failed too often."""

    __slots__ = ("_child", "_clock", "_slow", "memory", "name", "policy")

    def __init__(
        self,
        child: Servable,
        policy: CircuitBreakerPolicy | None = None,
        memory: Circuit | None = None,
        *,
        name: str = "",
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._child = child
        self.policy = policy or CircuitBreakerPolicy()
        self.memory = memory or Circuit()
        self.name = name
        self._slow = math.inf if self.policy.slow is None else self.policy.slow
        self._clock = clock

    def __repr__(self) -> str:
        return f"CircuitBreaker({self.memory.state}, opens after {self.policy.failures} failures)"

    @property
    def children(self) -> Mapping[str, Servable]:
        """Who is asked."""
        return {"": self._child}

    def refuse_now(self, deadline: float = math.inf, rows: int = 1) -> Failure | None:
        """Why a request would be refused at this moment: the circuit is open, or the child says so."""
        memory = self.memory
        if memory.state == "open" and (now := self._clock()) < memory.until:
            return self._refusal(now)
        ask = getattr(self._child, "refuse_now", None)
        found: Failure | None = ask(deadline, rows) if ask is not None else None
        return found

    async def infer(self, request: InferRequest) -> InferResponse:
        """The child's answer. Raises CircuitOpen, and what the child raises."""
        memory, policy, clock = self.memory, self.policy, self._clock
        probe = memory.state != "closed"
        # To ask for the time is a good part of what this costs.
        started = clock() if probe or self._slow < math.inf else -math.inf
        if probe and not memory.admit(policy, started):
            refused = self._refusal(started)
            journey = request.context.journey
            if journey is not None and journey.steps is not None:
                journey.steps.append(StepTrace("circuit_breaker", self.name, "CircuitOpen", 0.0, detail=memory.state))
            raise refused
        try:
            response = await self._child.infer(request)
        except CancelledError:
            now = clock()
            if now >= request.context.deadline:  # whoever gives up on time does not do it for nothing
                memory.failed(policy, now, probe=probe)
            else:
                memory.passed(probe=probe)
            raise
        except Exception as problem:
            if isinstance(problem, Failure) and (problem.fault is Fault.CALLER or isinstance(problem, _NOT_ASKED)):
                memory.passed(probe=probe)
            else:
                memory.failed(policy, clock(), probe=probe)
            raise
        except BaseException:
            memory.passed(probe=probe)
            raise
        now = clock()
        if self._slow < now - started < math.inf:
            memory.failed(policy, now, probe=probe)
        else:
            memory.succeeded(policy, now, probe=probe)
        return response

    def _refusal(self, now: float) -> CircuitOpen:
        left = max(0.0, self.memory.until - now)
        return CircuitOpen("this version has failed too often and is left alone for a while", retry_after=left)
