"""New connections, some at a time.

uvloop takes one connection for each pass of the loop. While the loop is busy a pass takes milliseconds, and clients
that connect would wait for seconds where nobody sees it. Here a pass takes up to `PER_PASS` of them and no more,
so that neither newcomers nor those who are here already wait for the others.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable

logger = logging.getLogger("turnout")
PER_PASS = 64
#: How long to wait before accepting again when the process has no descriptor left (seconds).
_NO_DESCRIPTORS = 0.1


class Acceptor:
    """Accepts from one listening socket until closed; owns the socket."""

    def __init__(
        self, listening: socket.socket, factory: Callable[[], asyncio.BaseProtocol], tls: ssl.SSLContext | None = None
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._listening = listening
        self._factory = factory
        self._tls = tls
        self._opening: set[asyncio.Task[object]] = set()
        listening.setblocking(False)
        self._loop.add_reader(listening.fileno(), self._accept)

    def close(self) -> None:
        """Takes no further connection. Those that are here stay."""
        if self._listening.fileno() >= 0:
            self._loop.remove_reader(self._listening.fileno())
            self._listening.close()

    def _accept(self) -> None:
        for _ in range(PER_PASS):
            try:
                sock, _ = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as problem:  # no descriptors or no memory: the others have to leave first
                logger.warning("no new connections for a moment: %s", problem.strerror)
                self._loop.remove_reader(self._listening.fileno())
                self._loop.call_later(_NO_DESCRIPTORS, self._again)
                return
            opening = self._loop.create_task(self._open(sock))
            self._opening.add(opening)
            opening.add_done_callback(self._opening.discard)

    def _again(self) -> None:
        if self._listening.fileno() >= 0:
            self._loop.add_reader(self._listening.fileno(), self._accept)

    async def _open(self, sock: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._factory, sock, ssl=self._tls)
        except OSError:  # gone again, or no handshake
            sock.close()
