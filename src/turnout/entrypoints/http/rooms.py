"""Memory for long bodies, used again: a fresh page costs more to get than to fill.

Nobody says that a room is free: it is once nothing views it any more, wherever that was (a shadow, a cache, a request
that is tried again). Python counts who does. Being told of the last view's end would not be enough, because what
is collected with a view may still run and keep it.
"""

from __future__ import annotations

import contextlib
import mmap
import sys
from time import monotonic

import numpy as np

from turnout.core.tensors import Array

#: The system's large pages: with them 3 MB are received in three quarters of the time, and copied in two thirds.
LARGE_PAGE = 2 << 20
#: Shorter bodies would leave most of a large page empty.
_LEAST = LARGE_PAGE // 2
#: What is kept of rooms that nobody uses: so many bytes in all, each for so many seconds since it was taken.
SPARE_BYTES = 64 << 20
SPARE_SECONDS = 5.0
#: So many rooms are looked through at the most; a body beyond them has its memory for itself.
MOST_ROOMS = 128


class _Room:
    """Some memory, and how many references there are to it when it is nobody's."""

    __slots__ = ("_alone", "memory", "size", "taken")

    def __init__(self, size: int) -> None:
        self.memory = _memory(size)
        self.size = size
        self.taken = 0.0
        self._alone = self._references()

    @property
    def free(self) -> bool:
        """Whether nothing views it. Nothing can begin to, then, but by way of this object."""
        return self._references() == self._alone

    def _references(self) -> int:
        return sys.getrefcount(self.memory)


class Rooms:
    """The rooms of one door. Belongs to its event loop; views of the rooms may end in any thread."""

    def __init__(self) -> None:
        self._rooms: list[_Room] = []  # the one that was taken last is last

    @property
    def spare_bytes(self) -> int:
        """What is kept at the moment and used by nobody."""
        return sum([room.size for room in self._rooms if room.free])

    def take(self, length: int) -> memoryview:
        """Room for a body. What was in it before is still there."""
        if length < _LEAST:
            return memoryview(np.empty(length, np.uint8))
        now = monotonic()
        size = -(-length // LARGE_PAGE) * LARGE_PAGE
        room = self._take_free(size)
        if room is None:
            self.sweep(now)
            room = _Room(size)
        if len(self._rooms) < MOST_ROOMS:
            self._rooms.append(room)
        room.taken = now
        return memoryview(room.memory)[:length]

    def sweep(self, now: float) -> None:
        """Lets go of what nobody has needed for a while (monotonic seconds), and of what is too much."""
        spare = 0
        kept = []
        for room in reversed(self._rooms):
            if room.free:
                if now - room.taken > SPARE_SECONDS or spare + room.size > SPARE_BYTES:
                    continue
                spare += room.size
            kept.append(room)
        self._rooms = kept[::-1]

    def _take_free(self, size: int) -> _Room | None:
        rooms = self._rooms
        for at in range(len(rooms) - 1, -1, -1):
            if rooms[at].size == size and rooms[at].free:
                return rooms.pop(at)
        return None


def held_bytes(length: int, received: int) -> int:
    """How much memory the room of such a body uses when so much of it has come: large pages are used as a whole."""
    return received if length < _LEAST else -(-received // LARGE_PAGE) * LARGE_PAGE


def _memory(size: int) -> Array:
    """Fresh memory in large pages, where the system has them; nothing of it is used before it is written to."""
    mapped = mmap.mmap(-1, size + LARGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # a kernel without them
            mapped.madvise(mmap.MADV_HUGEPAGE)
    start = -np.frombuffer(mapped, np.uint8).ctypes.data % LARGE_PAGE
    # Not a part of another array: numpy would have views refer to that one, and nobody would count them here.
    return np.frombuffer(mapped, np.uint8, size, start)
