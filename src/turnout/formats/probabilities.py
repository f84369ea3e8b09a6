"""What the boosting libraries' raw answers become: `label` and `probabilities` for classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from turnout.core.tensors import Array, Tensors


def two_classes(positive: Array) -> Tensors:
    """From the probability of class 1. A tie is class 0, as the libraries' own classifiers decide."""
    probabilities = np.empty((len(positive), 2), dtype=positive.dtype)
    np.subtract(1, positive, out=probabilities[:, 0])
    probabilities[:, 1] = positive
    return {"label": (positive > 0.5).astype(np.int64), "probabilities": probabilities}


def classes(probabilities: Array) -> Tensors:
    """From one column of probabilities for each class; the label is the column's number."""
    return {"label": np.argmax(probabilities, axis=1).astype(np.int64), "probabilities": probabilities}


def many_labels(probabilities: Array) -> Tensors:
    """From one independent probability for each target: a target is on above one half."""
    return {"label": (probabilities > 0.5).astype(np.int64), "probabilities": probabilities}


def softmax(margins: Array) -> Array:
    """Probabilities from margins, row by row."""
    shifted = np.exp(margins - margins.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def numbers_of(count: int) -> Sequence[str]:
    """The names of classes that a file only counts."""
    return [str(number) for number in range(count)]
