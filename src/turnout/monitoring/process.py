"""What a process uses of its machine, as the operating system counts it."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def resident_bytes(pid: int | None = None) -> int:
    """Resident memory of a process, in bytes; this process by default.

    Where the system has no /proc, the peak of this process, and 0 for others: nothing better is to be had there
    without a library. 0 as well for a process that has ended.
    """
    try:
        fields = Path(f"/proc/{pid or 'self'}/statm").read_bytes().split()
        return int(fields[1]) * _PAGE_BYTES
    except (OSError, IndexError):
        if pid not in (None, os.getpid()) or sys.platform == "linux":
            return 0
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
