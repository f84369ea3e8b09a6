"""Counts that compiled code adds to by itself: plain memory, folded into the counters when somebody reads those."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import NamedTuple, Protocol

from turnout.monitoring.families import SECONDS, STAGES

#: What is timed, in the order in which a tally keeps it.
TIMED = (*STAGES, "total")
_WIDTH = len(SECONDS) + 1


class Tally:
    """What has happened to the answered requests of one version over one protocol.

    `numbers`: requests, rows, bytes in, bytes out; then for each of TIMED the counts below each bound of SECONDS, and
    above the last. `seconds`: for each of TIMED the sum.
    """

    __slots__ = ("_told", "numbers", "seconds")

    def __init__(self) -> None:
        self.numbers = array("q", bytes(8 * (4 + len(TIMED) * _WIDTH)))
        self.seconds = array("d", bytes(8 * len(TIMED)))
        self._told = self.numbers.tolist(), self.seconds.tolist()

    def take(self) -> tuple[list[int], list[float]]:
        """What was counted since the last time. Nothing is set back, so that whoever counts meanwhile loses nothing."""
        before, now = self._told, (self.numbers.tolist(), self.seconds.tolist())
        self._told = now
        numbers = [have - had for have, had in zip(now[0], before[0], strict=True)]
        return numbers, [have - had for have, had in zip(now[1], before[1], strict=True)]


def counts_of(numbers: list[int], place: int) -> list[int]:
    """The counts of one of TIMED, by its place there."""
    start = 4 + place * _WIDTH
    return numbers[start : start + _WIDTH]


class Share(Protocol):
    """Which records somebody wants: while `taken` is less than `allowed`; `seen` counts those that he was not given."""

    seen: int
    taken: int
    allowed: int


class Usual(NamedTuple):
    """How usual answers are counted without a record for each: a tally, and who wants some records all the same."""

    tally: Tally | None = None
    share: Share | None = None
    record: Callable[..., None] | None = None
