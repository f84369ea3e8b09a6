"""Things that several parties have to let go of before they are gone: whoever waits for one is told once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

Party = TypeVar("Party")


class Departures(Generic[Party]):
    """What is on its way out, by name, with those who have not let go of it. Belongs to one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._leaving: dict[str, tuple[set[Party], Callable[[], None]]] = {}

    def wait(self, name: str, parties: set[Party], done: Callable[[], None], seconds: float) -> None:
        """Calls `done` when all parties have let go, or after so many seconds; soon, where there is none."""
        waited = self._leaving[name] = (parties, done)

        def late() -> None:
            if self._leaving.get(name) is waited:
                parties.clear()
                self._settle(name)

        self._loop.call_later(seconds if parties else 0.0, late)

    def gone(self, party: Party, name: str) -> None:
        """One party has let go of it."""
        if name in self._leaving:
            self._leaving[name][0].discard(party)
            self._settle(name)

    def ended(self, party: Party) -> None:
        """A party is no more, and holds nothing."""
        for name in list(self._leaving):
            self.gone(party, name)

    def _settle(self, name: str) -> None:
        left, done = self._leaving[name]
        if not left:
            del self._leaving[name]
            done()
