"""What ties a process to the one that started it, where it is not to go on alone."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Has the kernel end this process when its parent ends (Linux); elsewhere the end of the wire does it.

    The parent's process id is the second word: one that ended before this line tells nobody any more.
    """
    if len(sys.argv) > 2:
        end_with(int(sys.argv[2]))


def end_with(parent: int) -> None:
    """The same for the child of that process, started in whatever way."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)
