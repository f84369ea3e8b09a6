"""The exact JSON decoder: slow, complete, and the only place that says what is wrong with a body.

The fast decoders (`json_arrays`) only ever accept; whatever they do not like comes here. So a rule stands once,
and an error always names its path. `NaN`, `Infinity` and `-Infinity` are read as numbers, as Python's json, Triton
and TensorFlow Serving do.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from turnout.core.errors import InvalidInput
from turnout.core.tensors import DTYPES, Array, bytes_array

#: Finite numbers beyond these would round to infinity.
FLOAT_LIMITS = {"FP16": 65520.0, "FP32": 3.4028235677973366e38, "FP64": math.inf}
_SHOWN = 60

#: Axes that a tensor may have: what every numpy release takes.
MAX_AXES = 32


def loads(body: bytes | bytearray | memoryview) -> Any:
    """The Python values in a JSON body. Raises InvalidInput where it is not UTF-8 or not JSON."""
    if not body:
        raise InvalidInput("the request body is empty", expected="a JSON document")
    try:
        text = str(body, "utf-8")
    except UnicodeDecodeError as problem:
        raise InvalidInput("the body is not valid UTF-8", got=f"a bad byte at {problem.start}") from None
    try:
        return json.loads(text, parse_float=_finite)
    except json.JSONDecodeError as problem:
        reason = f"the body is not valid JSON: {problem.msg.lower()}"
        raise InvalidInput(reason, got=_around(text, problem.pos)) from None
    except RecursionError:
        raise InvalidInput("the JSON is nested too deeply") from None
    except ValueError:
        raise InvalidInput("the JSON holds an integer with too many digits") from None


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise InvalidInput("a number is out of range", got=text[:_SHOWN])
    return number


def _around(text: str, at: int) -> str:
    if at >= len(text):
        return "the end of the body"
    return f"{text[max(0, at - 10) : at + 20]!r} at character {at}"


def show(value: Any) -> str:
    """A value from the caller's message, short and on one line, for an error text."""
    if isinstance(value, dict):
        names = ", ".join(repr(key)[:_SHOWN] for key in list(value)[:4])
        return f"an object with {names}" if names else "an empty object"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    text = repr(value) if isinstance(value, bytes) else json.dumps(value, default=str)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def expect_object(value: Any, field: str) -> dict[str, Any]:
    """The value if it is a JSON object; raises InvalidInput otherwise."""
    if not isinstance(value, dict):
        raise InvalidInput("must be an object", field=field, expected="a JSON object", got=show(value))
    return value


def expect_list(value: Any, field: str) -> list[Any]:
    """The value if it is a JSON list; raises InvalidInput otherwise."""
    if not isinstance(value, list):
        raise InvalidInput("must be a list", field=field, expected="a JSON list", got=show(value))
    return value


def expect_text(value: Any, field: str) -> str:
    """The value if it is a JSON string of real characters; raises InvalidInput otherwise."""
    if not isinstance(value, str):
        raise InvalidInput("must be a string", field=field, expected="a JSON string", got=show(value))
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InvalidInput("holds half a surrogate pair", field=field, expected="valid Unicode text") from None
    return value


def flatten(values: Any, field: str) -> tuple[list[Any], tuple[int, ...]]:
    """The elements of a nested list in row-major order, and its shape. Raises InvalidInput where it is ragged."""
    level: list[Any] = [expect_list(values, field)]
    shape: list[int] = []
    while True:
        length = len(level[0])
        for number, part in enumerate(level):
            if len(part) != length:
                raise InvalidInput(
                    "lists on one level differ in length",
                    field=field + _path(number, shape),
                    expected=f"{length} elements",
                    got=f"{len(part)}",
                )
        shape.append(length)
        inner = list(chain.from_iterable(level))
        kinds = set(map(type, inner))
        if list not in kinds:
            return inner, tuple(shape)
        if len(kinds) > 1:
            number = next(n for n, part in enumerate(inner) if (type(part) is list) != (type(inner[0]) is list))
            raise InvalidInput(
                "lists and single values are mixed",
                field=field + _path(number, shape),
                expected="a list" if type(inner[0]) is list else "a single value",
                got=show(inner[number]),
            )
        level = inner


def _path(number: int, shape: Sequence[int]) -> str:
    """The index of an element by its number in row-major order: `[1][0]`."""
    indices: list[int] = []
    for length in reversed(shape):
        number, index = divmod(number, length)
        indices.append(index)
    return "".join(f"[{index}]" for index in reversed(indices))


def exact_array(
    datatype: str, values: Any, field: str, shape: Sequence[int] | None = None, *, null_is_nan: bool = False
) -> Array:
    """The tensor in JSON values, flat or nested; without `shape` the nesting gives it.

    Nothing is converted that is not the same value afterwards: no float or string as an integer, no number as a
    boolean, nothing out of range. `null_is_nan` reads null in a float tensor as NaN, for tables with gaps.
    Raises InvalidInput with the element's path.
    """
    flat, found = flatten(values, field)
    if shape is None:
        shape = found
    else:
        _check_shape(found, len(flat), shape, field)
    _check_types(datatype, flat, found, field, null_is_nan=null_is_nan)
    dtype = DTYPES[datatype]
    if dtype.kind == "O":
        return reshaped(_text_array(flat, found, field), shape, field)
    if dtype.kind == "f":
        return reshaped(_float_array(datatype, flat, found, field), shape, field)
    if dtype.kind in "iu" and flat:
        bounds = np.iinfo(dtype)
        if min(flat) < bounds.min or max(flat) > bounds.max:
            number = next(n for n, v in enumerate(flat) if not bounds.min <= v <= bounds.max)
            raise InvalidInput(
                "integer out of range",
                field=field + _path(number, found),
                expected=f"{datatype}: {bounds.min} to {bounds.max}",
                got=show(flat[number]),
            )
    return reshaped(np.array(flat, dtype=dtype), shape, field)


def reshaped(array: Array, shape: Sequence[int], field: str) -> Array:
    """The array in a shape of as many elements. Raises InvalidInput where no tensor can have that shape."""
    try:
        if len(shape) <= MAX_AXES:
            return array.reshape(tuple(shape))
    except ValueError:  # an axis, or several together, beyond what an address can count
        pass
    raise InvalidInput("no tensor can have that shape", field=field, expected=f"at most {MAX_AXES} axes")


def _check_shape(found: tuple[int, ...], count: int, shape: Sequence[int], field: str) -> None:
    if found == tuple(shape) or (len(found) == 1 and count == math.prod(shape)):
        return
    if found[-1] == 0 and found == tuple(shape[: len(found)]):  # what would be inside an empty list cannot be seen
        return
    if len(found) == 1:
        raise InvalidInput(
            f"wrong number of elements for shape {list(shape)}",
            field=field,
            expected=f"{math.prod(shape)} elements",
            got=f"{count}",
        )
    raise InvalidInput(
        "nested differently from its shape", field=field, expected=f"{list(shape)} or a flat list", got=f"{list(found)}"
    )


_ACCEPTED: dict[str, tuple[frozenset[type], str]] = {
    "f": (frozenset({float, int}), "a number"),
    "i": (frozenset({int}), "an integer"),
    "u": (frozenset({int}), "an integer of 0 or more"),
    "b": (frozenset({bool}), "true or false"),
    "O": (frozenset({str, bytes}), "a string"),
}


def _check_types(datatype: str, flat: list[Any], found: Sequence[int], field: str, *, null_is_nan: bool) -> None:
    accepted, words = _ACCEPTED[DTYPES[datatype].kind]
    if null_is_nan and DTYPES[datatype].kind == "f":
        accepted = accepted | {type(None)}
    if accepted.issuperset(map(type, flat)):
        return
    number = next(n for n, value in enumerate(flat) if type(value) not in accepted)
    raise InvalidInput(
        f"wrong kind of value for {datatype}",
        field=field + _path(number, found),
        expected=words,
        got=show(flat[number]),
    )


def _text_array(flat: list[Any], found: Sequence[int], field: str) -> Array:
    try:
        return bytes_array(flat, (len(flat),))
    except UnicodeEncodeError:
        for number, value in enumerate(flat):
            if isinstance(value, str):
                expect_text(value, field + _path(number, found))
        raise


def _float_array(datatype: str, flat: list[Any], found: Sequence[int], field: str) -> Array:
    limit = FLOAT_LIMITS[datatype]
    try:
        wide = np.array(flat, dtype=np.float64)
        beyond = np.flatnonzero(np.isfinite(wide) & (np.abs(wide) >= limit))
        if not beyond.size:
            return wide.astype(DTYPES[datatype])
        number = int(beyond[0])
    except OverflowError:  # an integer that no double holds
        number = next(n for n, v in enumerate(flat) if isinstance(v, int) and abs(v) > 2**1023)
    raise InvalidInput(
        "number out of range", field=field + _path(number, found), expected=datatype, got=show(flat[number])
    )
