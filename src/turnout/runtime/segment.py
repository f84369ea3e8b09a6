"""A piece of shared memory without a name: a memfd that can grow and, once sealed, never shrink.

A peer that could shrink it would kill this process with SIGBUS at the next access; the seal rules that out.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Sequence

PAGE = mmap.PAGESIZE
_F_ADD_SEALS = 1033
_F_SEAL_SEAL = 0x0001
_F_SEAL_SHRINK = 0x0002
_NOTHING = mmap.mmap(-1, PAGE)


def available() -> bool:
    """Whether this system has memfd and eventfd (Linux)."""
    return hasattr(os, "memfd_create") and hasattr(os, "eventfd")


class Segment:
    """A mapped memfd. `write` grows it as needed; a reader calls `view(size)` and maps what is there."""

    def __init__(self, fd: int, size: int) -> None:
        self.fd = fd
        self._map = mmap.mmap(fd, size)
        self.size = size

    @property
    def start(self) -> mmap.mmap:
        """At least the first page, for a look at a head; zeros where this is closed."""
        return self._map

    @classmethod
    def create(cls, size: int) -> Segment:
        """A new segment of at least `size` bytes."""
        size = _round(size)
        fd = os.memfd_create("turnout", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, size)
        fcntl.fcntl(fd, _F_ADD_SEALS, _F_SEAL_SHRINK | _F_SEAL_SEAL)
        return cls(fd, size)

    @classmethod
    def attach(cls, fd: int) -> Segment:
        """The segment behind a descriptor that came from the other side; takes the descriptor over."""
        return cls(fd, os.fstat(fd).st_size)

    def write(self, parts: Sequence[bytes | memoryview]) -> int:
        """Writes the parts one after another from the start; returns the bytes written."""
        total = sum([len(part) for part in parts])
        if total > self.size:
            self._grow(total)
        target = self._map
        if total < 32768:
            target[:total] = b"".join(parts)
            return total
        at = 0
        for part in parts:
            end = at + len(part)
            target[at:end] = part
            at = end
        return total

    def view(self, size: int) -> memoryview:
        """The first `size` bytes. Raises ValueError where the segment is not that large."""
        if self.fd < 0:
            raise ValueError("this segment is closed")
        if size > self.size:
            actual = os.fstat(self.fd).st_size
            if size > actual:
                raise ValueError(f"{size} bytes asked of a segment of {actual}")
            self._remap(actual)
        return memoryview(self._map)[:size]

    def _grow(self, size: int) -> None:
        size = _round(max(size, min(2 * self.size, size + (64 << 20))))
        os.ftruncate(self.fd, max(size, os.fstat(self.fd).st_size))
        self._remap(os.fstat(self.fd).st_size)

    def _remap(self, size: int) -> None:
        # Views of the old mapping keep it alive until they are gone; a forced close would raise BufferError.
        self._map = mmap.mmap(self.fd, size)
        self.size = size

    def close(self) -> None:
        """Gives descriptor and memory back; what is still viewed goes with the last view of it.

        A mapping holds a descriptor of its own, and who closes this may live on in a cycle for a long time.
        """
        if self.fd >= 0:
            os.close(self.fd)
            self.fd, self.size, self._map = -1, 0, _NOTHING


def _round(size: int) -> int:
    return (size + PAGE - 1) // PAGE * PAGE
