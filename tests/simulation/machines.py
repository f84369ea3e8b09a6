"""What a controller steers, simulated: the workers that load versions, and the routers that send requests to them.

Both listen to the newest controller only: each message has the token of its sender's lease.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from tests.simulation.world import Broken, World
from turnout.deploy.plan import Phase, Routing
from turnout.graph.evidence import Evidence

_REPORT_SECONDS = 0.4
_NO_LATENCY = Evidence().latency


class Listener(Protocol):
    """A controller, as far as workers and routers see it."""

    def workers_said(self, seq: int, token: int, versions: dict[str, Loaded]) -> None: ...

    def router_said(self, number: int, seq: int, said: Shown) -> None: ...


@dataclass(frozen=True)
class Loaded:
    """One version of one endpoint in its workers."""

    endpoint: str
    version: str
    key: str
    phase: Phase


class Workers:
    """Loads and unloads what it is told to, and says again and again what is there."""

    def __init__(self, world: World, listeners: list[Listener]) -> None:
        self.world = world
        self.listeners = listeners
        self.token = 0
        self.versions: dict[str, Loaded] = {}
        self.gone: set[str] = set()
        #: What some router has sent requests to. What became ready unnoticed, while it was given up, is no loss.
        self.used: set[str] = set()
        self._seq = 0
        world.at(0.1, self._report)

    def hello(self, token: int) -> None:
        self.token = max(self.token, token)

    def load(self, token: int, uid: str, endpoint: str, version: str, key: str) -> None:
        if self._is_stale(token) or uid in self.versions or uid in self.gone:
            return
        self.versions[uid] = Loaded(endpoint, version, key, Phase.LOADING)
        self.world.at(self.world.rng.uniform(0.2, 3.0), self._loaded, uid)

    def unload(self, token: int, uid: str) -> None:
        if self._is_stale(token) or uid not in self.versions:
            return
        loaded = self.versions.pop(uid)
        self.gone.add(uid)
        self.world.tell(f"workers: {uid} is gone")
        left = [one for one in self.versions.values() if one.endpoint == loaded.endpoint and one.phase is Phase.READY]
        if loaded.phase is Phase.READY and uid in self.used and not left:
            raise Broken(f"{uid} was unloaded, and nothing is left that could answer for {loaded.endpoint}")

    def keep(self, token: int, uid: str, phase: Phase) -> None:
        if not self._is_stale(token) and uid in self.versions:
            one = self.versions[uid]
            self.versions[uid] = Loaded(one.endpoint, one.version, one.key, phase)

    def _is_stale(self, token: int) -> bool:
        self.token = max(self.token, token)
        return token < self.token

    def _loaded(self, uid: str) -> None:
        if uid in self.versions and self.versions[uid].phase is Phase.LOADING:
            one = self.versions[uid]
            phase = Phase.FAILED if self.world.chance(0.05) else Phase.READY
            self.versions[uid] = Loaded(one.endpoint, one.version, one.key, phase)
            self.world.tell(f"workers: {uid} is {phase.value}")

    def _report(self) -> None:
        self._seq += 1
        for listener in self.listeners:
            self.world.send(listener.workers_said, self._seq, self.token, dict(self.versions))
        self.world.at(_REPORT_SECONDS, self._report)


@dataclass(frozen=True)
class Shown:
    """What a router says of itself. token: the newest controller that it has heard of. mark: of what it was shown.

    life: how often it was started; what was sent to an earlier one does not reach it.
    """

    token: int
    life: int
    mark: tuple[int, int]
    routings: dict[str, Routing]
    evidence: dict[tuple[str, str], Evidence]
    at: float


def weights_of(routing: Routing) -> dict[str, float] | None:
    """The percents in force, None where the guide needs what is not there and whatever is ready answers."""
    guide = routing.guide
    if guide is None or any(name not in routing.versions for name in guide.needs):
        return None
    return dict(guide.endpoint["traffic"])


class Router:
    """Sends requests where it was told last, counts what came of them, and is started again now and then."""

    def __init__(self, world: World, number: int, workers: Workers, listeners: list[Listener]) -> None:
        self.world = world
        self.number = number
        self.workers = workers
        self.listeners = listeners
        self.token = self.life = self._seq = 0
        self._forget()
        world.at(0.1 + 0.05 * number, self._report)

    def _forget(self) -> None:
        self.life += 1
        self.mark = (0, 0)
        self.routings: dict[str, Routing] = {}
        self.evidence: dict[tuple[str, str], Evidence] = {}

    def hello(self, token: int) -> None:
        self.token = max(self.token, token)

    def show(self, life: int, mark: tuple[int, int], routings: dict[str, Routing]) -> None:
        """From now on requests go there. mark: the sender's token, and which of its tellings this is."""
        self.token = max(self.token, mark[0])
        if life != self.life or mark <= self.mark or mark[0] < self.token:
            return
        for name, routing in routings.items():
            self._look(name, routing, self.routings.get(name))
            self.workers.used.update(routing.versions.values())
        self.mark, self.routings = mark, routings
        self.world.tell(f"router {self.number}: {mark} { ({k: weights_of(v) for k, v in routings.items()}) }")

    def _look(self, name: str, routing: Routing, before: Routing | None) -> None:
        weights = weights_of(routing)
        if weights is None:
            if before is not None and weights_of(before) is not None:
                raise Broken(f"{name} was guided, and is not any more: {routing}")
            return
        if not math.isclose(sum(weights.values()), 100.0, abs_tol=1e-6) or min(weights.values()) < 0:
            raise Broken(f"the weights of {name} are {weights}")
        for version, weight in weights.items():
            if weight <= 0:
                continue
            uid = routing.versions.get(version)
            there = self.workers.versions.get(uid or "")
            if there is None or there.phase not in {Phase.READY, Phase.KEPT}:
                raise Broken(f"{name} sends {weight:g} % to {version}, which is {there}")

    def _report(self) -> None:
        if self.world.chance(0.002):
            self.world.tell(f"router {self.number}: started again")
            self._forget()
        self._count()
        self._seq += 1
        said = Shown(self.token, self.life, self.mark, self.routings, dict(self.evidence), self.world.now)
        for listener in self.listeners:
            self.world.send(listener.router_said, self.number, self._seq, said)
        self.world.at(_REPORT_SECONDS, self._report)

    def _count(self) -> None:
        for name, routing in self.routings.items():
            for uid in routing.versions.values():
                if uid not in self.workers.versions:
                    raise Broken(f"router {self.number} sends requests for {name} to {uid}, which is gone")
            for version, weight in (weights_of(routing) or {}).items():
                if weight <= 0:
                    continue
                requests = 2 + int(weight / 4)
                bad = "bad" in routing.versions[version]
                errors = sum(self.world.rng.random() < 0.5 for _ in range(requests)) if bad else 0
                self.evidence[name, version] = _more(self.evidence.get((name, version)), requests, errors)


def _more(before: Evidence | None, requests: int, errors: int) -> Evidence:
    """Another one, as what was reported already must not change; nobody looks at latencies here."""
    found = Evidence.__new__(Evidence)
    found.latency, found.invalid, found.degraded, found.late = _NO_LATENCY, 0, 0, 0
    found.requests = requests + (before.requests if before else 0)
    found.errors = errors + (before.errors if before else 0)
    return found


def total(shown: list[Shown], endpoint: str) -> dict[str, Evidence]:
    """What all routers have counted, by version."""
    found: dict[str, Evidence] = {}
    for one in shown:
        for (name, version), evidence in one.evidence.items():
            if name == endpoint:
                found[version] = found[version].plus(evidence) if version in found else evidence
    return found
