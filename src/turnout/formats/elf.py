"""What a native library is, read from its headers: whole or cut off, for which machine, and what it exports."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

MAGIC = b"\x7fELF"
#: What `platform.machine()` calls the machines that a header numbers.
MACHINES = {0x3E: "x86_64", 0xB7: "aarch64", 0x28: "armv7l", 0xF3: "riscv64", 0x03: "i686", 0x15: "ppc64le"}
_SHARED_OBJECT = 3
_DYNSYM, _NOBITS = 11, 8
_MAX_SECTIONS = 65_000
_MAX_NAMES = 64 << 20


class Library(NamedTuple):
    """A whole shared object: its machine and the names in its dynamic symbol table."""

    machine: str
    names: frozenset[bytes]


class Damaged(ValueError):
    """The headers point outside the file, or it is no 64-bit little-endian shared object."""


class _Section(NamedTuple):
    kind: int
    link: int
    start: int
    size: int


def read_library(path: Path) -> Library:
    """The library in a file. Raises Damaged where a part of it lies outside the file: mapping that would end us."""
    size = path.stat().st_size
    if size < 64:
        raise Damaged(f"it has {size} bytes")
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:6] != MAGIC + b"\x02\x01":
            raise Damaged("it is not a 64-bit little-endian ELF file")
        kind, machine, _, _, segments, sections = struct.unpack_from("<HHIQQQ", data, 16)
        if kind != _SHARED_OBJECT:
            raise Damaged("it is not a shared library")
        segment_size, segment_count, section_size, section_count = struct.unpack_from("<HHHH", data, 54)
        _check_segments(data, size, segments, segment_size, segment_count)
        found = list(_sections(data, size, sections, section_size, section_count))
        return Library(MACHINES.get(machine, f"machine {machine:#x}"), frozenset(_names(data, found)))


def _check_segments(data: mmap.mmap, size: int, start: int, entry: int, count: int) -> None:
    if entry < 56 or not count or start + entry * count > size:
        raise Damaged("its program headers are outside the file")
    for number in range(count):
        at = start + number * entry
        offset, stored = struct.unpack_from("<Q", data, at + 8)[0], struct.unpack_from("<Q", data, at + 32)[0]
        if offset + stored > size:
            raise Damaged(f"segment {number} ends after the file")


def _sections(data: mmap.mmap, size: int, start: int, entry: int, count: int) -> Iterator[_Section]:
    if entry < 64 or not 0 < count <= _MAX_SECTIONS or start + entry * count > size:
        raise Damaged("its section headers are outside the file")
    for number in range(count):
        at = start + number * entry
        (kind,) = struct.unpack_from("<I", data, at + 4)
        offset, stored, link = struct.unpack_from("<QQI", data, at + 24)
        if kind != _NOBITS and offset + stored > size:
            raise Damaged(f"section {number} ends after the file")
        yield _Section(kind, link, offset, stored)


def _names(data: mmap.mmap, sections: list[_Section]) -> Iterator[bytes]:
    for section in sections:
        if section.kind == _DYNSYM and section.link < len(sections):
            strings = sections[section.link]
            if strings.size > _MAX_NAMES:
                raise Damaged("it has too many names")
            yield from data[strings.start : strings.start + strings.size].split(b"\0")
