"""When a process that died is started again: a pure decision."""

from __future__ import annotations

FIRST = 0.05
MOST = 10.0
FORGET = 30.0


def next_failures(failures: int, lived: float) -> int:
    """How many failures in a row count after one more; a process that lived `FORGET` seconds starts afresh."""
    return 1 if lived >= FORGET else failures + 1


def back_off(failures: int) -> float:
    """Seconds to wait before the next start: at once after the first failure, then doubling up to `MOST`."""
    return 0.0 if failures <= 1 else min(MOST, FIRST * 2.0 ** min(failures - 1, 20))
