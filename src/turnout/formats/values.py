"""One array of whatever people's files hold becomes the data type that an input has; what cannot is named."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from turnout.core.errors import InvalidInput
from turnout.core.signature import TensorSpec
from turnout.core.tensors import Array, bytes_array

_TRUE, _FALSE = frozenset({"true", "1", "yes"}), frozenset({"false", "0", "no"})
_MISSING = frozenset({"", "na", "nan", "null", "none"})


def convert(array: Array, spec: TensorSpec, name: str = "") -> Array:
    """The array in the input's data type. Missing values are NaN in numbers and empty in text.

    Raises InvalidInput naming the column, the row and the value that does not fit.
    """
    name = name or spec.name
    if array.dtype == spec.dtype and array.dtype.kind != "O":
        return array
    if spec.datatype == "BYTES":
        return _text(array)
    if array.dtype.kind in "OUS":
        return _parsed(array, spec, name)
    if array.dtype.kind == "M":
        raise InvalidInput("dates are not numbers", field=name, expected=spec.datatype, got=str(array.dtype))
    if np.can_cast(array.dtype, spec.dtype, "same_kind") and not (spec.dtype.kind in "iu" and array.dtype.kind in "iu"):
        return array.astype(spec.dtype)
    cast = _exact(array, spec.dtype)
    if cast is None:
        raise InvalidInput(
            "the values do not fit the data type", field=name, expected=spec.datatype, got=_odd(array, spec.dtype)
        )
    return cast


def _exact(array: Array, dtype: np.dtype[Any]) -> Array | None:
    """The cast that changes no value, None where it would."""
    with np.errstate(invalid="ignore"):
        cast = array.astype(dtype)
    return cast if np.array_equal(cast.astype(np.float64), array.astype(np.float64)) else None


def _odd(array: Array, dtype: np.dtype[Any]) -> str:
    """The first value that the cast would change."""
    with np.errstate(invalid="ignore"):
        wrong = np.flatnonzero(array.astype(dtype).astype(np.float64).ravel() != array.astype(np.float64).ravel())
    return f"{array.ravel()[wrong[0]]!s} in row {wrong[0] if array.ndim == 1 else wrong[0] // array.shape[-1]}"


def _text(array: Array) -> Array:
    flat = array.ravel().tolist()
    return bytes_array(
        [b"" if _is_missing(v) else v if isinstance(v, (str, bytes)) else str(v) for v in flat], array.shape
    )


def _is_missing(value: Any) -> bool:
    return (
        value is None
        or (isinstance(value, float) and math.isnan(value))
        or type(value).__name__ in {"NAType", "NaTType"}
    )


def _parsed(array: Array, spec: TensorSpec, name: str) -> Array:
    """Numbers out of text or of mixed objects."""
    flat = array.ravel()
    out = np.empty(flat.shape, dtype=spec.dtype)
    for place, value in enumerate(flat.tolist()):
        try:
            out[place] = _number(value, spec.dtype)
        except (ValueError, TypeError, OverflowError):
            row = place if array.ndim == 1 else place // array.shape[-1]
            shown = value.decode(errors="replace") if isinstance(value, bytes) else value
            raise InvalidInput(
                "the value does not fit the data type",
                field=name,
                expected=spec.datatype,
                got=f"{shown!r} in row {row}",
            ) from None
    return out.reshape(array.shape)


def _number(value: Any, dtype: np.dtype[Any]) -> Any:
    if isinstance(value, bytes):
        value = value.decode()
    word = value.strip().lower() if isinstance(value, str) else None
    if dtype.kind == "b":
        if isinstance(value, (bool, np.bool_)):
            return bool(value)
        if word in _TRUE or (word is None and value == 1):
            return True
        if word in _FALSE or (word is None and value == 0):
            return False
        raise ValueError(value)
    if _is_missing(value) or (word is not None and word in _MISSING):
        if dtype.kind == "f":
            return math.nan
        raise ValueError(value)
    if dtype.kind == "f":
        return float(value)
    number = float(value) if not isinstance(value, (int, np.integer)) else value
    if word is not None and word.lstrip("+-").isdigit():
        number = int(word)
    if number != int(number):
        raise ValueError(value)
    return int(number)
