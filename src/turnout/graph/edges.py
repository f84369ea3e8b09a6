"""Whether a tensor that one step gives fits what another takes: proved by signatures, looked at where that may fail."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from turnout.core.errors import InvalidOutput
from turnout.core.signature import PARAMETERS, Signature, TensorSpec
from turnout.core.tensors import Array, dtype_name


def misfit(found: TensorSpec, wanted: TensorSpec, *, lenient: bool) -> str:
    """Why a tensor can never be what is wanted; "" where it may. lenient: any number that fits may come."""
    if not _same_type(found, wanted) and not (lenient and is_castable(found, wanted)):
        return "is of another data type"
    if not compatible(found.shape, wanted.shape):
        return "is of another shape"
    if found.columns and found.columns != wanted.columns and set(found.columns) == set(wanted.columns):
        return "has its columns in another order"
    return ""


def is_sure(found: TensorSpec, wanted: TensorSpec) -> bool:
    """Whether every tensor of the one kind is one of the other, so that nobody has to look."""
    sizes = zip(found.shape, wanted.shape, strict=True)
    return _same_type(found, wanted) and all(want in (-1, have) for have, want in sizes)


def fitted(array: Array, wanted: TensorSpec, whose: str) -> Array:
    """The array as it is wanted, cast where its type differs. Raises InvalidOutput that names whose it is."""
    shape = array.shape
    if len(shape) != len(wanted.shape) or any(
        want not in (-1, have) for want, have in zip(wanted.shape, shape, strict=True)
    ):
        raise InvalidOutput(f"{whose} has shape {list(shape)}, and {said(wanted)} is needed")
    return array if array.dtype == wanted.dtype else array.astype(wanted.dtype)


def is_castable(found: TensorSpec, wanted: TensorSpec) -> bool:
    """Whether numbers of the one type may become numbers of the other without another meaning."""
    if "BYTES" in (found.datatype, wanted.datatype):
        return False
    return bool(np.can_cast(found.dtype, wanted.dtype, "same_kind"))


def compatible(one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether a shape may be the other; -1 is a free axis."""
    return len(one) == len(other) and all(a == b or -1 in (a, b) for a, b in zip(one, other, strict=True))


def merged(one: Sequence[int], other: Sequence[int]) -> tuple[int, ...]:
    """What two compatible shapes say together."""
    return tuple(max(a, b) for a, b in zip(one, other, strict=True))


def widest(specs: Sequence[TensorSpec]) -> str:
    """The data type that holds the values of all of these: they are equal, or numbers."""
    first = specs[0].datatype
    if all(spec.datatype == first for spec in specs):
        return first
    return dtype_name(np.result_type(*[spec.dtype for spec in specs]))


def of_rows(spec: TensorSpec, signature: Signature) -> TensorSpec:
    """A tensor of a model as callers may send it: a batch size that the model fixes is the batcher's matter."""
    if not signature.batched or not spec.shape or spec.shape[0] == -1 or is_parameter(spec.name):
        return spec
    return TensorSpec(spec.name, spec.datatype, (-1, *spec.shape[1:]), spec.columns, spec.text, spec.optional)


def is_parameter(name: str) -> bool:
    """Whether an input belongs to the whole request and not to its rows."""
    return name.startswith(PARAMETERS)


def said(spec: TensorSpec) -> str:
    """A tensor's type and shape as a person reads it."""
    columns = f" with columns {', '.join(spec.columns[:8])}" if spec.columns else ""
    return f"{spec.datatype}[{', '.join('n' if size == -1 else str(size) for size in spec.shape)}]{columns}"


def _same_type(found: TensorSpec, wanted: TensorSpec) -> bool:
    return found.datatype == wanted.datatype
