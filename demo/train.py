"""Trains two real models on scikit-learn's bundled data: breast cancer (kept as scikit-learn) and digits (as ONNX)."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import skops.io
from skl2onnx import to_onnx
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


class Trained(NamedTuple):
    """A model on disk, rows it has never seen, and their true classes."""

    path: Path
    rows: npt.NDArray[np.float64]
    truth: npt.NDArray[np.int64]
    columns: tuple[str, ...]


def cancer(folder: Path) -> Trained:
    """Scaled logistic regression on 30 measurements, saved by skops: no pickle."""
    data = load_breast_cancer()
    seen, unseen, known, truth = train_test_split(data.data, data.target, random_state=7)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(seen, known)
    path = folder / "cancer.skops"
    skops.io.dump(model, path)
    return Trained(path, unseen, truth, tuple(data.feature_names))


def digits(folder: Path) -> Trained:
    """A small neural network on 8x8 pictures of digits, saved as ONNX."""
    data = load_digits()
    seen, unseen, known, truth = train_test_split(data.data / 16.0, data.target, random_state=7)
    model = MLPClassifier((64,), max_iter=400, random_state=7).fit(seen, known)
    path = folder / "digits.onnx"
    graph = to_onnx(model, seen[:1].astype(np.float32), options={"zipmap": False})
    path.write_bytes(graph.SerializeToString())
    return Trained(path, unseen, truth, ())
