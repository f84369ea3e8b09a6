"""HTTP/2 frames (RFC 9113 section 4): bytes to frames and back, without any state of streams."""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator, Mapping

from turnout.entrypoints.grpc.limits import MIN_FRAME

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)

END_STREAM = 0x1
ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
WITH_PRIORITY = 0x20

Data = bytes | memoryview
#: Type, flags, stream identifier, payload.
Frame = tuple[int, int, int, Data]

_HEADER = struct.Struct(">IBI")
_WORD = struct.Struct(">I")
_WORDS = struct.Struct(">II")
_SETTING = struct.Struct(">HI")
_HEADER_SIZE = 9
_STREAM_BITS = 0x7FFFFFFF


class ErrorCode(enum.IntEnum):
    """Why a stream or a connection ended (RFC 9113 section 7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


class Setting(enum.IntEnum):
    """The parameters of a SETTINGS frame that this server knows."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


class ConnectionFault(Exception):
    """The peer broke a rule that ends the connection: a GOAWAY with this code, then it is closed."""

    def __init__(self, code: ErrorCode, text: str) -> None:
        super().__init__(text)
        self.code = code


class StreamFault(Exception):
    """The peer broke a rule that ends one stream: an RST_STREAM with this code."""

    def __init__(self, code: ErrorCode, text: str) -> None:
        super().__init__(text)
        self.code = code


class FrameReader:
    """Cuts what is received into frames, whatever the segments are.

    A DATA frame without padding comes out in the pieces it arrives in, the END_STREAM flag on the last piece
    only, so that a big frame is never held; `left` is what is still to come of it. Other frames come out
    whole; `cuts` counts those of which a part had to be kept. Payloads are slices of what was given to
    `read`: where that is a memoryview, they must be copied before the buffer is used again.
    """

    __slots__ = ("_flags", "_max_data", "_max_other", "_need", "_rest", "cuts", "left", "stream_id")

    def __init__(self, max_data: int, max_other: int) -> None:
        self._max_data = max_data
        self._max_other = max_other
        self._rest = bytearray()
        self._need = 0
        self._flags = 0
        self.left = 0
        self.stream_id = 0
        self.cuts = 0

    @property
    def midway(self) -> bool:
        """Whether part of a frame other than DATA is held."""
        return bool(self._rest)

    def read(self, data: Data) -> Iterator[Frame]:
        """The frames that `data` completes. Raises ConnectionFault for a frame over the announced size."""
        data = self.joined(data)
        at, end = 0, len(data)
        if self.left:
            at = min(self.left, end)
            yield DATA, self.advance(at), self.stream_id, data[:at]
        unpack = _HEADER.unpack_from
        while end - at >= _HEADER_SIZE:
            word, flags, stream_id = unpack(data, at)
            length = word >> 8
            if length > MIN_FRAME:
                self._check(word & 0xFF, length)
            stop = at + _HEADER_SIZE + length
            if stop <= end:
                yield word & 0xFF, flags, stream_id & _STREAM_BITS, data[at + _HEADER_SIZE : stop]
                at = stop
                continue
            if word & 0xFF == DATA and not flags & PADDED:
                self._flags, self.stream_id, self.left = flags, stream_id & _STREAM_BITS, length
                at += _HEADER_SIZE
                if at < end:
                    yield DATA, self.advance(end - at), self.stream_id, data[at:]
                return
            self._keep(data[at:], _HEADER_SIZE + length)
            return
        if at < end:
            self._keep(data[at:], _HEADER_SIZE)

    def joined(self, data: Data) -> Data:
        """The held part of a frame and `data`, where that completes the frame; nothing as long as it does not."""
        rest = self._rest
        if not rest:
            return data
        rest += data
        if len(rest) < self._need:
            return b""
        self._rest = bytearray()
        return bytes(rest)

    def advance(self, count: int) -> int:
        """Notes that `count` more bytes of the DATA frame under way are there; returns this piece's flags."""
        self.left -= count
        return self._flags if self.left == 0 else self._flags & ~END_STREAM

    def _keep(self, rest: Data, need: int) -> None:
        self._rest = bytearray(rest)
        self._need = need
        self.cuts += 1

    def _check(self, kind: int, length: int) -> None:
        if length > self._max_data:
            raise ConnectionFault(
                ErrorCode.FRAME_SIZE_ERROR, f"a frame of {length} bytes; at most {self._max_data} are announced"
            )
        if kind != DATA and length > self._max_other:
            raise ConnectionFault(
                ErrorCode.ENHANCE_YOUR_CALM, f"{length} bytes in a frame that is not DATA; at most {self._max_other}"
            )


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """One frame."""
    return _HEADER.pack(len(payload) << 8 | kind, flags, stream_id) + payload


def data_header(length: int, stream_id: int, flags: int = 0) -> bytes:
    """The nine bytes before `length` bytes of DATA."""
    return _HEADER.pack(length << 8, flags, stream_id)


def settings(values: Mapping[Setting, int]) -> bytes:
    """A SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(key, value) for key, value in values.items()))


SETTINGS_ACK = frame(SETTINGS, ACK, 0)


def read_settings(payload: Data) -> Iterator[tuple[int, int]]:
    """Parameter and value of each entry. Raises ConnectionFault where the length is not a multiple of six."""
    if len(payload) % _SETTING.size:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS entries have six bytes each")
    return _SETTING.iter_unpack(payload)


def window_update(stream_id: int, increment: int) -> bytes:
    """A WINDOW_UPDATE frame; stream 0 is the connection."""
    return frame(WINDOW_UPDATE, 0, stream_id, _WORD.pack(increment))


def rst_stream(stream_id: int, code: ErrorCode) -> bytes:
    """An RST_STREAM frame."""
    return frame(RST_STREAM, 0, stream_id, _WORD.pack(code))


def goaway(last_stream_id: int, code: ErrorCode, text: str = "") -> bytes:
    """A GOAWAY frame; the text is for whoever debugs the other side."""
    return frame(GOAWAY, 0, 0, _WORDS.pack(last_stream_id, code) + text.encode()[:200])


def word(payload: Data) -> int:
    """The 31-bit number that a WINDOW_UPDATE, an RST_STREAM or a GOAWAY starts with."""
    return int(_WORD.unpack_from(payload)[0]) & _STREAM_BITS


def unpad(payload: Data) -> Data:
    """A padded payload without its padding. Raises ConnectionFault where the padding is longer than the rest."""
    if not payload:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a padded frame without its padding length")
    stop = len(payload) - payload[0]
    if stop < 1:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "more padding than payload")
    return payload[1:stop]
