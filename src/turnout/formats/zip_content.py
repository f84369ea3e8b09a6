"""What a zip archive holds, judged before a library unpacks it: names that stay inside, no bomb, nothing damaged."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import PurePosixPath

from turnout.core.errors import LoadFailed
from turnout.formats.artifact import Artifact

_MAX_UNPACKED_BYTES = 16 << 30
#: More bytes than this from one byte of archive is no model. (All zeros reach a thousand.)
_MAX_RATIO = 200
#: What even the smallest archive may hold.
_FREE_BYTES = 64 << 20


def check_members(archive: zipfile.ZipFile, artifact: Artifact) -> None:
    """Raises LoadFailed for a name that leads out, for what unpacks to too much, and for what its checksum belies.

    Reads every byte once.
    """
    for entry in archive.infolist():
        path = PurePosixPath(entry.filename)
        if path.is_absolute() or ".." in path.parts or "\\" in entry.filename:
            raise LoadFailed(f"{artifact.label}: the member {entry.filename!r} lies outside the archive")
    unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > min(_MAX_UNPACKED_BYTES, _MAX_RATIO * artifact.size + _FREE_BYTES):
        raise LoadFailed(
            f"{artifact.label} unpacks to {unpacked} bytes, which no model in an archive of {artifact.size} bytes does"
        )
    try:
        damaged = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError) as problem:
        raise LoadFailed(f"{artifact.label}: the archive is damaged ({problem})") from None
    if damaged is not None:
        raise LoadFailed(f"{artifact.label}: the archive is damaged: {damaged} is not what its checksum says")


def read_member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, artifact: Artifact, max_bytes: int) -> bytes:
    """The bytes of one member. Raises LoadFailed where they are more than `max_bytes`."""
    if entry.file_size > max_bytes:
        name = entry.filename.rpartition("/")[2]
        raise LoadFailed(f"{artifact.label}: {name} is larger than {max_bytes >> 20} MiB")
    return archive.read(entry)
