"""Archives that strangers made: unpacked without a link, a name that leads out, or more than was agreed."""

from __future__ import annotations

import gzip
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from turnout.core.errors import LoadFailed
from turnout.deploy.sources import tar
from turnout.deploy.sources.manifest import MAX_FILES, check_name, check_names
from turnout.deploy.trees import remove_tree

SUFFIXES = (".tar.gz", ".tgz", ".tar", ".zip")
#: More bytes than this from one byte of archive is no model. (All zeros reach a thousand.)
MAX_RATIO = 200
#: What even the smallest archive may hold.
_FREE_BYTES = 16 << 20
_CHUNK_BYTES = 1 << 20
_MAX_DIRECTORY_BYTES = 64 << 20
_END = struct.Struct("<4s4H2LH")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR_64 = struct.Struct("<4sLQL")


def is_archive(name: str) -> bool:
    """Whether a file of that name is unpacked."""
    return name.lower().endswith(SUFFIXES)


def unpack(archive: Path, into: Path, *, max_bytes: int) -> None:
    """Writes the archive's files below `into`, which is emptied first.

    Owners, times and permissions are not taken over. Raises LoadFailed, and leaves nothing: links, devices, names
    that lead out or clash, encrypted or damaged content, too many files, more than `max_bytes`, a bomb.
    """
    remove_tree(into)
    into.mkdir()
    try:
        _unpack(archive, into, max_bytes)
    except LoadFailed as problem:
        remove_tree(into)
        raise LoadFailed(f"{archive.name!a} is not unpacked: {problem.message}") from None
    except (RuntimeError, zipfile.BadZipFile, zlib.error, EOFError, ValueError, OSError, struct.error) as problem:
        remove_tree(into)
        what = problem.strerror if isinstance(problem, OSError) and problem.strerror else str(problem)
        raise LoadFailed(f"{archive.name!a} cannot be unpacked; it is damaged or incomplete: {what}") from None


def _unpack(archive: Path, into: Path, max_bytes: int) -> None:
    size = archive.stat().st_size
    limit = min(max_bytes, max(size * MAX_RATIO, _FREE_BYTES))
    too_large = LoadFailed(f"it has {size} bytes and unpacks to more than {limit}, which is the limit")
    names: list[str] = []
    left = limit
    reads = _zip if archive.name.lower().endswith(".zip") else _tar
    for name, announced, content in reads(archive):
        check_name(name)
        names.append(name)
        if len(names) > MAX_FILES:
            raise LoadFailed(f"it holds more than {MAX_FILES} files")
        if announced > left:
            raise too_large
        target = into / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:  # a name that comes twice ends here
            for chunk in content:
                left -= len(chunk)
                if left < 0:
                    raise too_large
                file.write(chunk)
    check_names(names)
    if not names:
        raise LoadFailed("it holds no file")


def _tar(archive: Path) -> Iterator[tuple[str, int, Iterator[bytes]]]:
    with archive.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        stream: IO[bytes] = gzip.GzipFile(fileobj=raw) if packed else raw  # type: ignore[assignment]
        for name, size, content in tar.members(stream):
            yield name.removeprefix("./"), size, content


def _zip(archive: Path) -> Iterator[tuple[str, int, Iterator[bytes]]]:
    with archive.open("rb") as raw:
        _check_directory(raw)
        with zipfile.ZipFile(raw) as found:
            for member in found.infolist():
                name = member.orig_filename  # the archive's own word; `filename` is cut at a NUL
                kind = stat.S_IFMT(member.external_attr >> 16)
                if name.endswith("/"):
                    continue
                if kind not in {0, stat.S_IFREG}:
                    raise LoadFailed(f"it holds {name[:120]!a}, which is a link or a device; only files are unpacked")
                with found.open(member) as stream:
                    yield name, member.file_size, iter(lambda stream=stream: stream.read(_CHUNK_BYTES), b"")  # type: ignore[misc]


def _check_directory(raw: IO[bytes]) -> None:
    """Raises LoadFailed for a list of members that would not fit in memory, before anybody reads it."""
    size = raw.seek(0, 2)
    raw.seek(max(0, size - _END.size - 0xFFFF))
    last = raw.read()
    at = last.rfind(b"PK\x05\x06")
    if at < 0 or len(last) - at < _END.size:
        raise LoadFailed("it is no zip archive, or its end is missing")
    end = _END.unpack_from(last, at)
    count, nbytes = end[4], end[5]
    if at >= _LOCATOR_64.size and last[at - _LOCATOR_64.size :].startswith(b"PK\x06\x07"):
        raw.seek(_LOCATOR_64.unpack_from(last, at - _LOCATOR_64.size)[2])
        end_64 = _END_64.unpack(raw.read(_END_64.size))
        count, nbytes = (
            max(count if count != 0xFFFF else 0, end_64[7]),
            max(nbytes if nbytes != 0xFFFFFFFF else 0, end_64[8]),
        )
    if count > 2 * MAX_FILES or nbytes > _MAX_DIRECTORY_BYTES:
        raise LoadFailed(f"it holds {count} files, listed in {nbytes} bytes; {MAX_FILES} files are allowed")
