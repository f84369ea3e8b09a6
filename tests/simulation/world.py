"""One clock, one source of chance, one network and one disk: all that a simulated control plane has of the world."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from turnout.deploy.store.failures import StoreUnavailable
from turnout.deploy.store.records import Lease
from turnout.testing.stores import Content, MemoryStore, MemoryTransaction


class Broken(AssertionError):
    """A promise was not kept."""


class Crash(BaseException):
    """The process that was writing is gone."""


@dataclass
class World:
    """Everything that happens, in the order of its time. faults: whether anything may go wrong."""

    seed: int
    faults: bool = True
    now: float = 1_800_000_000.0
    trace: list[str] | None = None
    rng: random.Random = field(init=False)
    _waiting: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = field(default_factory=list)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)

    def chance(self, share: float) -> bool:
        """Whether a fault of this kind happens now."""
        return self.faults and self.rng.random() < share

    def at(self, delay: float, act: Callable[..., None], *arguments: Any) -> None:
        heapq.heappush(self._waiting, (self.now + delay, next(self._numbers), act, arguments))

    def send(self, act: Callable[..., None], *arguments: Any) -> None:
        """Over a network: it may come late, twice, after what was sent later, or never."""
        if self.chance(0.1):
            return
        for _ in range(2 if self.chance(0.05) else 1):
            late = self.rng.uniform(1, 6) if self.chance(0.03) else 0.0
            self.at(late + self.rng.uniform(0.002, 0.1), act, *arguments)

    def run(self, until: float, done: Callable[[], bool] | None = None) -> bool:
        """Lets things happen; True once `done` is."""
        while self._waiting and self._waiting[0][0] <= until:
            self.now, _, act, arguments = heapq.heappop(self._waiting)
            act(*arguments)
            if done is not None and done():
                return True
        self.now = max(self.now, until)
        return done is not None and done()

    def tell(self, words: str) -> None:
        if self.trace is not None:
            self.trace.append(f"{self.now - 1_800_000_000.0:8.3f} {words}")


class SimulatedStore(MemoryStore):
    """Saving may fail before or after it is done, and whoever saves may die before or after it.

    It also looks at each change that is saved: who made it, and whether it fits to what was there.
    """

    def __init__(self, world: World) -> None:
        super().__init__(lambda: world.now)
        self.world = world
        self.lease_shown: Lease | None = None

    def transaction(self, lease: Lease | None = None) -> Any:
        self.lease_shown = lease
        return super().transaction(lease)

    def save(self, content: Content) -> None:
        changed = content.position != self.content.position
        if self.world.chance(0.01):
            raise Crash
        if self.world.chance(0.02):
            raise StoreUnavailable("it was not saved")
        if changed:
            self._look(content)
        super().save(content)
        if self.world.chance(0.01):
            raise Crash
        if self.world.chance(0.02):
            raise StoreUnavailable("it was saved, and nobody was told", uncertain=True)

    def _look(self, content: Content) -> None:
        before = self.content
        newest = max((lease.token for lease, _ in before.leases.values()), default=0)
        if self.lease_shown is None or self.lease_shown.token != newest:
            raise Broken(f"a change was saved under {self.lease_shown}, and token {newest} was given since")
        if content.changes[: len(before.changes)] != before.changes:
            raise Broken("what was in the history has changed")
        pointer = before.current
        for number, change in enumerate(content.changes[len(before.changes) :], len(before.changes) + 1):
            if (change.seq, change.before) != (number, pointer):
                raise Broken(f"the pointer was at {pointer}, and the history says {change}")
            if change.act == "undo" and before.revisions[change.before or 0].parent != change.revision:
                raise Broken(f"an undo did not lead to the parent: {change}")
            pointer = change.revision
        if content.current != pointer or (pointer is not None and pointer not in content.revisions):
            raise Broken(f"the pointer says {content.current}, and the history {pointer}")
        if any(content.revisions[number] != revision for number, revision in before.revisions.items()):
            raise Broken("a revision has changed")


class ForgetfulStore(SimulatedStore):
    """A positive control: now and then it acknowledges what it has not saved."""

    def save(self, content: Content) -> None:
        if content.current != self.content.current and self.world.rng.random() < 0.2:
            return
        super().save(content)


class TrustingTransaction(MemoryTransaction):
    def hold(self, lease: Lease) -> None:
        """Believes everybody."""


class TrustingStore(SimulatedStore):
    """A positive control: it takes changes from whoever once had the lease."""

    def transaction(self, lease: Lease | None = None) -> Any:
        self.lease_shown = lease
        return MemoryStore.transaction(self, None)
