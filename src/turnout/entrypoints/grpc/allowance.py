"""Budgets for what a peer may do that costs us and brings nothing."""

from __future__ import annotations

from turnout.entrypoints.grpc.frames import ConnectionFault, ErrorCode


class Allowance:
    """What a peer may do that costs us and brings nothing: so much at once, and so much each second."""

    __slots__ = ("_burst", "_rate", "_text", "left")

    def __init__(self, burst: int, rate: int, text: str) -> None:
        self._burst = burst
        self._rate = rate
        self._text = text
        self.left = float(burst)

    def spend(self, count: float = 1) -> None:
        """Takes some. Raises ConnectionFault (ENHANCE_YOUR_CALM) where nothing is left."""
        self.left -= count
        if self.left < 0:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, self._text)

    def refund(self, count: float) -> None:
        """Gives some back."""
        if self.left < self._burst:
            self.left = min(self._burst, self.left + count)

    def wait(self, seconds: float) -> None:
        """Adds what that time is worth."""
        self.refund(seconds * self._rate)
