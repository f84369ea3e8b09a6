"""Every version of every model on its way: prepared, loaded, shown, replaced, drained, unloaded.

What to do is decided by `plan` and `route`; this file does it, and remembers what came of it.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Protocol

from turnout.core.errors import Failure, ModelNotFound
from turnout.deploy.plan import Have, Keep, Load, Manner, Phase, Return, Routing, Unload, Wanted, plan, route
from turnout.deploy.policy import age
from turnout.deploy.routers import Routers
from turnout.deploy.spec import ModelSpec
from turnout.deploy.supply import Found, Supply
from turnout.deploy.threads import in_thread
from turnout.deploy.version import VersionSpec, uid_of
from turnout.deploy.workers import Worker, Workers

logger = logging.getLogger("turnout")


@dataclass(eq=False)
class Version:
    """One version of one model, from the wish to have it until it is gone."""

    uid: str
    model: str
    found: Found
    generation: int
    phase: Phase = Phase.PREPARING
    reason: str = ""
    spec: VersionSpec | None = None
    digest: str = ""
    description: dict[str, Any] = field(default_factory=dict)
    since: float = field(default_factory=monotonic)

    @property
    def have(self) -> Have:
        """As the plan sees it."""
        return Have(self.uid, self.found.version, self.found.key, self.phase)


@dataclass(eq=False)
class Managed:
    """One model: what the user said, what was found, and what is made of it."""

    spec: ModelSpec
    found: list[Found] = field(default_factory=list)
    versions: dict[str, Version] = field(default_factory=dict)
    routing: Routing = field(default_factory=Routing)
    labels: dict[str, str] = field(default_factory=dict)
    generations: dict[str, int] = field(default_factory=dict)
    gone: dict[str, str] = field(default_factory=dict)
    removed: bool = False

    @property
    def wanted(self) -> list[Wanted]:
        """As the plan sees it."""
        return [] if self.removed else [Wanted(found.version, found.key) for found in self.found]

    @property
    def settled(self) -> bool:
        """Whether nothing is under way."""
        moving = {Phase.PREPARING, Phase.LOADING, Phase.DRAINING}
        return not any(version.phase in moving for version in self.versions.values())


class Listener(Protocol):
    """Who is told how versions fare."""

    def version_ready(self, version: Version) -> None: ...
    def version_failed(self, version: Version) -> None: ...
    def progress(self, version: Version, text: str) -> None: ...


class Versions:
    """All models of a server. Belongs to the running event loop."""

    def __init__(self, supply: Supply, workers: Workers, listener: Listener) -> None:
        self.models: dict[str, Managed] = {}
        self.workers = workers
        self.routers: Routers | None = None
        self._supply = supply
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._waiting: list[tuple[str, asyncio.Future[None]]] = []

    def manage(self, spec: ModelSpec, found: list[Found]) -> Managed:
        """Says what a model should be; what is served of it becomes that."""
        managed = self.models.get(spec.name)
        if managed is None:
            managed = self.models[spec.name] = Managed(spec)
        managed.spec, managed.found, managed.removed = spec, found, False
        managed.labels = dict(spec.labels)
        self._expect()
        self.reconcile(managed)
        return managed

    def remove(self, name: str) -> Managed:
        """Nothing of a model is wanted any more; what is in flight is still answered."""
        managed = self.known(name)
        managed.removed = True
        self._expect()
        self.reconcile(managed)
        return managed

    def known(self, name: str) -> Managed:
        """Raises ModelNotFound."""
        if name not in self.models:
            raise ModelNotFound(f"there is no model {name!r} here; there is {', '.join(self.models) or 'none'}")
        return self.models[name]

    async def settled(self, name: str) -> None:
        """Returns when nothing of a model is under way any more."""
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append((name, waiter))
        self.wake()
        await waiter

    def reconcile(self, managed: Managed) -> None:
        """Does what is to be done next for one model, and shows callers what is there."""
        manner = Manner(managed.spec.swap, managed.spec.keep)
        for action in plan(managed.wanted, [v.have for v in managed.versions.values()], manner):
            match action:
                case Load(wanted):
                    found = next(f for f in managed.found if (f.version, f.key) == (wanted.version, wanted.key))
                    self._load(managed, found)
                case Unload(uid):
                    self._unload(managed, managed.versions[uid])
                case Keep(uid):
                    self._move(managed.versions[uid], Phase.KEPT)
                case Return(uid):
                    self._move(managed.versions[uid], Phase.READY)
        self._show(managed)
        self.wake()

    def version_of(self, worker: Worker) -> Version | None:
        """The version a worker runs, if it is still wanted in any way."""
        managed = self.models.get(worker.spec.name)
        return managed.versions.get(worker.spec.uid) if managed else None

    def connected(self, uid: str, description: dict[str, Any] | None = None) -> None:
        """Looks whether a version is ready: every replica of it connected to every router."""
        name = uid.rpartition("@")[0]
        managed = self.models.get(name)
        version = managed.versions.get(uid) if managed else None
        if managed is None or version is None or version.phase is not Phase.LOADING or self.routers is None:
            return
        if version.spec is None:
            return
        workers = self.workers.of(uid)
        replicas = [worker.name for worker in workers] or [uid]
        if all(self.routers.have(replica) for replica in replicas):
            version.description = description or dict(workers[0].description)
            self._move(version, Phase.READY)
            self.reconcile(managed)
            self._listener.version_ready(version)

    def failed(self, version: Version, reason: str) -> None:
        """A version cannot be loaded. What serves goes on serving."""
        if version.phase in {Phase.DRAINING, Phase.FAILED}:
            return
        self._move(version, Phase.FAILED, reason)
        self.workers.retire(self.workers.of(version.uid), lambda: None)
        self.reconcile(self.models[version.model])
        self._listener.version_failed(version)

    # -- the acts -----------------------------------------------------------------------------------------

    def _load(self, managed: Managed, found: Found) -> None:
        name = managed.spec.name
        generation = managed.generations.get(found.version, 0) + 1
        managed.generations[found.version] = generation
        version = Version(uid_of(name, found.version, generation), name, found, generation)
        managed.versions[version.uid] = version
        managed.gone.pop(found.version, None)
        spec = managed.spec

        def tell(text: str) -> None:
            self._loop.call_soon_threadsafe(self._progress, version, text)

        preparing = in_thread(self._loop, lambda: self._supply.prepare(spec, found, generation, tell))
        preparing.add_done_callback(lambda done: self._prepared(version, done))

    def _prepared(self, version: Version, done: asyncio.Future[VersionSpec]) -> None:
        if version.phase is not Phase.PREPARING:
            return
        problem = done.exception()
        if problem is not None:
            text = problem.message if isinstance(problem, Failure) else f"{type(problem).__name__}: {problem}"
            self.failed(version, text)
            return
        version.spec = done.result()
        version.digest = version.spec.digest
        self._move(version, Phase.LOADING)
        if not version.digest:
            path = version.spec.artifact
            hashing = in_thread(self._loop, lambda: self._supply.digest(path))
            hashing.add_done_callback(lambda ended: self._hashed(version, ended))
        if version.spec.place == "worker":
            self.workers.add(version.spec)
        elif self.routers is not None:
            self.routers.load_inline(version.spec)

    def _hashed(self, version: Version, ended: asyncio.Future[str]) -> None:
        if ended.exception() is None:
            version.digest = ended.result()

    def _unload(self, managed: Managed, version: Version) -> None:
        was = version.phase
        self._move(version, Phase.DRAINING)
        before = sum(worker.memory for worker in self.workers.of(version.uid))

        def drained() -> None:
            self.workers.retire(self.workers.of(version.uid), ended)

        def ended() -> None:
            del managed.versions[version.uid]
            self._supply.release(version.uid)
            receipt = f"unloaded; {before / 2**20:.1f} MiB given back" if before else "unloaded"
            if was is not Phase.FAILED:
                logger.info("%s@%s is %s", version.model, version.found.version, receipt)
                if not any(v.found.version == version.found.version for v in managed.versions.values()):
                    managed.gone[version.found.version] = receipt
            self.reconcile(managed)

        if self.routers is None or was in {Phase.PREPARING, Phase.FAILED}:
            drained()
        else:
            self._show(managed)  # nobody is sent there any more
            self.routers.unload(version.uid, drained)

    def _move(self, version: Version, phase: Phase, reason: str = "") -> None:
        version.phase, version.reason, version.since = phase, reason, monotonic()

    def _show(self, managed: Managed) -> None:
        have = [version.have for version in managed.versions.values()]
        routing = route(managed.wanted, have, managed.labels, managed.routing)
        if routing != managed.routing and self.routers is not None:
            managed.routing = routing
            self.routers.show(managed.spec.name, routing)

    def _expect(self) -> None:
        if self.routers is not None:
            self.routers.expect([name for name, managed in self.models.items() if not managed.removed])

    def _progress(self, version: Version, text: str) -> None:
        version.reason = text
        self._listener.progress(version, text)

    def wake(self) -> None:
        """Lets go on who waits for a model whose way has ended, once every router has heard of it."""
        if self.routers is not None and not self.routers.seen:
            return
        left = []
        for name, waiter in self._waiting:
            managed = self.models.get(name)
            if waiter.done():
                continue
            if managed is None or managed.settled:
                waiter.set_result(None)
            else:
                left.append((name, waiter))
        self._waiting = left


def by_age(managed: Managed) -> list[Version]:
    """The versions of a model, oldest first."""
    return sorted(managed.versions.values(), key=lambda version: (age(version.found.version), version.generation))
