"""What is installed in an environment, read from the packages' own records; nothing of it is imported."""

from __future__ import annotations

import os
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import NamedTuple

from turnout.deploy.environments.lines import name_of


class Size(NamedTuple):
    """Bytes on disk, each file once; shared: of those, the bytes of files that have another name elsewhere."""

    nbytes: int
    shared_bytes: int


def site_packages(path: Path) -> list[Path]:
    """Where the packages of the virtualenv at `path` are."""
    return sorted(path.glob("lib/python*/site-packages"))


def installed(path: Path) -> list[Distribution]:
    """The distributions in the virtualenv at `path`, sorted by name."""
    found = distributions(path=[str(folder) for folder in site_packages(path)])
    return sorted((one for one in found if one.metadata["Name"]), key=lambda one: name_of(one.metadata["Name"]))


def packages(path: Path) -> dict[str, str]:
    """Normalised name to version, as installed."""
    return {name_of(one.metadata["Name"]): one.version for one in installed(path)}


def size_of(path: Path) -> Size:
    """What a directory takes on disk."""
    seen: set[tuple[int, int]] = set()
    nbytes = shared = 0
    waiting = [str(path)]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                    continue
                found = entry.stat(follow_symlinks=False)
                if (found.st_dev, found.st_ino) not in seen:
                    seen.add((found.st_dev, found.st_ino))
                    nbytes += found.st_blocks * 512
                    shared += found.st_blocks * 512 if found.st_nlink > 1 else 0
    return Size(nbytes, shared)
