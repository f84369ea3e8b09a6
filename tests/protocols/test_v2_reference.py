"""The fast decoders accept exactly what a slow, obviously right decoder accepts, and read the same values."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocols.models import TYPES, v2_tensor
from turnout.core.errors import InvalidInput
from turnout.core.tensors import DTYPES, Array
from turnout.protocols import v2_json
from turnout.protocols.json_arrays import DOUBT, flat_json, nested_array, numbers_json
from turnout.protocols.json_values import loads

RANGES = {name: np.iinfo(dtype) for name, dtype in DTYPES.items() if dtype.kind in "iu"}


def reference(datatype: str, shape: list[int], data: Any) -> list[Any] | None:
    """The elements in row-major order, or None where the rules refuse them. One rule a line."""
    if not isinstance(data, list):
        return None
    if any(isinstance(part, list) for part in data):
        if len(shape) < 2 or len(data) != shape[0]:
            return None
        rows = [reference_nested(datatype, shape[1:], part) for part in data]
        return None if any(row is None for row in rows) else [value for row in rows if row for value in row]
    if len(data) != math.prod(shape) and not (data == [] and shape and shape[0] == 0):
        return None
    return data if all(fits(datatype, value) for value in data) else None


def reference_nested(datatype: str, shape: list[int], data: Any) -> list[Any] | None:
    if not isinstance(data, list) or len(data) != shape[0]:
        return None
    if len(shape) == 1:
        return data if all(fits(datatype, value) for value in data) else None
    rows = [reference_nested(datatype, shape[1:], part) for part in data]
    return None if any(row is None for row in rows) else [value for row in rows if row for value in row]


def fits(datatype: str, value: Any) -> bool:
    if datatype == "BOOL":
        return isinstance(value, bool)
    if datatype == "BYTES":
        return isinstance(value, str)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if datatype in RANGES:
        return isinstance(value, int) and RANGES[datatype].min <= value <= RANGES[datatype].max
    if isinstance(value, float) and not math.isfinite(value):
        return True
    try:
        with np.errstate(over="ignore"):
            return bool(np.isfinite(DTYPES[datatype].type(float(value))))
    except OverflowError:
        return False


def as_array(datatype: str, shape: list[int], flat: list[Any]) -> Array:
    if datatype == "BYTES":
        array = np.empty(len(flat), dtype=object)
        array[:] = [value.encode() for value in flat]
        return array.reshape(shape)
    return np.array(flat, dtype=DTYPES[datatype]).reshape(shape)


def nest(flat: list[Any], shape: list[int]) -> Any:
    if len(shape) == 1:
        return list(flat)
    size = math.prod(shape[1:])
    return [nest(flat[i * size : (i + 1) * size], shape[1:]) for i in range(shape[0])]


SCALARS = st.one_of(
    st.integers(-(2**65), 2**65),
    st.integers(-300, 300),
    st.sampled_from([127, 128, -129, 255, 256, 2**31, 2**31 - 1, 2**63, 2**63 - 1, 2**64 - 1, 2**64]),
    st.floats(allow_nan=False),
    st.floats(width=32),
    st.sampled_from([0.0, 1.0, 1e38, 3.4028235677973366e38, 3.4028235e38, -3.5e38]),
    st.booleans(),
    st.none(),
    st.text(max_size=3),
    st.builds(list),  # new ones each time: they are spoilt further
    st.builds(lambda: [1]),
    st.builds(dict),
)


def good(datatype: str) -> st.SearchStrategy[Any]:
    if datatype == "BOOL":
        return st.booleans()
    if datatype == "BYTES":
        return st.text(st.characters(exclude_categories=("Cs",)), max_size=4)
    if datatype in RANGES:
        return st.integers(int(RANGES[datatype].min), int(RANGES[datatype].max))
    return st.floats(width=32 if datatype == "FP32" else 64) | st.integers(-(2**53), 2**53)


@st.composite
def cases(draw: st.DrawFn) -> tuple[str, list[int], Any, int]:
    datatype = draw(st.sampled_from(TYPES))
    shape = draw(st.lists(st.integers(0, 4), min_size=1, max_size=3))
    size = math.prod(shape)
    flat = draw(st.lists(good(datatype), min_size=size, max_size=size))
    data = nest(flat, shape) if draw(st.booleans()) else flat
    for _ in range(draw(st.integers(0, 2))):  # spoil it in some place
        place = data
        while isinstance(place, list) and place and isinstance(place[-1], list) and draw(st.booleans()):
            place = place[draw(st.integers(0, len(place) - 1))]
        if isinstance(place, list):
            if place and draw(st.booleans()):
                place[draw(st.integers(0, len(place) - 1))] = draw(SCALARS)
            else:
                place.insert(draw(st.integers(0, len(place))), draw(SCALARS))
    return datatype, shape, data, draw(st.sampled_from([0, 2000]))


@given(cases())
def test_every_path_accepts_what_the_reference_accepts_and_nothing_else(case: tuple[str, list[int], Any, int]) -> None:
    datatype, shape, data, pad = case
    body = json.dumps({"inputs": [v2_tensor("x", shape, datatype, data)]}).encode() + b" " * pad
    flat = reference(datatype, shape, data)
    if flat is None:
        with pytest.raises(InvalidInput):
            v2_json.decode_json(body)
        for fast in (v2_json._small, v2_json._large):
            with pytest.raises(DOUBT):
                fast(body)
        return
    expected = as_array(datatype, shape, flat)
    got = [v2_json.decode_json(body), v2_json.exact_request(loads(body))]
    for fast in (v2_json._small, v2_json._large):
        try:
            got.append(fast(body))
        except DOUBT:
            continue
    for parsed in got:
        array = parsed.arrays["x"]
        assert array.dtype == expected.dtype
        assert array.shape == expected.shape
        assert np.array_equal(array, expected, equal_nan=expected.dtype.kind == "f")


@pytest.mark.parametrize("datatype", [name for name in TYPES if name not in ("BYTES", "BOOL")])
def test_the_fast_paths_are_really_taken(datatype: str) -> None:
    for data in ([1, 2, 3, 4], [[1, 2], [3, 4]]):
        body = json.dumps({"id": "7", "inputs": [v2_tensor("x", [2, 2], datatype, data)]}).encode()
        for fast in (v2_json._small, v2_json._large):
            parsed = fast(body)
            assert parsed.id == "7"
            assert parsed.arrays["x"].tolist() == [[1, 2], [3, 4]]


def test_an_array_outlives_the_document_it_came_from() -> None:
    first = v2_json._large(json.dumps({"inputs": [v2_tensor("x", [500], "FP64", [0.5] * 500)]}).encode())
    for _ in range(3):
        v2_json._large(json.dumps({"inputs": [v2_tensor("x", [500], "FP64", [9.5] * 500)]}).encode())
    assert set(first.arrays["x"].tolist()) == {0.5}


def test_a_bad_body_leaves_no_trace_in_the_next() -> None:
    bad = json.dumps({"inputs": [v2_tensor("x", [500], "FP64", ["x"] * 500)]}).encode()
    good_body = json.dumps({"inputs": [v2_tensor("x", [500], "FP64", [1.5] * 500)]}).encode()
    for _ in range(3):
        with pytest.raises(InvalidInput):
            v2_json.decode_json(bad)
        assert v2_json._large(good_body).arrays["x"][0] == 1.5


@given(
    st.sampled_from([name for name in TYPES if name != "BYTES"]).flatmap(
        lambda name: st.tuples(
            st.just(name), st.integers(1, 3), st.lists(good(name), min_size=6, max_size=6), st.sampled_from([1, 200])
        )
    )
)
def test_what_is_written_reads_back_as_the_same(case: tuple[str, int, list[Any], int]) -> None:
    datatype, ndim, flat, repeat = case
    shape = {1: (6,), 2: (3, 2), 3: (3, 1, 2)}[ndim]
    array = np.array(flat, DTYPES[datatype]).reshape(shape).repeat(repeat, axis=0)
    text = numbers_json(array)
    assert np.array_equal(np.array(json.loads(text), array.dtype), array, equal_nan=array.dtype.kind == "f")
    assert json.loads(flat_json(array)) == pytest.approx(json.loads(numbers_json(array.ravel())), nan_ok=True)
    try:
        again = nested_array(datatype, text, ndim)
    except DOUBT:
        assert b"NaN" in text or b"Infinity" in text
    else:
        assert np.array_equal(again, array)


@pytest.mark.parametrize("pad", [1, 400])
def test_nested_arrays_have_to_be_regular(pad: int) -> None:
    rows = ["[1,2]"] * pad
    good_text = "[" + ",".join(rows) + "]"
    assert nested_array("FP32", good_text.encode(), 2).shape == (pad, 2)
    for odd in ("[1]", "[1,2,3]", "3", "[[1],2]", "[1,null]", '["a","b"]', "[true,false]"):
        with pytest.raises(DOUBT):
            nested_array("FP32", ("[" + ",".join([*rows, odd]) + "]").encode(), 2)
