"""Arrays under the names that people give them become the tensors of a signature.

Columns are picked by name and put into the model's order; what the model does not ask for is ignored.
"""

from __future__ import annotations

import numpy as np

from turnout.core.errors import InvalidInput
from turnout.core.signature import Signature, TensorSpec
from turnout.core.tensors import Array, Tensors
from turnout.formats.examples import UNNAMED
from turnout.formats.values import convert


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
