"""An input example as people write it in JSON becomes named arrays: rows, columns, or tensors by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from turnout.core.errors import InvalidInput
from turnout.core.tensors import DTYPES, Array, Tensors, bytes_array, canonical, dtype_name

#: The name of an input that nobody named: one table of numbers.
UNNAMED = "x"


def array_of(values: Any, field: str) -> Array:
    """The array in a nested list: whole numbers, numbers (None is NaN), true/false or text. Raises InvalidInput."""
    try:
        made = np.asarray(values)
    except ValueError:
        raise InvalidInput("the rows differ in length", field=field, expected="rows of equal length") from None
    if made.dtype.kind == "O":
        flat = made.ravel().tolist()
        if any(isinstance(v, (list, tuple, dict)) for v in flat):
            raise InvalidInput(
                "the rows differ in length or hold objects", field=field, expected="rows of equal length"
            )
        if all(v is None or isinstance(v, (int, float)) for v in flat):
            return made.astype(np.float64)
        if all(v is None or isinstance(v, (str, bytes)) for v in flat):
            return bytes_array(["" if v is None else v for v in flat], made.shape)
        raise InvalidInput("numbers and text are mixed", field=field, expected="one type in each column")
    if made.dtype.kind in "US" and not _all_text(values):
        raise InvalidInput("numbers and text are mixed", field=field, expected="one type in each column")
    try:
        dtype_name(made.dtype)
    except TypeError:
        raise InvalidInput("values of no tensor data type", field=field, got=str(made.dtype)) from None
    return canonical(made)


def _all_text(values: Any) -> bool:
    if isinstance(values, (str, bytes)):
        return True
    if isinstance(values, np.ndarray):
        return values.dtype.kind in "US"
    return isinstance(values, (list, tuple)) and all(_all_text(v) for v in values)


def tensors_of(value: Any, field: str = "") -> Tensors:
    """The named arrays in a decoded JSON document. Raises InvalidInput naming the place.

    Taken are: a list of records, a list of rows, an object of columns, `{"columns": ..., "data": ...}`, and
    the bodies of the common protocols (`instances`, `inputs`, `dataframe_split`, `dataframe_records`).
    """
    if isinstance(value, Mapping):
        return _of_object(value, field)
    if isinstance(value, (list, tuple)):
        if not value:
            raise InvalidInput("there are no rows", field=field)
        if all(isinstance(row, Mapping) for row in value):
            return of_records(value, field)
        return {UNNAMED: array_of(value, field)}
    raise InvalidInput("neither rows nor columns", field=field, got=type(value).__name__)


def _of_object(value: Mapping[str, Any], field: str) -> Tensors:
    for key in ("dataframe_split", "dataframe_records", "instances", "inputs"):
        if key in value and isinstance(value[key], (list, Mapping)):
            inner = value[key]
            place = f"{field}.{key}".lstrip(".")
            if key == "inputs" and isinstance(inner, list) and inner and _is_v2(inner[0]):
                return {str(tensor["name"]): _v2(tensor, f"{place}[{i}]") for i, tensor in enumerate(inner)}
            return tensors_of(inner, place)
    if isinstance(value.get("data"), list) and isinstance(value.get("columns"), list):
        return of_split(value["columns"], value["data"], field)
    if not value:
        raise InvalidInput("there are no columns", field=field)
    if any(isinstance(v, (list, tuple)) for v in value.values()):
        return {str(name): array_of(v, f"{field}.{name}".lstrip(".")) for name, v in value.items()}
    if all(isinstance(v, Mapping) for v in value.values()):  # {column: {row label: value}}, as pandas writes it
        return {str(name): array_of(list(v.values()), f"{field}.{name}".lstrip(".")) for name, v in value.items()}
    return of_records([value], field)


def _is_v2(tensor: Any) -> bool:
    return isinstance(tensor, Mapping) and {"name", "data"} <= set(tensor)


def _v2(tensor: Mapping[str, Any], field: str) -> Array:
    made = array_of(tensor["data"], f"{field}.data")
    datatype = tensor.get("datatype")
    if isinstance(datatype, str) and datatype in DTYPES and datatype != "BYTES" and made.dtype.kind != "O":
        made = made.astype(DTYPES[datatype])
    try:
        return made.reshape(tuple(tensor.get("shape") or made.shape))
    except (ValueError, TypeError):
        raise InvalidInput(
            "data and shape disagree", field=field, expected=f"{tensor.get('shape')}", got=f"{made.size} values"
        ) from None


def of_records(rows: Sequence[Mapping[str, Any]], field: str = "") -> Tensors:
    """Columns from a list of records. A name missing in a row is None there (NaN, empty text)."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    if not names:
        raise InvalidInput("the records have no fields", field=field)
    return {str(name): array_of([row.get(name) for row in rows], f"{field}.{name}".lstrip(".")) for name in names}


def of_split(columns: Sequence[Any], data: Sequence[Any], field: str = "") -> Tensors:
    """Columns from their names and a list of rows."""
    for number, row in enumerate(data):
        if not isinstance(row, (list, tuple)) or len(row) != len(columns):
            raise InvalidInput(
                "a row does not have one value for each column",
                field=f"{field}.data[{number}]".lstrip("."),
                expected=f"{len(columns)} values",
                got=f"{len(row)}" if isinstance(row, (list, tuple)) else type(row).__name__,
            )
    if not data:
        raise InvalidInput("there are no rows", field=f"{field}.data".lstrip("."))
    return {str(name): array_of([row[i] for row in data], str(name)) for i, name in enumerate(columns)}
