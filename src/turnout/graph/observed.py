"""How long one step takes, as its last answers say: what a deadline is divided by, and a miss is foreseen from."""

from __future__ import annotations

import math
from bisect import bisect_right

#: The last so many count.
KEPT = 128
_EVERY = 32
#: Fewer say nothing of a chance.
_ENOUGH = 16


class Observed:
    """The last latencies of one step (seconds); a try that was given up counts as one that never ended.

    What is read is a sorted copy, made anew at every 32nd; `version` counts the copies.
    """

    __slots__ = ("_ring", "_sorted", "asked", "count", "floor", "misses", "p95", "probed", "version")

    def __init__(self) -> None:
        self._ring: list[float] = []
        self._sorted: list[float] = []
        self.count = 0
        self.version = 0
        self.p95 = math.nan
        #: Below this, nearly no try has ever been answered; 0 while nothing is known.
        self.floor = 0.0
        #: Tries in a row that were given up.
        self.misses = 0
        self.probed = -math.inf
        #: Requests, for who looks at only some of them.
        self.asked = 0

    def __repr__(self) -> str:
        return f"Observed({self.count}, p95 {self.p95:.4g} s)"

    def answered(self, seconds: float) -> None:
        """One answer came. After a row of misses what was known is forgotten: it is another state now."""
        if self.misses:
            if self.misses >= _ENOUGH:
                self._ring.clear()
                self.count = 0
            self.misses = 0
        self._add(seconds)

    def missed(self) -> None:
        """One was given up."""
        self.misses += 1
        self._add(math.inf)

    def quantile(self, share: float) -> float:
        """Seconds that this share took at most; NaN while nothing is known."""
        known = self._sorted
        return known[min(len(known) - 1, int(share * len(known)))] if known else math.nan

    def expects_miss(self, left: float, now: float, chance: float, pause: float = 1.0) -> bool:
        """Whether an answer within `left` seconds is so unlikely that a try is pointless.

        One try each `pause` seconds goes on all the same, or nobody would learn that it has become quicker.
        """
        if left >= self.floor or len(self._sorted) < _ENOUGH:
            return False
        if (len(self._sorted) - bisect_right(self._sorted, left)) < chance * len(self._sorted):
            return False
        if now - self.probed >= pause:
            self.probed = now
            return False
        return True

    def doubtful_after(self, left: float, chance: float) -> float:
        """After how many seconds without an answer a miss of `left` seconds is likelier than `chance`."""
        known = self._sorted
        misses = len(known) - bisect_right(known, left)
        if not misses or len(known) < _ENOUGH:
            return math.inf
        # Of those still without an answer then, more than `chance` are misses: so many may be left, and no more.
        rest = int(misses / chance)
        return 0.0 if rest >= len(known) else known[len(known) - rest - 1]

    def _add(self, seconds: float) -> None:
        count = self.count
        if len(self._ring) < KEPT:
            self._ring.append(seconds)
        else:
            self._ring[count % KEPT] = seconds
        self.count = count = count + 1
        if not count % _EVERY or (count < _EVERY and not count & (count - 1)):
            self._sorted = sorted(self._ring)
            self.p95 = self.quantile(0.95)
            self.floor = self.quantile(0.5)
            self.version += 1
