"""Environments for clients that cannot live next to each other: each in `.venvs/NAME`, made when first asked for."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


def environment(name: str, packages: Sequence[str]) -> Path:
    """The python of `.venvs/NAME` with these packages in it, made where it is not there yet."""
    folder = ROOT / ".venvs" / name
    python = folder / "bin" / "python"
    done = folder / ".installed"
    wanted = "\n".join(packages)
    if python.exists() and done.exists() and done.read_text() == wanted:
        return python
    uv = shutil.which("uv", path=f"{BIN}{os.pathsep}{os.environ['PATH']}")
    assert uv, "uv makes the environments of these tests; pip install uv"
    subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder], check=True)
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, *packages], check=True)
    done.write_text(wanted)
    return python


def run_client(name: str, packages: Sequence[str], script: str, *arguments: str) -> Any:
    """What a script of `scripts/` prints as JSON in that environment."""
    python = environment(name, packages)
    path = Path(__file__).parent / "scripts" / script
    done = subprocess.run(
        [python, path, *arguments], capture_output=True, text=True, timeout=120, check=False, cwd=ROOT
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return json.loads(done.stdout)
