"""JSON numbers straight into arrays, and arrays straight into JSON: the fast paths.

Three parsers, each where it was measured to be the fastest (784 floats of 8 kB: msgspec + numpy 32 us, orjson + numpy
27 us, simdjson's buffer 11 us; four floats: 0.6, 0.8 and 1.5 us). All of them only accept what `json_values` accepts:
anything else raises one of `DOUBT`, and the caller asks the exact decoder, which either reads the body or says what
is wrong with it.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import msgspec
import numpy as np
import orjson
import simdjson

from turnout.core.tensors import DTYPES, Array, bytes_array
from turnout.protocols.json_values import FLOAT_LIMITS

#: What a fast path raises where it does not simply accept. Never an answer to the caller.
DOUBT = (msgspec.MsgspecError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError)

#: From this size on (bytes) simdjson is faster than msgspec.
LARGE = 1024

#: Parsers keep buffers several times as large as their largest document; beyond this (bytes) they are not kept.
_KEPT = 4 << 20


def _element(datatype: str) -> Any:
    dtype = DTYPES[datatype]
    if dtype.kind == "f":
        limit = FLOAT_LIMITS[datatype]
        return float if math.isinf(limit) else Annotated[float, msgspec.Meta(gt=-limit, lt=limit)]
    if dtype.kind == "b":
        return bool
    if dtype.kind == "O":
        return str
    bounds = np.iinfo(dtype)
    if bounds.max > 2**63 - 1:
        return Annotated[int, msgspec.Meta(ge=0)]  # numpy refuses what is too large
    return Annotated[int, msgspec.Meta(ge=int(bounds.min), le=int(bounds.max))]


_FLAT: dict[str, Callable[[Any], list[Any]]] = {
    name: msgspec.json.Decoder(list[_element(name)]).decode  # type: ignore[misc]
    for name in DTYPES
}
_NESTED: dict[tuple[str, int], Callable[[Any], list[Any]]] = {}


def _nested(datatype: str, depth: int) -> Callable[[Any], list[Any]]:
    decode = _NESTED.get((datatype, depth))
    if decode is None:
        if not 1 <= depth <= 8:
            raise ValueError("too deep for the fast path")
        kind: Any = _element(datatype)
        for _ in range(depth):
            kind = list[kind]
        decode = _NESTED[datatype, depth] = msgspec.json.Decoder(kind).decode
    return decode


_BRACKET = ord("[")


def small_array(datatype: str, raw: msgspec.Raw | bytes, shape: Sequence[int]) -> Array:
    """The tensor in a short piece of JSON, flat or nested just as `shape` says. Raises DOUBT."""
    if len(shape) > 1 and memoryview(raw)[1] == _BRACKET:
        return _small_nested(datatype, raw, shape)
    try:
        values = _FLAT[datatype](raw)
    except msgspec.ValidationError:
        return _small_nested(datatype, raw, shape)
    if datatype == "BYTES":
        return bytes_array(values, shape)
    if len(shape) == 2 and shape[0] == 1 and shape[1] == len(values):
        return np.array((values,), DTYPES[datatype])  # a third of a microsecond less than reshape
    return np.array(values, DTYPES[datatype]).reshape(shape)


def _small_nested(datatype: str, raw: msgspec.Raw | bytes, shape: Sequence[int]) -> Array:
    values = _nested(datatype, len(shape))(raw)
    array = np.array(values, DTYPES[datatype])
    if array.shape != tuple(shape):
        raise ValueError("nested differently from its shape")
    if datatype == "BYTES":
        return bytes_array(array.ravel().tolist(), shape)
    return array


class _Parsers(threading.local):
    parser: simdjson.Parser | None = None


_PARSERS = _Parsers()


def take_parser() -> simdjson.Parser:
    """A parser of this thread's own, taken away so that nobody uses it while objects of its document are alive."""
    parser = _PARSERS.parser or simdjson.Parser()
    _PARSERS.parser = None
    return parser


def give_back(parser: simdjson.Parser, size: int) -> None:
    """Keeps a parser for the next body once nothing of its document (`size` bytes) is alive any more."""
    if size <= _KEPT:
        _PARSERS.parser = parser


def buffer_array(datatype: str, values: Any, shape: Sequence[int]) -> tuple[Array, int]:
    """The tensor in a parsed JSON list, flat or nested just as `shape` says, and how many `[` such a list has.

    A list inside a row that ought to hold numbers is not noticed here: the caller counts `[`. Raises DOUBT.
    """
    kind = _BUFFER[datatype]
    opened = 1
    if len(shape) > 1 and len(values) and type(values[0]) is simdjson.Array:
        _check_regular(values, shape, 0)
        opened = sum(math.prod(shape[:axis]) for axis in range(len(shape)))
    wide = np.frombuffer(values.as_buffer(of_type=kind), _WIDE[kind])
    dtype = DTYPES[datatype]
    if dtype is wide.dtype or dtype == wide.dtype:
        return wide.reshape(shape), opened
    if kind == "d":
        with np.errstate(over="raise"):
            return wide.astype(dtype).reshape(shape), opened
    narrow = wide.astype(dtype)
    if not np.array_equal(narrow, wide):
        raise ValueError("integer out of range")
    return narrow.reshape(shape), opened


_WIDE = {"d": np.dtype(np.float64), "i": np.dtype(np.int64), "u": np.dtype(np.uint64)}
_BUFFER = {
    name: "d" if t.kind == "f" else "u" if name == "UINT64" else "i" for name, t in DTYPES.items() if t.kind in "fiu"
}


def _check_regular(values: Any, shape: Sequence[int], axis: int) -> None:
    if len(values) != shape[axis]:
        raise ValueError("nested differently from its shape")
    if axis + 1 < len(shape):
        for part in values:
            _check_regular(part, shape, axis + 1)


def nested_array(datatype: str, raw: msgspec.Raw | bytes, ndim: int) -> Array:
    """The tensor in a piece of JSON that is nested `ndim` deep; the nesting gives the shape. Raises DOUBT."""
    text = bytes(raw)
    if len(text) < LARGE or DTYPES[datatype].kind not in "fiu":
        array = np.array(_nested(datatype, ndim)(text), DTYPES[datatype])
        if array.ndim != ndim:
            raise ValueError("not nested as deep as it should be")
        return bytes_array(array.ravel().tolist(), array.shape) if datatype == "BYTES" else array
    parser = take_parser()
    document: Any = parser.parse(text)
    part = document
    shape = [len(document)]
    while len(shape) < ndim:
        part = part[0]
        shape.append(len(part))
    array, expected = buffer_array(datatype, document, shape)
    del document, part
    give_back(parser, len(text))
    if text.count(b"[") != expected or array.ndim != ndim:
        raise ValueError("nested differently")
    return array


_NUMPY = orjson.OPT_SERIALIZE_NUMPY


def flat_json(array: Array) -> bytes:
    """The elements as a flat JSON list. Floats are the shortest text that reads back as the same value in the
    tensor's own type; NaN and the infinities are the bare tokens `NaN`, `Infinity`, `-Infinity`.

    Raises UnicodeDecodeError for a BYTES element that is not UTF-8.
    """
    if array.dtype.kind in "OUS":
        return orjson.dumps([v.decode() if isinstance(v, bytes) else str(v) for v in array.flat])
    return numbers_json(array.ravel())


def numbers_json(array: Array) -> bytes:
    """A tensor of numbers or booleans as JSON, nested as its shape."""
    try:
        text = orjson.dumps(array, option=_NUMPY)
    except TypeError:  # big-endian, strided, or no axis
        if array.ndim == 0:
            return numbers_json(array.reshape(1))[1:-1]
        text = orjson.dumps(np.ascontiguousarray(array, array.dtype.newbyteorder("=")), option=_NUMPY)
    if b"null" not in text:
        return text
    return _with_tokens(array, text)


def _with_tokens(array: Array, text: bytes) -> bytes:
    """orjson writes every number that JSON has no word for as null; put the right token in each place."""
    flat = array.ravel()
    odd = flat[~np.isfinite(flat)].tolist()
    pieces = text.split(b"null")
    tokens = [b"NaN" if math.isnan(v) else b"Infinity" if v > 0 else b"-Infinity" for v in odd]
    return b"".join(piece + token for piece, token in zip(pieces, [*tokens, b""], strict=True))
