"""The commands that make a virtualenv and install into it: uv's, or those of venv and pip. By argv only."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from turnout.core.errors import EnvironmentFailed
from turnout.deploy.environments.environment import IndexPolicy
from turnout.deploy.environments.host import HostSettings, host_settings

#: Settings of uv that say how, not where from; they stay when the operator names the indexes.
_UV_KEPT = (
    *(
        "UV_CACHE_DIR",
        "UV_CONCURRENT_",
        "UV_EXCLUDE_NEWER",
        "UV_HTTP_",
        "UV_INSECURE_HOST",
        "UV_KEYRING_PROVIDER",
        "UV_LINK_MODE",
    ),
    *("UV_NATIVE_TLS", "UV_NO_CACHE", "UV_REQUEST_TIMEOUT", "UV_SYSTEM_CERTS"),
)
_PIP_KEPT = ("PIP_CERT", "PIP_CACHE_DIR", "PIP_CLIENT_CERT", "PIP_DEFAULT_TIMEOUT", "PIP_NO_CACHE_DIR", "PIP_RETRIES")
#: What would make a Python of ours look at packages of another environment.
_OTHERS = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONSTARTUP", "__PYVENV_LAUNCHER__"}


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be installed where: requirement and constraint files that the builder has written."""

    python: Path
    requirements: Path
    constraints: Path | None
    hashed: bool


class Installer(Protocol):
    """Makes virtualenvs and fills them; gives commands and their environment variables, and runs nothing."""

    name: str

    def make(self, python: Path, path: Path) -> list[str]:
        """The command that makes an empty virtualenv for that interpreter at `path`."""
        ...

    def install(self, task: Task, policy: IndexPolicy) -> list[str]:
        """The command that installs from where the policy says. Raises EnvironmentFailed if it cannot obey."""
        ...

    def environment(self, policy: IndexPolicy) -> dict[str, str]:
        """The environment variables of both commands, with the indexes to ask."""
        ...


def find_installer() -> Installer:
    """uv beside our interpreter or on PATH, or else our interpreter's pip. Raises EnvironmentFailed for neither."""
    beside = Path(sys.executable).parent / "uv"
    uv = str(beside) if os.access(beside, os.X_OK) else shutil.which("uv")
    if uv is not None:
        return Uv(uv)
    if importlib.util.find_spec("pip") is not None:
        return Pip(sys.executable)
    raise EnvironmentFailed("environments are built by uv or pip, and neither is here: pip install uv")


class Uv:
    """Builds with uv: quick, and disk is shared by hard links into its cache."""

    name = "uv"

    def __init__(self, program: str) -> None:
        self._program = program

    def make(self, python: Path, path: Path) -> list[str]:
        return [
            *(self._program, "venv", "--no-config", "--no-project", "--no-python-downloads", "--color", "never"),
            *("--quiet", "--allow-existing", "--python", str(python), "--", str(path)),
        ]

    def install(self, task: Task, policy: IndexPolicy) -> list[str]:
        command = [
            *(self._program, "pip", "install", "--no-python-downloads", "--color", "never", "--no-progress"),
            *("--python", str(task.python), "--requirements", str(task.requirements)),
        ]
        if task.constraints is not None:
            command += ["--constraints", str(task.constraints)]
        if not policy.source_builds:
            command.append("--no-build")
        if task.hashed:
            command.append("--require-hashes")
        command += [word for folder in policy.wheels for word in ("--find-links", str(folder))]
        if policy.host:
            return command + self._host(host_settings())
        command += ["--no-config", "--index-strategy", "first-index"]
        return [*command, "--no-index", "--offline"] if _asks_no_index(policy) else command

    def environment(self, policy: IndexPolicy) -> dict[str, str]:
        settings = host_settings() if policy.host or policy.public else HostSettings()
        if policy.host:
            found = _cleaned(("PIP_",))
            first = [*found.get("UV_INDEX", "").split(), *settings.extra_index_urls]
            last = found.get("UV_DEFAULT_INDEX", "") or settings.index_url
        else:
            found = _cleaned(("PIP_", "UV_"), _UV_KEPT)
            first = [] if policy.offline else [*policy.index_urls]
            last = (settings.index_url if policy.public else first.pop()) if first else ""
        if settings.cert and not {"SSL_CERT_FILE", "SSL_CERT_DIR"} & found.keys():
            found["SSL_CERT_FILE"] = settings.cert
        if first:
            found["UV_INDEX"] = " ".join(first)  # not by argv, which everybody on this host may read
        if last:
            found["UV_DEFAULT_INDEX"] = last
        return found

    @staticmethod
    def _host(settings: HostSettings) -> list[str]:
        """What the host's pip is configured to ask, said to uv, which does not read pip's files."""
        words = [word for place in settings.find_links for word in ("--find-links", place)]
        words += [word for name in settings.trusted_hosts for word in ("--allow-insecure-host", name)]
        if settings.no_index:
            words.append("--no-index")
        if settings.extra_index_urls:
            words += ["--index-strategy", "unsafe-best-match"]  # to pip, all its indexes are one
        return words


class Pip:
    """Builds with venv and pip, where there is no uv."""

    name = "pip"

    def __init__(self, python: str) -> None:
        self._python = python

    def make(self, python: Path, path: Path) -> list[str]:
        return [str(python), "-I", "-m", "venv", "--without-pip", str(path)]

    def install(self, task: Task, policy: IndexPolicy) -> list[str]:
        command = [
            *(self._python, "-m", "pip", "--python", str(task.python), "install", "--disable-pip-version-check"),
            *("--no-input", "--no-color", "--progress-bar", "off", "--requirement", str(task.requirements)),
        ]
        if task.constraints is not None:
            command += ["--constraint", str(task.constraints)]
        if not policy.source_builds:
            command += ["--only-binary", ":all:"]
        if task.hashed:
            command.append("--require-hashes")
        command += [word for folder in policy.wheels for word in ("--find-links", str(folder))]
        if not policy.host and _asks_no_index(policy):
            return [*command, "--no-index"]
        if not policy.host and len(policy.index_urls) + policy.public > 1:
            raise EnvironmentFailed(
                "pip takes a package from whichever index has the highest version, so it cannot ask several indexes in "
                "order; install uv (pip install uv), or name one index and --no-public-index"
            )
        return command

    def environment(self, policy: IndexPolicy) -> dict[str, str]:
        if policy.host:
            return _cleaned(())
        found = _cleaned(("PIP_", "UV_"), _PIP_KEPT) | {"PIP_CONFIG_FILE": os.devnull}
        if not _asks_no_index(policy):
            found["PIP_INDEX_URL"] = policy.index_urls[0]  # not by argv, which everybody on this host may read
        return found


def _asks_no_index(policy: IndexPolicy) -> bool:
    return policy.offline or not (policy.index_urls or policy.public)


def _cleaned(dropped: tuple[str, ...], kept: tuple[str, ...] = ()) -> dict[str, str]:
    """Our environment variables without those that begin as `dropped`, but for those that begin as `kept`."""
    return {
        name: value
        for name, value in os.environ.items()
        if name not in _OTHERS and (not name.startswith(dropped) or name.startswith(kept))
    }
