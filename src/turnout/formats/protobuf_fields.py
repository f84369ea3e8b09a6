"""Walks the fields of a protobuf message without its schema, so that a file is judged before any library reads it."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import NamedTuple

Buffer = memoryview | mmap.mmap | bytes

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class Damaged(ValueError):
    """The bytes are not a protobuf message, or they end too early."""


class Span(NamedTuple):
    """One field: its number, wire type, value (for a varint) and where its bytes are."""

    number: int
    wire: int
    value: int
    start: int
    end: int


def _varint(data: Buffer, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 64:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise Damaged("a number is cut off")


def spans(data: Buffer, start: int, end: int) -> Iterator[Span]:
    """The fields between two offsets, without reading their contents. Raises Damaged."""
    at = start
    while at < end:
        tag, at = _varint(data, at, end)
        number, wire = tag >> 3, tag & 7
        if wire == VARINT:
            value, stop = _varint(data, at, end)
            yield Span(number, wire, value, at, stop)
        elif wire == BYTES:
            size, at = _varint(data, at, end)
            stop = at + size
            if stop > end:
                raise Damaged("a field is longer than what is left")
            yield Span(number, wire, size, at, stop)
        elif wire in (FIXED64, FIXED32):
            stop = at + (8 if wire == FIXED64 else 4)
            if stop > end:
                raise Damaged("a field is cut off")
            yield Span(number, wire, 0, at, stop)
        else:
            raise Damaged(f"wire type {wire} does not exist")
        if number == 0:
            raise Damaged("field number 0 does not exist")
        at = stop
