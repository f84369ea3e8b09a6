"""Every way of running a batch: in this thread, in another by memory and by socket, in another process by both."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from turnout.core.messages import InferRequest, InferResponse
from turnout.deploy.version import VersionSpec
from turnout.runtime.batch_policy import BatchPolicy
from turnout.runtime.batching import Batching
from turnout.runtime.lifeline import Lifeline
from turnout.runtime.replica import Done, Inline, Lost, Place, Replica
from turnout.runtime.wire import Message, Wire, pair
from turnout.runtime.work import WorkLoop

Make = Callable[[type[Any], Done, Lost], Awaitable[Place]]


async def inline(model: type[Any], done: Done, lost: Lost) -> Place:
    return Inline("inline", model(), done)


def in_thread(memory: bool) -> Make:
    async def make(model: type[Any], done: Done, lost: Lost) -> Place:
        ours, theirs = pair()
        near, far = pair()
        wire = Wire(ours)

        def control(message: Message, fds: list[int]) -> bool:
            return message["op"] != "stop"

        def work() -> None:
            loop = WorkLoop(model(), Lifeline(theirs), control)
            loop.add_link(far.detach())
            loop.run()
            theirs.close()

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        place = Replica("thread", model.signature, near, done, lost, memory=memory)
        return Closing(place, wire, thread.join)

    return make


def in_process(memory: bool) -> Make:
    async def make(model: type[Any], done: Done, lost: Lost) -> Place:
        ours, theirs = pair()
        command = [sys.executable, "-m", "turnout.entrypoints.worker", str(theirs.fileno())]
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)  # noqa: ASYNC220
        theirs.close()
        wire = Wire(ours)
        spec = VersionSpec("trial", f"{model.__module__}:{model.__qualname__}")
        wire.send({"op": "load", "spec": spec.to_json()})
        ready, _ = await asyncio.to_thread(wire.receive)
        assert ready["event"] == "ready", ready
        near, far = pair()
        wire.send({"op": "link"}, [far.fileno()])
        far.close()
        place = Replica("process", model.signature, near, done, lost, memory=memory)
        return Closing(place, wire, process.wait, process)

    return make


class Closing:
    """A place that ends its worker when it is closed."""

    def __init__(
        self,
        place: Replica,
        wire: Wire,
        wait: Callable[[float], object],
        process: subprocess.Popen[bytes] | None = None,
    ) -> None:
        self.__dict__ |= {"_place": place, "_wire": wire, "_wait": wait, "process": process}
        real_done, real_lost = place._done, place._lost
        place._done = lambda _, batch, outcome: real_done(self, batch, outcome)
        place._lost = lambda _, batches: real_lost(self, batches)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._place, name)

    def close(self) -> None:
        self._place.close() if self._place.free or self._place.inside() else None
        with suppress(OSError):  # it may be gone already
            self._wire.send({"op": "stop"})
        self._wait(10)
        self._wire.close()


PLACES: dict[str, Make] = {
    "inline": inline,
    "thread-memory": in_thread(memory=True),
    "thread-socket": in_thread(memory=False),
    "process-memory": in_process(memory=True),
    "process-socket": in_process(memory=False),
}


def batched(makes: Sequence[Make], policy: BatchPolicy | None = None) -> Any:
    """Makes the servable that a router has: batching over places."""

    @asynccontextmanager
    async def make(model: type[Any]) -> AsyncIterator[Batching]:
        batching = Batching("trial", "1", model.signature, policy or BatchPolicy(max_rows=64))
        for one in makes:
            batching.add_place(await one(model, batching.done, batching.lost))
        places = list(batching.places)
        try:
            yield batching
        finally:
            for place in places:
                place.close()

    return make


async def infer(servable: Any, request: InferRequest) -> InferResponse:
    """One call as a task of its own."""
    return await asyncio.ensure_future(servable.infer(request))
