"""Frames that are not simply DATA or HEADERS: header blocks in several frames, SETTINGS, PING, windows, resets."""

from __future__ import annotations

from collections.abc import Callable

from turnout.entrypoints.grpc.flow import Outbound
from turnout.entrypoints.grpc.frames import (
    ACK,
    CONTINUATION,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    PADDED,
    PING,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    SETTINGS_ACK,
    WINDOW_UPDATE,
    WITH_PRIORITY,
    ConnectionFault,
    Data,
    ErrorCode,
    Setting,
    StreamFault,
    frame,
    read_settings,
    unpad,
    word,
)
from turnout.entrypoints.grpc.limits import MAX_FRAME, MAX_WINDOW, MIN_FRAME
from turnout.entrypoints.grpc.streams import Streams

DRAIN_PING = b"draining"
_MAX_SETTINGS = 100
#: A WINDOW_UPDATE below this is one that carries no work (bytes).
_SMALL_INCREMENT = 4096


class Control:
    """The connection's own state: whether its SETTINGS came (`settled`), and the header block under way.

    `block_open` since `block_since` (the door's clock): only CONTINUATION may come.
    """

    __slots__ = (
        "_block", "_block_end", "_block_frames", "_block_stream", "_drain_ping_came", "_limits", "_out", "_streams",
        "block_open", "block_since", "settled",
    )  # fmt: skip

    def __init__(self, streams: Streams, out: Outbound, drain_ping_came: Callable[[], None]) -> None:
        self._streams = streams
        self._out = out
        self._drain_ping_came = drain_ping_came
        self._limits = streams.calls.limits
        self._block = bytearray()
        self._block_stream = 0
        self._block_end = False
        self._block_frames = 0
        self.block_open = False
        self.block_since = 0.0
        self.settled = False

    def frame(self, kind: int, flags: int, stream_id: int, payload: Data) -> None:
        """Takes any frame but a simple DATA or HEADERS one. Raises ConnectionFault or StreamFault."""
        if self.block_open:
            if kind != CONTINUATION or stream_id != self._block_stream:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a header block is interrupted")
            self._continue(flags, payload)
        elif not self.settled:
            if kind != SETTINGS or flags & ACK:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a connection starts with SETTINGS")
            self._settings(flags, stream_id, payload)
            self.settled = True
        elif kind == WINDOW_UPDATE:
            self._window_update(stream_id, payload)
        elif kind == RST_STREAM:
            _expect(len(payload) == 4, ErrorCode.FRAME_SIZE_ERROR, "RST_STREAM has four bytes")
            self._streams.peer_reset(stream_id)
        elif kind == PING:
            self._ping(flags, stream_id, payload)
        elif kind == SETTINGS:
            self._settings(flags, stream_id, payload)
        elif kind in (PUSH_PROMISE, CONTINUATION):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a frame that has no place here")
        else:
            self._streams.overhead.spend()
            if kind == PRIORITY:
                _expect(stream_id != 0, ErrorCode.PROTOCOL_ERROR, "PRIORITY belongs to a stream")
                if len(payload) != 5:
                    raise StreamFault(ErrorCode.FRAME_SIZE_ERROR, "PRIORITY has five bytes")
            elif kind == GOAWAY:
                _expect(stream_id == 0, ErrorCode.PROTOCOL_ERROR, "GOAWAY belongs to the connection")
                _expect(len(payload) >= 8, ErrorCode.FRAME_SIZE_ERROR, "GOAWAY has at least eight bytes")

    def headers(self, flags: int, stream_id: int, payload: Data) -> None:
        """Takes a HEADERS frame that is padded, has a priority or goes on. Raises ConnectionFault or StreamFault."""
        if flags & PADDED:
            payload = unpad(payload)
        if flags & WITH_PRIORITY:
            _expect(len(payload) >= 5, ErrorCode.FRAME_SIZE_ERROR, "HEADERS with priority has five bytes more")
            payload = payload[5:]
        end = bool(flags & END_STREAM)
        if flags & END_HEADERS:
            self._streams.headers(stream_id, bytes(payload), end)
        else:
            self._block = bytearray()
            self.block_open = True
            self._block_stream, self._block_end, self._block_frames = stream_id, end, -1
            self.block_since = self._streams.calls.clock
            self._continue(flags, payload)

    def _continue(self, flags: int, payload: Data) -> None:
        block = self._block
        block += payload
        self._block_frames += 1
        if len(block) > self._limits.max_header_block_bytes or self._block_frames > self._limits.max_continuations:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "a header block of too many bytes or frames")
        if flags & END_HEADERS:
            self.block_open = False
            self._streams.headers(self._block_stream, bytes(block), self._block_end)

    def _settings(self, flags: int, stream_id: int, payload: Data) -> None:
        _expect(stream_id == 0, ErrorCode.PROTOCOL_ERROR, "SETTINGS belongs to the connection")
        self._streams.overhead.spend()
        if flags & ACK:
            _expect(not payload, ErrorCode.FRAME_SIZE_ERROR, "an acknowledgement of SETTINGS is empty")
            return
        _expect(len(payload) <= 6 * _MAX_SETTINGS, ErrorCode.ENHANCE_YOUR_CALM, "too many entries in SETTINGS")
        for key, value in read_settings(payload):
            if key == Setting.INITIAL_WINDOW_SIZE:
                _expect(value <= MAX_WINDOW, ErrorCode.FLOW_CONTROL_ERROR, "an initial window over 2^31-1")
                self._out.new_initial_window(value, list(self._streams.open.values()))
            elif key == Setting.MAX_FRAME_SIZE:
                _expect(MIN_FRAME <= value <= MAX_FRAME, ErrorCode.PROTOCOL_ERROR, "a frame size outside 2^14..2^24-1")
                self._out.max_frame = min(value, self._limits.max_frame_bytes)
            elif key == Setting.ENABLE_PUSH:
                _expect(value <= 1, ErrorCode.PROTOCOL_ERROR, "ENABLE_PUSH is 0 or 1")
        self._out.put(SETTINGS_ACK)
        self._out.pump()

    def _ping(self, flags: int, stream_id: int, payload: Data) -> None:
        _expect(stream_id == 0, ErrorCode.PROTOCOL_ERROR, "PING belongs to the connection")
        _expect(len(payload) == 8, ErrorCode.FRAME_SIZE_ERROR, "PING has eight bytes")
        self._streams.overhead.spend()
        if not flags & ACK:
            self._out.put(frame(PING, ACK, 0, bytes(payload)))
        elif payload == DRAIN_PING:
            self._drain_ping_came()

    def _window_update(self, stream_id: int, payload: Data) -> None:
        _expect(len(payload) == 4, ErrorCode.FRAME_SIZE_ERROR, "WINDOW_UPDATE has four bytes")
        increment = word(payload)
        if increment < _SMALL_INCREMENT:
            self._streams.overhead.spend()
        if not stream_id:
            _expect(increment > 0, ErrorCode.PROTOCOL_ERROR, "a WINDOW_UPDATE of nothing")
            self._out.connection_update(increment)
            return
        stream = self._streams.open.get(stream_id)
        if stream is not None:
            if not increment:
                raise StreamFault(ErrorCode.PROTOCOL_ERROR, "a WINDOW_UPDATE of nothing")
            self._out.stream_update(stream, increment)
        elif stream_id > self._streams.last_id or not stream_id & 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE for a stream that was never opened")


def _expect(holds: bool, code: ErrorCode, text: str) -> None:
    if not holds:
        raise ConnectionFault(code, text)
