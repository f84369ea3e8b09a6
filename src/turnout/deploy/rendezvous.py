"""Where children that have lost their controller find the next one: a socket of their user alone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

from turnout.runtime.lifeline import short, user_of
from turnout.runtime.wire import Message, Wire

_CROWD = 1024
OnHello = Callable[[int, Wire, Message, list[int]], None]


class Rendezvous:
    """Listens from now on. `on_hello` gets each child's process id, wire, first message and descriptors, all its own.

    Raises OSError where no such socket can be made.
    """

    def __init__(self, path: Path, on_hello: OnHello) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_hello = on_hello
        self._strangers: set[Wire] = set()
        self._listening = socket.socket(socket.AF_UNIX)
        try:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            with short(str(path)) as name:
                self._listening.bind(name)
            path.chmod(0o600)
            self._listening.listen(_CROWD)
        except OSError:
            self._listening.close()
            raise
        self._listening.setblocking(False)
        self._loop.add_reader(self._listening.fileno(), self._accept)

    def close(self) -> None:
        """Nobody comes any more."""
        if self._listening.fileno() >= 0:
            self._loop.remove_reader(self._listening.fileno())
            self._listening.close()
        for wire in list(self._strangers):
            self._dismiss(wire)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listening.accept()
            except OSError:
                return
            pid, user = user_of(sock)
            if user != os.getuid():
                sock.close()
                continue
            sock.setblocking(False)
            wire = Wire(sock)
            self._strangers.add(wire)
            self._loop.add_reader(wire.fileno(), partial(self._read, pid, wire))

    def _read(self, pid: int, wire: Wire) -> None:
        try:
            for message, fds in wire.poll():
                self._strangers.discard(wire)
                self._loop.remove_reader(wire.fileno())
                self._on_hello(pid, wire, message, fds)
                return  # what else it has said waits in the wire
        except EOFError:
            self._dismiss(wire)

    def _dismiss(self, wire: Wire) -> None:
        self._strangers.discard(wire)
        self._loop.remove_reader(wire.fileno())
        wire.close()
