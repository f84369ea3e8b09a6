"""The gRPC door: listens, sweeps, drains, closes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from time import monotonic

from turnout.core.servable import Serving
from turnout.deploy.listening import listen
from turnout.entrypoints.acceptor import Acceptor
from turnout.entrypoints.grpc.calls import Calls
from turnout.entrypoints.grpc.connection import Connection
from turnout.entrypoints.grpc.frames import ErrorCode
from turnout.entrypoints.grpc.limits import GrpcLimits
from turnout.monitoring.record import Observer
from turnout.protocols.grpc import GrpcMethod

#: One read takes at most this (bytes). The buffer is shared: a read is dealt with before the next one starts.
_READ_BYTES = 256 * 1024
_STOPPING = "the server is stopping"


class GrpcDoor:
    """Serves gRPC methods on one port of one event loop.

    `default_deadline` (seconds; infinity for none) bounds every prediction; a `grpc-timeout` may only shorten it.
    """

    def __init__(
        self,
        serving: Serving,
        methods: Sequence[GrpcMethod],
        observer: Observer,
        limits: GrpcLimits,
        default_deadline: float,
    ) -> None:
        self._serving = serving
        self._methods = tuple(methods)
        self._observer = observer
        self._limits = limits
        self._default_deadline = default_deadline
        self._connections: set[Connection] = set()
        self._scratch = memoryview(bytearray(_READ_BYTES))
        self._acceptor: Acceptor | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._calls: Calls | None = None
        self._stopping = False
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    async def start(self, host: str, port: int, *, reuse_port: bool = False) -> int:
        """Listens; returns the port, which is a free one where `port` is 0. Raises OSError."""
        return self.listen_on(listen(host, port, shared=reuse_port))

    def listen_on(self, listening: socket.socket) -> int:
        """Accepts from a socket that is bound already (another process may share it); returns its port."""
        loop = asyncio.get_running_loop()
        calls = self._calls = Calls(
            loop, self._serving, self._methods, self._observer, self._limits, self._default_deadline
        )
        self._acceptor = Acceptor(listening, lambda: Connection(calls, self._scratch, self))
        self._timer = loop.call_later(self._limits.sweep_seconds, self._sweep)
        return int(listening.getsockname()[1])

    async def drain(self) -> None:
        """Takes no new connection and no new call; returns when all calls are answered and all clients told."""
        self._stop_listening()
        for connection in list(self._connections):
            connection.drain()
        await self._empty.wait()

    async def close(self) -> None:
        """Ends at once: calls under way are cancelled, connections are closed."""
        self._stop_listening()
        for connection in list(self._connections):
            connection.end(ErrorCode.NO_ERROR, _STOPPING)
        if self._calls is not None and self._calls.tasks:
            await asyncio.wait(self._calls.tasks, timeout=self._limits.linger_seconds)
        if self._connections:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), self._limits.linger_seconds)
        for connection in list(self._connections):
            connection.transport.abort()
        await self._empty.wait()
        if self._timer is not None:
            self._timer.cancel()
        if self._calls is not None:
            self._calls.compression.close()

    def opened(self, connection: Connection) -> str:
        """Counts a new connection; the reason where it cannot stay."""
        self._connections.add(connection)
        self._empty.clear()
        if self._stopping:
            return _STOPPING
        return "too many connections" if len(self._connections) > self._limits.max_connections else ""

    def closed(self, connection: Connection) -> None:
        """Forgets a connection."""
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()

    def _stop_listening(self) -> None:
        self._stopping = True
        if self._acceptor is not None:
            self._acceptor.close()

    def _sweep(self) -> None:
        now = monotonic()
        if self._calls is not None:
            self._calls.clock = now
        for connection in list(self._connections):
            connection.sweep(now)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._limits.sweep_seconds, self._sweep)
