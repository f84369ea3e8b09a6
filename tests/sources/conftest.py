"""Places that artifacts come from, running on this machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from s3_server import S3Server


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server with `endpoint`, `key`, `secret`, `bucket`, and `environment` for clients that read theirs."""
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        yield server
