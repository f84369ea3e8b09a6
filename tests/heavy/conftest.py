"""Environments of heavy frameworks, built by Turnout's own builder, and the artifacts that makers make inside them.

They are kept in .venvs/heavy: a second run builds nothing. A maker is make_NAME.py; the environment it runs in is
environments/NAME.txt, unless the test says another.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from turnout.deploy.environments.environment import Environment, IndexPolicy
from turnout.deploy.environments.requirements import requirements_of
from turnout.deploy.environments.store import Environments
from turnout.deploy.environments.worker_path import worker_path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SECONDS = 540.0
#: Frameworks that are published as source alone, so that installing them runs their code.
SOURCES = {"spark"}


@pytest.fixture(scope="session")
def environment() -> Callable[[str], Environment]:
    """The environment of environments/NAME.txt."""

    def ensure(name: str) -> Environment:
        kept = Environments(ROOT / ".venvs" / "heavy", IndexPolicy(source_builds=name in SOURCES))
        requirements = requirements_of(HERE, HERE / "environments" / f"{name}.txt")
        assert requirements is not None
        return kept.ensure(requirements, lambda line: print(f"{name}: {line}"))

    return ensure


@pytest.fixture(scope="session")
def made(
    environment: Callable[[str], Environment], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], Path]:
    """The folder that make_NAME.py has filled inside an environment; made once."""
    folders: dict[tuple[str, str], Path] = {}

    def make(name: str, where: str) -> Path:
        if (name, where) not in folders:
            folder = tmp_path_factory.mktemp(f"{name}-in-{where}")
            ended = run_in(environment(where), HERE / f"make_{name}.py", str(folder), where)
            assert ended.returncode == 0, ended.stdout[-4000:] + ended.stderr[-4000:]
            folders[name, where] = folder
        return folders[name, where]

    return make


def run_in(
    place: Environment, program: Path, *words: str, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A program in an environment, which sees `turnout` and nothing else of this one."""
    outer = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    return subprocess.run(
        [str(place.python), str(program), *words],
        env={**outer, "PYTHONPATH": str(worker_path()), **(env or {})},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
