"""MLflow's model directory by its MLmodel file: flavors, schemas and the stored example, without MLflow or YAML."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from turnout.core.errors import LoadFailed
from turnout.core.signature import Signature, TensorSpec
from turnout.core.tensors import dtype_name
from turnout.formats.examples import UNNAMED
from turnout.formats.mlmodel_text import parse

FILE = "MLmodel"
MAX_BYTES = 32 << 20
_COLUMN_TYPES = {
    "boolean": "BOOL",
    "integer": "INT32",
    "long": "INT64",
    "float": "FP32",
    "double": "FP64",
    "string": "BYTES",
    "binary": "BYTES",
    "datetime": "BYTES",
}
Entries = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class MlModel:
    """What an MLmodel file says. `inputs`, `outputs` and `params` are MLflow's schemas; None where there is none."""

    directory: Path
    flavors: Mapping[str, Mapping[str, Any]]
    inputs: Entries | None = None
    outputs: Entries | None = None
    params: Entries | None = None
    example: str = ""

    @property
    def has_tensors(self) -> bool:
        """Whether the inputs are tensors, not columns of a table."""
        return bool(self.inputs) and all(entry.get("type") == "tensor" for entry in self.inputs or ())

    @property
    def has_columns(self) -> bool:
        """Whether the inputs are columns of a table."""
        return bool(self.inputs) and not self.has_tensors

    def file(self, name: object) -> Path:
        """A file or directory that the MLmodel names. Raises LoadFailed if it is missing or outside the directory."""
        if not isinstance(name, str) or not name:
            raise LoadFailed(f"{FILE} does not say which file holds the model")
        path = self.directory / name
        if not path.resolve().is_relative_to(self.directory.resolve()):
            raise LoadFailed(f"{FILE} names {name!r}, which is outside the model's directory")
        if not path.exists():
            raise LoadFailed(f"{FILE} names {name!r}, which is not there: the model was not copied whole")
        return path


def open_mlmodel(directory: Path) -> MlModel:
    """The MLmodel file of a directory. Raises LoadFailed for a damaged one, or one without flavors."""
    found = parse(_text(directory / FILE), FILE)
    flavors = found.get("flavors")
    if not isinstance(flavors, dict) or not flavors:
        raise LoadFailed(f"{FILE} names no flavor: it is damaged, or of no MLflow model")
    named = {str(name): value for name, value in flavors.items() if isinstance(value, dict)}
    signature = found.get("signature")
    schemas = signature if isinstance(signature, dict) else {}
    info = found.get("saved_input_example_info")
    example = info.get("artifact_path") if isinstance(info, dict) else None
    return MlModel(
        directory,
        named,
        inputs=_schema(schemas.get("inputs"), "inputs"),
        outputs=_schema(schemas.get("outputs"), "outputs"),
        params=_schema(schemas.get("params"), "params"),
        example=example if isinstance(example, str) else "",
    )


def read_mlmodel(path: Path) -> Signature | None:
    """The inputs an MLmodel file declares, or None if it declares none. Raises LoadFailed for a damaged one."""
    signature = parse(_text(path), path.name).get("signature")
    entries = _schema(signature.get("inputs"), "inputs") if isinstance(signature, dict) else None
    return None if entries is None else Signature(specs(entries), (), lenient=True)


def specs(entries: Entries, label: str = FILE) -> tuple[TensorSpec, ...]:
    """One tensor for each column or tensor of a schema. Raises LoadFailed for nested and unknown types."""
    return tuple(_specs(entries, label))


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise LoadFailed(f"{path.name} is larger than {MAX_BYTES >> 20} MiB, which no MLflow model needs")
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as problem:
        raise LoadFailed(f"{path.name} cannot be read ({problem.strerror})") from None
    if not text.strip():
        raise LoadFailed(f"{path.name} is empty")
    return text


def _schema(text: object, key: str) -> Entries | None:
    if text is None or text == []:
        return None
    try:
        entries = json.loads(text) if isinstance(text, str) else text
    except (ValueError, RecursionError) as problem:
        raise LoadFailed(f"{FILE}: the signature's {key} are not JSON ({problem})") from None
    if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
        raise LoadFailed(f"{FILE}: the signature's {key} are not a list of columns or tensors")
    return entries or None


def _specs(entries: Entries, label: str) -> Iterator[TensorSpec]:
    for number, entry in enumerate(entries):
        name = str(entry.get("name") or (UNNAMED if len(entries) == 1 else f"{UNNAMED}_{number}"))
        kind = entry.get("type")
        if kind == "tensor":
            described = entry.get("tensor-spec") or {}
            try:
                datatype = dtype_name(np.dtype(str(described["dtype"])))
                shape = tuple(int(size) for size in described["shape"])
            except (KeyError, TypeError, ValueError) as problem:
                raise LoadFailed(f"{label}: the tensor {name!r} has no usable dtype and shape ({problem})") from None
            yield TensorSpec(name, datatype, shape)
        elif isinstance(kind, str) and kind in _COLUMN_TYPES:
            required = entry.get("required", True) is not False
            yield TensorSpec(name, _COLUMN_TYPES[kind], (-1,), (name,), text=kind != "binary", optional=not required)
        else:
            raise LoadFailed(
                f"{label}: the column {name!r} has the type {kind!r}; plain columns and tensors can be served "
                f"({', '.join(_COLUMN_TYPES)}). Give a signature, or log the model with one column for each value"
            )
