"""One batch, or its outcome, as bytes between a router and a worker. Fixed binary headers, never a pickle.

    head | item rows, u32 each | item deadlines, f64 each | tensor table | JSON note | twin | tensors, each at 64

Both sides know the signature, so a tensor is named by its place in it. All numbers are little-endian.
Decoding trusts nothing: a frame that does not add up raises `BrokenFrame`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache
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
_PADS = [bytes(n) for n in range(ALIGN)]
HEAD_BYTES = _HEAD.size
#: Rows of fewer bytes are joined at once.
_SMALL = 512

#: An array's type and shape.
Form = tuple[str, Sequence[int]]


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


def joined(place: int, form: Form, parts: Sequence[bytes | memoryview], rows: int) -> Piece:
    """A piece from the bytes of several arrays like the first, `rows` rows in all, joined where it is written."""
    datatype, shape = form
    if len(parts) == 1:
        return Piece(place, datatype, shape, parts)
    if len(parts[0]) < _SMALL:
        parts = (b"".join(parts),)  # one piece to be counted and copied from here on
    return Piece(place, datatype, (rows, *shape[1:]), parts)


@lru_cache(256)
def _layout(items: int, timed: int, *dims: int) -> struct.Struct:
    """What lies between the head and the note, in one go: one field by itself costs as much as all of them."""
    return struct.Struct(f"<{items}I{timed}d" + "".join([f"HBBIQQ{ndim}q" for ndim in dims]))


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
    layout = _layout(len(rows), len(deadlines), *[len(p.shape) for p in pieces])
    at = HEAD_BYTES + layout.size + len(note_bytes) + len(twin_bytes)
    table: list[int] = []
    body: list[bytes | memoryview] = []
    for place, datatype, shape, parts in pieces:
        pad = -at % ALIGN
        if pad:
            body.append(_PADS[pad])
            at += pad
        size = len(parts[0]) if len(parts) == 1 else sum([len(part) for part in parts])
        table += (place, _DTYPE_CODES[datatype], len(shape), 0, at, size, *shape)
        body += parts
        at += size
    head = _HEAD.pack(
        MAGIC, len(rows), len(deadlines), len(pieces), len(note_bytes), len(twin_bytes), number, seconds, at
    )
    return [head, layout.pack(*rows, *deadlines, *table), note_bytes, twin_bytes, *body]


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
        at = HEAD_BYTES + 4 * items + 8 * timed
        if at > total:
            raise BrokenFrame("more items than the frame can hold")
        fields = _layout(items, timed).unpack_from(buffer, HEAD_BYTES)
        found: dict[int, Array] = {}
        for _ in range(tensors):
            place, code, ndim, _zero, offset, size = _TENSOR.unpack_from(buffer, at)
            at += _TENSOR.size
            shape = _DIMS[ndim].unpack_from(buffer, at)
            at += 8 * ndim
            if offset + size > total or (shape and min(shape) < 0):
                raise BrokenFrame("a tensor reaches beyond its frame")
            found[place] = _tensor(_DTYPE_NAMES[code], shape, buffer, offset, size)
        note = json.loads(bytes(buffer[at : at + note_size])) if note_size else None
        at += note_size
        twin = str(buffer[at : at + twin_size], "utf-8") if twin_size else ""
    except (struct.error, ValueError, IndexError, TypeError, OverflowError, RecursionError) as problem:
        raise BrokenFrame(str(problem)) from None
    return Frame(number, seconds, list(fields[:items]), list(fields[items:]), found, note, twin)


def _tensor(datatype: str, shape: tuple[int, ...], buffer: Any, offset: int, size: int) -> Array:
    dtype = DTYPES[datatype]
    if not size:
        if 0 not in shape:  # nothing can be no bytes long but what has no elements: no sizes without the bytes for them
            raise BrokenFrame("a tensor without bytes")
        return np.zeros(shape, dtype=dtype)
    if dtype.kind == "O":
        return unpack(datatype, shape, memoryview(buffer)[offset : offset + size])
    found: Array = np.ndarray(shape, dtype, buffer, offset)  # raises where the buffer is too small for it
    if found.nbytes != size:
        raise BrokenFrame("a tensor is not as long as it says")
    return found
