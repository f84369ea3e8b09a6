"""The router process: both doors, the living tree, and a link to every replica. Never imports a model library
unless a model is placed inline.

Started as `python -m turnout.entrypoints.router FD PARENT`: the descriptor of its wire, and the controller. Without a
controller it goes on with what it was told last, and looks for the next one.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterable
from time import monotonic

import uvloop

from turnout.core.errors import Failure
from turnout.core.signature import Signature
from turnout.deploy.build import Builder, build_version
from turnout.deploy.live import Live, LiveVersion
from turnout.deploy.plan import Routing
from turnout.deploy.samples import router_samples, worker_samples
from turnout.deploy.spec import ServeSpec
from turnout.deploy.version import VersionSpec
from turnout.entrypoints.admin import AdminRest
from turnout.entrypoints.grpc.door import GrpcDoor
from turnout.entrypoints.grpc.limits import GrpcLimits
from turnout.entrypoints.http.door import HttpDoor
from turnout.entrypoints.http.limits import HttpLimits
from turnout.entrypoints.parent import die_with_parent
from turnout.entrypoints.questions import Questions
from turnout.entrypoints.repository import Repository
from turnout.entrypoints.scrape import Scrape
from turnout.monitoring.access_log import AccessLog
from turnout.monitoring.families import Sample
from turnout.monitoring.fanout import Fanout
from turnout.monitoring.metrics import Metrics
from turnout.protocols.rest import rest_protocols
from turnout.protocols.v2_grpc import GRPC_METHODS
from turnout.runtime.lifeline import Lifeline
from turnout.runtime.replica import Inline, Place, Replica
from turnout.runtime.wire import Message

logger = logging.getLogger("turnout")
_WATCH_SECONDS = 0.05
#: How often the controller is told what versions have done: a bad canary is to be out within two seconds.
_EVIDENCE_SECONDS = 0.2
#: What was compared is much to tell, and is told with every so many of these.
_PAIRS_EACH = 5
_GC_OBJECTS = 50_000


class Router:
    """One router of a ServeSpec: serves on two listening sockets until it is drained."""

    def __init__(self, name: str, spec: ServeSpec, wire: Lifeline) -> None:
        self.name = name
        self.spec = spec
        self.metrics = Metrics(name)
        self.log = AccessLog(spec.access_log)
        self.live = Live()
        self.builder = self.live.build = Builder(self.live)
        self.scrape = Scrape(self.metrics, wire)
        self.questions = Questions(wire)
        self.repository = Repository(self.questions, control=spec.model_control)
        self._wire = wire
        self._loop = asyncio.get_running_loop()
        self._workers: list[tuple[str, str, str, str, int, int]] = []
        self._ended = asyncio.Event()
        self._draining = False
        self._told = 0
        self._closed: list[socket.socket] = []
        self._doors: list[socket.socket] = []
        self._processes: dict[str, int] = {}
        observer = Fanout(self.metrics, self.log)
        admin = AdminRest(self.questions)
        protocols = (*rest_protocols(repository=self.repository.routes()), admin, self.scrape)
        own = {method.path: method for method in self.repository.methods()}
        methods = [own.get(method.path, method) for method in GRPC_METHODS]
        self.http = HttpDoor(
            self.live, protocols, observer, HttpLimits(body_bytes=spec.max_body_bytes), spec.default_deadline
        )
        self.grpc = GrpcDoor(
            self.live, methods, observer, GrpcLimits(max_message_bytes=spec.max_body_bytes), spec.default_deadline
        )
        self.metrics.add_source(self._samples)
        self.metrics.add_source(self.log.samples)

    async def run(self, http: socket.socket, grpc: socket.socket) -> None:
        """Serves until drained, or until no controller is to be had any more."""
        self.log.start()
        self._closed = [http, grpc]
        self._doors = [http, grpc]
        self._wire.sock.setblocking(False)
        self._loop.add_reader(self._wire.fileno(), self._read)
        self._wire.send({"event": "listening"})
        self._loop.call_later(_WATCH_SECONDS, self._watch)
        self._loop.call_later(_EVIDENCE_SECONDS, self._tell_evidence)
        self._loop.add_signal_handler(signal.SIGTERM, self.drain)
        self._loop.add_signal_handler(signal.SIGHUP, self.log.reopen)
        gc.collect()
        gc.freeze()
        gc.set_threshold(_GC_OBJECTS)  # requests leave no cycles behind; the default would look for them all the time
        await self._ended.wait()
        await self.http.close()
        await self.grpc.close()
        self.log.close()

    def _open(self) -> None:
        """Accepts from now on: what there is to serve was told before. Whoever came sooner has waited in the port."""
        if self._closed:
            http, grpc = self._closed
            self._closed = []
            self.http.listen_on(http)
            self.grpc.listen_on(grpc)

    def drain(self) -> None:
        """Not ready from now on; answers what is in flight, then ends."""
        if not self._draining:
            self._open()
            self._draining = True
            self.live.drain()
            self._drained = asyncio.ensure_future(self._drain())

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(self.spec.drain_timeout):
                await asyncio.gather(self.http.drain(), self.grpc.drain())
        except TimeoutError:
            logger.warning("requests were still in flight after %g s and are given up", self.spec.drain_timeout)
        self._ended.set()

    def _load_inline(self, spec: VersionSpec) -> None:
        from turnout.deploy.load import load_model

        try:
            loaded = load_model(spec)
        except Failure as failure:
            self._wire.send({"event": "refused", "uid": spec.uid, "message": failure.message})
            return
        except Exception as problem:  # noqa: BLE001  a model library may raise anything, and somebody waits for an end
            reason = f"{type(problem).__name__}: {problem}"
            self._wire.send({"event": "refused", "uid": spec.uid, "message": reason})
            return
        said = loaded.describe()
        version = self._version(spec, said)
        version.batching.add_place(Inline(spec.uid, loaded.model, version.batching.done))
        self._wire.send({"event": "connected", "replica": spec.uid, **said})

    def _read(self) -> None:
        try:
            for message, fds in self._wire.poll():
                self._obey(message, fds)
        except EOFError:
            self._loop.remove_reader(self._wire.fileno())
            self.questions.lost()
            if self._wire.lost():
                self._look()
            else:  # nobody could ever stop or mend this process
                self.drain()

    def _look(self) -> None:
        """The controller is gone: what was told last holds, until the next one is found."""
        if self._draining:
            return
        if self._wire.find(self._hello(), [sock.fileno() for sock in self._doors]):
            self._wire.sock.setblocking(False)
            self._loop.add_reader(self._wire.fileno(), self._read)
            self.questions.found(self._wire)
            self.builder.tell_all()
        elif self._wire.over:
            logger.warning("no controller was found for %g s, so this router ends", self._wire.orphan_seconds)
            self.drain()
        else:
            self._loop.call_later(self._wire.delay, self._look)

    def _hello(self) -> Message:
        versions = self.live.versions()
        replicas = {place.name: self._processes.get(place.name, 0) for v in versions for place in v.batching.places}
        return {
            "event": "hello",
            "said": {"event": "joined", "replicas": replicas, "loaded": [version.uid for version in versions]},
        }

    def _obey(self, message: Message, fds: list[int]) -> None:
        match message["op"]:
            case "replica":
                self._connect(message, socket.socket(fileno=fds[0]))
            case "declare":
                self._version(VersionSpec.from_json(message["spec"]), message)
            case "gone":
                self._disconnect(message["replica"])
            case "show":
                try:
                    self.live.show(message["model"], Routing.from_json(message["routing"]))
                except Exception:
                    logger.exception("%s goes on as it was: what it should be cannot be shown", message["model"])
                self._wire.send({"event": "shown"})  # whatever came of it, nobody is to wait for ever
            case "expect":
                self.live.expect(message["models"])
            case "inline":
                self._load_inline(VersionSpec.from_json(message["spec"]))
            case "unload":
                self._unload(message["uid"])
            case "leave":
                self._leave(message["replica"])
            case "answer":
                self.questions.obey(message)
            case "workers":
                self._workers = message["workers"]
            case "open":
                self._open()
            case "drain":
                self.drain()
            case "snapshot" | "gathering" | "gathered":
                self.scrape.obey(message)

    def _connect(self, message: Message, sock: socket.socket) -> None:
        version = self._version(VersionSpec.from_json(message["spec"]), message)
        batching = version.batching

        def lost(place: Place, batches: object) -> None:
            batching.lost(place, batches)  # type: ignore[arg-type]  # the place's own batches

        # A worker numbers its tensors by its own signature: another process may have found them in another order.
        signature = Signature.from_json(message["signature"])
        if not signature.fits(version.signature):
            logger.error("worker %s has another signature than its version, and is killed", message["replica"])
            self._wire.send({"event": "hung", "replica": message["replica"]})
            sock.close()
            return
        try:
            replica = Replica(message["replica"], signature, sock, batching.done, lost)
        except OSError:
            return  # it died in the meantime; the controller knows, and links the next one
        batching.add_place(replica)
        self._processes[message["replica"]] = message["pid"]
        self._wire.send({"event": "connected", "replica": message["replica"]})

    def _disconnect(self, name: str) -> None:
        """A worker is dead. Its link says so sooner, unless something that it forked still holds that open."""
        self._processes.pop(name, None)
        for version in self.live.versions():
            for place in list(version.batching.places):
                if place.name == name and isinstance(place, Replica):
                    place.die()

    def _version(self, spec: VersionSpec, said: Message) -> LiveVersion:
        found = self.live.loaded(spec.uid)
        if found is None:
            found = build_version(spec, Signature.from_json(said["signature"]), said["format"], self.metrics.batch)
            for rows, seconds in said["measured"]:
                found.batching.learn(rows, seconds)
            self.metrics.declare(spec.name, spec.version)
            self.live.add(found)
        return found

    def _unload(self, uid: str) -> None:
        """Forgets a version; its links are closed when nothing that was sent there is without an answer."""
        version = self.live.remove(uid)
        if version is None or not version.batching.busy:
            if version is not None:
                version.batching.close()
            self._wire.send({"event": "unloaded", "uid": uid})
            return
        self.live.add(version)  # still looked after: a worker that hangs now has to be killed as ever
        self._loop.call_later(_WATCH_SECONDS, self._unload, uid)

    def _leave(self, name: str) -> None:
        """Lets go of one replica when it has answered what it was sent; the others take what comes."""
        for version in self.live.versions():
            for place in list(version.batching.places):
                if place.name == name and not version.batching.retire_place(place):
                    self._loop.call_later(_WATCH_SECONDS, self._leave, name)
                    return
        self._processes.pop(name, None)
        self._wire.send({"event": "left", "replica": name})

    def _watch(self) -> None:
        self._loop.call_later(_WATCH_SECONDS, self._watch)
        now = monotonic()
        for version in self.live.versions():
            for place in version.batching.watch(now):
                self._wire.send({"event": "hung", "replica": place.name})

    def _tell_evidence(self) -> None:
        self._loop.call_later(_EVIDENCE_SECONDS, self._tell_evidence)
        if self._wire.away or self._wire.unread:
            return  # requests do not wait for a controller that does not listen; the next time tells all of it
        self._told += 1
        evidence = self.builder.evidence()
        pairs = self.builder.pairs() if self._told % _PAIRS_EACH == 0 else {}
        if evidence or pairs:
            self._wire.send({"event": "saw", "life": os.getpid(), "evidence": evidence, "pairs": pairs})

    def _samples(self) -> Iterable[Sample]:
        yield Sample("turnout_connections", ("http",), self.http.connections)
        yield Sample("turnout_connections", ("grpc",), self.grpc.connections)
        yield Sample("turnout_connections_parked", (), self.http.parked)
        yield from router_samples(self.live.versions(), list(self.builder.endpoints), self.builder.memories)
        if self.name == "0":  # workers are everybody's: one router of several says them
            yield from worker_samples(self._workers)


async def _run(wire: Lifeline) -> None:
    message, fds = wire.receive()
    wire.obey(message)
    if not wire.path:
        die_with_parent()
    http, grpc = (socket.socket(fileno=fd) for fd in fds)
    try:
        router = Router(message["router"], ServeSpec.from_json(message["spec"]), wire)
        router.live.expect(message["models"])
        await router.run(http, grpc)
    except Failure as failure:
        wire.send({"event": "failed", "message": failure.message})


def main() -> None:
    """Serves what the controller says."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(level=logging.INFO, format="turnout: %(message)s", stream=sys.stderr)
    wire = Lifeline(socket.socket(fileno=int(sys.argv[1])))
    try:
        uvloop.run(_run(wire))
    except EOFError:
        return
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
