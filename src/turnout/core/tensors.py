"""Named arrays, their data types, and the few operations on rows that everything else is made of.

BYTES tensors are object arrays whose elements are `bytes`; text is UTF-8 inside and becomes `str` only at
the model's edge (`as_text`). The byte form of BYTES is the Open Inference Protocol's: a little-endian
32-bit length before each element.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from turnout.core.errors import InvalidInput

Array = npt.NDArray[Any]
Tensors = Mapping[str, Array]

#: Open Inference Protocol names to numpy types. BF16 has no numpy type and is not offered.
DTYPES: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BYTES": np.dtype(object),
}
_NAMES: Mapping[np.dtype[Any], str] = {dtype: name for name, dtype in DTYPES.items()}
_LENGTH = struct.Struct("<I")


def dtype_name(dtype: npt.DTypeLike) -> str:
    """The protocol's name of a numpy type; text and object types are BYTES. Raises TypeError for others."""
    found = np.dtype(dtype)
    name = _NAMES.get(found)
    if name is not None:
        return name
    if found.kind in "USTO":
        return "BYTES"
    little = found.newbyteorder("<")
    if little in _NAMES:
        return _NAMES[little]
    raise TypeError(f"no tensor data type for numpy {found}")


def bytes_array(values: Iterable[str | bytes], shape: Sequence[int]) -> Array:
    """A BYTES tensor from text or bytes, in row-major order."""
    encoded = [v.encode() if isinstance(v, str) else bytes(v) for v in values]
    array = np.empty(len(encoded), dtype=object)
    array[:] = encoded
    return array.reshape(tuple(shape))


def as_text(array: Array) -> Array:
    """BYTES elements as `str`, for models that want text. Raises InvalidInput where they are not UTF-8."""
    flat = array.ravel()
    out = np.empty(flat.shape, dtype=object)
    try:
        out[:] = [v.decode() if isinstance(v, bytes) else str(v) for v in flat]
    except UnicodeDecodeError as problem:
        raise InvalidInput("a text element is not valid UTF-8", got=str(problem.reason)) from None
    return out.reshape(array.shape)


def canonical(array: Array) -> Array:
    """The array as it may cross a process border: little-endian, C-contiguous, BYTES as bytes elements."""
    if array.dtype.kind in "USTO":
        if array.dtype.kind == "O" and all(type(v) is bytes for v in array.flat):
            return array
        return bytes_array(array.ravel().tolist(), array.shape)
    if not array.flags.c_contiguous:
        array = np.ascontiguousarray(array)
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    return array


def pack(array: Array) -> bytes | memoryview:
    """The bytes of a canonical tensor, without a copy where the type allows it."""
    if array.dtype.kind == "O":
        parts: list[bytes] = []
        for element in array.flat:
            parts.append(_LENGTH.pack(len(element)))
            parts.append(element)
        return b"".join(parts)
    if array.nbytes < 4096:
        return array.tobytes()
    return memoryview(array.reshape(-1)).cast("B")


def unpack(datatype: str, shape: Sequence[int], data: Any) -> Array:
    """The tensor in a buffer, as a view where the type allows it. Raises ValueError where sizes disagree."""
    dtype = DTYPES[datatype]
    if dtype.kind == "O":
        return _unpack_bytes(shape, data)
    return np.frombuffer(data, dtype=dtype).reshape(shape)


def _unpack_bytes(shape: Sequence[int], data: Any) -> Array:
    view = memoryview(data)
    elements: list[bytes] = []
    at, end = 0, len(view)
    while at < end:
        if end - at < _LENGTH.size:
            raise ValueError("a BYTES element's length is cut off")
        (length,) = _LENGTH.unpack_from(view, at)
        at += _LENGTH.size
        if end - at < length:
            raise ValueError(f"a BYTES element says {length} bytes and {end - at} are left")
        elements.append(bytes(view[at : at + length]))
        at += length
    if len(elements) != math.prod(shape):
        raise ValueError(f"{len(elements)} BYTES elements for shape {list(shape)}")
    return bytes_array(elements, shape)


def slice_rows(tensors: Tensors, start: int, stop: int) -> Tensors:
    """Rows start to stop of every tensor, as views."""
    return {name: array[start:stop] for name, array in tensors.items()}


def join_rows(parts: Sequence[Tensors]) -> Tensors:
    """One set of tensors from several, row after row. `join_rows([slice...])` gives back the original."""
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def byte_size(tensors: Tensors) -> int:
    """How many bytes the tensors hold; BYTES are counted by their elements."""
    total = 0
    for array in tensors.values():
        if array.dtype.kind == "O":
            total += sum(len(v) + 4 for v in array.flat)
        else:
            total += array.nbytes
    return total
