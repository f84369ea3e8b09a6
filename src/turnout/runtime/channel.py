"""How a batch gets to a worker and its outcome back: two ways with one interface, both sides of each.

`memory`: shared segments each way, an eventfd to wake the other side. `socket`: the same frames over the
unix socket itself, where there is no memfd (macOS). The link socket stays open in both: its end is how
each side knows at once that the other is dead.

A worker answers in the order in which it was asked, so the n-th outcome belongs to the n-th batch, and a
batch and its outcome use the segments numbered n modulo `slots`. Nothing is ever searched for.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from turnout.runtime import frames
from turnout.runtime.segment import Segment, available
from turnout.runtime.wire import Wire

Parts = Sequence[bytes | memoryview]
_FIRST_SEGMENT = 1 << 16


class Near(Protocol):
    """The router's side. At most `slots` batches may be out; `collect` yields outcomes in order.

    `collect` raises EOFError when the worker is gone and BrokenFrame when it wrote nonsense. A buffer it
    yields is valid until the next `send`. `flush` goes on with what did not fit into the socket;
    `blocked` is called with True when there is such a rest and with False when it is gone.
    """

    slots: int
    blocked: Callable[[bool], None]

    def wakes(self) -> Sequence[int]: ...
    def send(self, parts: Parts) -> None: ...
    def flush(self) -> None: ...
    def collect(self) -> Iterator[Any]: ...
    def close(self) -> None: ...


class Far(Protocol):
    """The worker's side. `take` yields what is waiting, in order; `answer` answers the oldest taken."""

    def wakes(self) -> Sequence[int]: ...
    def take(self) -> Iterator[Any]: ...
    def answer(self, parts: Parts) -> None: ...
    def close(self) -> None: ...


def open_near(sock: socket.socket, slots: int, *, memory: bool | None = None) -> Near:
    """The router's side of a link; tells the worker which way is used. `memory=None` takes what there is.

    Raises OSError where the worker is gone already; `sock` is closed then.
    """
    if available() if memory is None else memory:
        return _MemoryNear(sock, slots)
    return _SocketNear(sock, slots)


def open_far(sock: socket.socket) -> Far:
    """The worker's side, after the router has opened its own. Raises EOFError if the router is gone."""
    sock.setblocking(True)
    message, fds = Wire(sock).receive_only()
    return _MemoryFar(sock, fds) if message["way"] == "memory" else _SocketFar(sock)


def _ignore(_on: bool) -> None:
    """Nobody watches."""


class _MemoryNear:
    def __init__(self, sock: socket.socket, slots: int) -> None:
        self.slots = slots
        self.blocked: Callable[[bool], None] = _ignore
        self._sock = sock
        self._out = [Segment.create(_FIRST_SEGMENT) for _ in range(slots)]
        self._in = [Segment.create(_FIRST_SEGMENT) for _ in range(slots)]
        self._wake_far = os.eventfd(0, os.EFD_CLOEXEC)
        self._wake_near = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._sent = self._collected = 0
        fds = [self._wake_far, self._wake_near, *[s.fd for s in self._out], *[s.fd for s in self._in]]
        try:
            Wire(sock).send({"way": "memory"}, fds)
        except OSError:
            self.close()  # the worker died before it was reached
            raise
        sock.setblocking(False)

    def wakes(self) -> Sequence[int]:
        return (self._wake_near, self._sock.fileno())

    def send(self, parts: Parts) -> None:
        self._out[self._sent % self.slots].write(parts)
        self._sent += 1
        os.eventfd_write(self._wake_far, 1)

    def flush(self) -> None:
        """Memory is never full."""

    def collect(self) -> Iterator[Any]:
        try:
            count = os.eventfd_read(self._wake_near)
        except BlockingIOError:
            self._check_end()
            return
        for _ in range(min(count, self._sent - self._collected)):
            segment = self._in[self._collected % self.slots]
            self._collected += 1
            try:
                yield segment.view(frames.frame_bytes(segment.start))
            except ValueError as problem:
                raise frames.BrokenFrame(str(problem)) from None

    def _check_end(self) -> None:
        try:
            if not self._sock.recv(1):
                raise EOFError
        except BlockingIOError:
            return
        except OSError:
            raise EOFError from None
        raise frames.BrokenFrame("bytes on a link that carries none")

    def close(self) -> None:
        for segment in (*self._out, *self._in):
            segment.close()
        os.close(self._wake_far)
        os.close(self._wake_near)
        self._sock.close()


class _MemoryFar:
    def __init__(self, sock: socket.socket, fds: list[int]) -> None:
        self._sock = sock
        self._wake_far, self._wake_near = fds[:2]
        self._slots = (len(fds) - 2) // 2
        self._in = [Segment.attach(fd) for fd in fds[2 : 2 + self._slots]]
        self._out = [Segment.attach(fd) for fd in fds[2 + self._slots :]]
        self._taken = self._answered = 0

    def wakes(self) -> Sequence[int]:
        return (self._wake_far, self._sock.fileno())

    def take(self) -> Iterator[Any]:
        for _ in range(os.eventfd_read(self._wake_far)):
            segment = self._in[self._taken % self._slots]
            self._taken += 1
            yield segment.view(frames.frame_bytes(segment.start))

    def answer(self, parts: Parts) -> None:
        self._out[self._answered % self._slots].write(parts)
        self._answered += 1
        os.eventfd_write(self._wake_near, 1)

    def close(self) -> None:
        for segment in (*self._out, *self._in):
            segment.close()
        os.close(self._wake_far)
        os.close(self._wake_near)
        self._sock.close()


class _SocketNear:
    """Frames over the socket; what does not fit into its buffer waits here until it is writable again."""

    def __init__(self, sock: socket.socket, slots: int) -> None:
        self.slots = slots
        self.blocked: Callable[[bool], None] = _ignore
        self._sock = sock
        self._buffer = bytearray()
        self._unsent: list[memoryview] = []
        try:
            Wire(sock).send({"way": "socket"})
        except OSError:
            sock.close()
            raise
        sock.setblocking(False)

    def wakes(self) -> Sequence[int]:
        return (self._sock.fileno(),)

    def send(self, parts: Parts) -> None:
        self._unsent.append(memoryview(b"".join(parts)))
        self.flush()

    def flush(self) -> None:
        while self._unsent:
            try:
                sent = self._sock.send(self._unsent[0])
            except BlockingIOError:
                self.blocked(True)
                return
            except OSError:
                self._unsent.clear()  # whoever reads sees the end of the link
                break
            if sent == len(self._unsent[0]):
                self._unsent.pop(0)
            else:
                self._unsent[0] = self._unsent[0][sent:]
        self.blocked(False)

    def collect(self) -> Iterator[Any]:
        while self._read():  # to the end: libuv tells only once of one that was reset
            while len(self._buffer) >= frames.HEAD_BYTES:
                size = frames.frame_bytes(self._buffer)
                if len(self._buffer) < size:
                    break
                whole = bytes(self._buffer[:size])
                del self._buffer[:size]
                yield whole

    def _read(self) -> bool:
        try:
            data = self._sock.recv(1 << 20)
        except BlockingIOError:
            return False
        except OSError:
            raise EOFError from None
        if not data:
            raise EOFError
        self._buffer += data
        return True

    def close(self) -> None:
        self._sock.close()


class _SocketFar:
    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def wakes(self) -> Sequence[int]:
        return (self._sock.fileno(),)

    def take(self) -> Iterator[Any]:
        head = self._exactly(frames.HEAD_BYTES)
        yield head + self._exactly(frames.frame_bytes(head) - frames.HEAD_BYTES)

    def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            part = self._sock.recv(min(size - len(data), 1 << 20))
            if not part:
                raise EOFError
            data += part
        return bytes(data)

    def answer(self, parts: Parts) -> None:
        self._sock.sendall(b"".join(parts))

    def close(self) -> None:
        self._sock.close()
