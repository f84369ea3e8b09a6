"""A request whose body is still on its way."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Protocol, cast

from turnout.entrypoints.http.body import Body, ChunkedBody, SizedBody
from turnout.entrypoints.http.head import Head
from turnout.entrypoints.http.progress import Progress
from turnout.entrypoints.http.state import DoorState
from turnout.entrypoints.http.syntax import Refusal


class Upload:
    """One body that comes in pieces, with its head. `close` has to be called once, whatever became of it.

    `feed` raises Refusal where the framing is bad, or where the bodies of all connections are too much together.
    """

    __slots__ = ("_held", "_progress", "_state", "began", "body", "head")

    def __init__(self, state: DoorState, head: Head) -> None:
        limits = state.limits
        self._state = state
        self._held = 0
        self.head = head
        self.body: Body = ChunkedBody(limits) if head.length < 0 else SizedBody(head.length, state.rooms)
        self.began = monotonic()
        self._progress = Progress(self.began, 0, limits.body_window_seconds, limits.body_bytes_per_second)

    def feed(self, data: bytes, at: int) -> int:
        """Gives the body what is its own in `data[at:]`, and returns the offset after it."""
        try:
            at = self.body.feed(data, at)
        finally:
            self._count()
        self._check_room()
        return at

    def filled(self, size: int) -> None:
        """Counts bytes that were received straight into the body's room."""
        cast("SizedBody", self.body).filled(size)
        self._count()
        self._check_room()

    def reserved(self) -> SizedBody | None:
        """The body, if the rest of it is now to be received straight into its room."""
        body = self.body
        return body if isinstance(body, SizedBody) and body.reserved else None

    def stalled(self, now: float, *, paused: bool) -> bool:
        """Whether the body comes too slowly. Time in which the server itself does not read is not held against it."""
        if paused:
            self._progress.restart(now, self.body.received)
            return False
        return self._progress.stalled(now, self.body.received)

    def close(self) -> None:
        """Gives the body's share of the memory for unfinished bodies back."""
        self._state.partial_bytes -= self._held

    def _count(self) -> None:
        held = self.body.held
        self._state.partial_bytes += held - self._held
        self._held = held

    def _check_room(self) -> None:
        if self._state.partial_bytes > self._state.limits.bodies_bytes and not self.body.complete:
            raise Refusal(503, "the server holds too many bytes of unfinished requests; try again in a second")


class Filling(Protocol):
    """What the reader of a room needs of its connection."""

    def room_filled(self, size: int) -> None: ...
    def eof_received(self) -> None: ...
    def connection_lost(self, exc: Exception | None) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...


class RoomReader(asyncio.BufferedProtocol):
    """Stands in for a connection while a long body is received where it will be used, without a copy."""

    def __init__(self, connection: Filling, body: SizedBody) -> None:
        self._connection = connection
        self._body = body

    def get_buffer(self, sizehint: int) -> memoryview:
        """The rest of the room. What follows the body stays with the kernel."""
        return self._body.room()

    def buffer_updated(self, nbytes: int) -> None:
        """Some bytes have come."""
        self._connection.room_filled(nbytes)

    def eof_received(self) -> None:
        """The client sends no more."""
        self._connection.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        """The client takes too little of its earlier answers."""
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        """The client has taken most of them."""
        self._connection.resume_writing()
