"""How calls are answered: what all connections of a door share, and the straight line of a unary call."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from time import monotonic
from typing import Any

from turnout.core.errors import Code, DeadlineExceeded, Failure, QueueFull
from turnout.core.messages import Context, InferRequest, InferResponse, Journey
from turnout.core.servable import ServedModel, Serving
from turnout.entrypoints.call import Deadlines, Driven
from turnout.entrypoints.grpc.answers import OK_BLOCK, answerer_block, as_failure
from turnout.entrypoints.grpc.compression import Compression
from turnout.entrypoints.grpc.flow import PassEnd
from turnout.entrypoints.grpc.frames import Data
from turnout.entrypoints.grpc.lane import lane_of
from turnout.entrypoints.grpc.limits import GrpcLimits
from turnout.entrypoints.grpc.messages import PREFIX
from turnout.entrypoints.grpc.stream import Stream
from turnout.entrypoints.grpc.streaming import StreamingCall
from turnout.entrypoints.pace import BUSY, Pace
from turnout.monitoring.record import Observer, RequestRecord
from turnout.protocols.grpc import GrpcInferCodec, GrpcMethod


class Calls:
    """Answers the calls of every connection of one door.

    `clock` is the monotonic time of the last sweep, `held` the bytes of messages under way.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        serving: Serving,
        methods: Sequence[GrpcMethod],
        observer: Observer,
        limits: GrpcLimits,
        default_deadline: float,
    ) -> None:
        self.loop = loop
        self.serving = serving
        self.methods = {method.path.encode(): method for method in methods}
        self.observer = observer
        self.limits = limits
        self.default_deadline = default_deadline
        self.deadlines = Deadlines(loop)
        self.pace = Pace(loop)
        self.pass_end = PassEnd(loop)
        self.compression = Compression(loop, limits.max_message_bytes)
        self.clock = monotonic()
        self.held = 0
        #: The lane of messages with this head, or until when there is none (monotonic seconds).
        self.lanes: dict[bytes, Any] = {}
        self.lane_of = lane_of
        self.tasks: set[asyncio.Task[None]] = set()

    def opened(self, stream: Stream) -> None:
        """A call has begun; streaming methods start at once."""
        head = stream.head
        if head.timeout != math.inf:
            stream.deadline = monotonic() + head.timeout
        assert head.method is not None  # noqa: S101  a head without failure has a method
        if head.method.stream is not None:
            stream.streaming = True
            stream.work = StreamingCall(stream, self, head.method.stream)

    def streamed(self, stream: Stream, flag: int, message: Data) -> None:
        """A message for a streaming call, compressed or not."""
        if isinstance(stream.work, StreamingCall):
            stream.work.take(flag, message)

    def half_closed(self, stream: Stream) -> None:
        """No more messages come for a streaming call."""
        if isinstance(stream.work, StreamingCall):
            stream.work.half_closed()

    def compressed(self, stream: Stream, message: Data) -> None:
        """Answers a unary call whose message is complete but compressed."""

        def ready(future: asyncio.Future[bytes]) -> None:
            if stream.closed:
                future.cancelled() or future.exception()  # looked at, so that nobody misses it
                return
            try:
                plain = future.result()
            except Exception as problem:  # noqa: BLE001  whatever it is, the caller gets a status
                stream.table.fail(stream, as_failure(problem))
            else:
                self.unary(stream, plain)

        try:
            found = self.compression.decompress(message, stream.head.encoding)
        except Failure as failure:
            stream.table.fail(stream, failure)
            return
        if isinstance(found, bytes):
            self.unary(stream, found)
        else:
            found.add_done_callback(ready)

    def unary(self, stream: Stream, message: Data) -> None:
        """Answers a unary call whose message is complete."""
        method = stream.head.method
        assert method is not None  # noqa: S101  see `opened`
        if method.infer is not None:
            InferCall(stream, self, method.infer).start(message)
        elif method.answer is not None:
            try:
                if monotonic() > stream.deadline:
                    raise DeadlineExceeded("the deadline passed before the request was there")
                answer = method.answer(message, self.serving)
            except Exception as problem:  # noqa: BLE001  whatever it is, the caller gets a status
                stream.table.fail(stream, as_failure(problem))
            else:
                self.respond(stream, answer)

    def respond(self, stream: Stream, body: Data | Sequence[Data]) -> int:
        """Sends the answer of a unary call; returns its size in bytes, before compression."""
        out = stream.table.out
        encoding = stream.head.answer_encoding
        if isinstance(body, bytes) and encoding == "identity" and out.answer(stream, body):
            stream.table.answered(stream)
            return len(body) + PREFIX.size
        parts: list[Data] = [body] if isinstance(body, bytes | memoryview) else list(body)
        packed = self.compression.compress(parts, encoding)
        if isinstance(packed, asyncio.Future):
            packed.add_done_callback(lambda future: self._packed(stream, future))
        else:
            stream.trailers = OK_BLOCK + stream.told
            out.message(stream, parts if packed is None else (packed,), compressed=packed is not None)
        return sum(part.nbytes if isinstance(part, memoryview) else len(part) for part in parts) + PREFIX.size

    def _packed(self, stream: Stream, future: asyncio.Future[bytes]) -> None:
        if future.cancelled() or stream.closed:
            return
        stream.trailers = OK_BLOCK + stream.told
        stream.table.out.message(stream, (future.result(),), compressed=True)


class InferCall(Driven):
    """One prediction: decode, infer, encode, tell the observer."""

    __slots__ = ("_bytes_in", "_calls", "_codec", "_decoded", "_journey", "_model", "_request", "_start", "_stream")

    def __init__(self, stream: Stream, calls: Calls, codec: GrpcInferCodec) -> None:
        super().__init__()
        self._stream = stream
        self._calls = calls
        self._codec = codec
        self._model: ServedModel | None = None
        self._journey = Journey()
        self._request: InferRequest | None = None
        self._bytes_in = 0
        self._start = self._decoded = monotonic()

    def start(self, message: Data) -> None:
        """Decodes and begins the call."""
        stream, calls = self._stream, self._calls
        self._bytes_in = len(message)
        deadline = min(stream.deadline, self._start + calls.default_deadline)
        try:
            if deadline <= self._start:
                raise DeadlineExceeded("the deadline passed before the request was there")
            if calls.pace.too_late(self._start, deadline - self._start):
                raise QueueFull(BUSY, retry_after=1.0)
            head = stream.head
            self._journey.steps = [] if head.explain else None
            context = Context(head.request_id, deadline, "grpc", "", head, self._journey)
            self._model, self._request = self._codec.decode(message, calls.serving, context)
            servable = self._model.servable
            deadline = min(deadline, self._start + getattr(servable, "deadline", math.inf))
            coroutine = servable.infer(self._request)
        except Exception as problem:  # noqa: BLE001  whatever it is, the caller gets a status
            self.ended(None, problem)
            return
        self._decoded = monotonic()
        stream.work = self
        self.begin(coroutine)
        if not self.over and deadline != math.inf:
            calls.deadlines.add(self, deadline)

    def resume(self, model: ServedModel, request: InferRequest, started: float, decoded: float, size: int) -> None:
        """Takes the place of a call that was answered without this so far; `ended` is to be called next."""
        assert request.context.journey is not None  # noqa: S101  every call has one
        self._model, self._request, self._journey = model, request, request.context.journey
        self._start, self._decoded, self._bytes_in = started, decoded, size
        self.over = True

    def stop(self, failure: Failure) -> None:
        """The stream has ended: the prediction is cancelled."""
        self.cancel(failure)

    def drained(self) -> None:
        """Nothing waits for a unary answer to be sent."""

    def ended(self, response: InferResponse | None, problem: BaseException | None) -> None:
        """Sends what the servable answered."""
        stream = self._stream
        stream.work = None
        before = monotonic()
        if self._journey.prediction_id:
            stream.told = answerer_block(self._journey)
        code, sent = Code.OK, 0
        if response is not None and self._request is not None and not stream.closed:
            try:
                body = self._codec.encode(self._request, response)
                sent = self._calls.respond(stream, body)
            except Exception as wrong:  # noqa: BLE001  whatever it is, the caller gets a status
                problem = wrong
        if problem is not None:
            failure = as_failure(problem)
            code = failure.code
            stream.table.fail(stream, failure)
        elif stream.closed and response is not None and not sent:
            code = Code.CANCELLED
        self._tell(response, code, before, sent)

    def _tell(self, response: InferResponse | None, code: Code, before: float, sent: int) -> None:
        now = monotonic()
        self._calls.pace.touch(now)
        request, model, journey = self._request, self._model, self._journey
        version = journey.variant or (model.version if model is not None else "")
        queue = predict = 0.0
        batch_rows = 0
        if response is not None:
            version = response.version
            queue, predict, batch_rows = response.queue_seconds, response.predict_seconds, response.batch_rows
        self._calls.observer.request(
            RequestRecord(
                model.name if model is not None else "",
                version,
                request.context.protocol if request is not None else "grpc",
                code,
                request.rows if request is not None else 0,
                self._decoded - self._start,
                queue,
                predict,
                now - before,
                now - self._start,
                batch_rows,
                request.context.id if request is not None else self._stream.head.request_id,
                self._stream.table.peer,
                self._bytes_in,
                sent,
                journey.variant,
                journey.degraded,
                journey.prediction_id,
            )
        )
