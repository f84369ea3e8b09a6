"""Directories of versions and of models, as Triton and TensorFlow Serving lay them out: `MODEL/1/`, `MODEL/2/` ..."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

_VERSION = re.compile(r"0|[1-9][0-9]{0,18}")
_MAX_FILES = 200_000


def versions_in(directory: Path) -> dict[str, Path] | None:
    """The versions in a directory whose sub-directories are all numbers; None for anything else.

    Hidden entries are not looked at: a version that is still being copied belongs under a name with a dot, and is
    renamed when it is whole.
    """
    if not directory.is_dir():
        return None
    inner = [entry for entry in directory.iterdir() if entry.is_dir() and not entry.name.startswith((".", "__"))]
    if not inner or not all(_VERSION.fullmatch(entry.name) for entry in inner):
        return None
    # "07" is no version: two directories must never mean the same number.
    return {entry.name: entry for entry in sorted(inner, key=lambda entry: int(entry.name))}


def models_in(directory: Path) -> dict[str, Path] | None:
    """The models of a repository: sub-directories that all hold versions; None for anything else."""
    if not directory.is_dir() or versions_in(directory) is not None:
        return None
    inner = [entry for entry in directory.iterdir() if entry.is_dir() and not entry.name.startswith((".", "__"))]
    if not inner or any(versions_in(entry) is None for entry in inner):
        return None
    return {entry.name: entry for entry in sorted(inner)}


def stamp(path: Path) -> str:
    """Changes whenever a file under `path` does, by name, size and time: cheap to ask again and again."""
    return ";".join(f"{name}:{size}:{changed}" for name, size, changed in _files(path))


def _files(path: Path) -> Iterator[tuple[str, int, int]]:
    found = [path] if path.is_file() else sorted(path.rglob("*"))[:_MAX_FILES]
    for file in found:
        try:
            state = file.stat()
        except OSError:  # it went away while we looked: the next look will see
            continue
        if file.is_file() and "__pycache__" not in file.parts:
            yield str(file.relative_to(path.parent)), state.st_size, state.st_mtime_ns
