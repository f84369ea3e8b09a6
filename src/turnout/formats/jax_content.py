"""What a serialised `jax.export` function looks like from outside. It is a FlatBuffer without a mark of its own."""

from __future__ import annotations

import struct
from typing import BinaryIO

from turnout.core.errors import LoadFailed
from turnout.formats.artifact import Artifact

_MLIR = b"ML\xefR"
_VERSIONS = range(1, 100)
_VERSION_SLOT, _NAME_SLOT, _MODULE_SLOT = 4, 6, 30
_NAME_BYTES = 4096


def looks_like(artifact: Artifact) -> bool:
    """Whether the file is a FlatBuffer with a version, a function's name and MLIR bytecode where they belong."""
    return _module(artifact) is not None


def check_whole(artifact: Artifact) -> None:
    """Raises LoadFailed where the program is longer than the file."""
    found = _module(artifact)
    if found is None or sum(found) > artifact.size:
        raise LoadFailed(f"{artifact.label} is cut off: its program is longer than the file")


def _module(artifact: Artifact) -> tuple[int, int] | None:
    """Where the MLIR bytecode starts and how long it says it is; None where this is something else."""
    if artifact.path is None or artifact.size < 64:
        return None
    try:
        with artifact.path.open("rb") as stream:
            root = _number(stream, 0, "<I")
            table = root - _number(stream, root, "<i")
            if not 0 < table < artifact.size or _number(stream, table, "<H") <= _MODULE_SLOT:
                return None
            version = _slot(stream, root, table, _VERSION_SLOT)
            name = _vector(stream, _slot(stream, root, table, _NAME_SLOT))
            module = _vector(stream, _slot(stream, root, table, _MODULE_SLOT))
            if _number(stream, version, "<H") not in _VERSIONS or not 0 < name[1] <= _NAME_BYTES:
                return None
            _bytes(stream, *name).decode()
            return module if _bytes(stream, module[0], 4) == _MLIR else None
    except (struct.error, ValueError, OSError):
        return None


def _bytes(stream: BinaryIO, at: int, size: int) -> bytes:
    stream.seek(at)
    return stream.read(size)


def _number(stream: BinaryIO, at: int, form: str) -> int:
    return int(struct.unpack(form, _bytes(stream, at, struct.calcsize(form)))[0])


def _slot(stream: BinaryIO, root: int, table: int, slot: int) -> int:
    """Where a field's value is. Raises ValueError where the field is absent."""
    offset = _number(stream, table + slot, "<H")
    if not offset:
        raise ValueError("an absent field")
    return root + offset


def _vector(stream: BinaryIO, at: int) -> tuple[int, int]:
    """Start and length of the bytes that an offset points to."""
    start = at + _number(stream, at, "<I")
    return start + 4, _number(stream, start, "<I")
