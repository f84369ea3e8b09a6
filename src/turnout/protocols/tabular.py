"""Tables to the arrays of a signature: records, columns, rows, split frames, CSV and Parquet.

A model takes a table in one of three ways: one tensor whose last axis is the columns (named or not), or one tensor
per column. Columns are found by name, in any order; those that the model does not know are ignored, as MLflow does.
Types are never bent: what would not be the same value afterwards is refused. Gaps (null, an empty CSV cell) are NaN in
a float column and refused elsewhere.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from turnout.core.errors import InvalidInput
from turnout.core.signature import Signature, TensorSpec
from turnout.core.tensors import Array, Tensors
from turnout.protocols.http import UnsupportedMediaType
from turnout.protocols.json_values import exact_array, expect_list, expect_object, expect_text, show

#: What a Parquet body may hold once it is unpacked, in bytes.
MAX_PARQUET_BYTES = 1 << 29


def from_records(signature: Signature, records: Sequence[Any], field: str) -> Tensors:
    """One object per row. Raises InvalidInput naming the row or the column."""
    rows = [expect_object(record, f"{field}[{number}]") for number, record in enumerate(records)]
    if not rows:
        raise InvalidInput("there is no row", field=field, expected="at least one record")
    names = _wanted(signature) or list(rows[0])
    for number, row in enumerate(rows):
        for name in names:
            if name not in row:
                raise _missing(name, names, row, f"{field}[{number}]")
    optional = {spec.name for spec in signature.inputs if spec.optional}
    names += [name for name in optional if any(name in row for row in rows)]
    return from_columns(signature, {name: [row.get(name) for row in rows] for name in names}, field)


def from_columns(signature: Signature, columns: Mapping[str, Any], field: str) -> Tensors:
    """One list per column. Raises InvalidInput naming the column."""
    table = {name: expect_list(values, f"{field}.{name!r}") for name, values in columns.items()}
    if len({len(values) for values in table.values()}) > 1:
        raise InvalidInput(
            "columns differ in length",
            field=field,
            got=", ".join(f"{k!r}: {len(v)}" for k, v in list(table.items())[:8]),
        )
    specs = signature.inputs
    if len(specs) == 1 and not specs[0].columns and specs[0].name not in table:
        return {specs[0].name: _matrix(specs[0], table, list(table), field)}
    found: dict[str, Array] = {}
    for spec in specs:
        names = list(spec.columns) or [spec.name]
        absent = [name for name in names if name not in table]
        if absent and spec.optional:
            continue
        if absent:
            raise _missing(absent[0], _wanted(signature), table, field)
        found[spec.name] = _matrix(spec, table, names, field)
    return found


def _wanted(signature: Signature) -> list[str]:
    """The column names of the model; empty where it takes a table by position."""
    specs = signature.inputs
    if len(specs) == 1 and not specs[0].columns and len(specs[0].shape) > 1:
        return []
    return [name for spec in specs if not spec.optional for name in (spec.columns or (spec.name,))]


def _missing(name: str, names: Sequence[str], present: Mapping[str, Any], field: str) -> InvalidInput:
    return InvalidInput(
        f"column {name!r} is missing",
        field=field,
        expected="the columns " + ", ".join(map(repr, names[:32])),
        got=", ".join(repr(key)[:60] for key in list(present)[:32]) or "none",
    )


def _matrix(spec: TensorSpec, table: Mapping[str, list[Any]], names: Sequence[str], field: str) -> Array:
    """The tensor of one input from its columns."""
    if len(names) == 1:
        array = exact_array(spec.datatype, table[names[0]], f"{field}.{names[0]!r}", null_is_nan=True)
        return array.reshape(-1, 1) if array.ndim == 1 and len(spec.shape) == 2 else array
    rows = list(zip(*(table[name] for name in names), strict=True))
    try:
        array = exact_array(spec.datatype, [list(row) for row in rows], field, null_is_nan=True)
    except InvalidInput:
        for name in names:  # again, to name the column in the error
            exact_array(spec.datatype, table[name], f"{field}.{name!r}", null_is_nan=True)
        raise
    return _shaped(spec, array)


def _shaped(spec: TensorSpec, array: Array) -> Array:
    """A table of rows as a tensor of more axes, where that is what the model takes (images as 784 columns)."""
    inner = spec.shape[1:]
    if array.ndim == 2 and len(inner) > 1 and -1 not in inner and math.prod(inner) == array.shape[1]:
        return array.reshape(-1, *inner)
    return array


def validated(signature: Signature, arrays: Tensors, field: str) -> tuple[Tensors, int]:
    """`signature.validate`, with the caller's own `field` in the error where the model has one input only."""
    try:
        return signature.validate(arrays)
    except InvalidInput as problem:
        if len(signature.inputs) > 1:
            raise
        raise InvalidInput(problem.reason, field=field, expected=problem.expected, got=problem.got) from None


def from_rows(signature: Signature, rows: Any, field: str, *, null_is_nan: bool = False) -> Tensors:
    """Rows by position, for a model with one input. Raises InvalidInput."""
    if len(signature.inputs) != 1:
        names = ", ".join(repr(spec.name) for spec in signature.inputs)
        raise InvalidInput("values without names, but the model has several inputs", field=field, expected=names)
    spec = signature.inputs[0]
    return {spec.name: _shaped(spec, exact_array(spec.datatype, rows, field, null_is_nan=null_is_nan))}


def from_split(signature: Signature, split: Mapping[str, Any], field: str) -> Tensors:
    """pandas' split form: `data`, optionally `columns`, and an `index` that only has to fit. Raises InvalidInput."""
    unknown = split.keys() - {"columns", "index", "data"}
    if unknown:
        raise InvalidInput(
            "unknown member", field=field, expected="columns, index and data", got=repr(min(unknown))[:60]
        )
    rows = expect_list(split.get("data"), f"{field}.data")
    index = split.get("index")
    if index is not None and len(expect_list(index, f"{field}.index")) != len(rows):
        raise InvalidInput(
            "not one entry for each row", field=f"{field}.index", expected=str(len(rows)), got=str(len(index))
        )
    columns = split.get("columns")
    if columns is None or expect_list(columns, f"{field}.columns") == list(range(len(columns))):
        return from_rows(signature, rows, f"{field}.data", null_is_nan=True)
    names = [expect_text(name, f"{field}.columns") for name in columns]
    if len(set(names)) != len(names):
        raise InvalidInput("a column name stands twice", field=f"{field}.columns")
    for number, row in enumerate(rows):
        if len(expect_list(row, f"{field}.data[{number}]")) != len(names):
            raise InvalidInput(
                "the row does not fit the columns",
                field=f"{field}.data[{number}]",
                expected=f"{len(names)} values",
                got=f"{len(row)}",
            )
    return from_columns(signature, {name: [row[i] for row in rows] for i, name in enumerate(names)}, field)


def from_csv(signature: Signature, body: bytes | bytearray | memoryview) -> Tensors:
    """CSV with a header line. Raises InvalidInput naming line and column."""
    try:
        text = str(body, "utf-8-sig")
        lines = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except UnicodeDecodeError as problem:
        raise InvalidInput("the CSV is not valid UTF-8", got=f"a bad byte at {problem.start}") from None
    except csv.Error as problem:
        raise InvalidInput("not valid CSV", got=str(problem)) from None
    if len(lines) < 2:
        raise InvalidInput("the CSV needs a header line and at least one row", got=f"{len(lines)} lines")
    header, rows = [name.strip() for name in lines[0]], lines[1:]
    _check_header(signature, header)
    for number, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise InvalidInput(
                "the line does not fit the header",
                field=f"line {number}",
                expected=f"{len(header)} values",
                got=f"{len(row)}",
            )
    types = {name: spec.datatype for spec in signature.inputs for name in (spec.columns or (spec.name,))}
    unnamed = None if _wanted(signature) else signature.inputs[0].datatype
    table: dict[str, list[Any]] = {}
    for index, name in enumerate(header):
        datatype = types.get(name, unnamed)
        if datatype is not None:
            table[name] = _cells(datatype, [row[index] for row in rows], name)
    return from_columns(signature, table, "csv")


def _check_header(signature: Signature, header: list[str]) -> None:
    """Refuses a first line that is no header: taken for one, its row would be lost without a word."""
    known = {name for spec in signature.inputs for name in (spec.columns or (spec.name,))}
    counted = [str(number) for number in range(len(header))]  # what pandas calls columns without names
    if header != counted and not known & set(header) and all(_is_number(name) for name in header):
        raise InvalidInput(
            "the first line holds values, where the column names belong",
            field="line 1",
            expected=", ".join(sorted(known)[:8]) if _wanted(signature) else "a name for each column",
            got=", ".join(header[:8]),
        )
    if len(set(header)) != len(header):
        raise InvalidInput("a column name stands twice", field="line 1")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _cells(datatype: str, texts: list[str], name: str) -> list[Any]:
    read, words = _READERS["FP" if datatype.startswith("FP") else datatype if datatype in ("BYTES", "BOOL") else "INT"]
    found = []
    for number, text in enumerate(texts, 2):
        try:
            found.append(read(text.strip() if datatype != "BYTES" else text))
        except (ValueError, KeyError):
            raise InvalidInput(
                f"wrong kind of value for {datatype}",
                field=f"line {number}, column {name!r}",
                expected=words,
                got=show(text),
            ) from None
    return found


def _float(text: str) -> float:
    if not text:
        return math.nan
    number = float(text)
    if "_" in text or (math.isinf(number) and "inf" not in text.lower()):
        raise ValueError(text)
    return number


def _integer(text: str) -> int:
    if "_" in text:
        raise ValueError(text)
    return int(text)


_BOOLEANS = {
    "true": True,
    "True": True,
    "TRUE": True,
    "1": True,
    "false": False,
    "False": False,
    "FALSE": False,
    "0": False,
}
_READERS: Mapping[str, tuple[Callable[[str], Any], str]] = {
    "FP": (_float, "a number or nothing"),
    "INT": (_integer, "an integer"),
    "BOOL": (_BOOLEANS.__getitem__, "true or false"),
    "BYTES": (str, "text"),
}


def from_parquet(signature: Signature, body: bytes | bytearray | memoryview) -> Tensors:
    """A Parquet file. Raises InvalidInput, or UnsupportedMediaType where pyarrow is not installed."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise UnsupportedMediaType(
            "Parquet is not read here: the server lacks pyarrow (pip install 'turnout[parquet]'); send JSON or CSV"
        ) from None
    try:
        file = pq.ParquetFile(pa.BufferReader(body))
        size = sum(file.metadata.row_group(n).total_byte_size for n in range(file.metadata.num_row_groups))
        if size > MAX_PARQUET_BYTES:
            raise InvalidInput("the Parquet file is too large unpacked", expected=f"at most {MAX_PARQUET_BYTES} bytes")
        columns = {
            name: values.to_pylist() for name, values in zip(file.schema_arrow.names, file.read().columns, strict=True)
        }
    except (pa.ArrowException, OSError, ValueError) as problem:
        raise InvalidInput("not a valid Parquet file", got=type(problem).__name__) from None
    return from_columns(signature, columns, "parquet")
