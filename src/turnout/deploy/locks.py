"""Locks between processes: a file each, let go by the system when who holds it is gone."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


class FileLock:
    """One lock, held from `take` to `release`. Threads of one process exclude each other with it too."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = -1

    def take(self, *, shared: bool = False, wait: bool = True) -> bool:
        """True once it is held; False at once where another holds it and one is not to wait."""
        kind = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(file, kind)
                if self._is_still(file):
                    self._file = file
                    return True
                os.close(file)  # who held it has removed it: there is a new one, or none
            except BlockingIOError:
                os.close(file)
                return False
            except BaseException:
                os.close(file)
                raise

    def fileno(self) -> int:
        """The descriptor that holds it. A child that inherits it keeps the lock for as long as it lives."""
        return self._file

    def touch(self) -> None:
        """Writes down that it was used now."""
        os.utime(self._file)

    def release(self, *, remove: bool = False) -> None:
        """Lets go of it; `remove` takes the file away too, which only its one exclusive holder may."""
        if self._file >= 0:
            if remove:
                self.path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = -1

    def _is_still(self, file: int) -> bool:
        try:
            there = self.path.stat(follow_symlinks=False)
        except FileNotFoundError:
            return False
        here = os.fstat(file)
        return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock for a while, and takes its file away with it."""
    lock = FileLock(path)
    lock.take()
    try:
        yield
    finally:
        lock.release(remove=True)
