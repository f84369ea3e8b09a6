"""What a pyfunc answers (data frame, series, arrays, lists, records) as named arrays, as MLflow writes it in JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from turnout.core.errors import InvalidOutput
from turnout.core.tensors import Array, bytes_array, canonical

OUTPUT = "output"


class Answer(NamedTuple):
    """The arrays by name, and the form they came in: "table", "names" or "" for one bare array."""

    tensors: dict[str, Array]
    form: str


def named(answer: Any, pandas: Any) -> Answer:
    """An answer of any kind that MLflow's scoring server can write. Raises InvalidOutput for others."""
    if isinstance(answer, pandas.Series):
        answer = pandas.DataFrame(answer)
    if isinstance(answer, pandas.DataFrame):
        names = [str(name) for name in answer.columns]
        if len(set(names)) != len(names):
            raise InvalidOutput("the model answered a data frame with two columns of one name")
        return Answer({name: _array(name, answer.iloc[:, at]) for at, name in enumerate(names)}, "table")
    if isinstance(answer, Mapping):
        return Answer({str(name): _array(str(name), value) for name, value in answer.items()}, "names")
    if isinstance(answer, (list, tuple)) and answer and all(isinstance(row, Mapping) for row in answer):
        names = list(answer[0])
        if any(list(row) != names for row in answer):
            raise InvalidOutput("the model answered records with different fields")
        return Answer({str(name): _array(str(name), [row[name] for row in answer]) for name in names}, "table")
    return Answer({OUTPUT: _array(OUTPUT, answer)}, "")


def _array(name: str, value: Any) -> Array:
    if value is None:
        raise InvalidOutput(f"the model answered nothing for {name!r}")
    if hasattr(value, "toarray"):
        value = value.toarray()
    if str(getattr(value, "dtype", "")).startswith(("datetime64", "period")):
        value = [_moment(one) for one in value]
    elif hasattr(value, "to_numpy"):
        value = _plain(value)
    try:
        array = np.asarray(value)
        if array.dtype.kind == "O":
            array = _objects(name, array)
    except ValueError as problem:
        raise InvalidOutput(f"the model's output {name!r} has rows of different length") from problem
    if array.dtype.kind in "cMmV":
        raise InvalidOutput(f"the model's output {name!r} has the type {array.dtype}, for which there is no tensor")
    return canonical(array)


def _plain(series: Any) -> Any:
    """A column's values; nullable whole numbers and booleans with a gap are numbers with NaN."""
    kind = str(series.dtype)
    if kind[:1] in "UIFb" and kind[:3] in ("UIn", "Int", "Flo", "boo"):
        return (
            series.to_numpy(dtype=np.float64, na_value=np.nan)
            if series.hasnans
            else series.to_numpy(kind.lower() if kind != "boolean" else "bool")
        )
    return series.to_numpy()


def _moment(value: Any) -> str:
    return str(value.isoformat()) if hasattr(value, "isoformat") else str(value)


def _objects(name: str, array: Array) -> Array:
    flat = array.ravel().tolist()
    if all(isinstance(one, (str, bytes)) for one in flat):
        return bytes_array(flat, array.shape)
    if all(one is None or isinstance(one, (bool, int, float, np.generic)) for one in flat):
        gaps = [np.nan if one is None else one for one in flat]
        return np.array(gaps).reshape(array.shape)
    if all(isinstance(one, (list, tuple, np.ndarray)) for one in flat):
        return np.stack([np.asarray(one) for one in flat]).reshape(*array.shape, *np.asarray(flat[0]).shape)
    if all(hasattr(one, "isoformat") for one in flat):
        return bytes_array([one.isoformat() for one in flat], array.shape)
    kinds = ", ".join(sorted({type(one).__name__ for one in flat}))
    raise InvalidOutput(
        f"the model's output {name!r} holds {kinds}: rows of one type of number or text can be answered"
    )
