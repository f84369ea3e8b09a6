"""`file:` URIs: a file or directory of this machine, copied, so that what is served is what was asked for."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from turnout.core.errors import LoadFailed, SourceFailed
from turnout.deploy.sources.archives import is_archive
from turnout.deploy.sources.fragments import joined, parted, split
from turnout.deploy.sources.manifest import manifest_files
from turnout.deploy.sources.source import Pinned, Progress, SourceMoved, SourceSettings
from turnout.deploy.sources.transfer import Remote, transfer

_CHUNK_BYTES = 4 << 20


class FileSource:
    """Pins by name, size, time and inode of every file; a plain path, by contrast, is served in place."""

    name = "file"
    schemes = ("file",)
    extra = ""
    resumes = True
    retries = False

    def resolve(self, uri: str, settings: SourceSettings) -> Pinned:
        path, said = _path(uri)
        try:
            files = manifest_files(path)
            states = {name: _state(file) for name, file in sorted(files.items())}
            size = sum(file.stat().st_size for file in files.values())
        except LoadFailed as problem:
            raise SourceFailed(f"{uri}: {problem.message}") from None
        except OSError as problem:
            raise SourceFailed(f"cannot read {uri}: {problem.strerror}") from None
        state = hashlib.sha256(json.dumps(states).encode()).hexdigest()
        if said.get("state", state) != state:
            raise SourceFailed(f"{uri} is no longer what was pinned: something has been written there since")
        name = path.name if path.is_file() else ""
        is_packed = bool(name) and is_archive(name) and said.get("unpack") != "no"
        return Pinned(uri, joined(uri, {"state": state}), file=name, unpack=is_packed, nbytes=size)

    def fetch(self, pinned: Pinned, into: Path, settings: SourceSettings, progress: Progress) -> None:
        path, _ = _path(pinned.pinned)
        if self.resolve(pinned.uri, settings).pinned != pinned.pinned:
            raise SourceMoved(f"{pinned.uri} has changed since it was resolved")
        files = manifest_files(path)

        def read(remote: Remote, start: int, stop: int) -> Iterator[bytes]:
            try:
                with files[remote.name].open("rb") as file:
                    file.seek(start)
                    while start < stop and (chunk := file.read(min(_CHUNK_BYTES, stop - start))):
                        start += len(chunk)
                        yield chunk
            except OSError as problem:
                raise SourceFailed(f"cannot read {pinned.uri}: {problem.strerror}") from None

        remotes = [Remote(name, file.stat().st_size, tag=_state(file)) for name, file in sorted(files.items())]
        transfer(remotes, read, into, limit=settings.max_artifact_bytes, progress=progress)
        if self.resolve(pinned.uri, settings).pinned != pinned.pinned:
            raise SourceMoved(f"{pinned.uri} changed while it was copied")


def _path(uri: str) -> tuple[Path, dict[str, str]]:
    bare, said = parted(uri)
    parts = split(bare)
    if parts.netloc not in {"", "localhost"} or parts.query:
        raise SourceFailed(f"{uri!a} names another machine or a query; expected file:///path")
    path = Path(unquote(parts.path))
    if not path.is_absolute():
        path = path.absolute()
    if not path.exists():
        raise SourceFailed(f"there is no file or directory {str(path)!a}")
    return path, said


def _state(path: Path) -> str:
    status = os.stat(path)  # noqa: PTH116  as elsewhere, what a link leads to
    return f"{status.st_dev}-{status.st_ino}-{status.st_size}-{status.st_mtime_ns}-{status.st_ctime_ns}"
