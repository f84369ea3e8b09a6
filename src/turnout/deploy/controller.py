"""The controller: starts routers and workers, links each to each, restarts what dies, stops it all in order.

It touches no request: while it does nothing, routers and workers serve.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from turnout.deploy.listening import listen_shared
from turnout.deploy.process import Child
from turnout.deploy.restart import back_off, next_failures
from turnout.deploy.spec import ModelSpec, ServeSpec
from turnout.monitoring.process import resident_bytes
from turnout.runtime.wire import Message, pair

logger = logging.getLogger("turnout")
WORKER = "turnout.entrypoints.worker"
ROUTER = "turnout.entrypoints.router"
_STATUS_SECONDS = 1.0
_LAST_WORDS = 1.0


@dataclass(eq=False)
class Worker:
    """One replica: which model, which process, and what it has said."""

    spec: ModelSpec
    name: str
    child: Child | None = None
    ready: bool = False
    ever_ready: bool = False
    failures: int = 0
    restarts: int = 0
    description: dict[str, Any] = field(default_factory=dict)

    @property
    def state(self) -> str:
        """STARTING, READY or FAILED (waiting to be started again)."""
        return "READY" if self.ready else "STARTING" if self.child else "FAILED"


@dataclass(eq=False)
class Router:
    """One router: its process, its listening sockets, and the replicas it has connected."""

    name: str
    sockets: tuple[socket.socket, socket.socket]
    child: Child | None = None
    listening: bool = False
    ever_listening: bool = False
    failures: int = 0
    connected: set[str] = field(default_factory=set)
    models: dict[str, dict[str, Any]] = field(default_factory=dict)


class Controller:
    """Runs one ServeSpec. `announce` is called once, when everything is ready, with what is served."""

    def __init__(self, spec: ServeSpec, announce: Callable[[ServeSpec, dict[str, dict[str, Any]]], None]) -> None:
        self.spec = spec
        self._announce = announce
        self._announced = False
        self._stopping = False
        self._dismissed = False
        self._exit: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._loop = asyncio.get_running_loop()
        self.workers = [
            Worker(model, f"{model.name}@{model.version}#{number}")
            for model in spec.models
            if model.place == "worker"
            for number in range(model.replicas)
        ]
        self.routers: list[Router] = []
        self.failure = ""

    async def run(self) -> int:
        """Serves until told to stop; returns the process's exit code. Raises OSError if a port is not to be had."""
        limit = self._loop.call_later(self.spec.load_timeout, self._load_timed_out)
        status = asyncio.ensure_future(self._tell_status())
        try:
            for worker in self.workers:  # first, for they take longest
                self._start_worker(worker)
            http, grpc = self._listen()
            self.spec = self.spec.with_ports(http[0].getsockname()[1], grpc[0].getsockname()[1])
            self.routers = [Router(str(i), pair_of) for i, pair_of in enumerate(zip(http, grpc, strict=True))]
            for router in self.routers:
                self._start_router(router)
            return await self._exit
        finally:
            limit.cancel()
            status.cancel()
            self.kill()

    def stop(self) -> None:
        """Drains and ends; called again, it ends at once."""
        if self._stopping:
            self._finish(1)
            return
        self._stopping = True
        for router in self.routers:
            for sock in router.sockets:
                sock.close()  # a port is only closed to newcomers when nobody at all holds it open
            if router.child:
                router.child.send({"op": "drain"})
        self._loop.call_later(self.spec.drain_timeout + 1.0, self._finish, 1)
        self._when_drained()

    def kill(self) -> None:
        """Ends every child at once."""
        for child in [worker.child for worker in self.workers] + [router.child for router in self.routers]:
            if child:
                child.kill()

    def _finish(self, code: int) -> None:
        if not self._exit.done():
            self._exit.set_result(code)

    def _fail(self, message: str) -> None:
        self.failure = message
        self._stopping = True
        self._finish(1)

    def _load_timed_out(self) -> None:
        if not self._announced:
            late = ", ".join(w.name for w in self.workers if not w.ready) or "a router"
            self._fail(f"{late} did not become ready within {self.spec.load_timeout:g} s")

    def _listen(self) -> tuple[list[socket.socket], list[socket.socket]]:
        spec = self.spec
        return listen_shared(spec.host, spec.port, spec.routers), listen_shared(spec.host, spec.grpc_port, spec.routers)

    # -- workers ------------------------------------------------------------------------------------------

    def _start_worker(self, worker: Worker) -> None:
        if self._stopping:
            return
        worker.ready = False

        def on_message(_child: Child, message: Message) -> None:
            self._on_worker(worker, message)

        def on_end(child: Child, how: str) -> None:
            self._worker_ended(worker, child, how)

        worker.child = Child(worker.name, WORKER, on_message, on_end, worker.spec.threads)
        worker.child.send({"op": "load", "spec": worker.spec.to_json()})

    def _on_worker(self, worker: Worker, message: Message) -> None:
        if message["event"] == "failed":
            if not worker.ever_ready:
                self._fail(f"{worker.spec.name}: {message['message']}")
                return
            logger.error("worker %s could not load its model: %s", worker.name, message["message"])
        elif message["event"] == "ready":
            worker.ready = worker.ever_ready = True
            worker.description = {k: message[k] for k in ("format", "signature", "measured")}
            for router in self.routers:
                if router.listening:
                    self._link(router, worker)

    def _worker_ended(self, worker: Worker, child: Child, how: str) -> None:
        worker.child = None
        worker.ready = False
        for router in self.routers:
            router.connected.discard(worker.name)
            if router.child:
                router.child.send({"op": "gone", "replica": worker.name})
        if self._stopping:
            self._when_drained()
            return
        if not worker.ever_ready:
            self._fail(f"{worker.spec.name}: the process that loaded it ended early ({how})")
            return
        worker.failures = next_failures(worker.failures, monotonic() - child.started)
        worker.restarts += 1
        delay = back_off(worker.failures)
        logger.warning("worker %s ended (%s); it is started again in %.2f s", worker.name, how, delay)
        self._loop.call_later(delay, self._start_worker, worker)

    def _link(self, router: Router, worker: Worker) -> None:
        near, far = pair()
        with near, far:
            if worker.child and router.child:
                worker.child.send({"op": "link"}, [far.fileno()])
                router.child.send(
                    {"op": "replica", "model": worker.spec.name, "replica": worker.name, **worker.description},
                    [near.fileno()],
                )

    # -- routers ------------------------------------------------------------------------------------------

    def _start_router(self, router: Router) -> None:
        if self._stopping:
            return

        def on_message(_child: Child, message: Message) -> None:
            self._on_router(router, message)

        def on_end(child: Child, how: str) -> None:
            self._router_ended(router, child, how)

        router.child = Child(f"router {router.name}", ROUTER, on_message, on_end)
        router.child.send(
            {"op": "start", "router": router.name, "spec": self.spec.to_json()}, [s.fileno() for s in router.sockets]
        )

    def _on_router(self, router: Router, message: Message) -> None:
        event = message["event"]
        if event == "listening":
            router.listening = router.ever_listening = True
            router.models.update(message["models"])
            for worker in self.workers:
                if worker.ready:
                    self._link(router, worker)
            self._when_ready()
        elif event == "connected":
            router.connected.add(message["replica"])
            self._when_ready()
        elif event == "failed":
            self._fail(message["message"])
        elif event == "hung":
            self._kill_worker(message["replica"])
        elif event == "gather":
            self._gather(router, message["id"])
        elif event == "snapshot":
            self._gathered(router, message)

    def _router_ended(self, router: Router, child: Child, how: str) -> None:
        router.child = None
        router.listening = False
        router.connected.clear()
        if self._stopping:
            self._when_drained()
            return
        if not router.ever_listening:
            self._fail(f"a router ended before it listened ({how})")
            return
        router.failures = next_failures(router.failures, monotonic() - child.started)
        delay = back_off(router.failures)
        logger.warning("router %s ended (%s); it is started again in %.2f s", router.name, how, delay)
        self._loop.call_later(delay, self._start_router, router)

    def _kill_worker(self, name: str) -> None:
        for worker in self.workers:
            if worker.name == name and worker.child:
                logger.warning("worker %s does not answer and is killed", name)
                worker.child.kill()

    def _gather(self, asking: Router, number: int) -> None:
        """A router was asked for the metrics of all: the others are told to give theirs, straight through."""
        others = [r for r in self.routers if r is not asking and r.child and r.listening]
        if asking.child:
            asking.child.send({"op": "gathering", "id": number, "others": len(others)})
        for other in others:
            if other.child:
                other.child.send({"op": "snapshot", "id": number, "for": asking.name})

    def _gathered(self, _giving: Router, message: Message) -> None:
        for router in self.routers:
            if router.name == message["for"] and router.child:
                router.child.send({"op": "gathered", "id": message["id"], "snapshot": message["snapshot"]})

    # -- all of them --------------------------------------------------------------------------------------

    def _when_ready(self) -> None:
        names = {worker.name for worker in self.workers}
        if self._announced or not all(r.listening and r.connected >= names for r in self.routers):
            return
        self._announced = True
        self._send_status()
        served = dict(self.routers[0].models)
        for worker in self.workers:
            served[worker.spec.name] = worker.description
        self._announce(self.spec, served)

    def _when_drained(self) -> None:
        if not self._stopping or any(router.child for router in self.routers):
            return
        if not any(worker.child for worker in self.workers):
            self._finish(0)
        elif not self._dismissed:
            self._dismissed = True
            for worker in self.workers:
                if worker.child and worker.ready:
                    worker.child.send({"op": "stop"})
                elif worker.child:
                    worker.child.kill()  # it is loading, and nobody will need what
            self._loop.call_later(_LAST_WORDS, self.kill)  # one that hangs holds nothing that anybody waits for

    async def _tell_status(self) -> None:
        while True:
            await asyncio.sleep(_STATUS_SECONDS)
            self._send_status()

    def _send_status(self) -> None:
        rows = [
            [w.spec.name, w.spec.version, w.name, w.state, w.restarts, resident_bytes(w.child.pid) if w.child else 0]
            for w in self.workers
        ]
        for router in self.routers:
            if router.child:
                router.child.send({"op": "workers", "workers": rows})
