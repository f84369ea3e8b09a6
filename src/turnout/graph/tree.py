"""Servables that hold others: the tree of one endpoint as lines of text, and what is known of its inside."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Protocol, runtime_checkable

from turnout.core.servable import Servable


@runtime_checkable
class Node(Protocol):
    """A servable that holds others. Its `repr` is one line and says nothing of them."""

    @property
    def children(self) -> Mapping[str, Servable]: ...


def tree(servable: Servable, name: str = "", depth: int = 0) -> Iterator[str]:
    """One line a servable, indented by two blanks a level; a child's line begins with its name."""
    yield f"{'  ' * depth}{name + ': ' if name else ''}{servable!r}"
    if isinstance(servable, Node):
        for inner, child in servable.children.items():
            yield from tree(child, inner, depth + 1)


def expected(servable: Servable) -> float:
    """Seconds that one row is expected to take, as the servable itself knows; infinity where nobody knows."""
    while True:
        ask = getattr(servable, "expected_seconds", None)
        if ask is not None:
            return float(ask())
        inner = list(servable.children.values()) if isinstance(servable, Node) else []
        if len(inner) != 1:
            return math.inf
        servable = inner[0]
