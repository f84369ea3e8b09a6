"""Router processes: started with the listening sockets, linked to every worker, told what callers see."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Protocol

from turnout.deploy.departures import Departures
from turnout.deploy.listening import Doors, doors_of
from turnout.deploy.plan import Routing
from turnout.deploy.process import Child, OnEnd, OnMessage
from turnout.deploy.restart import back_off, next_failures
from turnout.deploy.run_file import Known
from turnout.deploy.spec import ServeSpec
from turnout.deploy.version import VersionSpec
from turnout.deploy.workers import Worker
from turnout.runtime.wire import Message, Wire, pair

logger = logging.getLogger("turnout")
ROUTER = "turnout.entrypoints.router"


@dataclass(eq=False)
class Router:
    """One router: its process, its listening sockets, and the replicas it has connected."""

    name: str
    sockets: Doors
    child: Child | None = None
    listening: bool = False
    ever_listening: bool = False
    failures: int = 0
    connected: set[str] = field(default_factory=set)
    unseen: int = 0

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Tells it something, if it is there."""
        if self.child:
            self.child.send(message, fds)


class Listener(Protocol):
    """Who is told about routers."""

    def router_listening(self, router: Router) -> None: ...
    def router_shown(self) -> None: ...
    def router_connected(self, replica: str, said: Message) -> None: ...
    def router_refused(self, uid: str, message: str) -> None: ...
    def router_hung(self, replica: str) -> None: ...
    def router_failed(self, message: str) -> None: ...
    def router_saw(self, router: Router, message: Message) -> None: ...
    def router_asked(self, question: Message, answer: Callable[[Message], None]) -> None: ...
    def router_ended(self) -> None: ...
    def changes(self) -> None: ...


class Routers:
    """All routers of a server. Belongs to the running event loop. Raises OSError if a port is not to be had.

    left: the listening sockets of each, by name, where a controller before this one had them.
    """

    def __init__(self, spec: ServeSpec, listener: Listener, left: Mapping[str, Doors] | None = None) -> None:
        names = [str(number) for number in range(spec.routers)]
        doors = doors_of(spec.host, (spec.port, spec.grpc_port), names, left or {})
        self.spec = spec.with_ports(doors[0][0].getsockname()[1], doors[0][1].getsockname()[1])
        self.all = [Router(name, sockets) for name, sockets in zip(names, doors, strict=True)]
        #: Where children find the next controller, as it goes with the first message to each.
        self.lifeline: Message = {}
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._stopping = False
        self._shown: dict[str, Routing] = {}
        self._expected: list[str] = []
        self._inline: dict[str, VersionSpec] = {}
        self._departures: Departures[Router] = Departures(self._loop)

    @property
    def listening(self) -> bool:
        """Whether all of them accept requests."""
        return all(router.listening for router in self.all)

    @property
    def seen(self) -> bool:
        """Whether all that was shown has reached every router that listens."""
        return not any(router.unseen for router in self.all if router.listening)

    @property
    def alive(self) -> bool:
        """Whether there is any."""
        return any(router.child for router in self.all)

    def start(self) -> None:
        """Starts all that do not run."""
        for router in self.all:
            if router.child is None:
                self._start(router)

    def resume(self, known: dict[str, Known]) -> None:
        """Takes over those that still run, out of `known`."""
        for router in self.all:
            if (one := known.pop(f"router {router.name}", None)) is not None:
                router.failures, router.ever_listening = one.about["failures"], one.about["ever"]
                ears = self._ears(router)
                router.child = Child(one.name, one.pid, one.pidfd, *ears, started=one.about["started"])

    def returned(
        self, pid: int, wire: Wire, said: Message, doors: Doors | None, needed: Container[str], alive: Mapping[str, int]
    ) -> bool:
        """One that was taken over brings its wire, and says what it has. False where there is none of that process.

        doors: its listening sockets. needed: the uids of the versions that it should have; it forgets the others.
        alive: the process of each worker.
        """
        for router in self.all:
            if router.child and router.child.pid == pid and router.child.wire is None:
                router.child.join(wire)
                if doors is not None and doors is not router.sockets:
                    for sock in router.sockets:
                        sock.close()
                    router.sockets = doors
                router.send({"op": "expect", "models": self._expected})
                for replica, process in said["replicas"].items():
                    if process and process != alive.get(replica):
                        router.send({"op": "gone", "replica": replica})
                    else:
                        router.connected.add(replica)
                for uid in said["loaded"]:
                    if uid not in needed:
                        router.send({"op": "unload", "uid": uid})
                for spec in self._inline.values():
                    if spec.uid not in said["loaded"]:
                        router.send({"op": "inline", "spec": spec.to_json()})
                self._listens(router)
                return True
        return False

    def doors(self) -> list[Doors]:
        """The listening sockets of each."""
        return [router.sockets for router in self.all]

    def have(self, replica: str) -> bool:
        """Whether every router has connected that replica."""
        return all(replica in router.connected for router in self.all)

    def link(self, worker: Worker) -> None:
        """Gives every router a way to a worker that is ready."""
        for router in self.all:
            if router.listening:
                self.link_one(router, worker)

    def load_inline(self, spec: VersionSpec) -> None:
        """Has every router load a version into itself; `router_connected` tells of it under its uid."""
        self._inline[spec.uid] = spec
        self._tell({"op": "inline", "spec": spec.to_json()})

    def lost(self, replica: str) -> None:
        """Tells every router that a worker is dead."""
        for router in self.all:
            router.connected.discard(replica)
        self._tell({"op": "gone", "replica": replica})

    def expect(self, models: Sequence[str]) -> None:
        """Says which models must be there for the server to be ready."""
        self._expected = list(models)
        self._tell({"op": "expect", "models": self._expected})

    def show(self, model: str, routing: Routing) -> None:
        """Says what callers see of a model from now on."""
        self._shown[model] = routing
        if not routing.versions:
            del self._shown[model]
        for router in self.all:
            self._show(router, model, routing)

    def unload(self, uid: str, done: Callable[[], None]) -> None:
        """Takes a version out of every router; `done` is called when nothing of it is in flight any more."""
        self.forget(uid)
        self._departures.wait(uid, self._told_of(), done, self.spec.drain_timeout)

    def leave(self, replica: str, done: Callable[[], None]) -> None:
        """Takes one replica out of every router; `done` is called when nothing of it is in flight any more."""
        self._tell({"op": "leave", "replica": replica})
        self._departures.wait(replica, self._told_of(), done, self.spec.drain_timeout)

    def forget(self, uid: str) -> None:
        """Takes a version that callers never saw out of every router; nobody waits for that."""
        self._inline.pop(uid, None)
        self._tell({"op": "unload", "uid": uid})

    def say_status(self, rows: Sequence[Sequence[Any]]) -> None:
        """Gives every router the state of the workers, for the metrics."""
        self._tell({"op": "workers", "workers": rows})

    def drain(self) -> None:
        """Closes the ports, and has every router answer what is in flight and end."""
        self._stopping = True
        for router in self.all:
            for sock in router.sockets:
                sock.close()  # a port is only closed to newcomers when nobody at all holds it open
        self._tell({"op": "drain"})

    def kill(self) -> None:
        """Ends every router at once; none is started again."""
        self._stopping = True
        for router in self.all:
            if router.child:
                router.child.kill()

    def _told_of(self) -> set[Router]:
        """Those that will say when they have let go of something."""
        return {router for router in self.all if router.child and router.listening}

    def _tell(self, message: Message) -> None:
        for router in self.all:
            router.send(message)

    @staticmethod
    def _show(router: Router, model: str, routing: Routing) -> None:
        if router.listening:
            router.unseen += 1
            router.send({"op": "show", "model": model, "routing": routing.to_json()})

    def link_one(self, router: Router, worker: Worker) -> None:
        """Gives one router a way to a worker."""
        if worker.name in router.connected:
            return  # a second link would be a second place
        near, far = pair()
        with near, far:
            if worker.child and router.child:
                worker.child.send({"op": "link"}, [far.fileno()])
                told = {"op": "replica", "spec": worker.spec.to_json(), "replica": worker.name, **worker.description}
                told["pid"] = worker.child.pid
                router.send(told, [near.fileno()])

    def _start(self, router: Router) -> None:
        if self._stopping:
            return

        try:
            router.child = Child.start(f"router {router.name}", ROUTER, *self._ears(router))
        except OSError as problem:
            self._not_started(router, problem)
            return
        self._listener.changes()  # the next controller has to know of it, before it is told anything
        # What is expected goes with the very first message: a router that expects nothing calls itself ready.
        start = {"op": "start", "router": router.name, "spec": self.spec.to_json(), "models": self._expected}
        router.send({**start, **self.lifeline}, [s.fileno() for s in router.sockets])
        for spec in self._inline.values():
            router.send({"op": "inline", "spec": spec.to_json()})

    def _ears(self, router: Router) -> tuple[OnMessage, OnEnd]:
        def on_message(_child: Child, message: Message) -> None:
            self._heard(router, message)

        def on_end(child: Child, how: str) -> None:
            self._ended(router, child, how)

        return on_message, on_end

    def _listens(self, router: Router) -> None:
        router.listening = router.ever_listening = True
        self._listener.router_listening(router)
        for model, routing in self._shown.items():
            self._show(router, model, routing)
        router.send({"op": "open"})  # only now: one that was started again refuses nobody for what it knows not

    def _not_started(self, router: Router, problem: OSError) -> None:
        if not router.ever_listening:
            self._listener.router_failed(f"a router could not be started: {problem.strerror}")
            return
        router.failures += 1
        logger.warning("router %s could not be started again: %s", router.name, problem.strerror)
        self._loop.call_later(back_off(router.failures), self._start, router)

    def _heard(self, router: Router, message: Message) -> None:
        match message["event"]:
            case "listening":
                self._listens(router)
            case "connected":
                router.connected.add(message["replica"])
                model = message["replica"].rpartition("@")[0]
                if model in self._shown:  # what was shown to a router that did not have it yet
                    self._show(router, model, self._shown[model])
                self._listener.router_connected(message["replica"], message)
            case "shown":
                router.unseen -= 1
                self._listener.router_shown()
            case "refused":
                self._listener.router_refused(message["uid"], message["message"])
            case "unloaded":
                self._departures.gone(router, message["uid"])
            case "left":
                router.connected.discard(message["replica"])
                self._departures.gone(router, message["replica"])
            case "failed":
                self._listener.router_failed(message["message"])
            case "hung":
                self._listener.router_hung(message["replica"])
            case "gather":
                self._gather(router, message["id"])
            case "snapshot":
                self._gathered(message)
            case "saw":
                self._listener.router_saw(router, message)
            case "ask":
                asking, number = router.child, message["id"]

                def answer(found: Message) -> None:
                    if asking is not None:  # this process, not one that has taken its place and counts from 1 again
                        asking.send({"op": "answer", "id": number, "answer": found})

                self._listener.router_asked(message["question"], answer)

    def _ended(self, router: Router, child: Child, how: str) -> None:
        router.child = None
        router.listening = False
        router.connected.clear()
        router.unseen = 0
        self._departures.ended(router)
        if self._stopping:
            self._listener.router_ended()
            return
        told = child.wire is not None  # not so where a controller was killed before it came to that
        if told and not router.ever_listening:
            self._listener.router_failed(f"a router ended before it listened ({how})")
            return
        router.failures = next_failures(router.failures, monotonic() - child.started)
        delay = back_off(router.failures)
        logger.warning("router %s ended (%s); it is started again in %.2f s", router.name, how, delay)
        self._loop.call_later(delay, self._start, router)

    def _gather(self, asking: Router, number: int) -> None:
        """A router was asked for the metrics of all: the others are told to give theirs, straight through."""
        others = [r for r in self.all if r is not asking and r.child and r.listening]
        asking.send({"op": "gathering", "id": number, "others": len(others)})
        for other in others:
            other.send({"op": "snapshot", "id": number, "for": asking.name})

    def _gathered(self, message: Message) -> None:
        for router in self.all:
            if router.name == message["for"]:
                router.send({"op": "gathered", "id": message["id"], "snapshot": message["snapshot"]})
