"""Saved models, and servers of all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.equality.models import NAMES, Known, saved
from turnout.testing.server import Server, serving


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("equality")


@pytest.fixture(scope="session", params=NAMES)
def model(request: pytest.FixtureRequest, folder: Path) -> Known:
    return next(one for one in saved(folder) if one.name == request.param)


@pytest.fixture(scope="session")
def known(folder: Path) -> list[Known]:
    return saved(folder)


@pytest.fixture(scope="session")
def server(known: list[Known]) -> Iterator[Server]:
    with serving(*(f"{one.name}={one.path}" for one in known), "--access-log", "off") as found:
        yield found


@pytest.fixture(scope="session")
def wide_server(known: list[Known]) -> Iterator[Server]:
    """Two routers, two replicas, small batches: every request has company, and long ones are cut."""
    words = ("--routers", "2", "--replicas", "2", "--max-batch-rows", "7", "--access-log", "off")
    with serving(*(f"{one.name}={one.path}" for one in known if one.name in ("forest", "net")), *words) as found:
        yield found
