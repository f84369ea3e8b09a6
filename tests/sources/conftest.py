"""Places that artifacts come from, running on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow_place import Place, mlflow_place
from s3_server import S3Server

from turnout.deploy.sources.cache import ArtifactCache
from turnout.deploy.sources.source import SourceSettings


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server with `endpoint`, `key`, `secret`, `bucket`, and `environment` for clients that read theirs."""
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The same, and clients in this process find it."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture
def cache(tmp_path: Path) -> ArtifactCache:
    """An empty cache."""
    return ArtifactCache(tmp_path / "artifacts")


@pytest.fixture
def quick() -> SourceSettings:
    """Settings that do not wait long before they try again."""
    return SourceSettings(timeout=5, attempts=3, retry_wait=0.02)


@pytest.fixture(scope="session")
def place(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Real MLflow servers with what is registered there."""
    directories = [tmp_path_factory.mktemp(name) for name in ("mlflow", "guarded", "shared")]
    with mlflow_place(s3_server, *directories) as found:
        yield found
