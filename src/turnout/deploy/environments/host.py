"""Where this host's own pip is configured to look, asked of pip itself; for installers that do not read its files."""

from __future__ import annotations

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache

_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class HostSettings:
    """pip's settings of places, in pip's order; empty where there is no pip or nothing is configured."""

    index_url: str = ""
    extra_index_urls: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    trusted_hosts: tuple[str, ...] = ()
    cert: str = ""
    no_index: bool = False


@cache
def host_settings() -> HostSettings:
    """Asked once per process: it costs a third of a second."""
    command = [sys.executable, "-m", "pip"] if importlib.util.find_spec("pip") else [shutil.which("pip") or ""]
    if not command[0]:
        return HostSettings()
    try:
        ended = subprocess.run(
            [*command, "config", "list"],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
            env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        )
    except (OSError, subprocess.SubprocessError):
        return HostSettings()
    return parse(ended.stdout)


def parse(text: str) -> HostSettings:
    """What `pip config list` prints. A variable (`:env:`) wins over `install.`, that over `global.`."""
    found: dict[str, str] = {}
    for section in ("global.", "install.", ":env:."):
        for line in text.splitlines():
            key, _, value = line.partition("=")
            if key.startswith(section):
                try:
                    found[key.removeprefix(section)] = str(ast.literal_eval(value))
                except (ValueError, SyntaxError):
                    continue
    return HostSettings(
        index_url=found.get("index-url", "").strip(),
        extra_index_urls=tuple(found.get("extra-index-url", "").split()),
        find_links=tuple(found.get("find-links", "").split()),
        trusted_hosts=tuple(found.get("trusted-host", "").split()),
        cert=found.get("cert", "").strip(),
        no_index=found.get("no-index", "").strip().lower() in {"1", "true", "yes", "on"},
    )
