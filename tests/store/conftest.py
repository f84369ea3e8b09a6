"""The stores that tests run on: both databases, and the one that forgets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.store.postgres import Postgres, installed
from turnout.deploy.store.database import DatabaseStore
from turnout.deploy.store.store import Store
from turnout.testing.stores import MemoryStore

Open = Callable[..., Store]


class Clock:
    """A clock that stands still until it is turned."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server, the same for all tests; it is not killed, so it need not wait for the disk."""
    if installed() is None:
        pytest.skip("there is no PostgreSQL wheel for this system")
    server = Postgres("fsync=off")
    yield server
    server.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store may be made, in each database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store.db'}"
    return request.getfixturevalue("postgres").new_database()


@pytest.fixture(params=["sqlite", "postgresql", "memory"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens one and the same store, as often as it is called."""
    stores: list[Store] = []
    if request.param == "memory":

        def make(clock: Clock | None = None, **more: int) -> Store:
            if not stores:
                stores.append(MemoryStore(**({"clock": clock} if clock else {}), **more))
            return stores[0]

    else:
        where = f"sqlite:///{tmp_path / 'store.db'}"
        if request.param == "postgresql":
            where = request.getfixturevalue("postgres").new_database()

        def make(clock: Clock | None = None, **more: int) -> Store:
            stores.append(DatabaseStore(where, clock, **more))
            return stores[-1]

    yield make
    for store in stores:
        store.close()
