"""One running door for all tests that need no settings of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from running import Running


@pytest.fixture(scope="session")
def shared() -> Iterator[Running]:
    """The door itself."""
    with Running() as running:
        yield running


@pytest.fixture
def running(shared: Running) -> Running:
    """The shared door, with an empty record of requests."""
    shared.call(shared.observer.records.clear)
    return shared
