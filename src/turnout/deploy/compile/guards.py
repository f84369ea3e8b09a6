"""The values on which a twin is not equal, found by trying: there the original goes on answering, or refusing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from turnout.core.signature import Signature
from turnout.core.tensors import DTYPES, join_rows
from turnout.deploy.compile.compare import Answers, Differences, Predict, Tolerance, answers, compare
from turnout.deploy.compile.rows import Edge
from turnout.deploy.compile.seen import Column, Seen
from turnout.formats.compiled_file import NATIVE, REFUSE, Guard

#: The smallest FP64 number that FP32 rounds to infinity; what a tree of scikit-learn refuses.
SINGLE_LIMIT = 3.4028235677973366e38


class Trials:
    """The edge rows of a model, with the original's answers, which are the same for every twin."""

    def __init__(self, edges: Sequence[Edge], original: Predict) -> None:
        self.edges = edges
        self.rows = join_rows([edge.rows for edge in edges]) if edges else {}
        self._original = answers(original, self.rows) if edges else Answers({}, {}, 0)

    @property
    def count(self) -> int:
        """How many rows there are."""
        return self._original.rows

    def judge(
        self, twin: Predict, signature: Signature, seen: Mapping[Column, Seen], tolerance: Tolerance
    ) -> tuple[list[Guard], Differences]:
        """The guards that the twin needs, and all differences on the edge rows without them."""
        if not self.edges:
            return [], Differences()
        its = answers(twin, self.rows)
        whole = compare(self._original, its, self.rows, signature, tolerance)
        actions: dict[tuple[str, str, float], dict[int, str]] = {}
        at = 0
        for edge in self.edges:
            size = len(next(iter(edge.rows.values())))
            action = self._action(its, at, at + size, edge, signature, tolerance)
            actions.setdefault((edge.column[0], edge.kind, edge.size), {})[edge.column[1]] = action
            at += size
        guards = [_guard(spec.name, spec.datatype, actions, seen) for spec in signature.inputs]
        return [guard for guard in guards if guard is not None], whole

    def _action(
        self, its: Answers, start: int, stop: int, edge: Edge, signature: Signature, tolerance: Tolerance
    ) -> str:
        mine = _part(self._original, start, stop)
        theirs = _part(its, start, stop)
        if len(mine.failed) == mine.rows:
            return REFUSE  # whatever the twin does: both refuse, and in the same words
        if compare(mine, theirs, edge.rows, signature, tolerance).inside:
            return ""
        return NATIVE


def _part(found: Answers, start: int, stop: int) -> Answers:
    outputs = {name: array[start:stop] for name, array in found.outputs.items()}
    return Answers(
        outputs, {row - start: said for row, said in found.failed.items() if start <= row < stop}, stop - start
    )


def _guard(
    name: str, datatype: str, actions: Mapping[tuple[str, str, float], Mapping[int, str]], seen: Mapping[Column, Seen]
) -> Guard | None:
    guard = Guard(name)
    if datatype == "BYTES":
        unseen = _worst(actions.get((name, "unseen", 0.0), {}))
        known = tuple(
            dict.fromkeys(text for column, found in seen.items() if column[0] == name for text in found.known)
        )
        words = any(found.words for column, found in seen.items() if column[0] == name)
        return replace(guard, unseen=unseen, known=() if words else known) if unseen else None
    nan, nan_columns = _odd(actions.get((name, "nan", 0.0), {}))
    inf, inf_columns = _odd(actions.get((name, "inf", 0.0), {}))
    guard = Guard(name, nan=nan, inf=inf, nan_columns=nan_columns, inf_columns=inf_columns)
    guard = _sized(guard, datatype, actions)
    return guard if guard.nan or guard.inf or guard.above else None


def _odd(found: Mapping[int, str]) -> tuple[str, tuple[int, ...]]:
    """What is done with NaN, or with infinity, and in which columns; () for all of them."""
    told = tuple(sorted(column for column, action in found.items() if action))
    return _worst(found), () if len(told) == len(found) else told


def _worst(found: Mapping[int, str]) -> str:
    """One action for all columns: none where none needs one; refusal where all that need one are refused."""
    told = {action for action in found.values() if action}
    if not told:
        return ""
    return NATIVE if NATIVE in told else REFUSE


def _sized(guard: Guard, datatype: str, actions: Mapping[tuple[str, str, float], Mapping[int, str]]) -> Guard:
    """The largest size up to which all columns are equal, and what happens above it."""
    sizes = sorted(size for name, kind, size in actions if name == guard.input and kind == "size")
    limit, above = math.inf, ""
    last = 0.0
    for size in sizes:
        action = _worst(actions[guard.input, "size", size])
        if action and not above:
            limit, above = last, action
        elif action == NATIVE or (above == REFUSE and not action):
            above = NATIVE
        last = size
    if above == REFUSE:
        if _next(sizes, limit) == SINGLE_LIMIT:
            limit = float(np.nextafter(SINGLE_LIMIT, 0.0))  # what rounds to infinity is refused, all else is not
        else:
            above = NATIVE  # where between the two sizes refusal begins, only the original knows
    largest: Any = DTYPES[datatype]
    if above and largest.kind == "f" and limit == 0.0:
        limit = 1.0
    return replace(guard, limit=limit, above=above)


def _next(sizes: Sequence[float], limit: float) -> float:
    return next((size for size in sizes if size > limit), math.inf)
