"""New connections, some at a time.

uvloop takes one connection for each pass of the loop. While the loop is busy a pass takes milliseconds, and clients
that connect would wait for seconds where nobody sees it. Here a pass takes up to `PER_PASS` of them and no more,
so that neither newcomers nor those who are here already wait for the others. While those who are here are turned
away, it takes fewer: a newcomer costs as much as half an answer, and most would be turned away too.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable

from turnout.deploy.listening import BACKLOG

logger = logging.getLogger("turnout")
PER_PASS = 64
#: While those who are here already are turned away: so many newcomers, then none for a while (seconds). How many the
#: kernel keeps meanwhile is bounded too: a long queue would be full of clients who have given up when it is their turn.
_CROWDED = 8
_CROWDED_WAIT = 0.01
_CROWDED_BACKLOG = 64
#: How long to wait before accepting again when the process has no descriptor left (seconds).
_NO_DESCRIPTORS = 0.1


class Acceptor:
    """Accepts from one listening socket until closed; owns the socket."""

    def __init__(
        self,
        listening: socket.socket,
        factory: Callable[[], asyncio.BaseProtocol],
        tls: ssl.SSLContext | None = None,
        *,
        crowded: Callable[[], bool] = lambda: False,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._listening = listening
        self._factory = factory
        self._tls = tls
        self._crowded = crowded
        self._short = False
        self._opening: set[asyncio.Task[object]] = set()
        listening.setblocking(False)
        self._loop.add_reader(listening.fileno(), self._accept)

    def close(self) -> None:
        """Takes no further connection. Those that are here stay."""
        if self._listening.fileno() >= 0:
            self._loop.remove_reader(self._listening.fileno())
            self._listening.close()

    def _accept(self) -> None:
        crowded = self._crowded()
        if crowded != self._short:
            self._short = crowded
            self._listening.listen(_CROWDED_BACKLOG if crowded else BACKLOG)
        for _ in range(_CROWDED if crowded else PER_PASS):
            try:
                sock, _ = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as problem:  # no descriptors or no memory: the others have to leave first
                logger.warning("no new connections for a moment: %s", problem.strerror)
                self._rest(_NO_DESCRIPTORS)
                return
            opening = self._loop.create_task(self._open(sock))
            self._opening.add(opening)
            opening.add_done_callback(self._opening.discard)
        if crowded:
            self._rest(_CROWDED_WAIT)

    def _rest(self, seconds: float) -> None:
        self._loop.remove_reader(self._listening.fileno())
        self._loop.call_later(seconds, self._again)

    def _again(self) -> None:
        if self._listening.fileno() >= 0:
            self._loop.add_reader(self._listening.fileno(), self._accept)

    async def _open(self, sock: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._factory, sock, ssl=self._tls)
        except OSError:  # gone again, or no handshake
            sock.close()
