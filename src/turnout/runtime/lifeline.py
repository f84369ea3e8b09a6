"""A child's wire to the controller. It outlives the controller: when that is gone, the next one is looked for.

Until there is one, the child goes on with what it was told last, and nothing that it says is kept: the next
controller is told at once how things are.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from time import monotonic, sleep

from turnout.runtime.wire import Message, Wire

#: Between two tries to find a controller (seconds): the first ones, and the most.
_FIRST, _MOST = 0.05, 1.0
#: Only ever more rarely after so long (seconds).
_EAGER = 10.0
_CREDENTIALS = struct.Struct("3i")


class Lifeline(Wire):
    """The wire of a process that outlives who started it, once it was told where the next one is found.

    path: of the socket on which controllers listen for children; "" where the end of this one is the end of all.
    orphan_seconds: how long to go on without any. last: the controller has begun to stop everything, so that no other
    will come; what is under way is still finished.
    """

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.path = ""
        self.orphan_seconds = 0.0
        self.last = False
        self._lost_at = 0.0
        self._due = 0.0

    def obey(self, message: Message) -> None:
        """Takes from a message where controllers to come are found."""
        if "lifeline" in message:
            self.path, self.orphan_seconds = message["lifeline"]

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """As of a wire; what nobody can hear is not said."""
        if not self.away:
            with contextlib.suppress(OSError):  # it is gone: whoever reads next finds out
                super().send(message, fds)

    def say_last(self, message: Message, patience: float = 10.0) -> None:
        """Says a last word before this process ends: to the next controller where this one is gone."""
        try:
            super().send(message)
        except OSError:
            self.lost()
            until = monotonic() + patience
            while self.path and monotonic() < until and not self.find({"event": "hello", "said": message}):
                sleep(self.delay)

    def lost(self) -> bool:
        """The other end is gone. False where that ends everything."""
        self.close()
        self.away = True
        self._lost_at = self._due = monotonic()
        return bool(self.path) or self.last

    @property
    def over(self) -> bool:
        """Whether nobody will come any more."""
        return self.last or monotonic() - self._lost_at > self.orphan_seconds

    @property
    def delay(self) -> float:
        """Seconds to the next try."""
        return _MOST if self.last else max(0.0, self._due - monotonic())

    def find(self, hello: Message, fds: Sequence[int] = ()) -> bool:
        """Tries, if it is time for that, to reach a controller and to say who this is; True once that is done."""
        now = monotonic()
        if self.last or now < self._due:
            return False
        sock = connect(self.path)
        if sock is None:
            self._due = now + (_FIRST if now - self._lost_at < _EAGER else _MOST)
            return False
        super().__init__(sock)
        self.away = False
        self.send(hello, fds)
        return True


def connect(path: str) -> socket.socket | None:
    """A connection to a socket of this very user; None where nobody listens, or somebody else does."""
    sock = socket.socket(socket.AF_UNIX)
    try:
        with short(path) as name:
            sock.connect(name)
        if user_of(sock)[1] != os.getuid():
            raise PermissionError
    except OSError:
        sock.close()
        return None
    return sock


def user_of(sock: socket.socket) -> tuple[int, int]:
    """The process and the user at the other end."""
    if sys.platform != "linux":
        return 0, os.getuid()
    pid, uid, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return pid, uid


@contextlib.contextmanager
def short(path: str) -> Iterator[str]:
    """A name for a path that is short enough for a socket, however long the path is. Raises OSError."""
    folder, _, name = path.rpartition("/")
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{file}/{name}"
    finally:
        os.close(file)
