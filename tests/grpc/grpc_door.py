"""What the door's tests serve: methods over plain bytes, on a door in a thread of its own."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

import numpy as np
import uvloop

from turnout.core.errors import DeadlineExceeded, InvalidInput, ModelNotFound, QueueFull
from turnout.core.messages import Context, InferRequest, InferResponse
from turnout.core.servable import Servable, ServedModel, State
from turnout.core.signature import Signature
from turnout.entrypoints.grpc import GrpcDoor, GrpcLimits
from turnout.monitoring.record import RequestRecord
from turnout.protocols.grpc import GrpcMethod

Result = TypeVar("Result")


class Echo:
    """Answers with what came. A message may say what is to happen first:

    `wait:` until `release` is called, `raise:` an unknown exception, `full:`, `late:`, `missing:` a failure.
    """

    name = "echo"
    version = "1"
    format = "test"
    signature = Signature((), ())
    state = State.READY
    reason = ""

    def __init__(self) -> None:
        self.root: Servable = self
        self.waiting: list[asyncio.Future[None]] = []
        self.started = 0
        self.cancelled = 0

    @property
    def servable(self) -> Servable:
        return self.root

    async def infer(self, request: InferRequest) -> InferResponse:
        self.started += 1
        message = request.inputs["message"]
        word = bytes(message[:8].tobytes()).split(b":")[0]
        if word == b"wait":
            future = asyncio.get_running_loop().create_future()
            self.waiting.append(future)
            try:
                await future
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        elif word == b"raise":
            raise RuntimeError("a secret of /home/somebody")
        elif word == b"full":
            raise QueueFull("the queue is full", retry_after=1.5)
        elif word == b"late":
            raise DeadlineExceeded("too late: 100 % ünfair\n")
        return InferResponse(request.inputs, self.name, self.version, batch_rows=1)

    def release(self) -> None:
        waiting, self.waiting = self.waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)


class EchoCodec:
    """The message as one tensor of octets; the answer as the same octets, without a copy."""

    def __init__(self, parts: bool = False) -> None:
        self.parts = parts
        self.contexts: list[Context] = []

    def decode(
        self, message: bytes | memoryview, serving: Serving, context: Context
    ) -> tuple[ServedModel, InferRequest]:
        if message[:4] == b"bad:":
            raise InvalidInput("not good", field="inputs[0]", expected="good", got="bad")
        model = serving.find("missing" if message[:8] == b"missing:" else "echo")
        if len(self.contexts) < 1000:
            self.contexts.append(context)
        inputs = {"message": np.frombuffer(message, np.uint8)}
        return model, InferRequest(model.name, inputs, 1, context)

    def encode(self, request: InferRequest, response: InferResponse) -> bytes | list[bytes | memoryview]:
        message = response.outputs["message"]
        if not self.parts and message.nbytes < 65536:
            return message.tobytes()
        third = message.nbytes // 3
        view = memoryview(message).cast("B")
        return [view[:third], view[third:]]


class Serving:
    """One model."""

    ready = True

    def __init__(self, echo: Echo) -> None:
        self.echo = echo

    def models(self) -> Sequence[ServedModel]:
        return (self.echo,)

    def find(self, name: str, version: str = "") -> ServedModel:
        if name != "echo":
            raise ModelNotFound(f"there is no model {name!r}")
        return self.echo


class Records:
    """Keeps what the door tells."""

    def __init__(self) -> None:
        self.records: list[RequestRecord] = []

    def request(self, record: RequestRecord) -> None:
        if len(self.records) < 5000:
            self.records.append(record)


class Streams:
    """Streaming methods, and how often each was begun and cleaned up."""

    def __init__(self) -> None:
        self.begun = 0
        self.ended = 0
        self.produced = 0

    async def chat(self, messages: AsyncIterator[bytes], _serving: Any) -> AsyncIterator[bytes]:
        self.begun += 1
        try:
            async for message in messages:
                if message == b"fail":
                    raise InvalidInput("failed as asked")
                if message == b"raise":
                    raise RuntimeError("a secret")
                yield message
        finally:
            self.ended += 1

    async def count(self, messages: AsyncIterator[bytes], _serving: Any) -> AsyncIterator[bytes]:
        """`number size`: that many messages of that many bytes."""
        self.begun += 1
        try:
            async for message in messages:
                number, size = map(int, message.split())
                for index in range(number):
                    self.produced += 1
                    yield str(index).encode().ljust(size, b".")
        finally:
            self.ended += 1

    async def total(self, messages: AsyncIterator[bytes], _serving: Any) -> AsyncIterator[bytes]:
        self.begun += 1
        total = 0
        try:
            async for message in messages:
                total += len(message)
            yield str(total).encode()
        finally:
            self.ended += 1

    async def sleep(self, messages: AsyncIterator[bytes], _serving: Any) -> AsyncIterator[bytes]:
        """Reads one message of however many, and then never more."""
        self.begun += 1
        try:
            async for message in messages:
                yield message
                await asyncio.get_running_loop().create_future()
        finally:
            self.ended += 1


ECHO, PARTS, UPPER = "/test.Echo/Echo", "/test.Echo/Parts", "/test.Echo/Upper"
CHAT, COUNT, TOTAL, SLEEP = "/test.Echo/Chat", "/test.Echo/Count", "/test.Echo/Total", "/test.Echo/Sleep"


class DoorThread:
    """A door on a loop in a thread, with everything it serves."""

    def __init__(self, limits: GrpcLimits | None = None, default_deadline: float = math.inf) -> None:
        self.echo = Echo()
        self.codec = EchoCodec()
        self.streams = Streams()
        self.records = Records()
        self.limits = limits or GrpcLimits(sweep_seconds=0.05)
        methods = [
            GrpcMethod(ECHO, infer=self.codec),
            GrpcMethod(PARTS, infer=EchoCodec(parts=True)),
            GrpcMethod(UPPER, answer=lambda message, _serving: bytes(message).upper()),
            GrpcMethod(CHAT, stream=self.streams.chat),
            GrpcMethod(COUNT, stream=self.streams.count),
            GrpcMethod(TOTAL, stream=self.streams.total),
            GrpcMethod(SLEEP, stream=self.streams.sleep),
        ]
        self.door = GrpcDoor(Serving(self.echo), methods, self.records, self.limits, default_deadline)
        self.loop = uvloop.new_event_loop()
        self.problems: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _loop, context: self.problems.append(context))
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.port = self.run(self.door.start("127.0.0.1", 0))

    def begin(self, coroutine: Coroutine[Any, Any, Result]) -> Future[Result]:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def run(self, coroutine: Coroutine[Any, Any, Result], timeout: float = 20.0) -> Result:
        return self.begin(coroutine).result(timeout)

    def call(self, function: Any) -> Any:
        async def inside() -> Any:
            return function()

        return self.run(inside())

    def close(self) -> None:
        self.run(self.door.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()
        assert not self.problems, self.problems


def until(condition: Callable[[], bool]) -> None:
    """Waits for something another thread is about to do."""
    pause = threading.Event()
    for _ in range(2000):
        if condition():
            return
        pause.wait(0.005)
    raise AssertionError("it did not happen")
