"""How a controller finds what the one before it has left, and leaves what the next one needs.

The children go on without any. What they are, and what was wanted of them, stands in the run file; their wires and the
listening sockets they bring themselves, to the socket that they were told of.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from turnout.core.errors import Failure
from turnout.deploy.kept import Kept
from turnout.deploy.listening import Doors
from turnout.deploy.process import Child, has_ended
from turnout.deploy.remembered import recalled, remembered
from turnout.deploy.rendezvous import Rendezvous
from turnout.deploy.routers import Routers
from turnout.deploy.run_file import Known, RunFile, living, mark_of
from turnout.deploy.spec import ServeSpec
from turnout.deploy.versions import Versions
from turnout.deploy.workers import Workers
from turnout.runtime.wire import Message, Wire

logger = logging.getLogger("turnout")
#: How long to wait for those who should come at once (seconds). Who comes later is welcome too.
_PATIENCE = 1.0
#: For a router, where nobody else has the listening sockets: without them the port is not to be had.
_PATIENCE_WITHOUT_DOORS = 10.0
#: What of a ServeSpec routers were started with: they cannot be told another.
_DOORS = ("host", "routers", "default_deadline", "drain_timeout", "max_body_bytes", "access_log", "model_control")
#: Process id, wire, what a child says that has found this controller, and its listening sockets, if it has any.
#: False: it is nobody's.
OnReturn = Callable[[int, Wire, Message, Doors | None], bool]


@dataclass(eq=False)
class Left:
    """What was found: the run file, the processes of it that still run by name, and what came back of them so far."""

    found: dict[str, Any]
    children: dict[str, Known]
    doors: dict[str, Doors] = field(default_factory=dict)
    returned: list[tuple[int, Wire, Message, Doors | None]] = field(default_factory=list)

    def in_order(self) -> list[tuple[int, Wire, Message, Doors | None]]:
        """What has come back so far: routers last, for they are linked to the workers that are there."""
        return sorted(self.returned, key=lambda one: one[2].get("event") == "joined")

    @property
    def spec(self) -> ServeSpec:
        """What the server before was told to serve."""
        return ServeSpec.from_json(self.found["spec"])


class Succession:
    """Of one controller. `on_return` is asked about each child that comes once all is taken over."""

    def __init__(self, kept: Kept, on_return: OnReturn) -> None:
        self.lifeline: Message = {}
        self._kept = kept
        self._on_return = on_return
        self._left: Left | None = None
        self._file: RunFile | None = None
        self._rendezvous: Rendezvous | None = None
        self._marks: dict[Child, str] = {}
        self._written: dict[str, Any] = {}
        self._soon: asyncio.Handle | None = None
        self._state: Callable[[], dict[str, Any]] | None = None

    async def find(self, spec: ServeSpec) -> Left | None:
        """What another controller of that port has left, and has not been able to end; None where there is nothing.

        Raises OSError where it cannot be gone on from with this spec.
        """
        if not spec.port or sys.platform != "linux":
            return None
        file = RunFile(spec.port)
        if self._kept.lock < 0 and not file.take():
            return None  # a living server's; or nothing can be written
        self._file = file
        found = file.read()
        children = {one.name: one for one in living(found)} if found is not None else {}
        if found is None or not children:
            return None
        self._left = left = Left(found, children)
        if not self._kept.again:
            _check(spec, left)
        left.doors = self.doors()
        self._rendezvous = Rendezvous(file.children, self._hello)
        await self._wait(left)
        return left

    def doors(self) -> dict[str, Doors]:
        """The listening sockets that were kept, by router."""
        return {str(number): doors for number, doors in enumerate(self._kept.pairs())}

    async def _wait(self, left: Left) -> None:
        """Until all have come that need not finish something first, or for a while."""
        began = monotonic()
        while (waited := monotonic() - began) < _PATIENCE_WITHOUT_DOORS:
            come = {pid for pid, *_ in left.returned}
            late = [one for one in left.children.values() if one.pid not in come and not has_ended(one.pidfd)]
            routers = [one for one in late if one.name.startswith("router ")]
            if not routers and not any(one.about["ready"] for one in late):
                return
            if waited > _PATIENCE and (left.doors or not routers):
                return
            await asyncio.sleep(0.002)

    def begin(self, spec: ServeSpec, routers: Routers, state: Callable[[], dict[str, Any]]) -> None:
        """From now on this is the controller of that port: children are told where to come, and all is written down.

        state: gives what the next controller should know. Without a place to write to, nothing outlives this one.
        """
        self._left = None
        if sys.platform != "linux" or self._kept.wire is None:
            return
        if self._file is None:
            self._file = RunFile(spec.port)
            if not self._file.take():
                self._file = None
                logger.warning(
                    "%s cannot be used: if this process is killed, all ends with it", RunFile(spec.port).path
                )
                return
        try:
            if self._rendezvous is None:
                self._rendezvous = Rendezvous(self._file.children, self._hello)
        except OSError as problem:
            logger.warning("if this process is killed, all ends with it: %s", problem)
            self._file.forget()
            self._file = None
            return
        self._state = state
        self.lifeline = {"lifeline": [str(self._file.children), spec.orphan_seconds]}
        self.keep(routers)

    def keep(self, routers: Routers) -> None:
        """Has the listening sockets kept as they are now."""
        if self._file is not None:
            ports = (routers.spec.port, routers.spec.grpc_port)
            self._kept.keep(ports, routers.doors(), self._file.fileno())

    def write(self) -> None:
        """Writes down how things are, before anything is done that cannot be undone."""
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        if self._file is None or self._state is None:
            return
        found = self._state()
        if found == self._written:
            return
        try:
            self._file.write(found)
            self._written = found
        except OSError as problem:
            logger.warning("what the next controller needs cannot be written down: %s", problem)

    def write_soon(self) -> None:
        """The same for what is no harm if it is lost, once for all that happens in this moment."""
        if self._soon is None:
            self._soon = asyncio.get_running_loop().call_soon(self.write)

    def end(self) -> None:
        """No other controller is to come: the port is free for others."""
        self._state = None
        if self._rendezvous is not None:
            self._rendezvous.close()
        if self._file is not None:
            self._file.forget()
            self._file = None
        self._kept.let_go()

    def children(self, workers: Workers, routers: Routers | None) -> list[dict[str, Any]]:
        """All that runs, as the run file has it."""
        found = [
            {**self._child(worker.child), "name": worker.name, "ready": worker.ready, "ever": worker.ever_ready,
             "restarts": worker.restarts, "failures": worker.failures}
            for worker in workers.all if worker.child
        ]  # fmt: skip
        found += [
            {**self._child(router.child), "name": f"router {router.name}", "ready": router.listening,
             "ever": router.ever_listening, "failures": router.failures}
            for router in (routers.all if routers is not None else ()) if router.child
        ]  # fmt: skip
        living_ones = {worker.child for worker in workers.all} | {r.child for r in (routers.all if routers else ())}
        self._marks = {child: mark for child, mark in self._marks.items() if child in living_ones}
        return found

    def _child(self, child: Child) -> dict[str, Any]:
        if child not in self._marks:
            self._marks[child] = mark_of(child.pid)
        return {"pid": child.pid, "mark": self._marks[child], "started": child.started}

    def _hello(self, pid: int, wire: Wire, message: Message, fds: list[int]) -> None:
        said = message.get("said", {})
        doors = None
        if len(fds) == 2:
            doors = (socket.socket(fileno=fds[0]), socket.socket(fileno=fds[1]))
            for door in doors:
                door.setblocking(False)
            fds = []
        left = self._left
        name = "" if left is None else next((one.name for one in left.children.values() if one.pid == pid), "")
        if left is not None and name:
            left.returned.append((pid, wire, said, doors))
            if doors is not None:
                left.doors.setdefault(name.removeprefix("router "), doors)
        elif left is not None or not self._on_return(pid, wire, said, doors):
            logger.warning("a process that nobody knows any more (%d) is told to end", pid)
            with contextlib.suppress(OSError):
                wire.send({"op": "drain" if said.get("event") == "joined" else "stop"})
            wire.close()
        for fd in fds:
            os.close(fd)


def state_of(spec: ServeSpec, versions: Versions, announced: bool) -> dict[str, Any]:
    """What the next controller should know, but for the children."""
    return {
        "spec": spec.to_json(),
        "announced": announced,
        "server": {"pid": os.getppid(), "mark": mark_of(os.getppid())},
        "asked": list(versions.asked),
        "models": [remembered(managed) for managed in versions.models.values()],
    }


def _check(wanted: ServeSpec, left: Left) -> None:
    end = f"end it first: turnout stop --port {wanted.port}"
    try:
        had = left.spec
        for model in left.found["models"]:
            recalled(model)
    except (LookupError, TypeError, ValueError, Failure):
        reason = f"on port {wanted.port} goes on what a server of another release has left; {end}"
        raise OSError(errno.EADDRINUSE, reason) from None
    differing = [name for name in _DOORS if getattr(wanted, name) != getattr(had, name)]
    if wanted.grpc_port not in (0, had.grpc_port):
        differing.append("grpc_port")
    if differing:
        said = ", ".join(f"{name} was {getattr(had, name)!r} and not {getattr(wanted, name)!r}" for name in differing)
        raise OSError(
            errno.EADDRINUSE,
            f"on port {had.port} goes on what a server before has left, and {said}; say the same, or {end}",
        )
