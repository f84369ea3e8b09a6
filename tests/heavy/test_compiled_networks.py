"""PyTorch and Keras models, compiled inside their own environments: adopted, and equal to their originals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.heavy.conftest import HERE, run_in
from turnout.deploy.environments.environment import Environment

pytestmark = [pytest.mark.formats, pytest.mark.timeout(900)]


@pytest.mark.parametrize("where", ["torch", "tensorflow"])
def test_networks_are_compiled_in_their_environments(
    where: str, environment: Callable[[str], Environment], tmp_path: Path
) -> None:
    ended = run_in(environment(where), HERE / "make_compiled.py", str(tmp_path), where)
    found = [line.removeprefix("COMPILED ") for line in ended.stdout.splitlines() if line.startswith("COMPILED ")]
    assert len(found) == 2, ended.stdout[-2000:] + ended.stderr[-4000:]
    assert all(line.endswith(" adopted") for line in found), "\n".join(found)
