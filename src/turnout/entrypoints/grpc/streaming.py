"""Calls with a stream of messages on either side: an async generator in a task, paced by flow control."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from turnout.core.errors import Cancelled, DeadlineExceeded, Failure
from turnout.entrypoints.grpc.answers import OK_BLOCK, as_failure
from turnout.entrypoints.grpc.frames import Data
from turnout.entrypoints.grpc.stream import Stream
from turnout.protocols.grpc import GrpcStream

if TYPE_CHECKING:
    from turnout.entrypoints.grpc.calls import Calls


class StreamingCall:
    """Runs one streaming method. Its generator is closed on every way out."""

    __slots__ = ("_calls", "_failure", "_inbox", "_no_more", "_sent", "_stream", "_task", "_timer", "_wake")

    def __init__(self, stream: Stream, calls: Calls, method: GrpcStream) -> None:
        self._stream = stream
        self._calls = calls
        self._inbox: deque[tuple[int, Data]] = deque()
        self._no_more = False
        self._wake: asyncio.Future[None] | None = None
        self._sent: asyncio.Future[None] | None = None
        self._failure: Failure | None = None
        self._timer: asyncio.TimerHandle | None = None
        if stream.deadline != math.inf:
            self._timer = calls.loop.call_at(stream.deadline, self._late)
        self._task = calls.loop.create_task(self._run(method))
        calls.tasks.add(self._task)
        self._task.add_done_callback(calls.tasks.discard)

    def take(self, flag: int, message: Data) -> None:
        """One more message from the client, compressed where `flag` is 1."""
        self._inbox.append((flag, message))
        self._stream.unread += len(message)
        self._notify()

    def half_closed(self) -> None:
        """The client has sent its last message."""
        self._no_more = True
        self._notify()

    def stop(self, failure: Failure) -> None:
        """The stream has ended in another way: the method is cancelled."""
        if self._failure is None and not self._task.done():
            self._failure = failure
            self._task.cancel()
            if self._timer is not None:
                self._timer.cancel()

    def drained(self) -> None:
        """The message under way has gone out."""
        if self._sent is not None and not self._sent.done():
            self._sent.set_result(None)

    def _late(self) -> None:
        self._stream.table.fail(self._stream, DeadlineExceeded("the deadline passed before the call was over"))

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def _messages(self) -> AsyncIterator[bytes]:
        stream, inbox = self._stream, self._inbox
        while True:
            if inbox:
                flag, message = inbox.popleft()
                stream.unread -= len(message)
                stream.table.bodies.hold(stream)
                stream.table.bodies.credit(stream)
                if flag:
                    plain = self._calls.compression.decompress(message, stream.head.encoding)
                    message = plain if isinstance(plain, bytes) else await plain
                yield bytes(message)
            elif self._no_more:
                return
            else:
                self._wake = self._calls.loop.create_future()
                await self._wake

    async def _send(self, message: bytes) -> None:
        stream = self._stream
        packed = self._calls.compression.compress((message,), stream.head.answer_encoding)
        if isinstance(packed, asyncio.Future):
            packed = await packed
        stream.table.out.message(stream, (message if packed is None else packed,), compressed=packed is not None)
        if stream.out_left:
            self._sent = self._calls.loop.create_future()
            await self._sent

    async def _run(self, method: GrpcStream) -> None:
        messages = self._messages()
        problem: BaseException | None = None
        try:
            answers = method(messages, self._calls.serving)
            try:
                async for answer in answers:
                    await self._send(answer)
            finally:
                for source in (answers, messages):
                    close = getattr(source, "aclose", None)
                    if close is not None:
                        await close()
        except asyncio.CancelledError:
            problem = self._failure or Cancelled("the server is stopping")
        except Exception as wrong:  # noqa: BLE001  whatever it is, the caller gets a status
            problem = wrong
        if self._timer is not None:
            self._timer.cancel()
        self._finish(problem)

    def _finish(self, problem: BaseException | None) -> None:
        stream = self._stream
        stream.work = None
        if stream.closed:
            return
        if problem is not None:
            stream.table.fail(stream, as_failure(problem))
            return
        stream.table.out.start(stream)
        stream.table.out.headers(stream, OK_BLOCK, end=True)
        stream.table.answered(stream)
