"""What all routers have seen of each endpoint's versions, added up; what a router that ended had seen stays counted."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic
from typing import Any

from turnout.graph.evidence import Evidence


class Observations:
    """Takes the cumulative counts that routers send, and gives their sums. One router's counts begin anew with it."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], dict[str, Evidence]] = {}
        self._ended: dict[tuple[str, str], Evidence] = {}
        self._pairs: dict[str, dict[str, Any]] = {}
        self._heard: dict[str, float] = {}

    def take(self, router: str, endpoint: str, counts: Mapping[str, Any]) -> None:
        """One life of a router says what it has seen so far of an endpoint, by version."""
        self._heard[endpoint] = monotonic()
        for variant, said in counts.items():
            self._counts.setdefault((endpoint, variant), {})[router] = Evidence.from_json(said)

    def take_pairs(self, router: str, endpoint: str, pairs: Any) -> None:
        """The same for what a shadow was compared with."""
        self._pairs.setdefault(endpoint, {})[router] = pairs

    def ended(self, router: str) -> None:
        """A router's life is over: its counts do not change any more."""
        for key, by_router in self._counts.items():
            if (last := by_router.pop(router, None)) is not None:
                self._ended[key] = self._ended.get(key, Evidence()).plus(last)

    def of(self, endpoint: str) -> dict[str, Evidence]:
        """The sums by version."""
        found: dict[str, Evidence] = {}
        for (name, variant), by_router in self._counts.items():
            if name == endpoint:
                total = self._ended.get((name, variant), Evidence())
                for counts in by_router.values():
                    total = total.plus(counts)
                found[variant] = total
        return found

    def pairs(self, endpoint: str) -> list[Any]:
        """What each router's life has compared."""
        return list(self._pairs.get(endpoint, {}).values())

    def age(self, endpoint: str, now: float) -> float:
        """Seconds since anything was heard of an endpoint; infinity where nothing ever was."""
        heard = self._heard.get(endpoint)
        return float("inf") if heard is None else now - heard
