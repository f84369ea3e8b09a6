"""Whether something that should move does, judged over windows so that one lull is no offence."""

from __future__ import annotations

import asyncio
import fcntl
import struct
import termios


class Progress:
    """An amount of bytes that has to grow by `rate` (bytes per second) over every `window` (seconds)."""

    __slots__ = ("_amount", "_rate", "_since", "_window")

    def __init__(self, now: float, amount: int, window: float, rate: float) -> None:
        self._since = now
        self._amount = amount
        self._window = window
        self._rate = rate

    def stalled(self, now: float, amount: int) -> bool:
        """Whether a window has ended in which too little came. Opens the next window when one has ended."""
        elapsed = now - self._since
        if elapsed < self._window:
            return False
        moved = amount - self._amount
        self.restart(now, amount)
        return moved < self._rate * elapsed

    def restart(self, now: float, amount: int) -> None:
        """Opens a new window: what came before is forgotten, and so is time that was not the client's."""
        self._since = now
        self._amount = amount


def kernel_owes(transport: asyncio.BaseTransport) -> int:
    """Bytes of answers that the kernel has taken and the client has not. Zero where the system does not say.

    Without it a slow reader would look stalled: the kernel takes megabytes at a time, and nothing in between.
    """
    sock = transport.get_extra_info("socket")
    if sock is None:
        return 0
    try:
        return int(struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))[0])
    except OSError:
        return 0
