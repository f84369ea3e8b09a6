"""A door for each test that asks for one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from grpc_door import DoorThread


@pytest.fixture
def new_door() -> Iterator[Callable[..., DoorThread]]:
    """Starts doors, with limits if wanted; every one is closed at the end and must have been quiet."""
    doors: list[DoorThread] = []

    def start(**arguments: Any) -> DoorThread:
        doors.append(DoorThread(**arguments))
        return doors[-1]

    yield start
    for door in doors:
        door.close()


@pytest.fixture
def door(new_door: Callable[..., DoorThread]) -> DoorThread:
    """A door with the usual limits."""
    return new_door()
