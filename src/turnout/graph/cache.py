"""Equal requests are answered once: from memory while an answer is fresh, and by one call where many come at once."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

import msgspec

from turnout.core.errors import DeadlineExceeded, Failure, InvalidInput
from turnout.core.messages import InferRequest, InferResponse, Journey, StepTrace
from turnout.core.servable import Servable
from turnout.core.tensors import Array, byte_size, canonical, pack
from turnout.graph.request_value import read

#: Inputs up to so many bytes are their own key: no two different ones are ever taken for equal, and it is quicker.
_AS_IT_IS = 512
#: What an entry takes beside its arrays and its key: measured, roughly (bytes).
_ENTRY_BYTES = 700
#: A refresh that nobody waits for may take so long (seconds).
_REFRESH = 30.0

Key = tuple[Any, ...]
#: What came of a call: the answer and what happened to it, the failure, or nothing because the leader was cancelled.
Landed = tuple[InferResponse, Journey] | Exception | None
logger = logging.getLogger("turnout")


class CachePolicy(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """ttl: seconds for which an answer is fresh. stale: for so much longer it is given on, while a new one is fetched.

    max_bytes: what all answers and their keys may take; who was not asked for longest goes first. vary: header fields
    whose values are part of what makes two requests equal.
    """

    ttl: float = 60.0
    stale: float = 0.0
    max_bytes: int = 64 << 20
    vary: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raises InvalidInput."""
        if not 0.0 < self.ttl < math.inf:
            raise InvalidInput("not a duration", field="ttl", expected="seconds above 0", got=str(self.ttl))
        if not 0.0 <= self.stale < math.inf:
            raise InvalidInput("not a duration", field="stale", expected="0 s or more", got=str(self.stale))
        if self.max_bytes < 1024:
            raise InvalidInput("too small", field="max_bytes", expected="at least 1024", got=str(self.max_bytes))


class Entry:
    """One kept answer, with the variant that it came from and what it takes (bytes)."""

    __slots__ = ("made", "nbytes", "response", "variant")

    def __init__(self, response: InferResponse, variant: str, made: float, nbytes: int) -> None:
        self.response = response
        self.variant = variant
        self.made = made
        self.nbytes = nbytes


class Flight:
    """One call on its way, and those who wait for its answer instead of asking too."""

    __slots__ = ("followers",)

    def __init__(self) -> None:
        self.followers: list[asyncio.Future[Landed]] = []

    def land(self, found: Landed) -> None:
        """Tells the followers: the answer, the failure, or that nobody is on the way any more."""
        for follower in self.followers:
            if not follower.done():
                follower.set_result(found)


class CacheMemory:
    """What a cache remembers: answers by key, who was asked for last at the end, and the calls on their way."""

    def __init__(self) -> None:
        self.entries: OrderedDict[Key, Entry] = OrderedDict()
        self.flights: dict[Key, Flight] = {}
        self.refreshing: set[asyncio.Task[None]] = set()
        self.nbytes = 0
        self.hits = self.misses = self.stale = self.joined = 0

    def __repr__(self) -> str:
        return f"CacheMemory({len(self.entries)} answers, {self.nbytes} bytes, {self.hits} hits, {self.misses} misses)"

    def keep(self, key: Key, entry: Entry, max_bytes: int) -> None:
        """Keeps an answer, in place of the oldest ones where there is no room. One that is too large is not kept."""
        self.forget(key)
        if entry.nbytes > max_bytes:
            return
        self.entries[key] = entry
        self.nbytes += entry.nbytes
        while self.nbytes > max_bytes:
            _, oldest = self.entries.popitem(last=False)
            self.nbytes -= oldest.nbytes

    def forget(self, key: Key) -> None:
        """Keeps the answer no longer, if there is one."""
        gone = self.entries.pop(key, None)
        if gone is not None:
            self.nbytes -= gone.nbytes


class Cache:
    """Answers from memory what was asked before; never what failed, and never what a fallback said.

    digest: what the answers depend on beside the request: the version's digest, or an endpoint's revision. route: of
    an endpoint, which version a request goes to, "" where chance decides; raises what the request would get.
    """

    __slots__ = ("_child", "_clock", "_digest", "_route", "_vary", "memory", "name", "policy")

    def __init__(
        self,
        child: Servable,
        policy: CachePolicy,
        memory: CacheMemory | None = None,
        *,
        digest: str,
        name: str = "",
        route: Callable[[InferRequest], str] | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._child = child
        self.policy = policy
        self.memory = memory or CacheMemory()
        self.name = name
        self._digest = digest
        self._route = route
        self._vary = tuple(read("header", one) for one in policy.vary)
        self._clock = clock

    def __repr__(self) -> str:
        return f"Cache({self.policy.ttl:g} s, {self.policy.max_bytes >> 20} MiB)"

    @property
    def children(self) -> Mapping[str, Servable]:
        """Who is asked for what is not known."""
        return {"": self._child}

    async def infer(self, request: InferRequest) -> InferResponse:
        """The answer, whose arrays are read-only. Raises what the child raises."""
        journey = request.context.journey
        if journey is not None and journey.direct and not journey.variant:
            return await self._child.infer(request)  # of all versions of an endpoint one was named: its own cache knows
        memory, policy = self.memory, self.policy
        started = self._clock()
        key = self.key(request)
        entry = memory.entries.get(key)
        if entry is not None:
            age = started - entry.made
            if age < policy.ttl + policy.stale:
                memory.entries.move_to_end(key)
                fresh = age < policy.ttl
                if fresh:
                    memory.hits += 1
                else:
                    memory.stale += 1
                    self._refresh(key, request)
                if journey is not None:
                    journey.variant = journey.variant or entry.variant
                    self._trace(journey, "hit", started, "" if fresh else f"stale for {age - policy.ttl:.3f} s")
                return entry.response
            memory.forget(key)
        memory.misses += 1
        if journey is not None:
            self._trace(journey, "miss", started, "")
        return await self._miss(key, request)

    def key(self, request: InferRequest) -> Key:
        """What makes two requests equal: inputs, the outputs that are asked for, what the answer depends on beside."""
        inputs = request.inputs
        names = inputs if len(inputs) == 1 else sorted(inputs)
        parts: list[Any] = [self._digest, request.outputs]
        if self._route is not None:
            parts.append(self._route(request))
        if self._vary:
            parts.append(tuple([one(request) for one in self._vary]))
        for name in names:
            array = canonical(inputs[name])
            data = array.tobytes() if array.dtype.kind != "O" else pack(array)
            if len(data) > _AS_IT_IS:
                data = hashlib.sha256(data).digest()
            parts += (name, array.dtype.str, array.shape, bytes(data))
        return tuple(parts)

    async def _miss(self, key: Key, request: InferRequest) -> InferResponse:
        """Leads a call, or follows the one that is on its way; a follower takes the lead where the leader gave up."""
        memory = self.memory
        deadline = request.context.deadline
        while (flight := memory.flights.get(key)) is not None:
            follower: asyncio.Future[Landed] = asyncio.get_running_loop().create_future()
            flight.followers.append(follower)
            memory.joined += 1
            found = await follower
            if isinstance(found, tuple):
                response, theirs = found
                journey = request.context.journey
                if journey is not None:
                    journey.degraded = theirs.degraded
                    journey.variant = journey.variant or theirs.variant
                return response
            if isinstance(found, DeadlineExceeded) and self._clock() < deadline:
                continue  # it was the leader's deadline, not this one's
            if found is not None:
                raise found
        return await self._lead(key, request)

    async def _lead(self, key: Key, request: InferRequest) -> InferResponse:
        memory = self.memory
        flight = memory.flights[key] = Flight()
        context = request.context
        journey = context.journey
        if journey is None:  # only there it can be seen that an answer is degraded
            journey = Journey()
            request = request._replace(context=context._replace(journey=journey))
        landed: Landed = None
        try:
            response = await self._child.infer(request)
            if not journey.degraded:
                response = response._replace(outputs=_sealed(response))
                nbytes = byte_size(response.outputs) + _key_bytes(key) + _ENTRY_BYTES
                memory.keep(key, Entry(response, journey.variant, self._clock(), nbytes), self.policy.max_bytes)
            landed = (response, journey)
            return response
        except Exception as problem:
            landed = problem
            raise
        finally:
            del memory.flights[key]
            flight.land(landed)

    def _refresh(self, key: Key, request: InferRequest) -> None:
        """Fetches a new answer that nobody waits for, unless somebody does so already."""
        memory = self.memory
        if key in memory.flights:
            return
        deadline = monotonic() + _REFRESH
        request = request._replace(context=request.context._replace(deadline=deadline, journey=None))

        async def refresh() -> None:
            try:
                async with asyncio.timeout(_REFRESH):
                    if key not in memory.flights:
                        await self._lead(key, request)
            except (Failure, TimeoutError):
                return  # the stale answer goes on being given, and the next one tries again
            except Exception:
                logger.exception("an answer could not be fetched anew")

        task = asyncio.get_running_loop().create_task(refresh())
        memory.refreshing.add(task)
        task.add_done_callback(memory.refreshing.discard)

    def _trace(self, journey: Journey, outcome: str, started: float, detail: str) -> None:
        if journey.steps is not None:
            journey.steps.append(StepTrace("cache", self.name, outcome, self._clock() - started, detail=detail))


def _sealed(response: InferResponse) -> dict[str, Array]:
    """Copies that nobody can change: the arrays themselves may be parts of a whole batch."""
    found = {}
    for name, array in response.outputs.items():
        copy = array.copy()
        copy.flags.writeable = False
        found[name] = copy
    return found


def _key_bytes(key: Key) -> int:
    return sum([len(part) for part in key if isinstance(part, bytes | str)])
