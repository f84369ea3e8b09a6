"""How the answers of several members become one: each a pure function over arrays of equal shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from turnout.core.errors import InvalidInput
from turnout.core.signature import TensorSpec
from turnout.core.tensors import Array, dtype_name
from turnout.graph.edges import compatible, merged, said

Members = Sequence[Array]


def _mean(members: Members, weights: Sequence[float]) -> Array:
    dtype = np.result_type(np.float32, *members)
    total = sum(weights)
    found = np.zeros(members[0].shape, dtype)
    for member, weight in zip(members, weights, strict=True):
        found += member.astype(dtype, copy=False) * dtype.type(weight / total)
    return found


def _vote(members: Members, weights: Sequence[float]) -> Array:
    """The value with most weight, element by element; of equals the one that an earlier member has named."""
    stacked = np.stack(members)
    won = np.zeros(members[0].shape, np.intp)
    best = np.full(members[0].shape, -1.0)
    for place, member in enumerate(members):
        votes = np.zeros(members[0].shape)
        for other, weight in zip(members, weights, strict=True):
            votes += np.equal(member, other) * weight
        better = votes > best
        won[better], best[better] = place, votes[better]
    found: Array = np.take_along_axis(stacked, won[None], 0)[0]
    return found


def _argmax(members: Members, weights: Sequence[float]) -> Array:
    """The class with the highest mean score: the place along the last axis."""
    found: Array = _mean(members, weights).argmax(axis=-1).astype(np.int64)
    return found


def _stack(members: Members, weights: Sequence[float]) -> Array:
    """All of them side by side, along a new second axis."""
    return np.stack(members, axis=1)


_WAYS: Mapping[str, Callable[[Members, Sequence[float]], Array]] = {
    "mean": lambda members, _: _mean(members, [1.0] * len(members)),
    "weighted_mean": _mean,
    "median": lambda members, _: np.median(np.stack(members), axis=0).astype(np.result_type(np.float32, *members)),
    "min": lambda members, _: np.minimum.reduce(members),
    "max": lambda members, _: np.maximum.reduce(members),
    "vote": _vote,
    "argmax": _argmax,
    "stack": _stack,
    "first": lambda members, _: members[0],
}
WAYS: Sequence[str] = tuple(_WAYS)
#: What these are made of may be text too; the others need numbers.
ANY_TYPE = frozenset({"vote", "stack", "first"})
#: In these a member may count for more than another.
WEIGHTED = frozenset({"weighted_mean", "vote", "argmax"})
#: A missing member would change the shape of these, so they have no answer without it.
WHOLE = frozenset({"stack"})


def combine(way: str, members: Members, weights: Sequence[float]) -> Array:
    """One array of several of equal shape, whose first axis is the row. weights: above 0, one for each."""
    return _WAYS[way](members, weights)


def check_way(way: str, field: str) -> None:
    """Raises InvalidInput."""
    if way not in _WAYS:
        raise InvalidInput("no way to combine", field=field, expected=", ".join(WAYS), got=repr(way))


def combined_spec(name: str, way: str, specs: Sequence[TensorSpec], path: str) -> TensorSpec:
    """What comes of combining such tensors. Raises InvalidInput where they cannot be, with the path of the one."""
    first, shape = specs[0], specs[0].shape
    for number, spec in enumerate(specs):
        where = f"{path}.of[{number}]"
        if not compatible(shape, spec.shape):
            raise InvalidInput("of another shape than the first", field=where, expected=said(first), got=said(spec))
        if way in ANY_TYPE and spec.datatype != first.datatype:
            raise InvalidInput("of another type than the first", field=where, expected=said(first), got=said(spec))
        if way not in ANY_TYPE and spec.dtype.kind not in "fiu":
            raise InvalidInput(f"{way} needs numbers", field=where, expected="a tensor of numbers", got=said(spec))
        if first.columns and spec.columns and set(first.columns) == set(spec.columns) and first.columns != spec.columns:
            raise InvalidInput("its columns are in another order", field=where, expected=said(first), got=said(spec))
        shape = merged(shape, spec.shape)
    if way == "argmax":
        if len(shape) < 2:
            raise InvalidInput(
                "argmax needs a score for each class", field=f"{path}.of[0]", expected="a second axis", got=said(first)
            )
        return TensorSpec(name, "INT64", shape[:-1])
    if way == "stack":
        if not shape:
            raise InvalidInput("stack needs a row axis", field=f"{path}.of[0]", expected="one", got=said(first))
        return TensorSpec(name, first.datatype, (shape[0], len(specs), *shape[1:]), (), first.text)
    if way in ANY_TYPE:
        return TensorSpec(name, first.datatype, shape, first.columns, first.text)
    types = [spec.dtype for spec in specs]
    if way not in {"min", "max"}:
        types.append(np.dtype(np.float32))
    return TensorSpec(name, dtype_name(np.result_type(*types)), shape, first.columns)
