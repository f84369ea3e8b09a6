"""Rows as people have them (files, data frames, records, arrays) become the tensors of a signature."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from turnout.core.errors import InvalidInput, MissingExtra
from turnout.core.signature import Signature
from turnout.core.tensors import Array, Tensors
from turnout.formats.examples import UNNAMED, of_records, of_split, tensors_of
from turnout.formats.matching import match

__all__ = ["match", "read_columns", "read_csv", "read_rows", "to_records", "to_tensors"]

_DELIMITERS = {".csv": ",", ".tsv": "\t"}


def read_rows(path: str | Path, signature: Signature) -> Tensors:
    """The rows of a .csv, .json, .jsonl or .parquet file as tensors of the signature.

    Raises InvalidInput naming the file or the column, MissingExtra for Parquet without its library.
    """
    path, kind = _found(path)
    if kind == ".parquet":
        return match(_parquet(path), signature)
    text = _text(path)
    if kind in _DELIMITERS:
        return read_csv(text, signature, delimiter=_DELIMITERS[kind])
    return match(_json(text, kind, path), signature)


def read_columns(path: str | Path) -> Tensors:
    """The columns of such a file by their names, whatever a model makes of them. Raises as `read_rows` does."""
    path, kind = _found(path)
    if kind == ".parquet":
        return _parquet(path)
    text = _text(path)
    if kind not in _DELIMITERS:
        return _json(text, kind, path)
    rows = [row for row in csv.reader(io.StringIO(text), delimiter=_DELIMITERS[kind]) if row]
    if len(rows) < 2:
        raise InvalidInput("there are no rows", field=path.name, expected="a line of names, and rows below it")
    return of_split([cell.strip() for cell in rows[0]], rows[1:], path.name)


def _found(path: str | Path) -> tuple[Path, str]:
    """The file and its kind."""
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in {".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet"}:
        raise InvalidInput(
            "unknown kind of file", field=path.name, expected=".csv, .json, .jsonl or .parquet", got=kind
        )
    if not path.is_file():
        raise InvalidInput("there is no such file", field=str(path))
    return path, kind


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidInput("the file is not UTF-8 text", field=path.name) from None


def _json(text: str, kind: str, path: Path) -> Tensors:
    try:
        value = (
            json.loads(text) if kind == ".json" else [json.loads(line) for line in text.splitlines() if line.strip()]
        )
    except ValueError as problem:
        raise InvalidInput(f"the file is not JSON ({problem})", field=path.name) from None
    return tensors_of(value)


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
