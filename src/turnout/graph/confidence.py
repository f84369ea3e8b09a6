"""How sure a model is of each row, from what it answers."""

from __future__ import annotations

from typing import Literal

import numpy as np

from turnout.core.errors import InvalidInput
from turnout.core.signature import TensorSpec
from turnout.core.tensors import Array
from turnout.graph.edges import said

Measure = Literal["max", "margin", "entropy", "value"]
MEASURES: tuple[Measure, ...] = ("max", "margin", "entropy", "value")
#: Rounding may put a probability so far outside of 0 to 1.
_ROUNDING = 1e-3


def confidence(values: Array, measure: Measure) -> Array:
    """One number a row, the higher the surer; what is no probability, such as NaN or a raw score, is never sure.

    max: the greatest probability; margin: that less the second; entropy: 1 less the entropy by its greatest possible;
    all three take one probability a row as that of one of two classes. value: the number itself.
    """
    rows = values.reshape(len(values), -1).astype(np.float64, copy=False)
    if measure == "value":
        return np.nan_to_num(rows[:, 0], nan=-np.inf, posinf=np.inf, neginf=-np.inf)
    if rows.shape[1] == 1:
        rows = np.concatenate([rows, 1.0 - rows], axis=1)
    if measure == "max":
        found = rows.max(axis=1)
    elif measure == "margin":
        ordered = np.partition(rows, -2, axis=1)
        found = ordered[:, -1] - ordered[:, -2]
    else:
        with np.errstate(divide="ignore", invalid="ignore"):
            nats = np.where(rows > 0.0, rows * np.log(rows), 0.0).sum(axis=1)
        found = 1.0 + nats / np.log(rows.shape[1])
    possible = ((rows >= -_ROUNDING) & (rows <= 1.0 + _ROUNDING)).all(axis=1)
    return np.where(possible, found, -np.inf)


def check_measured(spec: TensorSpec, measure: Measure, path: str) -> None:
    """Raises InvalidInput for an output that does not say how sure a row is."""
    if spec.dtype.kind not in "fiu":
        raise InvalidInput("not a number", field=path, expected="probabilities or a number", got=said(spec))
    if len(spec.shape) not in (1, 2) or (measure == "value" and spec.shape[1:] not in ((), (1,))):
        expected = "one number a row" if measure == "value" else "one probability a row, or one for each class"
        raise InvalidInput("of another shape", field=path, expected=expected, got=said(spec))
