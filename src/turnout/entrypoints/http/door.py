"""The HTTP door: listens, sweeps its connections for slow and idle ones, and drains."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Sequence
from email.utils import formatdate
from time import monotonic

from turnout.core.servable import Serving
from turnout.deploy.listening import listen
from turnout.entrypoints.acceptor import Acceptor
from turnout.entrypoints.call import Deadlines
from turnout.entrypoints.http.connection import Connection
from turnout.entrypoints.http.head import HeadReader
from turnout.entrypoints.http.limits import HttpLimits
from turnout.entrypoints.http.parking import Parking
from turnout.entrypoints.http.routing import Routes
from turnout.entrypoints.http.state import DoorState
from turnout.entrypoints.pace import Pace
from turnout.monitoring.record import Observer
from turnout.protocols.http import RestProtocol


class HttpDoor:
    """Serves REST protocols over HTTP/1.1. Made and used inside a running event loop.

    `default_deadline` (seconds) bounds every prediction, and a caller's own deadline may only shorten it.
    Raises ValueError where two protocols claim the same path.
    """

    def __init__(
        self,
        serving: Serving,
        protocols: Sequence[RestProtocol],
        observer: Observer,
        limits: HttpLimits | None = None,
        default_deadline: float = 30.0,
    ) -> None:
        if not 0.0 < default_deadline < float("inf"):
            raise ValueError(f"default_deadline: expected a finite number of seconds above 0, got {default_deadline!r}")
        self.limits = limits or HttpLimits()
        self._loop = asyncio.get_running_loop()
        heads = HeadReader(Routes(protocols), self.limits, default_deadline)
        pace = Pace(self._loop)
        self._parking = Parking(self._loop, pace)
        self._state = DoorState(serving, observer, self.limits, heads, Deadlines(self._loop), pace, self._parking)
        self._acceptors: list[Acceptor] = []
        self._connections: set[Connection] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._sweeping: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        state = "draining" if self._state.draining else "open" if self._acceptors else "closed"
        return f"<HttpDoor [{state}, {len(self._connections)} connections]>"

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    @property
    def parked(self) -> int:
        """How many of them are not read from for a while, because they were just refused."""
        return len(self._parking)

    async def start(self, host: str, port: int, *, reuse_port: bool = False, tls: ssl.SSLContext | None = None) -> int:
        """Listens on host and port (0 picks a free one) and returns the port. Raises OSError where it is taken."""
        return self.listen_on(listen(host, port, shared=reuse_port), tls=tls)

    def listen_on(self, listening: socket.socket, *, tls: ssl.SSLContext | None = None) -> int:
        """Accepts from a socket that is bound already (another process may share it); returns its port."""
        self._acceptors.append(Acceptor(listening, self.connection, tls, crowded=self._crowded))
        return int(listening.getsockname()[1])

    def connection(self) -> Connection:
        """The protocol of one new connection, for whoever accepts it."""
        if self._sweeping is None:
            self._sweep()
        return Connection(self._state, self._made, self._gone)

    async def drain(self) -> None:
        """Stops accepting, answers what is in flight and ends every connection; returns when none is left.

        A connection that was used a moment ago may still carry a request: it gets that one answered, with
        `Connection: close`. Idle ones are closed. How long this takes is bounded by the deadlines and limits.
        """
        self._state.draining = True
        self._parking.empty()
        self._stop_listening()
        self._check_all()
        while self._connections:
            self._empty.clear()
            await self._empty.wait()

    async def close(self) -> None:
        """Ends everything at once."""
        self._stop_listening()
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        for connection in list(self._connections):
            connection.abort()
        while self._connections:
            self._empty.clear()
            await self._empty.wait()

    def _stop_listening(self) -> None:
        for acceptor in self._acceptors:
            acceptor.close()
        self._acceptors.clear()

    def _made(self, connection: Connection) -> bool:
        """Whether there is room for one more connection."""
        self._connections.add(connection)
        return len(self._connections) <= self.limits.connections

    def _crowded(self) -> bool:
        """Whether those who are here already have more to ask than can be answered."""
        return len(self._parking) > 0

    def _gone(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()

    def _sweep(self) -> None:
        """Looks after every connection and the date, every `sweep_seconds`: one timer however many there are."""
        self._sweeping = self._loop.call_later(self.limits.sweep_seconds, self._sweep)
        self._state.busy.clear()
        self._state.tail = f"\r\nDate: {formatdate(usegmt=True)}\r\n\r\n".encode()
        self._check_all()

    def _check_all(self) -> None:
        limits = self.limits
        idle_seconds = limits.idle_seconds
        if self._state.draining:
            idle_seconds = min(idle_seconds, limits.drain_idle_seconds)
        elif len(self._connections) * 4 > limits.connections * 3:
            idle_seconds = min(idle_seconds, limits.header_seconds)
        now = monotonic()
        for connection in list(self._connections):
            connection.check(now, idle_seconds)
        self._state.rooms.sweep(now)
