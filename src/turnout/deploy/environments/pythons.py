"""Which Python an environment gets: ours, or another of the wanted version that this machine has."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import sysconfig
from functools import cache
from pathlib import Path
from typing import NamedTuple

from turnout.core.errors import EnvironmentFailed

#: Workers run this package's code.
OLDEST = (3, 11)


class Python(NamedTuple):
    """An interpreter: its program, version ("3.11.7"), and what its binary packages are made for."""

    program: Path
    version: str
    tag: str
    platform: str


def find_python(version: str = "", origin: str = "the spec") -> Python:
    """The interpreter for a wanted version ("3.11", "" for ours). Raises EnvironmentFailed if it is not here."""
    ours = ".".join(map(str, sys.version_info[:2]))
    if version in {"", ours}:
        program = Path(getattr(sys, "_base_executable", None) or sys.executable)
        return Python(program, platform.python_version(), sys.implementation.cache_tag, sysconfig.get_platform())
    if tuple(map(int, version.split(".")[:2])) < OLDEST:
        raise EnvironmentFailed(
            f"{origin} asks for Python {version}, and workers need {'.'.join(map(str, OLDEST))} or newer; to run it on "
            f"{ours}, give requirements of your own in the spec"
        )
    found = shutil.which(f"python{version}")
    if found is None:
        raise EnvironmentFailed(
            f"{origin} asks for Python {version}, and there is no python{version} on PATH (this is {ours}); install "
            "it, or give requirements of your own in the spec"
        )
    other = _asked(found)
    if not f"{other.version}.".startswith(f"{version}."):
        raise EnvironmentFailed(f"{origin} asks for Python {version}, and {found} is Python {other.version}")
    return other


@cache
def _asked(program: str) -> Python:
    script = (
        "import sys, sysconfig, platform; print(getattr(sys, '_base_executable', None) or sys.executable, "
        "platform.python_version(), sys.implementation.cache_tag, sysconfig.get_platform(), sep='\\n')"
    )
    command = [program, "-I", "-c", script]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        path, version, tag, machine = ended.stdout.splitlines()
    except (OSError, ValueError, subprocess.SubprocessError) as problem:
        raise EnvironmentFailed(f"the interpreter {program} does not run ({type(problem).__name__})") from None
    return Python(Path(path), version, tag, machine)
