"""Connections that were turned away, and when they are read from again.

A refusal costs a fifth of a cheap model's answer, so a server that refuses all that is too much has little left for
what it could answer. A connection that has just been told to come back in a second is therefore not read from for
that time, or until there is room: what its client sends all the same waits in the kernel and costs nothing. Every
connection gets its turn again, so none is forgotten, and what was never refused (health, metrics, whatever has time)
is never parked.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import termios
from itertools import islice
from time import monotonic
from typing import NamedTuple, Protocol

from turnout.entrypoints.pace import Pace

#: What a refused client is told to wait (seconds), and the longest that it is not read from for that.
PARKED_SECONDS = 1.0
#: How often it is looked whether there is room (seconds).
TICK = 0.005
#: A loop that is behind by less than this (seconds) has room.
_ROOM = 0.003
#: How many whose time is over are read from at each tick although there is no room: about 2 % of the time.
_OVERDUE = 4


class Parked(Protocol):
    """What parking needs of a connection."""

    def unpark(self) -> None: ...


class Opening(NamedTuple):
    """How many parked connections are to be read from again: of the latest, and of those that waited longest."""

    latest: int
    overdue: int


def opening(behind: float, last: int, waiting: int, overdue: int) -> Opening:
    """What there is room for, at one tick. The latest come first, because their requests are not too late yet.

    behind: how late the loop is (seconds). last: how many of the latest were let in at the tick before; it doubles
    while there is room. waiting: how many are parked. overdue: how many of them have been for PARKED_SECONDS.
    """
    late = min(overdue, _OVERDUE)
    if behind >= _ROOM:
        return Opening(0, late)
    return Opening(min(max(4, 2 * last), waiting - late), late)


class Parking:
    """All parked connections of one door."""

    def __init__(self, loop: asyncio.AbstractEventLoop, pace: Pace) -> None:
        self._loop = loop
        self._pace = pace
        self._parked: dict[Parked, float] = {}  # in the order of their parking
        self._last = 0
        self._armed = False

    def __len__(self) -> int:
        """How many connections are parked."""
        return len(self._parked)

    def park(self, connection: Parked, now: float) -> None:
        """Keeps a connection that has stopped reading."""
        self._parked[connection] = now
        if not self._armed:
            self._armed = True
            self._last = 0
            self._loop.call_later(TICK, self._turn)

    def forget(self, connection: Parked) -> None:
        """The connection is gone."""
        self._parked.pop(connection, None)

    def empty(self) -> None:
        """Lets everybody in."""
        while self._parked:
            self._parked.popitem()[0].unpark()

    def _turn(self) -> None:
        now = monotonic()
        parked = self._parked
        overdue = 0
        for since in parked.values():
            if overdue >= _OVERDUE or now - since < PARKED_SECONDS:
                break
            overdue += 1
        found = opening(self._pace.lag(now), self._last, len(parked), overdue)
        self._last = found.latest
        chosen = [*islice(parked, found.overdue), *islice(reversed(parked), found.latest)]
        try:
            for connection in chosen:
                if parked.pop(connection, None) is not None:
                    connection.unpark()
        finally:  # whatever becomes of one, the others have their turn
            self._armed = bool(parked)
            if self._armed:
                self._loop.call_later(TICK, self._turn)


_CLOSE_WAIT = 8
_LAST_DATA = struct.Struct("52xI")  # struct tcp_info: milliseconds since data came last


class Unread(NamedTuple):
    """What the kernel knows of a connection: whether its client has left, bytes that wait, seconds since they came."""

    left: bool
    size: int
    age: float


def unread(transport: asyncio.BaseTransport) -> Unread | None:
    """Asks the kernel; None where it does not say (not Linux, not TCP)."""
    sock = transport.get_extra_info("socket")
    if sock is None or not hasattr(socket, "TCP_INFO"):
        return None
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_DATA.size)
        (size,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.FIONREAD, b"\0\0\0\0"))
        return Unread(info[0] >= _CLOSE_WAIT, size, _LAST_DATA.unpack(info)[0] / 1000.0)
    except (OSError, struct.error):
        return None
