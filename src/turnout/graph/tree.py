"""The tree of one endpoint as lines of text: what happens to a request, from the outside in."""

from __future__ import annotations

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
