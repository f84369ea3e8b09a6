"""One batch, or its outcome, as bytes between a router and a worker. Fixed binary headers, never a pickle.

    head | item rows, u32 each | item deadlines, f64 each | tensor table | JSON note | twin | tensors, each at 64

Both sides know the signature, so a tensor is named by its place in it. All numbers are little-endian.
Decoding trusts nothing: a frame that does not add up raises `BrokenFrame`.
"""

from __future__ import annotations

import json
import struct
from array import array
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from turnout.core.tensors import DTYPES, Array, dtype_name, pack, unpack

MAGIC = 0x54524E31
ALIGN = 64
_HEAD = struct.Struct(
    "<IIIIIIQdQ"
)  # magic, items, deadlines, tensors, note bytes, twin bytes, batch number, seconds, frame bytes
_TENSOR = struct.Struct("<HBBIQQ")  # place in the signature, data type, dimensions, 0, offset, bytes
_DTYPE_NAMES = tuple(DTYPES)
_DTYPE_CODES = {name: code for code, name in enumerate(_DTYPE_NAMES)}
_DIMS = [struct.Struct(f"<{n}q") for n in range(33)]
HEAD_BYTES = _HEAD.size
#: Rows of fewer bytes are joined at once.
_SMALL = 512


class BrokenFrame(Exception):
    """The other side wrote something that is not a frame."""


class Piece(NamedTuple):
    """One tensor to send: its place in the signature, type, shape, and its bytes in one or more parts."""

    place: int
    datatype: str
    shape: Sequence[int]
    parts: Sequence[bytes | memoryview]


class Frame(NamedTuple):
    """One decoded frame. `tensors` are views into the buffer it was decoded from; `twin` says what answered."""

    number: int
    seconds: float
    rows: Sequence[int]
    deadlines: Sequence[float]
    tensors: Mapping[int, Array]
    note: Any
    twin: str = ""


def piece(place: int, whole: Array) -> Piece:
    """A piece from one array."""
    return Piece(place, dtype_name(whole.dtype), whole.shape, (pack(whole),))


def joined(place: int, first: Array, parts: Sequence[bytes | memoryview], rows: int) -> Piece:
    """A piece from the bytes of several arrays like the first, `rows` rows in all, joined where it is written."""
    if len(parts) == 1:
        return Piece(place, dtype_name(first.dtype), first.shape, parts)
    if first.nbytes < _SMALL:
        parts = (b"".join(parts),)  # one piece to be counted and copied from here on
    return Piece(place, dtype_name(first.dtype), (rows, *first.shape[1:]), parts)


def encode(
    number: int,
    seconds: float,
    rows: Sequence[int],
    deadlines: Sequence[float],
    pieces: Sequence[Piece],
    note: Any = None,
    twin: str = "",
) -> list[bytes | memoryview]:
    """The frame as parts to be written one after another."""
    note_bytes = b"" if note is None else json.dumps(note).encode()
    twin_bytes = twin.encode()
    table_bytes = sum([_TENSOR.size + 8 * len(p.shape) for p in pieces])
    at = HEAD_BYTES + 4 * len(rows) + 8 * len(deadlines) + table_bytes + len(note_bytes) + len(twin_bytes)
    table: list[bytes] = []
    body: list[bytes | memoryview] = []
    for p in pieces:
        pad = -at % ALIGN
        if pad:
            body.append(bytes(pad))
            at += pad
        size = sum([len(part) for part in p.parts])
        table.append(_TENSOR.pack(p.place, _DTYPE_CODES[p.datatype], len(p.shape), 0, at, size))
        table.append(_DIMS[len(p.shape)].pack(*p.shape))
        body.extend(p.parts)
        at += size
    head = b"".join(
        (
            _HEAD.pack(
                MAGIC, len(rows), len(deadlines), len(pieces), len(note_bytes), len(twin_bytes), number, seconds, at
            ),
            array("I", rows).tobytes(),
            array("d", deadlines).tobytes(),
            *table,
            note_bytes,
            twin_bytes,
        )
    )
    return [head, *body]


def frame_bytes(head: Any) -> int:
    """The size of the whole frame that starts in `head` (at least HEAD_BYTES long)."""
    magic, *_, total = _HEAD.unpack_from(head)
    if magic != MAGIC or total < HEAD_BYTES:
        raise BrokenFrame("not a frame")
    return int(total)


def decode(buffer: Any) -> Frame:
    """The frame at the start of a buffer; tensors are views into it. Raises BrokenFrame."""
    try:
        magic, items, timed, tensors, note_size, twin_size, number, seconds, total = _HEAD.unpack_from(buffer)
        if magic != MAGIC or total > len(buffer):
            raise BrokenFrame("not a whole frame")
        at = HEAD_BYTES
        view = memoryview(buffer)
        if at + 4 * items + 8 * timed > total:
            raise BrokenFrame("more items than the frame can hold")
        rows = view[at : at + 4 * items].cast("I").tolist()
        at += 4 * items
        deadlines = array("d", bytes(view[at : at + 8 * timed])).tolist()
        at += 8 * timed
        found: dict[int, Array] = {}
        for _ in range(tensors):
            place, code, ndim, _zero, offset, size = _TENSOR.unpack_from(view, at)
            at += _TENSOR.size
            shape = _DIMS[ndim].unpack_from(view, at)
            at += 8 * ndim
            if offset + size > total or min(shape, default=0) < 0:
                raise BrokenFrame("a tensor reaches beyond its frame")
            found[place] = _tensor(_DTYPE_NAMES[code], shape, view[offset : offset + size])
        note = json.loads(bytes(view[at : at + note_size])) if note_size else None
        at += note_size
        twin = str(view[at : at + twin_size], "utf-8") if twin_size else ""
    except (struct.error, ValueError, IndexError, TypeError, OverflowError, RecursionError) as problem:
        raise BrokenFrame(str(problem)) from None
    return Frame(number, seconds, rows, deadlines, found, note, twin)


def _tensor(datatype: str, shape: Sequence[int], data: memoryview) -> Array:
    if not len(data):
        if 0 not in shape:  # nothing can be no bytes long but what has no elements: no sizes without the bytes for them
            raise BrokenFrame("a tensor without bytes")
        return np.zeros(shape, dtype=DTYPES[datatype])
    return unpack(datatype, shape, data)
