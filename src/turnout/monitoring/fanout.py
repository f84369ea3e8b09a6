"""Several observers as one."""

from __future__ import annotations

from turnout.monitoring.record import Observer, RequestRecord
from turnout.monitoring.tally import Usual


class Fanout:
    """Hands each record to two observers, the way that costs least. Nest it for more."""

    __slots__ = ("_both", "_first", "_second")

    def __init__(self, first: Observer, second: Observer) -> None:
        self._first = first.request
        self._second = second.request
        self._both = (first, second)

    def request(self, record: RequestRecord) -> None:
        """Tells both."""
        self._first(record)
        self._second(record)

    def usual(self, model: str, version: str, protocol: str) -> Usual | None:
        """What both say, where one keeps the tally and the other wants records."""
        asked = [getattr(one, "usual", None) for one in self._both]
        told = [ask(model, version, protocol) for ask in asked if ask is not None]
        if len(told) < len(asked) or None in told:
            return None
        tallies = [one.tally for one in told if one.tally is not None]
        wants = [one for one in told if one.share is not None]
        if len(tallies) != 1 or len(wants) > 1:
            return None
        return wants[0]._replace(tally=tallies[0]) if wants else Usual(tallies[0])
