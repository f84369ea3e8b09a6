"""Rows as people have them (files, data frames, records, arrays) become the tensors of a signature.

Columns are picked by name and put into the model's order; what the model does not ask for is ignored.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from turnout.core.errors import InvalidInput, MissingExtra
from turnout.core.signature import Signature, TensorSpec
from turnout.core.tensors import Array, Tensors
from turnout.entrypoints.values import convert
from turnout.formats.examples import UNNAMED, of_records, of_split, tensors_of


def read_rows(path: str | Path, signature: Signature) -> Tensors:
    """The rows of a .csv, .json, .jsonl or .parquet file as tensors of the signature.

    Raises InvalidInput naming the file or the column, MissingExtra for Parquet without its library.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in {".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet"}:
        raise InvalidInput(
            "unknown kind of file", field=path.name, expected=".csv, .json, .jsonl or .parquet", got=kind
        )
    if not path.is_file():
        raise InvalidInput("there is no such file", field=str(path))
    if kind == ".parquet":
        return match(_parquet(path), signature)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidInput("the file is not UTF-8 text", field=path.name) from None
    if kind in {".csv", ".tsv"}:
        return read_csv(text, signature, delimiter="\t" if kind == ".tsv" else ",")
    try:
        value = (
            json.loads(text) if kind == ".json" else [json.loads(line) for line in text.splitlines() if line.strip()]
        )
    except ValueError as problem:
        raise InvalidInput(f"the file is not JSON ({problem})", field=path.name) from None
    return match(tensors_of(value), signature)


def read_csv(text: str, signature: Signature, delimiter: str = ",") -> Tensors:
    """Rows of CSV. The first line names the columns, unless it holds only numbers and the model names none."""
    rows = [row for row in csv.reader(io.StringIO(text), delimiter=delimiter) if row]
    if not rows:
        raise InvalidInput("there are no rows", field="csv")
    names = [cell.strip() for cell in rows[0]]
    wanted = {name for spec in signature.inputs for name in (spec.name, *spec.columns)}
    if not wanted & set(names) and all(_is_number(cell) for cell in names):
        widths = {len(row) for row in rows}
        if len(widths) > 1:
            raise InvalidInput("the rows differ in length", field="csv", got=f"{sorted(widths)[:4]} values")
        return match({UNNAMED: np.array(rows, dtype=object)}, signature)
    if len(set(names)) != len(names):
        raise InvalidInput("two columns have the same name", field="csv", got=", ".join(names[:10]))
    return match(of_split(names, rows[1:], "csv"), signature)


def to_tensors(rows: Any, signature: Signature) -> Tensors:
    """A data frame, named arrays, columns, records, or one array, as tensors of the signature. Raises InvalidInput."""
    if hasattr(rows, "columns") and hasattr(rows, "__getitem__") and not isinstance(rows, Mapping):
        return match({str(name): _series(rows[name]) for name in rows.columns}, signature)
    if isinstance(rows, Mapping):
        if any(isinstance(value, (list, tuple, np.ndarray)) or hasattr(value, "__array__") for value in rows.values()):
            return match({str(name): _values(value, str(name)) for name, value in rows.items()}, signature)
        return match(tensors_of(rows), signature)
    if isinstance(rows, (list, tuple)) and rows and all(isinstance(row, Mapping) for row in rows):
        return match(of_records(rows), signature)
    if isinstance(rows, (str, bytes)):
        raise InvalidInput("text is not rows", field="rows", expected="arrays, a data frame or records", got="text")
    return match({UNNAMED: _values(rows, "rows")}, signature)


def match(columns: Tensors, signature: Signature) -> Tensors:
    """The tensors of the signature from arrays by name: an array for each input, or one for each column."""
    if list(columns) == [UNNAMED] and signature.input(UNNAMED) is None:
        return _unnamed(columns[UNNAMED], signature)
    if len(signature.inputs) == 1 == len(columns) and signature.lenient:
        (spec,), (array,) = signature.inputs, columns.values()
        if array.ndim == len(spec.shape) and spec.name not in columns:
            return {spec.name: convert(array, spec)}
    found: dict[str, Array] = {}
    for spec in signature.inputs:
        if spec.name in columns and not spec.is_given_by(columns):
            found[spec.name] = convert(_shaped(columns[spec.name], spec), spec)
        elif len(spec.shape) == 2 and (spec.columns or len(signature.inputs) == 1):
            found[spec.name] = _table(columns, spec)
        elif not spec.optional:
            known = ", ".join(repr(s.name) for s in signature.inputs[:12])
            raise InvalidInput(
                f"the column or input {spec.name!r} is missing",
                field=spec.name,
                expected=f"the inputs {known}",
                got=", ".join(map(repr, list(columns)[:12])),
            )
    return found


def to_records(outputs: Tensors) -> list[dict[str, Any]]:
    """One record for each row, as plain Python values; a single one where the outputs share no rows."""
    plain = {name: _plain(array) for name, array in outputs.items()}
    rows = {array.shape[0] if array.ndim else -1 for array in outputs.values()}
    if len(rows) != 1 or -1 in rows:
        return [plain]
    return [{name: values[i] for name, values in plain.items()} for i in range(rows.pop())]


def _plain(array: Array) -> Any:
    return _decoded(array.tolist()) if array.dtype.kind == "O" else array.tolist()


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(inner) for inner in value]
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value


def _unnamed(array: Array, signature: Signature) -> Tensors:
    """One array for a model of one input, or one whose columns are in the order of the model's inputs."""
    if len(signature.inputs) == 1:
        spec = signature.inputs[0]
        return {spec.name: convert(_shaped(array, spec), spec)}
    if array.ndim == 2 and array.shape[1] == len(signature.inputs) and all(len(s.shape) == 1 for s in signature.inputs):
        return {spec.name: convert(array[:, place], spec) for place, spec in enumerate(signature.inputs)}
    raise InvalidInput(
        "one array without names does not fit",
        field="rows",
        expected=f"the inputs {', '.join(repr(s.name) for s in signature.inputs[:12])} by name",
        got=f"an array of shape {list(array.shape)}",
    )


def _shaped(array: Array, spec: TensorSpec) -> Array:
    """A single row without its outer list, or a column as a matrix of one column."""
    if array.ndim == 1 and len(spec.shape) == 2:
        return array.reshape(1, -1) if spec.shape[1] == len(array) != 1 else array.reshape(-1, 1)
    if array.ndim == 2 and array.shape[1] == 1 and len(spec.shape) == 1:
        return array[:, 0]
    return array


def _table(columns: Tensors, spec: TensorSpec) -> Array:
    """The columns side by side, by name where the input names them, else in the order they came."""
    lacking = [name for name in spec.columns if name not in columns]
    if lacking:
        raise InvalidInput(
            f"the column {lacking[0]!r} is missing" + (f" (and {len(lacking) - 1} more)" if len(lacking) > 1 else ""),
            field=lacking[0],
            expected=f"the columns {', '.join(spec.columns[:12])}",
            got=", ".join(map(repr, list(columns)[:12])),
        )
    names = list(spec.columns or columns)
    if spec.shape[1] not in (-1, len(names)):
        raise InvalidInput(
            "wrong number of columns", field=spec.name, expected=f"{spec.shape[1]} columns", got=f"{len(names)}"
        )
    single = TensorSpec(spec.name, spec.datatype, (-1,), text=spec.text)
    parts = []
    for name in names:
        if columns[name].ndim != 1:
            raise InvalidInput("not one value a row", field=name, got=f"shape {list(columns[name].shape)}")
        parts.append(convert(columns[name], single, name))
    if len({len(part) for part in parts}) > 1:
        raise InvalidInput("the columns differ in length", field=spec.name)
    return np.column_stack(parts)


def _values(value: Any, field: str) -> Array:
    try:
        return np.asarray(value)
    except ValueError:
        raise InvalidInput("the rows differ in length", field=field, expected="rows of equal length") from None


def _series(series: Any) -> Array:
    """A data frame's column, whatever made it: categories and nullable types as objects with None."""
    made = series.to_numpy() if hasattr(series, "to_numpy") else np.asarray(series)
    return made if isinstance(made, np.ndarray) else np.asarray(made)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _parquet(path: Path) -> dict[str, Array]:
    try:
        from pyarrow import ArrowInvalid, parquet
    except ModuleNotFoundError:
        raise MissingExtra(
            "reading Parquet needs the library 'pyarrow', which is not installed: pip install 'turnout[parquet]'"
        ) from None
    try:
        table = parquet.read_table(path)
    except (ArrowInvalid, OSError) as problem:
        raise InvalidInput(f"the file is not Parquet ({str(problem).splitlines()[0][:200]})", field=path.name) from None
    found: dict[str, Array] = {}
    for name in table.column_names:
        column = table.column(name)
        nested = str(column.type).startswith(("list", "fixed_size_list", "large_list"))
        found[name] = _values(column.to_pylist(), name) if nested else column.to_numpy()
    return found
