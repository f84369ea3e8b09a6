"""Tar archives, read as a stream: plain files only, in bounded memory, whatever the headers claim."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import IO

from turnout.core.errors import LoadFailed

_BLOCK = 512
_ZEROS = bytes(_BLOCK)
_CHUNK_BYTES = 1 << 20
#: What a header may say of the next file: its long name, mostly. The formats set no limit, so this one does.
_MAX_EXTENDED_BYTES = 64 << 10
_FILES = b"\x000"  # both mean a plain file; so does 7, which nobody writes
_DIRECTORY = b"5"
_KINDS = {b"1": "a hard link", b"2": "a symbolic link", b"3": "a device", b"4": "a device", b"6": "a pipe"}
_RECORD = re.compile(rb"([0-9]{1,8}) ([^=]+)=")


def members(
    stream: IO[bytes], wanted: Callable[[str], bool] = lambda _: True
) -> Iterator[tuple[str, int, Iterator[bytes]]]:
    """Name, size in bytes and content of every plain file. The content has to be read before the next one.

    wanted: what is not is passed over by its name, whatever it is.
    Raises LoadFailed for anything that is neither file nor directory, and ValueError for what is damaged.
    """
    extended: dict[str, str] = {}
    while True:
        header = _exactly(stream, _BLOCK)
        if header == _ZEROS:
            return
        _check_sum(header)
        kind, size = header[156:157], _number(header[124:136])
        if kind in {b"x", b"L", b"g"}:
            if size > _MAX_EXTENDED_BYTES:
                raise LoadFailed(f"a header in the archive has {size} bytes; names are not that long")
            told = _padded(stream, size)
            if kind == b"x":
                extended.update(_records(told))
            elif kind == b"L":
                extended["path"] = told.rstrip(b"\x00").decode()
            continue
        if sparse := [key for key in extended if key.startswith("GNU.sparse")]:
            raise LoadFailed(f"the archive holds a sparse file ({sparse[0]}); only plain files are unpacked")
        name = extended.get("path") or _name(header)
        size = int(extended.get("size", size))
        extended = {}
        if kind == _DIRECTORY or not wanted(name):
            size = 0 if kind in _KINDS else size  # a link's size, where it has one, is that of what it leads to
            for _ in _content(stream, size):
                pass
            continue
        if kind not in _FILES or (kind == b"\x00" and name.endswith("/")):
            what = _KINDS.get(kind, f"of the kind {kind!r}")
            raise LoadFailed(f"the archive holds {name[:120]!a}, which is {what}; only plain files are unpacked")
        content = _content(stream, size)
        yield name, size, content
        for _ in content:
            pass


def _content(stream: IO[bytes], size: int) -> Iterator[bytes]:
    """A file's bytes, and what fills its last block, which is passed over."""
    left = size
    while left:
        chunk = stream.read(min(left, _CHUNK_BYTES))
        if not chunk:
            raise ValueError("it ends in the middle of a file")
        left -= len(chunk)
        yield chunk
    _exactly(stream, -size % _BLOCK)


def _padded(stream: IO[bytes], size: int) -> bytes:
    content = _exactly(stream, size)
    _exactly(stream, -size % _BLOCK)
    return content


def _exactly(stream: IO[bytes], size: int) -> bytes:
    content = b""
    while len(content) < size:
        chunk = stream.read(size - len(content))
        if not chunk:
            raise ValueError("it ends too early")
        content += chunk
    return content


def _check_sum(header: bytes) -> None:
    counted = sum(header[:148]) + 8 * ord(" ") + sum(header[156:])
    if counted != _number(header[148:156]):
        raise ValueError("a header has a wrong checksum, or this is no tar archive")


def _number(field: bytes) -> int:
    """Octal digits; or, where the first bit is set, the bytes of a large number. Raises ValueError."""
    if field[0] & 0x80:
        number = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
        if number >= 1 << 62:
            raise ValueError("a size is absurd")
        return number
    digits = field.strip(b" \x00")
    return int(digits, 8) if digits else 0


def _name(header: bytes) -> str:
    """The name in the header itself, whose beginning is apart where it is long."""
    name = header[:100].split(b"\x00")[0]
    if header[257:263] == b"ustar\x00":
        prefix = header[345:500].split(b"\x00")[0]
        name = prefix + b"/" + name if prefix else name
    return name.decode()


def _records(told: bytes) -> Iterator[tuple[str, str]]:
    """What a pax header says: lines of LENGTH KEY=VALUE. Raises ValueError."""
    at = 0
    while at < len(told) and told[at]:
        found = _RECORD.match(told, at)
        if found is None:
            raise ValueError("an extended header is damaged")
        end = at + int(found[1])
        if end > len(told) or end <= found.end() or told[end - 1] != ord("\n"):
            raise ValueError("an extended header is damaged")
        yield found[2].decode(), told[found.end() : end - 1].decode()
        at = end
