"""How much may be asked: at once and per second, of all callers together and of each."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from time import monotonic

import msgspec

from turnout.core.errors import InvalidInput, RateLimited
from turnout.core.messages import InferRequest, InferResponse
from turnout.core.servable import Servable

#: Who is not told apart, because too many others are.
_OTHERS = "\0others"
#: How long to wait for somebody's answer: nobody knows (seconds).
_SHORT = 0.1


class Limit(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """concurrency: requests on their way at once. rate: requests a second, or rows where `count` is "rows".

    burst: so many may come at once after a pause; as many as one second brings where it is not said.
    """

    concurrency: int | None = None
    rate: float | None = None
    burst: float | None = None
    count: str = "requests"

    def __post_init__(self) -> None:
        """Raises InvalidInput."""
        if self.concurrency is not None and self.concurrency < 1:
            raise InvalidInput("too small", field="concurrency", expected="at least 1", got=str(self.concurrency))
        for name in ("rate", "burst"):
            value = getattr(self, name)
            if value is not None and not 0.0 < value < math.inf:
                raise InvalidInput("not a rate", field=name, expected="a number above 0", got=str(value))
        if self.burst is not None and self.rate is None:
            raise InvalidInput("a burst of what rate?", field="burst", expected="rate beside it", got="no rate")
        if self.count not in ("requests", "rows"):
            raise InvalidInput("cannot be counted", field="count", expected="requests or rows", got=repr(self.count))

    @property
    def capacity(self) -> float:
        """Requests (or rows) that may come at once after a pause."""
        return self.burst if self.burst is not None else max(1.0, self.rate or 1.0)


class LimitsPolicy(Limit, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A limit of all callers together, and one of each: `per_caller`.

    header: what tells callers apart; the authenticated name where it is empty. Who has none is one caller with all
    others that have none. callers: so many are told apart at once; what comes beyond shares one limit.
    """

    per_caller: Limit | None = None
    header: str = ""
    callers: int = 10_000

    def __post_init__(self) -> None:
        """Raises InvalidInput."""
        Limit.__post_init__(self)
        if self.callers < 1:
            raise InvalidInput("too small", field="callers", expected="at least 1", got=str(self.callers))


class Usage:
    """What one limit remembers: requests on their way, and a bucket of tokens that fills with time."""

    __slots__ = ("active", "at", "tokens")

    def __init__(self) -> None:
        self.active = 0
        self.tokens = math.inf  # as many as there may be, until something is taken
        self.at = 0.0

    def wait(self, limit: Limit, cost: float, now: float) -> float:
        """Seconds until so much may be taken; 0 where it may be now. More than a whole burst waits for a full one."""
        if limit.concurrency is not None and self.active >= limit.concurrency:
            return _SHORT
        if limit.rate is None:
            return 0.0
        self._fill(limit, limit.rate, now)
        missing = min(cost, limit.capacity) - self.tokens
        return missing / limit.rate if missing > 1e-9 else 0.0

    def take(self, limit: Limit, cost: float) -> None:
        """One request begins, after `wait` was 0. What it takes beyond what is there is owed."""
        self.active += 1
        if limit.rate is not None:
            self.tokens -= cost

    def idle(self, limit: Limit, now: float) -> bool:
        """Whether forgetting it changes nothing."""
        if limit.rate is not None:
            self._fill(limit, limit.rate, now)
        return not self.active and (limit.rate is None or self.tokens >= limit.capacity)

    def _fill(self, limit: Limit, rate: float, now: float) -> None:
        self.tokens = min(limit.capacity, self.tokens + (now - self.at) * rate)
        self.at = now


class LimitsMemory:
    """What limits remember: of all together, and of each caller, who came last at the end."""

    __slots__ = ("all", "callers", "refused")

    def __init__(self) -> None:
        self.all = Usage()
        self.callers: OrderedDict[str, Usage] = OrderedDict()
        self.refused = 0

    def caller(self, name: str, limit: Limit, most: int, now: float) -> Usage:
        """One caller's usage. Where there are too many, the one who came longest ago makes room, if he owes nothing."""
        callers = self.callers
        found = callers.get(name)
        if found is not None:
            callers.move_to_end(name)
            return found
        if len(callers) >= most:
            oldest = next(iter(callers))
            if not callers[oldest].idle(limit, now):
                return callers.setdefault(_OTHERS, Usage())
            del callers[oldest]
        found = callers[name] = Usage()
        return found


class Limits:
    """Raises RateLimited where the policy does not allow one more request."""

    __slots__ = ("_child", "_clock", "memory", "policy", "refuse_now")

    def __init__(
        self,
        child: Servable,
        policy: LimitsPolicy,
        memory: LimitsMemory | None = None,
        *,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._child = child
        self.policy = policy
        self.memory = memory or LimitsMemory()
        #: Why a request would be refused at this moment, as the child says.
        self.refuse_now = getattr(child, "refuse_now", None)
        self._clock = clock

    def __repr__(self) -> str:
        return f"Limits({', '.join(_said(self.policy)) or 'per caller'}{self._each()})"

    def _each(self) -> str:
        each = self.policy.per_caller
        return f"; each: {', '.join(_said(each))}" if each is not None else ""

    @property
    def children(self) -> Mapping[str, Servable]:
        """Who is asked."""
        return {"": self._child}

    async def infer(self, request: InferRequest) -> InferResponse:
        """The child's answer. Raises RateLimited, and what the child raises."""
        policy, memory = self.policy, self.memory
        now = self._clock()
        each = policy.per_caller
        usage = None
        if each is not None:
            usage = memory.caller(self._caller(request), each, policy.callers, now)
            cost = request.rows if each.count == "rows" else 1
            self._refuse(usage.wait(each, cost, now), "you ask")
        together = request.rows if policy.count == "rows" else 1
        self._refuse(memory.all.wait(policy, together, now), "all callers together ask")
        memory.all.take(policy, together)
        if usage is not None and each is not None:
            usage.take(each, request.rows if each.count == "rows" else 1)
        try:
            return await self._child.infer(request)
        finally:
            memory.all.active -= 1
            if usage is not None:
                usage.active -= 1

    def _refuse(self, wait: float, who: str) -> None:
        if wait:
            self.memory.refused += 1
            raise RateLimited(f"{who} more than this endpoint's limits allow", retry_after=wait)

    def _caller(self, request: InferRequest) -> str:
        context = request.context
        if not self.policy.header:
            return context.caller
        attributes = context.attributes
        return (attributes.header(self.policy.header.lower()) or "") if attributes is not None else ""


def _said(limit: Limit) -> list[str]:
    found = [f"{limit.concurrency} at once"] if limit.concurrency is not None else []
    return [*found, f"{limit.rate:g} {limit.count}/s"] if limit.rate is not None else found
