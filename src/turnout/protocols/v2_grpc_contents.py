"""The elements of one input of a gRPC ModelInfer request, raw or typed, as an array.

Raw elements become a view into the message where the type allows it: read-only, and not aligned where
they are large (small ones are copied, which is as fast).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from turnout.core.errors import InvalidInput
from turnout.core.tensors import DTYPES, Array, bytes_array, unpack

#: The list that carries each data type in typed form. FP16 has none.
LISTS: Mapping[str, str] = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}

MAX_RANK = 32  # what every numpy can hold
_COPY_BELOW = 4096  # bytes


class DeclaredTensor(NamedTuple):
    """One input as its head declares it. `nbytes` is -1 for BYTES, whose elements have lengths of their own."""

    name: str
    datatype: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    nbytes: int


def declared(where: str, name: str, datatype: str, shape: tuple[int, ...]) -> DeclaredTensor:
    """The declaration of the input at path `where`, checked by itself. Raises InvalidInput."""
    dtype = DTYPES.get(datatype)
    if dtype is None:
        raise InvalidInput(
            "unknown data type", field=f"{where}.datatype", expected=f"one of {', '.join(DTYPES)}", got=repr(datatype)
        )
    if not name:
        raise InvalidInput("an input needs a name", field=f"{where}.name")
    if len(shape) > MAX_RANK:
        raise InvalidInput("too many axes", field=f"{where}.shape", expected=f"at most {MAX_RANK}", got=str(len(shape)))
    if any(length < 0 for length in shape):
        raise InvalidInput(
            "a request gives every axis its length",
            field=f"{where}.shape",
            expected="no negative length",
            got=f"{list(shape)}",
        )
    nbytes = -1 if dtype.kind == "O" else math.prod(shape) * dtype.itemsize
    return DeclaredTensor(name, datatype, dtype, shape, nbytes)


def from_raw(index: int, tensor: DeclaredTensor, message: bytes | memoryview, start: int, stop: int) -> Array:
    """The input whose raw bytes stand in the message from start to stop. Raises InvalidInput."""
    size = stop - start
    if tensor.nbytes != size:
        if tensor.nbytes >= 0:
            raise InvalidInput(
                f"wrong size for {tensor.datatype} of shape {list(tensor.shape)}",
                field=f"raw_input_contents[{index}]",
                expected=f"{tensor.nbytes} bytes",
                got=f"{size} bytes",
            )
        if math.prod(tensor.shape) == 0 == size:
            return _empty(f"inputs[{index}]", tensor)
        try:
            return unpack("BYTES", tensor.shape, memoryview(message)[start:stop])
        except ValueError as problem:
            raise InvalidInput(
                str(problem),
                field=f"raw_input_contents[{index}]",
                expected="each element after its length (4 bytes, little-endian)",
                got=f"{size} bytes",
            ) from None
    if size == 0:
        return _empty(f"inputs[{index}]", tensor)
    if size < _COPY_BELOW:
        return np.ndarray(tensor.shape, tensor.dtype, bytes(message[start:stop]))
    return np.ndarray(tensor.shape, tensor.dtype, message, start)


def from_typed(path: str, tensor: DeclaredTensor, contents: Any) -> Array:
    """The input at `path` from its typed list (`contents`: InferTensorContents or None). Raises InvalidInput."""
    where = f"{path}.contents"
    count = math.prod(tensor.shape)
    if contents is None:
        if count:
            raise InvalidInput(
                f"no elements for shape {list(tensor.shape)}",
                field=where,
                expected="contents, or an entry in raw_input_contents",
            )
        return _empty(path, tensor)
    wanted = LISTS.get(tensor.datatype)
    if wanted is None:
        raise InvalidInput(
            f"{tensor.datatype} has no typed list", field=where, expected=f"{tensor.nbytes} bytes in raw_input_contents"
        )
    for descriptor, _ in contents.ListFields():
        if descriptor.name != wanted:
            raise InvalidInput(f"wrong list for {tensor.datatype}", field=where, expected=wanted, got=descriptor.name)
    values = getattr(contents, wanted)
    if len(values) != count:
        raise InvalidInput(
            f"wrong number of elements for shape {list(tensor.shape)}",
            field=f"{where}.{wanted}",
            expected=str(count),
            got=str(len(values)),
        )
    if count == 0:
        return _empty(path, tensor)
    if tensor.nbytes < 0:
        return bytes_array(values, tensor.shape)
    array = np.array(values[:], dtype=_LIST_DTYPES.get(wanted, tensor.dtype))
    if array.dtype != tensor.dtype:
        array = _narrowed(array, tensor, f"{where}.{wanted}")
    return array.reshape(tensor.shape)


#: The lists whose element type is wider than some data types they carry.
_LIST_DTYPES: Mapping[str, np.dtype[Any]] = {"int_contents": np.dtype(np.int32), "uint_contents": np.dtype(np.uint32)}


def _narrowed(array: Array, tensor: DeclaredTensor, where: str) -> Array:
    limits = np.iinfo(tensor.dtype)
    outside = (array < limits.min) | (array > limits.max)
    if outside.any():
        first = int(np.argmax(outside))
        raise InvalidInput(
            f"out of range for {tensor.datatype}",
            field=f"{where}[{first}]",
            expected=f"{limits.min} to {limits.max}",
            got=str(array[first]),
        )
    return array.astype(tensor.dtype)


def _empty(path: str, tensor: DeclaredTensor) -> Array:
    try:
        return np.empty(tensor.shape, tensor.dtype)
    except ValueError:  # [0, 2**62]: no elements, yet more than an array can say
        raise InvalidInput("no array has this shape", field=f"{path}.shape", got=f"{list(tensor.shape)}") from None
