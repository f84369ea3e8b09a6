"""What a server keeps while its controllers come and go: the listening sockets, and the lock of its port."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

from turnout.runtime.wire import Wire


@dataclass(eq=False)
class Kept:
    """As one controller gets it from the process that starts it, and gives it back to be kept.

    ports: HTTP and gRPC, (0, 0) while there are none. sockets: the listening ones, a pair for each router. again:
    whether another controller was here before. stopping: the server was told to stop, and this one is to do that.
    """

    ports: tuple[int, int] = (0, 0)
    sockets: list[socket.socket] = field(default_factory=list)
    lock: int = -1
    again: bool = False
    stopping: bool = False
    wire: Wire | None = None

    def pairs(self) -> list[tuple[socket.socket, socket.socket]]:
        """The listening sockets of each router, as copies that are the caller's."""
        copies = [socket.socket(fileno=os.dup(sock.fileno())) for sock in self.sockets]
        for copy in copies:
            copy.setblocking(False)  # what a copy is made to be, all of them are: a router that accepts must not wait
        return list(zip(copies[::2], copies[1::2], strict=True))

    def keep(self, ports: tuple[int, int], pairs: Sequence[tuple[socket.socket, socket.socket]], lock: int) -> None:
        """Has all this kept for the next controller."""
        if self.wire is not None:
            fds = [sock.fileno() for pair in pairs for sock in pair]
            for begin in range(0, len(fds), _AT_ONCE):  # no message takes more descriptors than some dozens
                message = {"op": "keep", "ports": ports, "first": begin == 0}
                self.wire.send(message, fds[begin : begin + _AT_ONCE])
            if lock >= 0:
                self.wire.send({"op": "lock"}, [lock])

    def let_go(self) -> None:
        """Nothing is kept any more: the ports are free as soon as this controller and its routers let go too."""
        for sock in self.sockets:
            sock.close()
        self.sockets = []
        if self.lock >= 0:
            os.close(self.lock)
            self.lock = -1
        if self.wire is not None:
            wire, self.wire = self.wire, None
            try:
                wire.send({"op": "let_go"})
                wire.sock.settimeout(_PATIENCE)
                wire.receive()  # only when it has closed them is the last copy the router's
            except (OSError, EOFError):
                pass
            wire.close()


_AT_ONCE = 32
_PATIENCE = 1.0
