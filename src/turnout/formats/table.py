"""Tabular models: one tensor of numbers with named columns, or one input for each column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from turnout.core.errors import LoadFailed
from turnout.core.signature import Signature, TensorSpec
from turnout.core.tensors import DTYPES, Array, Tensors, as_text
from turnout.formats.examples import UNNAMED


def numbers(columns: Sequence[str], width: int, datatype: str) -> TensorSpec:
    """The one input of a model of numbers: `x`, shape [-1, width], with the columns' names if it knows them."""
    return TensorSpec(UNNAMED, datatype, (-1, width), tuple(columns))


def column(name: str, datatype: str) -> TensorSpec:
    """The input that is one column: shape [-1]."""
    return TensorSpec(name, datatype, (-1,), (name,))


def fitted(
    declared: Signature | None, own: Signature | None, features: Sequence[str], width: int, label: str
) -> Signature:
    """The signature to serve: the declared one if it fits the model's features, else the model's own.

    Plain number columns said by an example or a file are the model's own table; what the user says stands.
    Raises LoadFailed where neither is known, or where the declared one does not fit.
    """
    if declared is None:
        if own is None:
            raise LoadFailed(
                f"{label} does not say which columns of which type it takes. Give an input example (--example FILE, "
                "or input_example.json beside the model) or a signature"
            )
        return own
    if not width:
        return declared
    if len(declared.inputs) == 1 and len(declared.inputs[0].shape) == 2:
        spec = declared.inputs[0]
        if spec.shape[1] not in (-1, width):
            raise LoadFailed(f"{label} takes {width} columns; the signature or example has {spec.shape[1]}")
        if declared.source == "user" or own is None:
            return declared
        return replace(own, source=declared.source)
    names = [spec.name for spec in declared.inputs]
    if len(names) != width and not set(features) & set(names):
        raise LoadFailed(f"{label} takes {width} columns; the signature or example has {len(names)}")
    lacking = [name for name in features if name not in names]
    if lacking and (own is None or not {spec.name for spec in own.inputs} <= set(names)):
        raise LoadFailed(f"{label}: the signature or example lacks the columns {', '.join(map(repr, lacking[:8]))}")
    if declared.source == "user":
        return declared
    if own is not None:
        if not features and len(own.inputs) == 1:
            own = replace(own, inputs=(replace(own.inputs[0], columns=tuple(names)),))
        return replace(own, source=declared.source)
    order = list(features) or names
    return replace(
        declared,
        inputs=tuple(sorted((s for s in declared.inputs if s.name in order), key=lambda s: order.index(s.name))),
    )


class Table:
    """Turns the inputs of a tabular signature into what the library takes. Built once, used for each batch."""

    __slots__ = ("_features", "_specs", "single")

    def __init__(self, inputs: Sequence[TensorSpec], features: Sequence[str]) -> None:
        self._specs = {spec.name: spec for spec in inputs}
        self._features = [name for name in features if name in self._specs] or list(self._specs)
        self.single = next(iter(self._specs)) if len(self._specs) == 1 else ""

    @property
    def has_text(self) -> bool:
        """Whether any column is text."""
        return any(spec.datatype == "BYTES" for spec in self._specs.values())

    def matrix(self, inputs: Tensors, dtype: np.dtype[Any]) -> Array:
        """All columns as one array [rows, columns] of numbers."""
        if self.single:
            array = inputs[self.single]
            return (array if array.ndim > 1 else array.reshape(-1, 1)).astype(dtype, copy=False)
        columns = [_flat(inputs[name]) for name in self._features if name in inputs]
        out = np.empty((len(columns[0]), len(self._features)), dtype=dtype)
        if len(columns) != len(self._features):
            out[:] = np.nan
        for at, name in enumerate(self._features):
            if name in inputs:
                out[:, at] = _flat(inputs[name])
        return out

    def column(self, inputs: Tensors, name: str) -> Array | None:
        """One column, text as `str`; None if the caller left an optional one out."""
        array = inputs.get(name)
        if array is None:
            return None
        flat = _flat(array)
        return as_text(flat) if flat.dtype.kind == "O" and self._specs[name].text else flat

    def text(self, inputs: Tensors) -> Array:
        """A single text input as `str` elements, in its own shape."""
        array = inputs[self.single]
        return as_text(array) if self._specs[self.single].text else array

    def columns(self, inputs: Tensors) -> Mapping[str, Array]:
        """Every feature by name, for a data frame. An optional column that is left out is all NaN."""
        rows = len(next(iter(inputs.values())))
        found: dict[str, Array] = {}
        for name in self._features:
            values = self.column(inputs, name)
            found[name] = np.full(rows, np.nan) if values is None else values
        return found


def _flat(array: Array) -> Array:
    return array if array.ndim == 1 else array.reshape(-1)


FP32, FP64 = DTYPES["FP32"], DTYPES["FP64"]
