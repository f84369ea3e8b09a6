"""What a controller before this one has left is taken over: models as they were, and the processes that still run."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable
from dataclasses import replace

from turnout.deploy.listening import Doors
from turnout.deploy.managed import Managed
from turnout.deploy.plan import Phase
from turnout.deploy.remembered import recalled
from turnout.deploy.routers import Routers
from turnout.deploy.run_file import Known
from turnout.deploy.spec import ModelSpec, ServeSpec
from turnout.deploy.succession import Left
from turnout.deploy.version import VersionSpec
from turnout.deploy.versions import Versions
from turnout.deploy.workers import Workers
from turnout.runtime.wire import Message, Wire

_RUNNING = {Phase.LOADING, Phase.READY, Phase.KEPT, Phase.DRAINING}


def resume(
    left: Left, spec: ServeSpec, versions: Versions, workers: Workers, routers: Routers, *, again: bool
) -> list[VersionSpec]:
    """Makes all of it what it was; gives the versions that run. What is nobody's is killed.

    again: the same server goes on. Otherwise it was started anew, and where its words are others than those of the
    server before, models that they do not name are unloaded, and models that are to run otherwise are loaded anew.
    """
    same = again or left.spec.models == spec.models
    said = {model.name: model for model in spec.models}
    if same:
        versions.asked = list(left.found["asked"])
    running: list[VersionSpec] = []
    for entry in left.found["models"]:
        managed = recalled(entry)
        name = managed.spec.name
        versions.models[name] = managed
        if not same:
            _forget_what_differs(managed, said.get(name))
        for version in managed.versions.values():
            if version.spec is None or version.phase not in _RUNNING:
                continue
            running.append(version.spec)
            wanted = version.phase is not Phase.DRAINING
            if version.spec.place == "worker":
                workers.resume(version.spec, version.count, left.children, missing=wanted)
            elif wanted:
                routers.load_inline(version.spec)
        routers.show(name, managed.routing)
    routers.resume(left.children)
    _kill(left.children.values())
    return running


def returned(versions: Versions, routers: Routers, pid: int, wire: Wire, said: Message, doors: Doors | None) -> bool:
    """A child has found this controller, with its wire, and says how it is. False for one that is not ours."""
    workers = versions.workers
    if said.get("event") != "joined":
        return workers.returned(pid, wire, said)
    uids = {uid for managed in versions.models.values() for uid in managed.versions}
    alive = {worker.name: worker.child.pid for worker in workers.all if worker.child}
    if not routers.returned(pid, wire, said, doors, uids, alive):
        return False
    for uid in uids:
        versions.connected(uid)
    return True


def _forget_what_differs(managed: Managed, said: ModelSpec | None) -> None:
    if said is None:
        managed.removed = managed.guide is None or managed.removed
    elif said.as_it_runs() != managed.spec.as_it_runs():
        managed.spec = said
        for version in managed.versions.values():  # the same files, and yet another version
            version.found = replace(version.found, key=f"{version.found.key} otherwise")


def _kill(known: Iterable[Known]) -> None:
    for one in known:
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(one.pidfd, signal.SIGKILL)
        os.close(one.pidfd)
