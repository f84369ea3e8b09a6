"""How the answers of several members become one: each a pure function over arrays of equal shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from turnout.core.errors import InvalidInput
from turnout.core.tensors import Array

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
#: A missing member would change the shape of these, so they have no answer without it.
WHOLE = frozenset({"stack"})


def combine(way: str, members: Members, weights: Sequence[float]) -> Array:
    """One array of several of equal shape, whose first axis is the row. weights: above 0, one for each."""
    return _WAYS[way](members, weights)


def check_way(way: str, field: str) -> None:
    """Raises InvalidInput."""
    if way not in _WAYS:
        raise InvalidInput("no way to combine", field=field, expected=", ".join(WAYS), got=repr(way))
