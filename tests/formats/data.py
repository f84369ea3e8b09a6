"""Real data for real models: scikit-learn's bundled sets, and a table of numbers and text made of one of them."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris

from turnout.formats import LoadOptions

TRUSTED = LoadOptions(trust_pickle=True)


@cache
def cancer() -> tuple[pd.DataFrame, np.ndarray]:
    """569 rows of 30 named columns, two classes."""
    return load_breast_cancer(return_X_y=True, as_frame=True)


@cache
def iris() -> tuple[np.ndarray, np.ndarray]:
    """150 rows of 4 numbers, three classes."""
    return load_iris(return_X_y=True)


@cache
def diabetes() -> tuple[np.ndarray, np.ndarray]:
    """442 rows of 10 numbers, one number to predict."""
    return load_diabetes(return_X_y=True)


@cache
def mixed() -> tuple[pd.DataFrame, np.ndarray]:
    """150 rows of numbers, text and a column nobody needs; two classes with text labels."""
    features, classes = iris()
    frame = pd.DataFrame(
        {
            "id": np.arange(len(features)),
            "length": features[:, 0],
            "width": features[:, 1],
            "colour": np.array(["rot", "grün", "blau"])[(features[:, 2] * 10).astype(int) % 3],
        }
    )
    return frame, np.where(classes == 0, "near", "far")


def as_bytes(values) -> np.ndarray:
    """A BYTES column of text."""
    made = np.empty(len(values), dtype=object)
    made[:] = [str(value).encode() for value in values]
    return made
