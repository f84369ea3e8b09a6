"""How far behind the event loop is: what a request that is read now may already have waited in the kernel.

Under overload requests wait where no queue of ours shows it: in the sockets, while the loop works off the last
pass. What would be too late when it is answered is better refused before it is decoded.
"""

from __future__ import annotations

import asyncio

#: A loop that was last busy longer ago than this (seconds) was waiting for work, so nothing waited for it.
_IDLE = 0.002
#: The share of a deadline that may be gone before a request is read. The rest is for its pass, its batch, its answer.
SHARE = 0.3
BUSY = "the server has more to do than it can answer within this deadline"


class Pace:
    """Asked once for every request; `active` is when the door last did anything (monotonic seconds).

    uvloop keeps the time at which it last looked for events; on a loop that does not, nothing is ever behind.
    """

    __slots__ = ("_behind", "_pass", "_time", "active")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._time = loop.time
        self._pass = 0.0
        self._behind = 0.0
        self.active = 0.0

    def behind(self, now: float) -> float:
        """Seconds that a request read now may have waited at the most."""
        began = self._time()
        if began != self._pass:
            # What came during the last pass could only be read in this one.
            self._behind = began - self._pass if began - self.active < _IDLE else 0.0
            self._pass = began
        self.active = now
        return now - began + self._behind
