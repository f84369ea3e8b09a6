"""Saves the linear model as an MLflow model. Argument: the directory to make."""

from __future__ import annotations

import os
import sys
from typing import Any

import mlflow  # type: ignore[import-not-found]  # lives in the oracle's environment
import numpy as np
from mlflow.models import ModelSignature  # type: ignore[import-not-found]
from mlflow.types import ColSpec, Schema  # type: ignore[import-not-found]

sys.path.insert(0, os.environ["ORACLE_MODELS"])

from catalog import LINEAR_BIAS, LINEAR_COLUMNS, LINEAR_WEIGHTS


class Linear(mlflow.pyfunc.PythonModel):
    """The same weights as in the catalog, over a data frame."""

    def __init__(self) -> None:
        self.weights = LINEAR_WEIGHTS
        self.bias = LINEAR_BIAS

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        return np.asarray(model_input, dtype=np.float64) @ np.array(self.weights) + self.bias


if __name__ == "__main__":
    columns = Schema([ColSpec("double", name) for name in LINEAR_COLUMNS])
    mlflow.pyfunc.save_model(
        sys.argv[1],
        python_model=Linear(),
        signature=ModelSignature(inputs=columns, outputs=Schema([ColSpec("double")])),
        pip_requirements=[],
    )
