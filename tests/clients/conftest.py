"""One server for all client tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clients.running import Server, running


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`turnout serve` with the models `iris`, `flowers` and `echo`."""
    with running(tmp_path_factory.mktemp("clients")) as found:
        yield found
