"""What a connection sends: writes gathered over one loop pass, and DATA as the peer's windows let it out."""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Sequence

from turnout.entrypoints.grpc.answers import HEADERS_BLOCKS, OK_BLOCK
from turnout.entrypoints.grpc.frames import (
    END_HEADERS,
    END_STREAM,
    HEADERS,
    ConnectionFault,
    Data,
    ErrorCode,
    StreamFault,
    data_header,
    frame,
)
from turnout.entrypoints.grpc.header_blocks import NO_TABLE
from turnout.entrypoints.grpc.limits import DEFAULT_WINDOW, MAX_WINDOW, MIN_FRAME
from turnout.entrypoints.grpc.messages import PREFIX
from turnout.entrypoints.grpc.stream import Stream

#: From here on a part is handed to the transport as it is instead of being joined with its neighbours (bytes).
_LARGE_PART = 4096
#: How much one stream may send before it is another's turn, and how much is gathered before a write (bytes).
_QUANTUM = 256 * 1024
_GATHER = 512 * 1024
#: The transport asks for a pause above the first and for more below the second (bytes).
HIGH_WATER, LOW_WATER = 1024 * 1024, 256 * 1024

_BODY = struct.Struct(">IB4sBI")


def _headers_prefix(block: bytes, flags: int) -> bytes:
    return frame(HEADERS, flags, 0, block)[:5]


_HEADERS = {encoding: (_headers_prefix(block, END_HEADERS), block) for encoding, block in HEADERS_BLOCKS.items()}
_TRAILERS = (HEADERS << 8 | END_HEADERS | END_STREAM).to_bytes(2, "big")


class PassEnd:
    """Flushes, once at the end of a loop pass, every connection that something was written to in it."""

    __slots__ = ("_dirty", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._dirty: list[Outbound] = []

    def add(self, outbound: Outbound) -> None:
        """Notes a connection with something to send."""
        if not self._dirty:
            self._loop.call_soon(self._flush)
        self._dirty.append(outbound)

    def _flush(self) -> None:
        dirty, self._dirty = self._dirty, []
        for outbound in dirty:
            outbound.scheduled = False
            outbound.flush()


class Outbound:
    """The sending half of one connection. `window` is the peer's connection window (bytes)."""

    __slots__ = (
        "_large", "_parts", "_pass_end", "_ready", "_size", "_stopped", "_told", "_transport",
        "initial_window", "max_frame", "paused", "scheduled", "sent", "window",
    )  # fmt: skip

    def __init__(self, transport: asyncio.Transport, pass_end: PassEnd) -> None:
        self._transport = transport
        self._pass_end = pass_end
        self._parts: list[Data] = []
        self._size = 0
        self._large = False
        self._told = False
        self._stopped = False
        self._ready: dict[Stream, None] = {}
        self.scheduled = False
        self.paused = False
        self.sent = 0
        self.window = DEFAULT_WINDOW
        self.initial_window = DEFAULT_WINDOW
        self.max_frame = MIN_FRAME

    def put(self, data: bytes) -> None:
        """Sends a frame that no window holds back."""
        self._parts.append(data)
        if not self.scheduled:
            self.scheduled = True
            self._pass_end.add(self)

    def headers(self, stream: Stream, block: bytes, *, end: bool = False) -> None:
        """Sends a header block of this side."""
        if not self._told:
            self._told = True
            block = NO_TABLE + block
        self.put(frame(HEADERS, END_HEADERS | END_STREAM if end else END_HEADERS, stream.number, block))

    def start(self, stream: Stream) -> None:
        """Sends the response headers, once."""
        if not stream.started:
            stream.started = True
            self.headers(stream, HEADERS_BLOCKS[stream.head.answer_encoding])

    def answer(self, stream: Stream, message: bytes) -> bool:
        """Sends a whole unary answer at once, if the windows let it through as one frame."""
        length = len(message)
        size = length + 5
        if size > self.window or size > stream.send_window or size > self.max_frame or self.paused or not self._told:
            return False
        self.window -= size
        key = stream.key
        prefix, block = _HEADERS["identity"]
        trailers = OK_BLOCK + stream.told
        self._parts += (
            prefix, key, block, _BODY.pack(size << 8, 0, key, 0, length), message,
            len(trailers).to_bytes(3, "big") + _TRAILERS, key, trailers,
        )  # fmt: skip
        if length > _LARGE_PART:
            self._large = True
        if not self.scheduled:
            self.scheduled = True
            self._pass_end.add(self)
        return True

    def message(self, stream: Stream, parts: Sequence[Data], *, compressed: bool) -> None:
        """Queues a message, with the response headers before the first, and sends what the windows let out."""
        self.start(stream)
        views = [_octets(part) for part in parts]
        length = sum(map(len, views))
        stream.out = deque((PREFIX.pack(compressed, length), *views))
        stream.out_left = length + PREFIX.size
        stream.stalled_left = 0
        if stream.send_window > 0:
            self._ready[stream] = None
            self.pump()

    def forget(self, stream: Stream) -> None:
        """Drops what is queued of a stream."""
        stream.out = None
        stream.out_left = 0
        self._ready.pop(stream, None)

    def connection_update(self, increment: int) -> None:
        """Takes a WINDOW_UPDATE of the connection. Raises ConnectionFault."""
        self.window += increment
        if self.window > MAX_WINDOW:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "the connection window is over 2^31-1")
        self.pump()

    def stream_update(self, stream: Stream, increment: int) -> None:
        """Takes a WINDOW_UPDATE of a stream. Raises StreamFault."""
        stream.send_window += increment
        if stream.send_window > MAX_WINDOW:
            raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR, "the stream window is over 2^31-1")
        if stream.out_left and stream.send_window > 0:
            self._ready[stream] = None
            self.pump()

    def new_initial_window(self, size: int, streams: Sequence[Stream]) -> None:
        """Moves every stream's window by the difference; windows may become negative. Raises ConnectionFault.

        What can be sent now is sent by `pump`, after the acknowledgement: the peer counts from there.
        """
        difference = size - self.initial_window
        self.initial_window = size
        for stream in streams:
            stream.send_window += difference
            if stream.send_window > MAX_WINDOW:
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "a stream window is over 2^31-1")
            if stream.out_left and stream.send_window > 0:
                self._ready[stream] = None

    def pump(self) -> None:
        """Sends queued DATA, the streams by turns, until a window or the transport says stop."""
        ready = self._ready
        while ready and self.window > 0 and not self.paused:
            stream = next(iter(ready))
            del ready[stream]
            allowed = min(self.window, stream.send_window, stream.out_left, _QUANTUM)
            if allowed > 0:
                self._emit(stream, allowed)
            if not stream.out_left:
                stream.out = None
                if stream.trailers is not None:
                    self.headers(stream, stream.trailers, end=True)
                    stream.table.answered(stream)
                elif stream.work is not None:
                    stream.work.drained()
            elif stream.send_window > 0:
                ready[stream] = None
            if self._size >= _GATHER:
                self.flush()

    def _emit(self, stream: Stream, count: int) -> None:
        out = stream.out
        assert out is not None  # noqa: S101  a stream in `_ready` has a queue
        parts = self._parts
        stream.out_left -= count
        stream.send_window -= count
        self.window -= count
        self.sent += count
        self._size += count
        while count:
            size = need = min(count, self.max_frame)
            count -= size
            parts.append(data_header(size, stream.number))
            while need:
                part = out[0]
                if len(part) <= need:
                    out.popleft()
                else:
                    out[0] = part[need:]
                    part = part[:need]
                need -= len(part)
                parts.append(part)
                if len(part) >= _LARGE_PART:
                    self._large = True
        if not self.scheduled:
            self.scheduled = True
            self._pass_end.add(self)

    def flush(self) -> None:
        """Hands everything gathered to the transport in one write."""
        if not self.paused:
            self._write()

    def stop(self) -> None:
        """Sends what was gathered; from now on nothing."""
        if not self._stopped:
            self._write()
            self._stopped = self.paused = True

    def _write(self) -> None:
        parts = self._parts
        if not parts:
            return
        self._parts = []
        self._size = 0
        if self._large:
            self._large = False
            self._transport.writelines(parts)
        else:
            self._transport.write(b"".join(parts))

    def resume(self) -> None:
        """The transport takes more again."""
        if not self._stopped:
            self.paused = False
            self.flush()
            self.pump()


def _octets(part: Data) -> Data:
    if isinstance(part, bytes):
        return part if len(part) < _LARGE_PART else memoryview(part)
    return part if part.format == "B" and part.ndim == 1 else part.cast("B")
