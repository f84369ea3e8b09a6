"""Worker processes: started for a version, started again when they die, retired with what they gave back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Protocol

from turnout.deploy.process import Child, OnEnd, OnMessage
from turnout.deploy.restart import back_off, next_failures
from turnout.deploy.run_file import Known
from turnout.deploy.version import VersionSpec
from turnout.monitoring.process import resident_bytes
from turnout.runtime.wire import Message, Wire

logger = logging.getLogger("turnout")
WORKER = "turnout.entrypoints.worker"
_LAST_WORDS = 1.0


@dataclass(eq=False)
class Worker:
    """One replica: which version, which process, and what it has said.

    leaving: it only ends what it has begun, and is retired then.
    """

    spec: VersionSpec
    name: str
    child: Child | None = None
    ready: bool = False
    ever_ready: bool = False
    retired: bool = False
    leaving: bool = False
    failures: int = 0
    restarts: int = 0
    description: dict[str, Any] = field(default_factory=dict)

    @property
    def state(self) -> str:
        """STARTING, READY or FAILED (waiting to be started again)."""
        return "READY" if self.ready else "STARTING" if self.child else "FAILED"

    @property
    def number(self) -> int:
        """Its place among the replicas of its version, from 0."""
        return int(self.name.rpartition("#")[2])

    @property
    def pid(self) -> int:
        """Its process; 0 without one."""
        return self.child.pid if self.child else 0

    @property
    def memory(self) -> int:
        """Resident bytes of its process at this moment."""
        return resident_bytes(self.child.pid) if self.child else 0


class Listener(Protocol):
    """Who is told about workers."""

    def worker_ready(self, worker: Worker) -> None: ...
    def worker_failed(self, worker: Worker, message: str) -> None: ...
    def worker_gone(self, worker: Worker) -> None: ...
    def changes(self) -> None: ...


class Workers:
    """All workers of a server. Belongs to the running event loop."""

    def __init__(self, listener: Listener) -> None:
        self.all: list[Worker] = []
        #: Where children find the next controller, as it goes with the first message to each.
        self.lifeline: Message = {}
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._stopping = False

    def of(self, uid: str) -> list[Worker]:
        """The workers of one version, without those that leave."""
        return [one for one in self.all if one.spec.uid == uid and not one.retired and not one.leaving]

    def ending(self, uid: str) -> bool:
        """Whether some of a version's workers leave and have not ended yet."""
        return any(one.spec.uid == uid and (one.retired or one.leaving) for one in self.all)

    def add(self, spec: VersionSpec) -> None:
        """Starts the replicas of a version."""
        for number in range(spec.replicas):
            worker = Worker(spec, f"{spec.uid}#{number}")
            self.all.append(worker)
            self._start(worker)

    def grow(self, spec: VersionSpec, count: int) -> None:
        """Starts those of the first `count` replicas of a version that runs already that are not there.

        One whose number still leaves is not started yet. One that cannot be started is tried again: the others serve.
        """
        there = {worker.name for worker in self.all}
        for number in range(count):
            if (name := f"{spec.uid}#{number}") not in there:
                worker = Worker(spec, name, ever_ready=True)
                self.all.append(worker)
                self._start(worker)

    def resume(self, spec: VersionSpec, count: int, known: dict[str, Known], *, missing: bool) -> None:
        """Takes over the replicas of a version that still run, out of `known`; also those beyond `count`.

        missing: whether those that do not are started.
        """
        beyond = [
            name for name in known if name.rpartition("#")[0] == spec.uid and int(name.rpartition("#")[2]) >= count
        ]
        for name in beyond:
            worker = Worker(spec, name)
            self.all.append(worker)
            self._take_over(worker, known.pop(name))
        for number in range(count):
            worker = Worker(spec, f"{spec.uid}#{number}")
            self.all.append(worker)
            if worker.name in known:
                self._take_over(worker, known.pop(worker.name))
            elif missing:
                self._start(worker)

    def returned(self, pid: int, wire: Wire, said: Message) -> bool:
        """One that was taken over brings its wire, and says how it is. False where there is none of that process."""
        for worker in self.all:
            if worker.child and worker.child.pid == pid and worker.child.wire is None:
                worker.child.join(wire)
                if worker.retired:
                    worker.child.send({"op": "stop"})
                self._heard(worker, said)
                return True
        return False

    def be_the_last(self) -> None:
        """No other controller will come: each ends when nobody is left for whom it works."""
        for worker in self.all:
            if worker.child:
                worker.child.send({"op": "last"})

    def kill(self, name: str) -> None:
        """Ends one that does not answer; it is started again."""
        for worker in self.all:
            if worker.name == name and worker.child:
                logger.warning("worker %s does not answer and is killed", name)
                worker.child.kill()

    def retire(self, workers: Sequence[Worker], done: Callable[[], None]) -> None:
        """Ends these for good; `done` is called when their processes are gone."""
        for worker in workers:
            worker.retired = True
            if worker.child and worker.ready:
                worker.child.send({"op": "stop"})
            elif worker.child:
                worker.child.kill()  # it is loading, and nobody will need what
        self._loop.call_later(_LAST_WORDS, self._kill, workers)
        self._await_end(workers, done)

    def stop(self) -> None:
        """No worker is started again from now on."""
        self._stopping = True

    def _kill(self, workers: Sequence[Worker]) -> None:
        for worker in workers:
            if worker.child:
                worker.child.kill()  # one that hangs holds nothing that anybody waits for

    def _await_end(self, workers: Sequence[Worker], done: Callable[[], None]) -> None:
        if any(worker.child for worker in workers):
            self._loop.call_later(0.005, self._await_end, workers, done)
            return
        self.all = [worker for worker in self.all if worker not in workers]
        done()

    def _start(self, worker: Worker) -> None:
        if self._stopping or worker.retired or worker.leaving:
            return
        worker.ready = False
        spec = worker.spec
        try:
            worker.child = Child.start(worker.name, WORKER, *self._ears(worker), spec.threads, spec.python)
        except OSError as problem:
            reason = f"its process could not be started: {problem.strerror}"
            if worker.ever_ready:  # what once ran will run again
                worker.failures += 1
                logger.warning("worker %s: %s", worker.name, reason)
                self._loop.call_later(back_off(worker.failures), self._start, worker)
            else:
                self._listener.worker_failed(worker, reason)
            return
        self._listener.changes()  # the next controller has to know of it, before it is told anything
        worker.child.send({"op": "load", "spec": spec.to_json(), **self.lifeline})

    def _take_over(self, worker: Worker, known: Known) -> None:
        about = known.about
        worker.ever_ready, worker.restarts, worker.failures = about["ever"], about["restarts"], about["failures"]
        ears = self._ears(worker)
        worker.child = Child(worker.name, known.pid, known.pidfd, *ears, started=about["started"])

    def _ears(self, worker: Worker) -> tuple[OnMessage, OnEnd]:
        def on_message(_child: Child, message: Message) -> None:
            self._heard(worker, message)

        def on_end(child: Child, how: str) -> None:
            self._ended(worker, child, how)

        return on_message, on_end

    def _heard(self, worker: Worker, message: Message) -> None:
        if message["event"] == "failed":
            if worker.ever_ready:
                logger.error("worker %s could not load its model: %s", worker.name, message["message"])
            else:
                self._listener.worker_failed(worker, message["message"])
        elif message["event"] == "ready":
            worker.ready = worker.ever_ready = True
            worker.description = {k: v for k, v in message.items() if k not in {"event", "_fds"}}
            self._listener.worker_ready(worker)

    def _ended(self, worker: Worker, child: Child, how: str) -> None:
        worker.child = None
        worker.ready = False
        self._listener.worker_gone(worker)
        if self._stopping or worker.retired or worker.leaving:
            return
        if not worker.ever_ready and child.wire is None:
            self._start(worker)  # taken over, and it may have ended only because nobody told it yet what to load
            return
        if not worker.ever_ready:
            self._listener.worker_failed(worker, f"the process that loaded it ended early ({how})")
            return
        worker.failures = next_failures(worker.failures, monotonic() - child.started)
        worker.restarts += 1
        delay = back_off(worker.failures)
        logger.warning("worker %s ended (%s); it is started again in %.2f s", worker.name, how, delay)
        self._loop.call_later(delay, self._start, worker)
