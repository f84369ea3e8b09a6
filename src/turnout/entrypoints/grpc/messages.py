"""gRPC messages: the five bytes before each, and their assembly out of DATA payloads."""

from __future__ import annotations

import struct

import numpy as np

from turnout.core.errors import InvalidInput, TooLarge
from turnout.entrypoints.grpc.frames import Data

PREFIX = struct.Struct(">BI")
#: From here on a message has its own memory from the start and is received into it (bytes).
LARGE = 64 * 1024


class MessageReader:
    """Puts one stream's DATA payloads together to messages: (compressed flag, bytes).

    Of the message under way, `held` is what it may take in memory (its declared length) and `filled` how much
    is there.
    """

    __slots__ = ("_body", "_flag", "_head", "_length", "_max_bytes", "filled", "held")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._head = b""
        self._flag = 0
        self._length = -1
        self._body: bytearray | memoryview = bytearray()
        self.filled = 0
        self.held = 0

    @property
    def midway(self) -> bool:
        """Whether a message has begun and is not complete."""
        return self._length >= 0 or bool(self._head)

    @property
    def missing(self) -> int:
        """How many bytes the message under way still needs."""
        return self._length - self.filled if self._length >= 0 else 0

    def feed(self, piece: Data) -> list[tuple[int, Data]]:
        """The messages that `piece` completes. Raises TooLarge or InvalidInput as soon as a prefix says so."""
        done: list[tuple[int, Data]] = []
        at, end = 0, len(piece)
        while True:
            if self._length < 0:
                at = self._read_prefix(piece, at)
                if self._length < 0:
                    return done
            take = min(self._length - self.filled, end - at)
            self.append(piece[at : at + take])
            at += take
            if self.filled < self._length:
                return done
            done.append(self._finish())

    def space(self) -> memoryview | None:
        """Where the rest of a large message may be received directly; `placed` says how much was."""
        if self._length >= LARGE and isinstance(self._body, memoryview):
            return self._body[self.filled :]
        return None

    def placed(self, count: int) -> list[tuple[int, Data]]:
        """Notes that `count` bytes are in `space`; the message if it is complete now."""
        self.filled += count
        return [self._finish()] if self.filled == self._length else []

    def _read_prefix(self, piece: Data, at: int) -> int:
        stop = at + PREFIX.size - len(self._head)
        self._head += piece[at:stop]
        if len(self._head) < PREFIX.size:
            return min(stop, len(piece))
        flag, length = PREFIX.unpack(self._head)
        if flag > 1:
            raise InvalidInput("not a gRPC message", expected="a compressed flag of 0 or 1", got=str(flag))
        if length > self._max_bytes:
            raise TooLarge(f"a message of {length} bytes; this server takes at most {self._max_bytes}")
        self._head = b""
        self._flag, self._length, self.filled, self.held = flag, length, 0, length
        self._body = memoryview(np.empty(length, np.uint8)) if length >= LARGE else bytearray()
        return stop

    def append(self, piece: Data) -> None:
        """Takes a piece from the middle of the message under way; it must not be more than is missing."""
        if isinstance(self._body, bytearray):
            self._body += piece
        else:
            self._body[self.filled : self.filled + len(piece)] = piece
        self.filled += len(piece)

    def _finish(self) -> tuple[int, Data]:
        body = self._body if isinstance(self._body, memoryview) else bytes(self._body)
        self._length, self._body, self.held = -1, bytearray(), 0
        return self._flag, body
