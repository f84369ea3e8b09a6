"""A folder of wheels, and a home of its own for what is built from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.environments.wheels import make_wheel
from turnout.deploy.environments.environment import IndexPolicy
from turnout.deploy.environments.store import Environments


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    make_wheel(folder, "numpy", "1.23.5")
    make_wheel(folder, "numpy", "2.4.0")
    make_wheel(folder, "scores", "1.0", requires=("numpy>=2",))
    make_wheel(folder, "old-scores", "0.9", requires=("numpy<2",))
    return folder


@pytest.fixture
def environments(tmp_path: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch) -> Environments:
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    return Environments(tmp_path / "environments", IndexPolicy(wheels=(wheels,), offline=True))
