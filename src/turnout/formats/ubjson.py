"""Decodes Universal Binary JSON, the draft-12 form that XGBoost writes: big-endian, with typed arrays."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

_TYPED: dict[int, np.dtype[Any]] = {
    ord("i"): np.dtype(">i1"),
    ord("U"): np.dtype(">u1"),
    ord("I"): np.dtype(">i2"),
    ord("l"): np.dtype(">i4"),
    ord("L"): np.dtype(">i8"),
    ord("d"): np.dtype(">f4"),
    ord("D"): np.dtype(">f8"),
}
_SINGLE = {mark: struct.Struct(">" + dtype.char.replace("l", "q")) for mark, dtype in _TYPED.items()}
_PLAIN = {ord("Z"): None, ord("T"): True, ord("F"): False}
_DEPTH = 64


def decode(data: bytes) -> Any:
    """The value in the bytes; typed arrays are numpy arrays. Raises ValueError where it is cut off or not UBJSON."""
    reader = _Reader(data)
    try:
        value = reader.value(reader.mark(), 0)
    except (struct.error, IndexError, UnicodeDecodeError) as problem:
        raise ValueError(f"the UBJSON is cut off or damaged at byte {reader.at}") from problem
    if reader.at != len(data):
        raise ValueError(f"the UBJSON ends at byte {reader.at} of {len(data)}")
    return value


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def mark(self) -> int:
        mark = self.data[self.at]
        self.at += 1
        return mark

    def value(self, mark: int, depth: int) -> Any:
        single = _SINGLE.get(mark)
        if single is not None:
            (number,) = single.unpack_from(self.data, self.at)
            self.at += single.size
            return number
        if mark == ord("S"):
            return self.text()
        if mark == ord("["):
            return self.array(depth)
        if mark == ord("{"):
            return self.object(depth)
        if mark == ord("C"):
            return chr(self.mark())
        if mark in _PLAIN:
            return _PLAIN[mark]
        raise ValueError(f"there is no UBJSON type {mark:#x} (byte {self.at - 1})")

    def size(self) -> int:
        mark = self.mark()
        size = self.value(mark, _DEPTH) if mark in _SINGLE else None
        if not isinstance(size, int) or size < 0 or size > len(self.data):
            raise ValueError(f"a length is out of range at byte {self.at}")
        return size

    def text(self) -> str:
        size = self.size()
        end = self.at + size
        if end > len(self.data):
            raise ValueError(f"a text is cut off at byte {self.at}")
        text = self.data[self.at : end].decode()
        self.at = end
        return text

    def array(self, depth: int) -> Any:
        self.descend(depth)
        kind = size = None
        if self.data[self.at] == ord("$"):
            self.at += 1
            kind = self.mark()
        if self.data[self.at] == ord("#"):
            self.at += 1
            size = self.size()
        if kind is not None:
            dtype = _TYPED.get(kind)
            if dtype is None or size is None:
                raise ValueError(f"a typed array without a number type or a size at byte {self.at}")
            end = self.at + size * dtype.itemsize
            if end > len(self.data):
                raise ValueError(f"an array is cut off at byte {self.at}")
            found = np.frombuffer(self.data, dtype, size, self.at)
            self.at = end
            return found.astype(dtype.newbyteorder("="))
        items: list[Any] = []
        while size is None or len(items) < size:
            mark = self.mark()
            if size is None and mark == ord("]"):
                break
            items.append(self.value(mark, depth + 1))
        return items

    def object(self, depth: int) -> dict[str, Any]:
        self.descend(depth)
        found: dict[str, Any] = {}
        while self.data[self.at] != ord("}"):
            name = self.text()
            if name in found:
                raise ValueError(f"the name {name!r} stands twice")
            found[name] = self.value(self.mark(), depth + 1)
        self.at += 1
        return found

    def descend(self, depth: int) -> None:
        if depth >= _DEPTH:
            raise ValueError("nested too deeply")
