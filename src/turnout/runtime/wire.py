"""JSON messages with file descriptors over a unix stream socket: how controller, routers and workers talk.

The slow path only: state, configuration, descriptors. Tensors go by `frames`.
"""

from __future__ import annotations

import array
import fcntl
import json
import socket
import struct
import sys
import termios
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

Message = dict[str, Any]
_LENGTH = struct.Struct("<I")
_MAX_MESSAGE = 64 << 20
_MAX_FDS = 64
#: Read in one go at most, so that who goes on talking is not all that is heard; more than a socket keeps of the dead.
_AT_ONCE = 16 << 20


class Wire:
    """One end of such a socket. Sending blocks (the messages are small); receiving blocks or polls.

    away: nobody is at the other end, and somebody may come.
    """

    away = False

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._buffer = bytearray()
        self._fds: deque[int] = deque()

    def fileno(self) -> int:
        """The socket's descriptor, for a selector."""
        return self.sock.fileno()

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Sends one message; the descriptors are duplicated into the receiver. Raises OSError if it is gone."""
        data = json.dumps({**message, "_fds": len(fds)}).encode()
        payload = memoryview(_LENGTH.pack(len(data)) + data)
        was_blocking = self.sock.gettimeout()
        self.sock.settimeout(5.0)
        try:
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
            sent = self.sock.sendmsg([payload], ancillary)
            if sent < len(payload):
                self.sock.sendall(payload[sent:])
        finally:
            self.sock.settimeout(was_blocking)

    @property
    def unread(self) -> bool:
        """Whether the other end has not read yet all that was sent: more might then wait for it."""
        if sys.platform != "linux":
            return False
        left = array.array("i", [0])
        fcntl.ioctl(self.sock.fileno(), termios.TIOCOUTQ, left)
        return left[0] > 0

    def receive(self) -> tuple[Message, list[int]]:
        """The next message and its descriptors; waits for it. Raises EOFError when the other end is gone."""
        while True:
            found = self._next()
            if found is not None:
                return found
            self._read()

    def receive_only(self) -> tuple[Message, list[int]]:
        """The same without reading a byte beyond it, where something else than messages follows."""
        while True:
            found = self._next()
            if found is not None:
                return found
            have = len(self._buffer)
            whole = _LENGTH.size
            if have >= whole:
                whole += _LENGTH.unpack_from(self._buffer)[0]
            self._read(whole - have)

    def poll(self) -> Iterator[tuple[Message, list[int]]]:
        """All whole messages that are there; then raises EOFError if the other end is gone.

        Reads until nothing is left: of an end that was reset libuv tells only once, together with what came before it.
        """
        ended = False
        taken = 0
        while not ended and taken < _AT_ONCE:
            size = 0
            try:
                size = self._read(flags=socket.MSG_DONTWAIT)
            except EOFError:
                ended = True
            while (found := self._next()) is not None:
                yield found
            if not size:
                break
            taken += size
        if ended:
            raise EOFError

    def close(self) -> None:
        """Closes the socket and descriptors that nobody took."""
        self.sock.close()
        while self._fds:
            socket.close(self._fds.popleft())

    def _read(self, most: int = 1 << 18, flags: int = 0) -> int:
        """Takes what there is, up to so many bytes; says how many, 0 where nothing is there. Raises EOFError."""
        try:
            data, ancillary, flags, _ = self.sock.recvmsg(most, socket.CMSG_SPACE(4 * _MAX_FDS), flags)
        except BlockingIOError:
            return 0
        except ConnectionError:
            raise EOFError from None
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds = array.array("i")
                fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
                self._fds.extend(fds)
        if not data or flags & socket.MSG_CTRUNC:
            raise EOFError
        self._buffer += data
        return len(data)

    def _next(self) -> tuple[Message, list[int]] | None:
        if len(self._buffer) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._buffer)
        if length > _MAX_MESSAGE:
            raise EOFError
        end = _LENGTH.size + length
        if len(self._buffer) < end:
            return None
        try:
            message = json.loads(bytes(self._buffer[_LENGTH.size : end]))
            fds = [self._fds.popleft() for _ in range(message.pop("_fds"))]
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            raise EOFError from None
        del self._buffer[:end]
        return message, fds


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected unix stream sockets."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
