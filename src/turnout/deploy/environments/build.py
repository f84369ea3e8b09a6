"""Builds one environment at its final place, by uv or by pip, and says why when it cannot."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from turnout.core.errors import EnvironmentFailed
from turnout.deploy.environments.commands import Ended, run, without_credentials
from turnout.deploy.environments.environment import IndexPolicy, Requirements, Tell
from turnout.deploy.environments.installers import Installer, Task, find_installer
from turnout.deploy.environments.inventory import packages
from turnout.deploy.environments.lines import name_of
from turnout.deploy.environments.pythons import Python

_REASON_LINES = 30
_REASON_CHARACTERS = 4000
#: How the installers begin to say what is wrong.
_COMPLAINT = re.compile(r"\s*(?:error|ERROR|\u00d7)")
#: What uv says line by line and nobody reads while a model starts: which Python, and every package installed.
_NOISE = re.compile(r"Using Python| [+~-] \S")
#: uv's hint where there is only source code names an option of uv's; ours stands in for it.
_NO_WHEEL = re.compile(r".*building from source is disabled")
_WHEELS_ONLY = (
    "hint: only wheels are installed; take a version that has one for this Python, or allow packages to be built, "
    "which runs their code (--source-builds; in turnout.yaml, source_builds under environments)"
)
_TRIAL_SECONDS = 300.0
_NO_SECRETS = {"PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR", "TZ"}
#: A worker speaks in arrays, whatever the model asks for.
NUMPY = "numpy"


@dataclass(frozen=True, slots=True)
class Build:
    """How a build runs: who is told, when it is given up (seconds), and which lock its children hold."""

    tell: Tell
    timeout: float = 3600.0
    cancelled: Callable[[], bool] = lambda: False
    keep: tuple[int, ...] = ()


def check(requirements: Requirements, policy: IndexPolicy, tell: Tell) -> None:
    """Refuses before anything is built: half-hashed locks, and models that choose their own indexes."""
    hashed = [line for line in requirements.lines if "--hash=" in line]
    if (hashed or policy.require_hashes) and len(hashed) != len(requirements.lines):
        bare = next(line for line in requirements.lines if "--hash=" not in line)
        why = "hashes are required" if policy.require_hashes else "the other lines have hashes"
        raise EnvironmentFailed(f"{requirements.origin}: {bare!r} has no hash, and {why}; lock it with its hashes")
    if policy.require_hashes and NUMPY not in map(name_of, requirements.lines):
        raise EnvironmentFailed(
            f"{requirements.origin}: hashes are required, and numpy, which every worker needs, "
            "is not among them; lock it too"
        )
    for line in hashed:
        if not re.search(r"[\w\]]===?[^=,*]+ ", line.split(" ; ")[0] + " "):
            raise EnvironmentFailed(
                f"{requirements.origin}: {name_of(line)} has hashes but no one version; expected =="
            )
    for place in map(without_credentials, requirements.places):
        if policy.host:
            raise EnvironmentFailed(
                f"{requirements.origin} says {place!r}, and a model does not choose where packages come from; name the "
                "place yourself if you trust it (--index-url, --wheels)"
            )
        tell(f"{requirements.origin} says {place!r}: ignored, only the named places are asked")


def build(path: Path, python: Python, requirements: Requirements, policy: IndexPolicy, how: Build) -> None:
    """Makes a virtualenv at `path` with what is required, and numpy. Raises EnvironmentFailed with the reason.

    What is there after a failure is not whole; the caller removes it.
    """
    installer = find_installer()
    start = partial(_start, installer, policy, how, path.parent)
    ended = start(installer.make(python.program, path))
    _fail(ended, f"no virtualenv could be made with Python {python.version}")
    if not any(name_of(line) == NUMPY for line in requirements.lines) and not requirements.hashed:
        requirements = replace(requirements, lines=(*requirements.lines, NUMPY))
    with tempfile.TemporaryDirectory(dir=path) as folder:
        _install(start, installer, policy, Path(folder), path, requirements)
        if NUMPY not in packages(path):
            how.tell(f"{requirements.origin} brings no numpy for this Python; adding it")
            lines = tuple(f"{name}=={version}" for name, version in packages(path).items())
            _install(start, installer, policy, Path(folder), path, Requirements((NUMPY,), constraints=lines))
    _try(path, how)


def _try(path: Path, how: Build) -> None:
    """Imports numpy there, with none of the server's variables that may be secrets: it runs what was installed."""
    known = {name: value for name, value in os.environ.items() if name in _NO_SECRETS}
    command = [str(python_of(path)), "-I", "-c", "import numpy"]
    said: list[str] = []
    ended = run(command, known, said.append, folder=path, timeout=_TRIAL_SECONDS, cancelled=how.cancelled)
    _fail(ended, "what was installed cannot run: numpy does not import")


def python_of(path: Path) -> Path:
    """The interpreter of the virtualenv at `path`."""
    return path / "bin" / "python"


def _start(installer: Installer, policy: IndexPolicy, how: Build, folder: Path, command: Sequence[str]) -> Ended:
    failed = False

    def tell(line: str) -> None:
        nonlocal failed
        failed = failed or bool(_COMPLAINT.match(line))
        if not failed and not _NOISE.match(line):  # complaints are the failure's own text
            how.tell(line)

    return run(
        command,
        installer.environment(policy),
        tell,
        folder=folder,
        timeout=how.timeout,
        cancelled=how.cancelled,
        keep=how.keep,
    )


def _install(
    start: Callable[[Sequence[str]], Ended],
    installer: Installer,
    policy: IndexPolicy,
    folder: Path,
    path: Path,
    requirements: Requirements,
) -> None:
    wanted, limits = folder / "requirements.txt", folder / "constraints.txt"
    wanted.write_text("".join(f"{line}\n" for line in requirements.lines))
    limits.write_text("".join(f"{line}\n" for line in requirements.constraints))
    task = Task(python_of(path), wanted, limits if requirements.constraints else None, requirements.hashed)
    ended = start(installer.install(task, policy))
    what = f"what {requirements.origin} asks for cannot be installed by {installer.name}"
    _fail(ended, what)


def _fail(ended: Ended, what: str) -> None:
    if ended.code == 0:
        return
    how = f"exit code {ended.code}" if ended.code > 0 else f"signal {-ended.code}"
    raise EnvironmentFailed(f"{what}: {_reason(ended.lines) or how}")


def _reason(lines: Sequence[str]) -> str:
    """The resolver's own words: from its first complaint on, within bounds."""
    lines = list(dict.fromkeys(_WHEELS_ONLY if _NO_WHEEL.match(line) else line for line in lines))
    said = next((n for n, line in enumerate(lines) if _COMPLAINT.match(line)), 0)
    kept = [re.sub(r"^\s*(error|ERROR):\s*", "", line).strip() for line in lines[said : said + _REASON_LINES]]
    return "\n  ".join(kept)[:_REASON_CHARACTERS]
