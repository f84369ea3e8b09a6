"""Who is using or building an environment, told by file locks: they end with the process that holds them."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

_PAUSE = 0.05


class Hold:
    """An environment in use by this process; nobody removes it until `close`, or until the process ends."""

    def __init__(self, fd: int, used: Path) -> None:
        self._fd = fd
        self._used = used

    def close(self) -> None:
        """Lets go, and notes that it was used until now. More than once is harmless."""
        if self._fd >= 0:
            with suppress(OSError):
                os.utime(self._used)
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def share(path: Path, used: Path) -> Hold:
    """Takes the lock together with other users; waits while somebody builds or removes what is at `used`."""
    fd = _open(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
    except BaseException:
        os.close(fd)
        raise
    return Hold(fd, used)


@contextmanager
def alone(path: Path, waiting: Callable[[], None] | None = None) -> Iterator[int | None]:
    """The lock for oneself, as a descriptor; None if others hold it and nobody wants to wait.

    `waiting` is called again and again until it is free, and may raise. A child that inherits the descriptor
    keeps the lock for as long as it lives, even when this process is killed.
    """
    fd = _open(path)
    try:
        while True:
            with suppress(BlockingIOError):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            if waiting is None:
                yield None
                return
            waiting()
            time.sleep(_PAUSE)
        yield fd
    finally:
        os.close(fd)


def _open(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
