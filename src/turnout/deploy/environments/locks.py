"""Who is using or building an environment, told by file locks: they end with the process that holds them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from turnout.deploy.locks import FileLock

_PAUSE = 0.05


class Hold:
    """An environment in use by this process; nobody removes it until `close`, or until the process ends."""

    def __init__(self, lock: FileLock, used: Path) -> None:
        self._lock = lock
        self._used = used

    def close(self) -> None:
        """Lets go, and notes that it was used until now. More than once is harmless."""
        if self._lock.fileno() >= 0:
            with suppress(OSError):
                os.utime(self._used)
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def share(path: Path, used: Path) -> Hold:
    """Takes the lock together with other users; waits while somebody builds or removes what is at `used`."""
    lock = FileLock(path)
    lock.take(shared=True)
    return Hold(lock, used)


@contextmanager
def alone(path: Path, waiting: Callable[[], None] | None = None) -> Iterator[int | None]:
    """The lock for oneself, as a descriptor; None if others hold it and nobody wants to wait.

    `waiting` is called again and again until it is free, and may raise. A child that inherits the descriptor
    keeps the lock for as long as it lives, even when this process is killed.
    """
    lock = FileLock(path)
    try:
        while not lock.take(wait=False):
            if waiting is None:
                yield None
                return
            waiting()
            time.sleep(_PAUSE)
        yield lock.fileno()
    finally:
        lock.release()
