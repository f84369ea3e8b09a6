"""A second try where it may help: of another replica, or a moment later; never so many that they are the load."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from random import random
from time import monotonic

import msgspec

from turnout.core.errors import CircuitOpen, Failure, Fault, InvalidInput, ModelFailed
from turnout.core.messages import InferRequest, InferResponse, StepTrace
from turnout.core.servable import Servable


class RetryPolicy(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """attempts: tries of one request in all. backoff: seconds before the second one, doubled for each further one; half
    of it is random.

    budget: at most this share of the requests on their way are retries, and at most this share of what was answered is
    spent on them; `minimum` retries need neither. model_failures: a failure of the model itself is
    tried again too, which helps only where replicas differ.
    """

    attempts: int = 2
    backoff: float = 0.0
    budget: float = 0.2
    minimum: int = 3
    model_failures: bool = False

    def __post_init__(self) -> None:
        """Raises InvalidInput."""
        if not 1 <= self.attempts <= 10:
            raise InvalidInput("not a number of tries", field="attempts", expected="1 to 10", got=str(self.attempts))
        if not 0.0 <= self.backoff < math.inf:
            raise InvalidInput("not a duration", field="backoff", expected="0 s or more", got=str(self.backoff))
        if not 0.0 <= self.budget <= 1.0:
            raise InvalidInput("not a share", field="budget", expected="0 to 1", got=str(self.budget))
        if self.minimum < 0:
            raise InvalidInput("too small", field="minimum", expected="0 or more", got=str(self.minimum))


class RetryBudget:
    """What a retry remembers: how many requests and retries are on their way, and what may still be spent.

    Only answers earn: where nothing succeeds, what was saved up (`KEPT` retries at most) is all that is spent.
    """

    KEPT = 10.0
    __slots__ = ("active", "refused", "retries", "retrying", "saved")

    def __init__(self) -> None:
        self.active = 0
        self.retrying = 0
        #: How many were made, and how many the budget did not allow.
        self.retries = 0
        self.refused = 0
        self.saved = 0.0

    def __repr__(self) -> str:
        return f"RetryBudget({self.retrying} of {self.active} on their way, {self.saved:.1f} saved)"

    def may_retry(self, policy: RetryPolicy) -> bool:
        """Whether one of the requests on their way may be tried again."""
        most = max(policy.minimum, policy.budget * self.active)
        return self.retrying < most and self.saved > -policy.minimum

    def earn(self, policy: RetryPolicy) -> None:
        """One request was answered at its first try."""
        saved = self.saved + policy.budget
        self.saved = saved if saved < self.KEPT else self.KEPT  # noqa: FURB136  every request is here

    def spend(self) -> None:
        """One retry begins."""
        self.saved -= 1.0
        self.retries += 1
        self.retrying += 1


def is_worth_a_retry(failure: BaseException, policy: RetryPolicy) -> bool:
    """Whether the same request may succeed at once. An open circuit stays open for longer than that."""
    if not isinstance(failure, Failure) or failure.fault is Fault.CALLER or isinstance(failure, CircuitOpen):
        return False
    return failure.retryable or (policy.model_failures and isinstance(failure, ModelFailed))


class Retry:
    """Asks the child again after a failure that may pass, within the deadline and the budget."""

    __slots__ = ("_child", "_clock", "_random", "memory", "name", "policy")

    def __init__(
        self,
        child: Servable,
        policy: RetryPolicy | None = None,
        memory: RetryBudget | None = None,
        *,
        name: str = "",
        clock: Callable[[], float] = monotonic,
        random: Callable[[], float] = random,
    ) -> None:
        self._child = child
        self.policy = policy or RetryPolicy()
        self.memory = memory or RetryBudget()
        self.name = name
        self._clock = clock
        self._random = random

    def __repr__(self) -> str:
        return f"Retry({self.policy.attempts} attempts, budget {self.policy.budget:.0%})"

    @property
    def children(self) -> Mapping[str, Servable]:
        """Who is asked."""
        return {"": self._child}

    def refuse_now(self, deadline: float = math.inf, rows: int = 1) -> Failure | None:
        """What the child says."""
        ask = getattr(self._child, "refuse_now", None)
        found: Failure | None = ask(deadline, rows) if ask is not None else None
        return found

    async def infer(self, request: InferRequest) -> InferResponse:
        """The child's first good answer. Raises what its last try raised."""
        memory = self.memory
        memory.active += 1
        try:
            response = await self._child.infer(request)
        except Exception as problem:
            if not is_worth_a_retry(problem, self.policy):
                raise
            return await self._again(request, problem)
        else:
            memory.earn(self.policy)
            return response
        finally:
            memory.active -= 1

    async def _again(self, request: InferRequest, problem: Exception) -> InferResponse:
        memory, policy = self.memory, self.policy
        deadline = request.context.deadline
        for number in range(1, policy.attempts):
            pause = policy.backoff * 2.0 ** (number - 1) * (0.5 + 0.5 * self._random())
            if self._clock() + pause >= deadline:
                break
            if not memory.may_retry(policy):
                memory.refused += 1
                break
            memory.spend()
            started = self._clock()
            if isinstance(problem, Failure) and problem.by is not None:
                context = request.context
                request = request._replace(context=context._replace(avoid=(*context.avoid, problem.by)))
            try:
                if pause:
                    await asyncio.sleep(pause)
                response = await self._child.infer(request)
            except Exception as again:  # noqa: BLE001  raised below, unless a further try helps
                self._trace(request, type(again).__name__, started, problem)
                problem = again
                if not is_worth_a_retry(again, policy):
                    break
            else:
                self._trace(request, "answered", started, problem)
                return response
            finally:
                memory.retrying -= 1
        raise problem

    def _trace(self, request: InferRequest, outcome: str, started: float, after: Exception) -> None:
        journey = request.context.journey
        if journey is not None and journey.steps is not None:
            seconds = self._clock() - started
            journey.steps.append(
                StepTrace("retry", self.name, outcome, seconds, detail=f"after {type(after).__name__}")
            )
