"""Tables become the tensors of a signature, by name or by place, and nothing is bent on the way."""

from __future__ import annotations

import builtins
import contextlib
import csv
import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout.core.errors import Failure, InvalidInput
from turnout.core.signature import Signature, TensorSpec
from turnout.protocols.http import UnsupportedMediaType
from turnout.protocols.tabular import from_columns, from_csv, from_parquet, from_records, from_rows, from_split
from turnout.testing.protocols import same

NAMED = Signature((TensorSpec("x", "FP64", (-1, 3), ("a", "b", "c")),), ())
PLACED = Signature((TensorSpec("x", "FP64", (-1, 3)),), ())
EACH = Signature(
    (
        TensorSpec("f", "FP32", (-1, 1)),
        TensorSpec("i", "INT64", (-1,)),
        TensorSpec("b", "BOOL", (-1,)),
        TensorSpec("s", "BYTES", (-1, 1)),
        TensorSpec("o", "FP64", (-1,), optional=True),
    ),
    (),
)

FLOATS = st.lists(st.tuples(*[st.floats(allow_nan=False)] * 3), min_size=1, max_size=5)


@given(FLOATS, st.permutations(["a", "b", "c"]))
def test_every_form_of_a_table_gives_the_same_tensor(rows: list[tuple[float, ...]], order: list[str]) -> None:
    meant = {"x": np.array(rows, np.float64)}
    records = [{name: row["abc".index(name)] for name in order} for row in rows]
    columns = {name: [record[name] for record in records] for name in order}
    split = {"columns": order, "data": [list(record.values()) for record in records]}
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerows([order, *split["data"]])
    assert same(from_records(NAMED, records, "r"), meant)
    assert same(from_columns(NAMED, columns, "c"), meant)
    assert same(from_split(NAMED, split, "s"), meant)
    assert same(from_csv(NAMED, text.getvalue().encode()), meant)
    assert same(from_rows(PLACED, [list(row) for row in rows], "r"), meant)
    placed = from_csv(PLACED, text.getvalue().encode())["x"]
    assert np.array_equal(placed, np.array(split["data"]))


def test_one_tensor_per_column() -> None:
    text = b'i,f,s,b,more\n1,0.5,"a,b",true,\n-2,,"",False,x\n'
    found = from_csv(EACH, text)
    assert found["i"].tolist() == [1, -2]
    assert np.array_equal(found["f"], np.array([[0.5], [np.nan]], np.float32), equal_nan=True)
    assert found["s"].tolist() == [[b"a,b"], [b""]]
    assert found["b"].tolist() == [True, False]
    assert "o" not in found


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (b"f,i,b,s\n1,1.0,true,a\n", ["line 2, column 'i'", "an integer", 'got "1.0"']),
        (b"f,i,b,s\n1,,true,a\n", ["line 2, column 'i'", "an integer"]),
        (b"f,i,b,s\n1,1,yes,a\n", ["line 2, column 'b'", "true or false"]),
        (b"f,i,b,s\n1_0,1,true,a\n", ["line 2, column 'f'", "a number"]),
        (b"f,i,b,s\n1,1_0,true,a\n", ["line 2, column 'i'"]),
        (b"f,i,b,s\n1e999,1,true,a\n", ["line 2, column 'f'"]),
        (b"f,i,b,s\n1e39,1,true,a\n", ["'f'", "out of range"]),
        (b"f,i,b,s\n1,99999999999999999999,true,a\n", ["'i'", "out of range"]),
        (b"f,i,b,s\n1,1,true\n", ["line 2", "4 values", "got 3"]),
        (b"f,i,b,b\n1,1,true,a\n", ["line 1", "twice"]),
        (b"f,i,b\n1,1,true\n", ["column 's' is missing"]),
        (b"f,i,b,s\n", ["header line and at least one row"]),
        (b"", ["header line"]),
        (b'f,i\n"1,2\n', ["not valid CSV"]),
        (b"f,i\n\xff,2\n", ["not valid UTF-8"]),
    ],
)
def test_a_bad_csv_is_told_by_line_and_column(text: bytes, parts: list[str]) -> None:
    with pytest.raises(InvalidInput) as problem:
        from_csv(EACH, text)
    for part in parts:
        assert part in str(problem.value)


def test_a_byte_order_mark_and_blank_lines_are_no_matter() -> None:
    assert from_csv(NAMED, b"\xef\xbb\xbfa,b,c\r\n1,2,3\r\n\r\n")["x"].tolist() == [[1, 2, 3]]


def test_a_gap_in_an_integer_column_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"'i'\[1\].*an integer.*null"):
        from_columns(EACH, {"f": [1, 2], "i": [1, None], "b": [True, True], "s": ["a", "b"]}, "c")


def test_pixels_in_columns_become_images() -> None:
    images = Signature((TensorSpec("x", "FP32", (-1, 2, 2)),), ())
    assert from_csv(images, b"p0,p1,p2,p3\n1,2,3,4\n")["x"].tolist() == [[[1, 2], [3, 4]]]
    assert from_rows(images, [[1, 2, 3, 4]], "r")["x"].shape == (1, 2, 2)


def test_parquet_without_pyarrow_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UnsupportedMediaType, match="turnout\\[parquet\\]"):
        from_parquet(NAMED, b"")


@given(
    st.binary(max_size=200) | st.text(max_size=200).map(lambda text: ("f,i,b,s\n" + text).encode("utf-8", "replace"))
)
def test_no_text_makes_csv_raise_anything_else(text: bytes) -> None:
    with contextlib.suppress(Failure):
        from_csv(EACH, text)
