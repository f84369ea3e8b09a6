"""Rows of files, frames and records become what a signature asks for."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from turnout.core.errors import InvalidInput
from turnout.core.signature import Signature, TensorSpec
from turnout.entrypoints.rows import read_rows, to_records, to_tensors

TABLE = Signature((TensorSpec("x", "FP32", (-1, 2), ("a", "b")),), (), lenient=True)
PLAIN = Signature((TensorSpec("input", "FP64", (-1, 2)),), ())
MIXED = Signature(
    (
        TensorSpec("size", "FP64", (-1,), ("size",)),
        TensorSpec("count", "INT64", (-1,), ("count",)),
        TensorSpec("name", "BYTES", (-1,), ("name",)),
        TensorSpec("yes", "BOOL", (-1,), ("yes",)),
    ),
    (),
)
WANT = {"size": [1.5, 2.0], "count": [3, 4], "name": [b"gr\xc3\xbcn", b""], "yes": [True, False]}
RECORDS = [
    {"count": 3, "size": 1.5, "name": "grün", "yes": True, "more": 1},
    {"count": 4, "size": 2, "name": None, "yes": False, "more": 2},
]


def lists(tensors):
    return {name: array.tolist() for name, array in tensors.items()}


def files(tmp_path):
    frame = pd.DataFrame(RECORDS)
    frame.to_csv(tmp_path / "rows.csv", index=False)
    frame.to_csv(tmp_path / "rows.tsv", index=False, sep="\t")
    frame.to_parquet(tmp_path / "rows.parquet")
    (tmp_path / "rows.json").write_text(json.dumps(RECORDS))
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, RECORDS)))
    return sorted(tmp_path.iterdir())


def test_every_kind_of_file_gives_the_same_tensors(tmp_path):
    for path in files(tmp_path):
        found = read_rows(path, MIXED)
        assert lists(found) == WANT, path.name
        assert [found[spec.name].dtype for spec in MIXED.inputs] == [spec.dtype for spec in MIXED.inputs], path.name
        MIXED.validate(found)


def test_everything_in_memory_gives_the_same_tensors():
    frame = pd.DataFrame(RECORDS)
    columns = {name: [record[name] for record in RECORDS] for name in RECORDS[0]}
    for rows in (frame, frame.convert_dtypes(), RECORDS, columns, {n: np.array(v) for n, v in columns.items()}):
        assert lists(to_tensors(rows, MIXED)) == WANT


@pytest.mark.parametrize(
    "value",
    [
        [[1, 2], [3, 4]],
        [{"b": 2, "a": 1}, {"a": 3, "b": 4}],
        {"b": [2, 4], "a": [1, 3]},
        {"columns": ["b", "a"], "data": [[2, 1], [4, 3]]},
        {"dataframe_split": {"columns": ["b", "a"], "data": [[2, 1], [4, 3]]}},
        {"instances": [[1, 2], [3, 4]]},
        {"inputs": {"x": [[1, 2], [3, 4]]}},
        {"inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4]}]},
        {"a": {"0": 1, "1": 3}, "b": {"0": 2, "1": 4}},
    ],
)
def test_the_forms_of_json(tmp_path, value):
    (tmp_path / "r.json").write_text(json.dumps(value))
    found = read_rows(tmp_path / "r.json", TABLE)["x"]
    assert found.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert found.dtype == np.float32


def test_numbers_without_a_header(tmp_path):
    (tmp_path / "r.csv").write_text("1,2\n3,4\n")
    assert read_rows(tmp_path / "r.csv", PLAIN)["input"].tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_bare_arrays():
    assert to_tensors(np.ones((3, 2)), PLAIN)["input"].shape == (3, 2)
    assert to_tensors([1.0, 2.0], PLAIN)["input"].tolist() == [[1.0, 2.0]]
    assert lists(to_tensors(np.array([[1.0, 2.0]]), Signature((*two(),), ()))) == {"a": [1.0], "b": [2.0]}


def two():
    return TensorSpec("a", "FP64", (-1,), ("a",)), TensorSpec("b", "FP64", (-1,), ("b",))


def test_a_missing_number_is_nan_and_a_missing_whole_number_is_refused():
    found = to_tensors([{"a": None, "b": 2}], TABLE)["x"]
    assert np.isnan(found[0, 0])
    with pytest.raises(InvalidInput, match="count"):
        to_tensors([{**RECORDS[0], "count": None}], MIXED)


@pytest.mark.parametrize(
    ("rows", "field", "said"),
    [
        ([{"a": 1}], "b", "'b' is missing"),
        ([{"a": "one", "b": 2}], "a", "'one' in row 0"),
        ([[1, 2], [3]], "rows", "length"),
        ({"a": [1, 2], "b": [1]}, "x", "length"),
        ("text", "rows", "text is not rows"),
        ([{"a": {"deep": 1}, "b": 2}], "a", "objects"),
    ],
)
def test_rows_that_do_not_fit_are_named(rows, field, said):
    with pytest.raises(InvalidInput, match=said) as refusal:
        to_tensors(rows, TABLE)
    assert refusal.value.field == field


def test_a_fraction_in_a_whole_number_is_refused_with_its_row():
    rows = pd.DataFrame({**{k: [r[k] for r in RECORDS] for k in RECORDS[0]}, "count": [1.0, 2.5]})
    with pytest.raises(InvalidInput, match=r"count.*2\.5 in row 1"):
        to_tensors(rows, MIXED)


def test_files_that_cannot_be_read_are_named(tmp_path):
    for name, content, said in (
        ("r.json", b"{", "not JSON"),
        ("r.csv", b"", "no rows"),
        ("r.csv", b"\xff\xfe\x00", "UTF-8"),
        ("r.parquet", b"hello", "not Parquet"),
        ("r.xlsx", b"", "unknown kind"),
        ("r.csv", b"a,b\n1\n", "one value for each column"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InvalidInput, match=said):
            read_rows(tmp_path / name, TABLE)
    with pytest.raises(InvalidInput, match="no such file"):
        read_rows(tmp_path / "nothing.csv", TABLE)


def test_records_are_plain_python():
    outputs = {"label": np.array([b"a", b"\xff"], dtype=object), "p": np.array([[0.5, 0.5], [1.0, 0.0]], np.float32)}
    records = to_records(outputs)
    assert records == [{"label": "a", "p": [0.5, 0.5]}, {"label": "\\xff", "p": [1.0, 0.0]}]
    json.dumps(records)
    assert to_records({"total": np.array(3.0)}) == [{"total": 3.0}]


def test_reading_rows_imports_no_data_frame_library():
    program = (
        "import sys, turnout.entrypoints.rows as r; sys.exit(any(m in sys.modules for m in ('pandas', 'pyarrow')))"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0
