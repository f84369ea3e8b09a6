"""One HTTP/2 connection: the preface, the frames in their order, and its end."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol, cast

from turnout.entrypoints.grpc.answers import HTTP1_ANSWER
from turnout.entrypoints.grpc.control import DRAIN_PING, Control
from turnout.entrypoints.grpc.flow import HIGH_WATER, LOW_WATER, Outbound
from turnout.entrypoints.grpc.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    WITH_PRIORITY,
    ConnectionFault,
    Data,
    ErrorCode,
    FrameReader,
    Setting,
    StreamFault,
    frame,
    goaway,
    settings,
    window_update,
)
from turnout.entrypoints.grpc.lane import receive
from turnout.entrypoints.grpc.limits import DEFAULT_WINDOW, MAX_WINDOW, MIN_FRAME, GrpcLimits
from turnout.entrypoints.grpc.messages import LARGE
from turnout.entrypoints.grpc.streams import Streams

if TYPE_CHECKING:
    from turnout.entrypoints.grpc.calls import Calls

_log = logging.getLogger("turnout.grpc")

_LINGER_BYTES = 1024 * 1024


class Registry(Protocol):
    """Who keeps count of connections. `opened` gives the reason where there is no room for one more."""

    def opened(self, connection: Connection) -> str: ...
    def closed(self, connection: Connection) -> None: ...


class Connection(asyncio.BufferedProtocol):
    """Reads into a buffer that all connections of the loop share; what must stay is copied out of it at once."""

    def __init__(self, calls: Calls, scratch: memoryview, registry: Registry) -> None:
        self._calls = calls
        self._limits: GrpcLimits = calls.limits
        self._scratch = scratch
        self._registry = registry
        self._reader = FrameReader(self._limits.max_frame_bytes, max(MIN_FRAME, self._limits.max_header_block_bytes))
        self._greeting = b""
        self._greeted = False
        self._ending = False
        self._space: memoryview | None = None
        self._cut = 0
        self._cut_since = 0.0
        self._drain_phase = 0
        self._since = 0.0
        self._idle_since = 0.0
        self._stalled_since = 0.0
        self._lingered = 0
        self.transport: asyncio.Transport
        self.out: Outbound
        self.streams: Streams
        self.control: Control

    # the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(HIGH_WATER, LOW_WATER)
        name = transport.get_extra_info("peername")
        peer = f"{name[0]}:{name[1]}" if isinstance(name, tuple) else str(name or "")
        self.out = Outbound(self.transport, self._calls.pass_end)
        self.streams = Streams(self._calls, self.out, peer, self._stream_finished)
        self.control = Control(self.streams, self.out, self._drain_ping_came)
        self._since = self._idle_since = self._calls.clock
        refusal = self._registry.opened(self)
        if refusal:
            self.out.put(settings({}))
            self.end(ErrorCode.ENHANCE_YOUR_CALM, refusal)

    def connection_lost(self, exc: Exception | None) -> None:
        self._ending = True
        self.out.stop()
        self.streams.abandon()
        self._registry.closed(self)

    def pause_writing(self) -> None:
        self.out.paused = True
        self._stalled_since = self._calls.clock
        self.transport.pause_reading()  # what is not read cannot ask for more

    def resume_writing(self) -> None:
        self.transport.resume_reading()
        self.out.resume()

    def eof_received(self) -> bool:
        return False  # a client that stops sending is gone: nothing it still waits for can be accepted

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._scratch if self._space is None else self._space

    def buffer_updated(self, nbytes: int) -> None:
        if self._ending:
            self._linger(nbytes)
            return
        out = self.out
        held_back, out.scheduled = out.scheduled, True  # one write at the end of what was received
        try:
            if self._space is not None:
                self._placed(nbytes)
            else:
                self._receive(bytes(self._scratch[:nbytes]) if nbytes < LARGE else self._scratch[:nbytes])
        except ConnectionFault as fault:
            self.end(fault.code, str(fault))
        except Exception:  # noqa: BLE001  a defect of ours ends one connection, not the server
            _log.exception("a connection ended with an unexpected failure")
            self.end(ErrorCode.INTERNAL_ERROR, "internal error")
        out.scheduled = held_back
        out.flush()
        left = self._reader.left
        self._space = None
        if left >= LARGE and not self._ending:
            space = self.streams.bodies.space(self._reader.stream_id)
            if space is not None:
                self._space = space[:left]

    # frames

    def _placed(self, count: int) -> None:
        self._space = None
        stream_id = self._reader.stream_id
        flags = self._reader.advance(count)
        try:
            self.streams.bodies.placed(flags, stream_id, count)
        except StreamFault as fault:
            self.streams.fault(stream_id, fault)

    def _receive(self, data: Data) -> None:
        if not self._greeted:
            data = self._greet(bytes(data))
            if not data:
                return
        reader = self._reader
        if reader.left:
            at = min(reader.left, len(data))
            self._frame(DATA, reader.advance(at), reader.stream_id, data[:at])
            data = data[at:]
        else:
            data = reader.joined(data)
        if data and not self._ending:
            data = data[receive(self, data) :]
        if self._ending:
            return
        for kind, flags, stream_id, payload in reader.read(data):
            self._frame(kind, flags, stream_id, payload)
            if self._ending:
                return

    def _frame(self, kind: int, flags: int, stream_id: int, payload: Data) -> None:
        streams, control = self.streams, self.control
        try:
            if kind > HEADERS or control.block_open or not control.settled:
                control.frame(kind, flags, stream_id, payload)
            elif not stream_id:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "DATA and HEADERS belong to a stream")
            elif kind == DATA:
                streams.bodies.data(flags, stream_id, payload, self._reader.left)
            elif flags & (PADDED | WITH_PRIORITY | END_HEADERS) == END_HEADERS:
                streams.headers(stream_id, bytes(payload), bool(flags & END_STREAM))
            else:
                control.headers(flags, stream_id, payload)
        except StreamFault as fault:
            streams.fault(stream_id, fault)

    def _greet(self, data: bytes) -> bytes:
        self._greeting += data
        got = self._greeting
        if got[: len(PREFACE)] != PREFACE[: len(got)]:
            if got[:1].isalpha():
                self._end_with(HTTP1_ANSWER)
                return b""
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "this port speaks HTTP/2 without TLS")
        if len(got) < len(PREFACE):
            return b""
        self._greeted = True
        self._greeting = b""
        limits = self._limits
        self.out.put(
            settings(
                {
                    Setting.MAX_CONCURRENT_STREAMS: limits.max_streams,
                    Setting.INITIAL_WINDOW_SIZE: limits.stream_window_bytes,
                    Setting.MAX_FRAME_SIZE: limits.max_frame_bytes,
                    Setting.MAX_HEADER_LIST_SIZE: limits.max_header_list_bytes,
                }
            )
        )
        if limits.connection_window_bytes > DEFAULT_WINDOW:
            self.out.put(window_update(0, limits.connection_window_bytes - DEFAULT_WINDOW))
        return got[len(PREFACE) :]

    # the end

    def drain(self) -> None:
        """Takes no more calls, answers those that are there, then closes.

        The client hears of it first, and only after its next sign of life which call is the last one:
        what it sends in between is still answered.
        """
        if self._ending or self._drain_phase:
            return
        if not self.control.settled:
            self.end(ErrorCode.NO_ERROR, "the server is stopping")
            return
        self._drain_phase = 1
        self._since = self._calls.clock
        self.out.put(goaway(MAX_WINDOW, ErrorCode.NO_ERROR, "the server is stopping"))
        self.out.put(frame(PING, 0, 0, DRAIN_PING))

    def _drain_ping_came(self) -> None:
        if self._drain_phase == 1:
            self._last_streams()

    def _last_streams(self) -> None:
        self._drain_phase = 2
        self.streams.last_accepted = self.streams.last_id
        self.out.put(goaway(self.streams.last_id, ErrorCode.NO_ERROR, "the server is stopping"))
        self._stream_finished()

    def _stream_finished(self) -> None:
        if not self.streams.open:
            self._idle_since = self._calls.clock
            if self._drain_phase == 2 and not self._ending:
                self._end_with(b"")

    def end(self, code: ErrorCode, text: str) -> None:
        """Ends the connection now, with a GOAWAY that says why; calls under way are cancelled."""
        if self._ending:
            return
        self._ending = True
        self.streams.abandon()
        self._end_with(goaway(self.streams.last_id, code, text))

    def _end_with(self, last: bytes) -> None:
        """Sends the last bytes and waits a little for the client to close, so that it can read them."""
        self._ending = True
        self._since = self._calls.clock
        if last:
            self.out.put(last)
        self.out.stop()
        if not self.transport.is_closing():
            self.transport.write_eof()

    def _linger(self, count: int) -> None:
        self._lingered += count
        if self._lingered > _LINGER_BYTES:
            self.transport.abort()

    def _cut_off_since(self, now: float) -> float:
        """Since when the frame or the header block is waited for that has begun; now where there is none."""
        if self.control.block_open:
            return self.control.block_since
        if not self._reader.midway:
            return now
        if self._cut != self._reader.cuts:
            self._cut, self._cut_since = self._reader.cuts, now
        return self._cut_since

    def sweep(self, now: float) -> None:
        """Closes what is too slow or idle for too long; `now` is on the monotonic clock."""
        limits = self._limits
        streams = self.streams
        passed = now - self._since
        if self._ending:
            if passed > limits.linger_seconds and (
                not self.transport.get_write_buffer_size() or passed > limits.stall_seconds
            ):
                self.transport.abort()
            return
        streams.overhead.wait(limits.sweep_seconds)
        streams.resets.wait(limits.sweep_seconds)
        if not self.control.settled:
            if passed > limits.handshake_seconds:
                self.end(ErrorCode.SETTINGS_TIMEOUT, "no connection preface in time")
        elif self._cut_off_since(now) < now - limits.header_seconds:
            self.end(ErrorCode.ENHANCE_YOUR_CALM, "a frame came too slowly")
        elif self.out.paused and now - self._stalled_since > limits.stall_seconds:
            self.transport.abort()
        elif self._drain_phase == 1 and passed > limits.linger_seconds:
            self._last_streams()
        elif streams.open:
            if streams.sweep(now):
                self.drain()  # as likely as not there is nobody at the other end any more
        elif now - self._idle_since > limits.idle_seconds:
            self.drain()
