"""What the nodes of a tree remember, kept when the tree is built anew with other weights or limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class Memories:
    """One router's. Between `begin` and `end` an endpoint's tree is built; what it does not ask for is forgotten."""

    def __init__(self) -> None:
        self._kept: dict[str, dict[tuple[str, ...], Any]] = {}
        self._asked: dict[tuple[str, ...], Any] = {}
        self._endpoint = ""

    def begin(self, endpoint: str) -> None:
        """An endpoint's tree is built from here on."""
        self._endpoint, self._asked = endpoint, {}

    def end(self) -> None:
        """It is built."""
        self._kept[self._endpoint] = self._asked

    def of(self, make: Callable[[], T], *key: str) -> T:
        """What the node of that key remembers; made where it is new."""
        kept = self._kept.get(self._endpoint, {})
        found: T = kept[key] if key in kept else self._asked[key] if key in self._asked else make()
        self._asked[key] = found
        return found

    def forget(self, endpoint: str) -> None:
        """The endpoint is no more."""
        self._kept.pop(endpoint, None)

    def kept(self, endpoint: str) -> dict[tuple[str, ...], Any]:
        """Everything by key, for those who count."""
        return self._kept.get(endpoint, {})
