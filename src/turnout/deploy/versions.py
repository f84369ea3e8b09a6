"""Every version of every model on its way: prepared, loaded, shown, replaced, drained, unloaded.

What to do is decided by `plan` and `route`; this file does it, and remembers what came of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from typing import Any, Protocol

from turnout.core.errors import Failure, ModelNotFound
from turnout.deploy.endpoint_spec import EndpointSpec
from turnout.deploy.managed import Managed, Version, unfit
from turnout.deploy.plan import Action, Guide, Keep, Load, Manner, Phase, Return, Unload, plan
from turnout.deploy.routers import Router, Routers
from turnout.deploy.spec import ModelSpec
from turnout.deploy.supply import Found, Supply
from turnout.deploy.threads import in_thread
from turnout.deploy.uses import places_of
from turnout.deploy.version import VersionSpec, uid_of
from turnout.deploy.watch import delay
from turnout.deploy.workers import Worker, Workers

logger = logging.getLogger("turnout")
#: How many unloaded versions of a model are remembered with what they gave back.
_RECEIPTS = 16


class Listener(Protocol):
    """Who is told how versions fare."""

    def version_ready(self, version: Version) -> None: ...
    def version_failed(self, version: Version) -> None: ...
    def progress(self, version: Version, text: str) -> None: ...
    def changes(self, *, soon: bool = False) -> None: ...


class Versions:
    """All models of a server. Belongs to the running event loop."""

    def __init__(self, supply: Supply, workers: Workers, listener: Listener) -> None:
        self.models: dict[str, Managed] = {}
        #: All that was asked for, in that order, whether it was found yet or not.
        self.asked: list[str] = []
        self.workers = workers
        self.routers: Routers | None = None
        self._supply = supply
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._waiting: list[tuple[str, asyncio.Future[None]]] = []

    def manage(self, spec: ModelSpec, found: list[Found], *, again: bool = False) -> Managed:
        """Says what a model should be; what is served of it becomes that.

        Labels that were moved since stay where they are. again: what could not be loaded is tried once more.
        """
        managed = self.models.get(spec.name)
        if managed is None:
            managed = self.models[spec.name] = Managed(spec, labels=dict(spec.labels))
        if spec.artifact and managed.guide is not None:  # a model takes an endpoint's name
            managed.guide, managed.variants, managed.labels = None, {}, dict(spec.labels)
        managed.spec, managed.found, managed.removed = spec, found, False
        managed.staged, managed.staged_specs = [], {}
        if spec.name not in self.asked:
            self.asked.append(spec.name)
        self._expect()
        if again:
            self._try_again(managed)
        self.reconcile(managed)
        return managed

    def stage(self, name: str, variants: Mapping[str, ModelSpec], found: list[Found]) -> Managed:
        """Loads versions of an endpoint beside those that serve; nobody is sent there yet."""
        managed = self.models.get(name)
        if managed is None:
            managed = self.models[name] = Managed(ModelSpec(name, ""))
        managed.staged, managed.staged_specs = found, variants
        self.reconcile(managed)
        return managed

    def unstage(self, name: str) -> None:
        """What was staged is not wanted after all."""
        managed = self.known(name)
        managed.staged, managed.staged_specs = [], {}
        self.reconcile(managed)

    def guide(self, variants: Mapping[str, ModelSpec], found: list[Found], guide: Guide, keep: int) -> Managed:
        """Says what an endpoint should be: how each of its versions runs, what was found of them, how they are used.

        keep: how many versions that nobody uses any more stay loaded for an instant return.
        """
        name = str(guide.endpoint["name"])
        managed = self.models.get(name)
        spec = ModelSpec(name, "", keep=keep)
        if managed is None:
            managed = self.models[name] = Managed(spec)
        managed.variants, managed.guide = variants, guide
        managed.staged, managed.staged_specs = [], {}
        return self.manage(spec, found)

    def resume(self, managed: Managed) -> None:
        """Goes on with a model as a controller before this one had it; its workers are taken over by now."""
        for version in list(managed.versions.values()):
            if version.phase is Phase.LOADING and self.routers is not None:
                limit = self.routers.spec.load_timeout
                self._loop.call_later(limit, self._late, version, limit)
                self.connected(version.uid)
            elif version.phase is Phase.DRAINING:
                self._drain(managed, version, Phase.READY)
        self.reconcile(managed)

    def remove(self, name: str) -> Managed:
        """Nothing of a model is wanted any more; what is in flight is still answered."""
        managed = self.known(name)
        managed.removed = True
        self._expect()
        self.reconcile(managed)
        return managed

    def declare(self, router: Router) -> None:
        """Tells a router of all that it may be told to show: also of what is just now being started again."""
        for version in [version for managed in self.models.values() for version in managed.versions.values()]:
            there = version.phase in {Phase.READY, Phase.KEPT} and version.description
            if there and version.spec is not None and version.spec.place == "worker":
                router.send({"op": "declare", "spec": version.spec.to_json(), **version.description})

    def known(self, name: str) -> Managed:
        """Raises ModelNotFound."""
        if name not in self.models:
            raise ModelNotFound(f"there is no model {name!r} here; there is {', '.join(self.models) or 'none'}")
        return self.models[name]

    def used_at(self, name: str) -> list[tuple[str, str]]:
        """Where the endpoints that are served use a model: the path in their document, and the version they name."""
        guides = [managed.guide for managed in self.models.values() if managed.guide and not managed.removed]
        return list(places_of(name, [EndpointSpec.from_json(guide.endpoint) for guide in guides]))

    async def settled(self, name: str) -> None:
        """Returns when nothing of a model is under way any more; "" waits only until callers see what is shown."""
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append((name, waiter))
        self.wake()
        await waiter

    def reconcile(self, managed: Managed) -> None:
        """Does what is to be done next for one model, and shows callers what is there."""
        managed.again = True
        if managed.busy:
            return  # one of the actions below has ended at once: the rest of them goes first, then all is seen anew
        managed.busy = True
        try:
            while managed.again:
                managed.again = False
                manner = Manner(managed.spec.swap, managed.spec.keep)
                for action in plan(managed.needed, [v.have for v in managed.versions.values()], manner):
                    self._act(managed, action)
        finally:
            managed.busy = False
        self._show(managed)
        self.wake()

    def _act(self, managed: Managed, action: Action) -> None:
        match action:
            case Load(wanted):
                there = [*managed.found, *managed.staged]
                found = next(one for one in there if (one.version, one.key) == (wanted.version, wanted.key))
                self._load(managed, found)
            case Unload(uid):
                self._unload(managed, managed.versions[uid])
            case Keep(uid):
                managed.versions[uid].move(Phase.KEPT)
            case Return(uid):
                managed.versions[uid].move(Phase.READY)

    def remember(self) -> None:
        """What is meant of a version is other than it was: a controller that comes after this one has to know."""
        self._listener.changes()

    def serves(self, worker: Worker) -> bool:
        """Whether requests should ever come to a worker: not where its version is on its way out."""
        version = None if worker.retired or worker.leaving else self.version_of(worker)
        return version is not None and version.phase in {Phase.LOADING, Phase.READY, Phase.KEPT}

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
            if reason := unfit(managed, version, self.used_at(name)):
                self.failed(version, reason)
                return
            managed.tries = 0
            version.move(Phase.READY)
            self.reconcile(managed)
            self._listener.version_ready(version)

    def failed(self, version: Version, reason: str) -> None:
        """A version cannot be loaded. What serves goes on serving."""
        if version.phase in {Phase.DRAINING, Phase.FAILED}:
            return
        version.move(Phase.FAILED, reason)
        if self.routers is not None:
            self.routers.forget(version.uid)  # some of its replicas may have been linked
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
        spec = managed.spec_of(found)

        def tell(text: str) -> None:
            with contextlib.suppress(RuntimeError):  # the server has ended in the meantime
                self._loop.call_soon_threadsafe(self._progress, version, text)

        preparing = in_thread(self._loop, lambda: self._supply.prepare(spec, found, generation, tell))
        preparing.add_done_callback(lambda done: self._prepared(version, done))

    def _prepared(self, version: Version, done: asyncio.Future[VersionSpec]) -> None:
        problem = done.exception()
        if version.phase is not Phase.PREPARING:  # it was unloaded in the meantime
            self._supply.release(version.uid)
            return
        if problem is not None:
            text = problem.message if isinstance(problem, Failure) else f"{type(problem).__name__}: {problem}"
            self.failed(version, text)
            if isinstance(problem, Failure) and problem.retryable:
                self._try_later(self.models[version.model])
            return
        version.spec = done.result()
        version.digest = version.spec.digest
        version.move(Phase.LOADING)
        if self.routers is not None:
            limit = self.routers.spec.load_timeout
            self._loop.call_later(limit, self._late, version, limit)
        if not version.digest:
            path = version.spec.artifact
            hashing = in_thread(self._loop, lambda: self._supply.digest(path))
            hashing.add_done_callback(lambda ended: self._hashed(version, ended))
        if version.spec.place == "worker":
            self.workers.add(version.spec)
        elif self.routers is not None:
            self.routers.load_inline(version.spec)

    def _late(self, version: Version, limit: float) -> None:
        if version.phase is Phase.LOADING:
            self.failed(version, f"it did not become ready within {limit:g} s")

    def _try_later(self, managed: Managed) -> None:
        """A place that was down when its files were to be fetched is asked again, where somebody looks after it."""
        every = max([managed.spec.watch, *[spec.watch for spec in managed.variants.values()]])
        if every:
            managed.tries += 1
            self._loop.call_later(delay(every, managed.tries), self._try_again, managed)

    def _try_again(self, managed: Managed) -> None:
        for version in [one for one in managed.versions.values() if one.phase is Phase.FAILED]:
            self._unload(managed, version)

    def _hashed(self, version: Version, ended: asyncio.Future[str]) -> None:
        if ended.exception() is None and ended.result():
            version.digest = ended.result()
            managed = self.models.get(version.model)
            if managed is not None and version.uid in managed.versions:
                self._show(managed)  # answers say it too

    def _unload(self, managed: Managed, version: Version) -> None:
        was = version.phase
        version.move(Phase.DRAINING)
        self._listener.changes()
        self._drain(managed, version, was)

    def _drain(self, managed: Managed, version: Version, was: Phase) -> None:
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
                    for forgotten in list(managed.gone)[:-_RECEIPTS]:
                        del managed.gone[forgotten]
            self.reconcile(managed)

        if self.routers is None or was in {Phase.PREPARING, Phase.FAILED}:
            drained()
        else:
            self._show(managed)  # nobody is sent there any more
            self.routers.unload(version.uid, drained)

    def _show(self, managed: Managed) -> None:
        routing = managed.route()
        if routing != managed.routing and self.routers is not None:
            managed.routing = routing
            self._listener.changes()  # before anybody is sent there: it must never be forgotten again
            self.routers.show(managed.spec.name, routing)

    def _expect(self) -> None:
        if self.routers is not None:
            gone = {name for name, managed in self.models.items() if managed.removed}
            self.routers.expect([name for name in self.asked if name not in gone])

    def _progress(self, version: Version, text: str) -> None:
        if version.phase is Phase.PREPARING:
            version.reason = text
            self._listener.progress(version, text)

    def wake(self) -> None:
        """Lets go on who waits for a model whose way has ended, once every router has heard of it."""
        self._listener.changes(soon=True)
        if self.routers is not None and not self.routers.seen:
            return
        left = []
        for name, waiter in self._waiting:
            managed = self.models.get(name)
            if waiter.done():
                continue
            if managed is None or managed.settled:  # no model at all is called ""
                waiter.set_result(None)
            else:
                left.append((name, waiter))
        self._waiting = left
