"""How far behind the event loop is: what a request that is read now may already have waited in the kernel.

Under overload requests wait where no queue of ours shows it: in the sockets, while the loop works off the last
pass. What would be too late when it is answered is better refused before it is decoded.
"""

from __future__ import annotations

import asyncio

#: A door that last did something longer ago than this (seconds) was waiting for work, so nothing waited for it.
_IDLE = 0.002
#: The share of a deadline that may be gone before a request is read, and seconds that never matter. What is read now
#: still has its pass, its batch and the pass of its answer before it; measured, more than this ends in late answers.
_SHARE = 0.08
_NEGLIGIBLE = 0.002
#: How many passes as long as this one a request still has before it, where it is known what it has behind it.
_PASSES = 3.0
BUSY = "the server has more to do than it can answer within this deadline"


class Pace:
    """Asked once for every request, and told (`touch`) of whatever else the door does.

    A pass is what the loop does with all that one look for events has found. What came during one pass can only
    be read in the next.
    """

    __slots__ = ("_active", "_began", "_behind", "_loop", "_within")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._within = False
        self._began = 0.0
        self._behind = 0.0
        self._active = 0.0

    def touch(self, now: float) -> None:
        """The door does something at this moment (monotonic seconds)."""
        if now - self._active > _IDLE:
            self._began = now  # nothing was to be done before
        self._active = now

    def behind(self, now: float) -> float:
        """Seconds that a request read now may have waited at the most."""
        self.touch(now)
        if not self._within:
            self._within = True
            self._loop.call_soon(self._over)
            self._behind = now - self._began
            self._began = now
        return now - self._began + self._behind

    def lag(self, now: float) -> float:
        """Seconds that the last pass took; 0 where the door has been waiting for work since."""
        return 0.0 if now - self._active > _IDLE else max(self._behind, now - self._began)

    def too_late(self, now: float, left: float, *, known: bool = False) -> bool:
        """Whether a request read now, with `left` seconds to its deadline, had better be refused.

        `known`: how long it has waited so far is known, and taken off already.
        """
        behind = self.behind(now)
        if known:
            return left < _PASSES * behind
        return behind > _NEGLIGIBLE and behind > _SHARE * left > 0.0

    def _over(self) -> None:
        self._within = False
