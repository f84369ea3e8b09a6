"""Whether something that should move does, judged over windows so that one lull is no offence."""

from __future__ import annotations


class Progress:
    """An amount of bytes that has to grow by `rate` (bytes per second) over every `window` (seconds)."""

    __slots__ = ("_amount", "_rate", "_since", "_window")

    def __init__(self, now: float, amount: int, window: float, rate: float) -> None:
        self._since = now
        self._amount = amount
        self._window = window
        self._rate = rate

    def stalled(self, now: float, amount: int) -> bool:
        """Whether a window has ended in which too little came. Opens the next window when one has ended."""
        elapsed = now - self._since
        if elapsed < self._window:
            return False
        moved = amount - self._amount
        self.restart(now, amount)
        return moved < self._rate * elapsed

    def restart(self, now: float, amount: int) -> None:
        """Opens a new window: what came before is forgotten, and so is time that was not the client's."""
        self._since = now
        self._amount = amount
