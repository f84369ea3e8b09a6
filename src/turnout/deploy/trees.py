"""Directories as a whole, and files that must never be half written: measured, removed, replaced."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple


class Size(NamedTuple):
    """Bytes on disk, each file once; shared: of those, the bytes of files that have another name elsewhere."""

    nbytes: int
    shared_bytes: int


def size_of(path: Path) -> Size:
    """What a directory takes on disk; nothing where there is none, and nothing for what goes away meanwhile."""
    seen: set[tuple[int, int]] = set()
    nbytes = shared = 0
    waiting = [str(path)]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                    continue
                with contextlib.suppress(OSError):
                    found = entry.stat(follow_symlinks=False)
                    if (found.st_dev, found.st_ino) not in seen:
                        seen.add((found.st_dev, found.st_ino))
                        nbytes += found.st_blocks * 512
                        shared += found.st_blocks * 512 if found.st_nlink > 1 else 0
    return Size(nbytes, shared)


def remove_tree(path: Path) -> None:
    """Deletes a directory whose parts may be read-only; nothing if there is none. Follows no link."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    with contextlib.suppress(FileNotFoundError):
        for directory, _, _ in os.walk(path):
            Path(directory).chmod(0o700)
    shutil.rmtree(path, ignore_errors=True)


def write_durably(path: Path, found: Mapping[str, Any]) -> None:
    """Writes JSON so that there is the old text or the new one, whatever happens."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(found, file)
        file.flush()
        os.fsync(file.fileno())
    Path(name).replace(path)
