"""A package can be built with a C compiler and without one, and says which it is."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


def _build(target: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(target)]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **settings}, capture_output=True, text=True, check=False, timeout=100
    )


@pytest.mark.parametrize("settings", [{"CC": "/nobody/cc"}, {"TURNOUT_COMPILE": "0"}])
def test_without_a_compiler_there_is_a_package_for_every_machine(tmp_path: Path, settings: dict[str, str]) -> None:
    done = _build(tmp_path, **settings)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    assert ("_lane.pyx is not compiled" in done.stdout + done.stderr) == ("CC" in settings)
    names = zipfile.ZipFile(wheel).namelist()
    assert "turnout/entrypoints/http/lane.py" in names
    assert not [name for name in names if name.endswith((".so", ".c"))]


def test_who_asks_for_a_compiled_package_gets_no_other(tmp_path: Path) -> None:
    done = _build(tmp_path, CC="/nobody/cc", TURNOUT_COMPILE="1")
    assert done.returncode != 0
    assert not list(tmp_path.glob("*.whl"))


def test_a_compiled_package_is_for_this_interpreter(tmp_path: Path) -> None:
    done = _build(tmp_path, TURNOUT_COMPILE="1")
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert f"-cp{sys.version_info.major}{sys.version_info.minor}-" in wheel.name
    compiled = [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".so")]
    sources = [str(source.relative_to(ROOT / "src").with_suffix("")) for source in (ROOT / "src").rglob("*.pyx")]
    assert sorted(name.split(".")[0] for name in compiled) == sorted(sources)
