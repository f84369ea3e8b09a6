"""Request bodies that come in more than one piece: of a stated length, or in chunks.

A body takes what is its own out of each piece of the stream and says where the next request begins.
"""

from __future__ import annotations

import enum
import re
from typing import Protocol

from turnout.entrypoints.http.limits import HttpLimits
from turnout.entrypoints.http.rooms import Rooms, held_bytes
from turnout.entrypoints.http.syntax import TRAILER, Refusal, shown

#: A body gets its whole room at once when this much of it has come, a mere announcement reserves nothing, and when
#: this much of it is missing. The event loop mostly reads more than that in one go.
RESERVE_BYTES = 64 * 1024

_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})(;[\t !-~\x80-\xff]*+)?\r\n")
_CHUNK_START = re.compile(rb"(?:[0-9A-Fa-f]{1,8}(?:;[\t !-~\x80-\xff]*+)?\r?)?")
#: A chunk's size line without extension: eight digits and CRLF.
_SIZE_LINE = 10
_BAD_END = "a chunk is longer than its size says; expected CRLF after it"
_FORBIDDEN_TRAILERS = frozenset(
    (
        b"authorization", b"connection", b"content-encoding", b"content-length", b"content-range", b"content-type",
        b"cookie", b"expect", b"host", b"te", b"trailer", b"transfer-encoding", b"upgrade",
    )
)  # fmt: skip


class Body(Protocol):
    """One body on its way: `received` counts its bytes so far, `complete` says that `content` is whole.

    `held` is how many bytes of memory are used for it.
    """

    received: int
    complete: bool
    content: bytearray | memoryview

    @property
    def held(self) -> int: ...

    def feed(self, data: bytes, at: int) -> int:
        """Takes its bytes from `data[at:]` and returns the offset after them. Raises Refusal."""
        ...


class SizedBody:
    """A body of a stated length. A long one is `reserved` at some point: the rest of it is received straight into
    its room (`room`, `filled`).
    """

    __slots__ = ("_rooms", "complete", "content", "length", "received", "reserved")

    def __init__(self, length: int, rooms: Rooms) -> None:
        self.length = length
        self.received = 0
        self.complete = self.reserved = False
        self.content: bytearray | memoryview = bytearray()
        self._rooms = rooms

    @property
    def held(self) -> int:
        """Bytes of memory that are used for it."""
        return held_bytes(self.length, self.received) if self.reserved else self.received

    def feed(self, data: bytes, at: int) -> int:
        """Takes what is missing, as far as it is there."""
        taken = min(self.length - self.received, len(data) - at)
        received = self.received + taken
        if not self.reserved and received >= RESERVE_BYTES and self.length - received >= RESERVE_BYTES:
            self._reserve()
        piece = memoryview(data)[at : at + taken]
        if self.reserved:
            self.content[self.received : received] = piece
        else:
            self.content += piece  # type: ignore[operator]  # a bytearray until then
        self.filled(taken)
        return at + taken

    def _reserve(self) -> None:
        """Moves what has come into the body's final place, which no page of is touched before it is needed."""
        room = self._rooms.take(self.length)
        room[: self.received] = self.content
        self.content = room
        self.reserved = True

    def room(self) -> memoryview:
        """Where the rest belongs, once reserved."""
        return self.content[self.received :]  # type: ignore[return-value]  # a memoryview once reserved

    def filled(self, size: int) -> None:
        """Counts bytes that were put into `room`."""
        self.received += size
        self.complete = self.received == self.length


class _Part(enum.Enum):
    """What of a chunked body comes next."""

    SIZE = enum.auto()
    DATA = enum.auto()
    DATA_END = enum.auto()
    TRAILERS = enum.auto()


class ChunkedBody:
    """A body in chunks. Sizes are plain hex, lines end in CRLF, extensions are skipped, trailers are dropped."""

    __slots__ = (
        "_chunks", "_left", "_limits", "_line", "_part", "_size_line", "_trailer_bytes", "complete", "content",
        "received",
    )  # fmt: skip

    def __init__(self, limits: HttpLimits) -> None:
        self.received = 0
        self.complete = False
        self.content: bytearray | memoryview = bytearray()
        self._limits = limits
        self._chunks = 0
        self._left = 0
        self._line = b""
        self._trailer_bytes = 0
        self._size_line = _SIZE_LINE + limits.chunk_extension_bytes
        self._part = _Part.SIZE

    @property
    def held(self) -> int:
        """Bytes of memory that are used for it."""
        return self.received

    def feed(self, data: bytes, at: int) -> int:
        """Reads chunks until the data or the body ends. Raises Refusal for anything but the strict form."""
        size = len(data)
        while at < size and not self.complete:
            part = self._part
            if part is _Part.SIZE:
                at = self._read_sizes(data, at)
            elif part is _Part.DATA:
                at = self._read_data(data, at)
            elif part is _Part.DATA_END:
                at = self._read_data_end(data, at)
            else:
                at = self._read_trailers(data, at)
        return at

    def _read_sizes(self, data: bytes, at: int) -> int:
        """Whole chunks one after the other, then the start of one that is cut off."""
        if not self._line:
            at = self._read_whole_chunks(data, at)
        line, at = self._take_line(data, at, self._size_line)
        if not line:
            if _CHUNK_START.fullmatch(self._line) is None:
                raise self._bad_size
            return at
        match = _CHUNK.fullmatch(line)
        if match is None:
            raise self._bad_size
        self._left = self._next_size(match)
        self._part = _Part.DATA if self._left else _Part.TRAILERS
        return at

    def _read_whole_chunks(self, data: bytes, at: int) -> int:
        size = len(data)
        content = self.content
        while (match := _CHUNK.match(data, at)) is not None:
            start = match.end()
            end = start + int(match[1], 16)
            if end == start or end + 2 > size or start - at > self._size_line:
                break
            self._next_size(match)
            if data[end : end + 2] != b"\r\n":
                raise Refusal(400, _BAD_END)
            content += data[start:end]  # type: ignore[operator]  # a bytearray here
            self.received += end - start
            at = end + 2
        return at

    def _read_data(self, data: bytes, at: int) -> int:
        taken = min(self._left, len(data) - at)
        self.content += data[at : at + taken]  # type: ignore[operator]  # a bytearray here
        self.received += taken
        self._left -= taken
        if not self._left:
            self._part = _Part.DATA_END
        return at + taken

    def _read_data_end(self, data: bytes, at: int) -> int:
        came = self._line + data[at : at + 2 - len(self._line)]
        at += len(came) - len(self._line)
        if not b"\r\n".startswith(came):
            raise Refusal(400, _BAD_END)
        self._line = came
        if came == b"\r\n":
            self._line = b""
            self._part = _Part.SIZE
        return at

    def _read_trailers(self, data: bytes, at: int) -> int:
        line, at = self._take_line(data, at, self._limits.trailer_bytes)
        if line == b"\r\n":
            self.complete = True
        elif line:
            self._trailer_bytes += len(line)
            if self._trailer_bytes > self._limits.trailer_bytes:
                raise self._long_trailers
            match = TRAILER.fullmatch(line)
            if match is None:
                raise Refusal(400, f"malformed trailer field; expected 'name: value' and CRLF, got {shown(line)}")
            if match[1].lower() in _FORBIDDEN_TRAILERS:
                raise Refusal(400, f"the field {shown(match[1])} is not allowed in a trailer")
        return at

    def _take_line(self, data: bytes, at: int, most: int) -> tuple[bytes, int]:
        """One line with its end, or nothing (and what there is of it in `_line`)."""
        end = data.find(b"\n", at, at + most + 1)
        if end >= 0:
            line = self._line + data[at : end + 1]
            self._line = b""
            at = end + 1
        else:
            line = b""
            self._line += data[at : at + most + 1]
            at = len(data)
        if len(line) > most or len(self._line) > most:
            raise self._bad_size if self._part is _Part.SIZE else self._long_trailers
        return line, at

    def _next_size(self, match: re.Match[bytes]) -> int:
        """Counts one more chunk and returns its size. Raises Refusal where it is one too many, or too large."""
        size = int(match[1], 16)
        limits = self._limits
        if match[2] is not None and len(match[2]) > limits.chunk_extension_bytes:
            raise self._bad_size
        if size:
            self._chunks += 1
            if self._chunks > limits.chunk_count:
                raise Refusal(400, f"the body has too many chunks; expected at most {limits.chunk_count}")
            if self.received + size > limits.body_bytes:
                raise Refusal(413, f"the body is too large; expected at most {limits.body_bytes} bytes")
        return size

    @property
    def _bad_size(self) -> Refusal:
        most = self._limits.chunk_extension_bytes
        return Refusal(400, f"malformed chunk size; expected hex digits, at most {most} bytes of extension, and CRLF")

    @property
    def _long_trailers(self) -> Refusal:
        return Refusal(431, f"the trailer fields are too large; expected at most {self._limits.trailer_bytes} bytes")
