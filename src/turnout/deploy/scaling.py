"""How many replicas a loaded version has, changed while it serves: more of them, or fewer without losing a request."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any

from turnout.core.errors import InvalidInput, NotReady
from turnout.deploy.happenings import Happenings
from turnout.deploy.managed import Version
from turnout.deploy.plan import Phase
from turnout.deploy.versions import Versions
from turnout.deploy.workers import Worker, Workers

Question = Mapping[str, Any]
_LOADED = {Phase.READY, Phase.KEPT}
_MOST = 1024
_LOOK_SECONDS = 0.02


class Scaling:
    """Of one server. Belongs to the running event loop."""

    def __init__(self, versions: Versions, workers: Workers, happenings: Happenings) -> None:
        self._versions = versions
        self._workers = workers
        self._happenings = happenings

    def loaded(self, name: str) -> dict[str, Version]:
        """The versions of a model or endpoint that run in workers, by their names."""
        managed = self._versions.models.get(name)
        versions = managed.versions.values() if managed is not None else ()
        return {one.found.version: one for one in versions if one.phase in _LOADED and _runs_in_workers(one)}

    def ready(self, version: Version) -> bool:
        """Whether all the replicas that it shall have take requests in every router."""
        routers = self._versions.routers
        live = [one for one in self._workers.of(version.uid) if one.ready]
        return routers is not None and sum(routers.have(one.name) for one in live) >= version.count

    def set(self, version: Version, count: int, why: str) -> None:
        """It shall have so many replicas; what serves goes on meanwhile."""
        before, version.replicas = version.count, count
        if before != count:
            said = f"{version.model}@{version.found.version}: {count} replicas (it had {before}): {why}"
            self._happenings.tell("scale", version.model, said, version=version.found.version, replicas=count)
        self._versions.remember()
        self.settle(version)

    def settle(self, version: Version) -> None:
        """Starts what is missing, and lets those that are too many end what they have begun."""
        routers = self._versions.routers
        if version.phase not in _LOADED or not _runs_in_workers(version) or version.spec is None or routers is None:
            return
        self._workers.grow(version.spec, version.count)
        for worker in self._workers.of(version.uid):
            if worker.number >= version.count:
                worker.leaving = True
                routers.leave(worker.name, partial(self._left, version, worker))

    def settle_all(self) -> None:
        """Goes on where a controller before this one was."""
        for managed in self._versions.models.values():
            for version in managed.versions.values():
                self.settle(version)

    def _left(self, version: Version, worker: Worker) -> None:
        self._workers.retire([worker], lambda: self.settle(version))

    async def act(self, question: Question) -> Any:
        """A person says how many replicas a version shall have; without a number, that it is nobody's word any more."""
        name, number = str(question.get("endpoint", "")), str(question.get("version") or "")
        said = question.get("replicas")
        if said is not None and (isinstance(said, bool) or not isinstance(said, int) or not 1 <= said <= _MOST):
            raise InvalidInput(
                "not a count of replicas", field="replicas", expected=f"1 to {_MOST}", got=repr(said)[:60],
                example="turnout scale fraud@v8=3",
            )  # fmt: skip
        version = self._version(name, number)
        before = version.count
        version.by_hand = said is not None
        count = said if said is not None else version.spec.replicas if version.spec is not None else 1
        reason = str(question.get("reason") or "no reason given")[:2000]
        self.set(version, count, f"by {str(question.get('author', 'api'))[:200]}, {reason}")
        await self._settled(version, count)
        title = f"{name}@{version.found.version}"
        text = f"{title}: {count} replica{'s' if count != 1 else ''} (it had {before})"
        return {"model": name, "version": version.found.version, "replicas": count, "before": before, "text": text}

    def _version(self, name: str, number: str) -> Version:
        managed = self._versions.known(name)
        loaded = self.loaded(name)
        default = managed.versions.get(managed.routing.default)
        if not number and managed.guide is None and default is not None:
            number = default.found.version
        if number in loaded:
            return loaded[number]
        there = [one for one in managed.versions.values() if one.found.version == number]
        if there and there[-1].phase in {Phase.PREPARING, Phase.LOADING}:
            raise NotReady(f"{name}@{number} is not loaded yet", retry_after=1.0)
        reason = "it runs in the router itself, which is one place" if there else "not a loaded version"
        raise InvalidInput(
            reason, field="version", expected=" or ".join(loaded) or "a version that runs in workers", got=repr(number),
            example=f"turnout scale {name}@{next(iter(loaded), 'VERSION')}=3",
        )  # fmt: skip

    async def _settled(self, version: Version, count: int) -> None:
        """Returns when all of them take requests, and those that were too many have ended. Raises NotReady."""
        routers = self._versions.routers
        loop = asyncio.get_running_loop()
        until = loop.time() + (routers.spec.load_timeout if routers is not None else 0.0)
        while not self.ready(version) or self._workers.ending(version.uid):
            if version.phase not in _LOADED:
                raise NotReady(f"{version.uid} is not served any more")
            if version.count != count:
                raise NotReady(f"{version.uid} is to have {version.count} replicas by now: somebody else has said so")
            if loop.time() > until:
                ready = sum(one.ready for one in self._workers.of(version.uid))
                raise NotReady(f"{ready} of {count} replicas of {version.uid} are ready; the others are tried again")
            await asyncio.sleep(_LOOK_SECONDS)


def _runs_in_workers(version: Version) -> bool:
    return version.spec is not None and version.spec.place == "worker"
