"""What the models of the catalog compute, in numpy: the same code for every oracle's runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
from catalog import LINEAR_BIAS, LINEAR_WEIGHTS, LOGISTIC_BIAS, LOGISTIC_WEIGHTS


def compute(kind: str, inputs: dict[str, Any]) -> dict[str, Any]:
    """The outputs of a model of that kind, by name."""
    if kind == "identity":
        return {"OUTPUT0": inputs["INPUT0"]}
    if kind == "sum_difference":
        return {
            "OUTPUT0": inputs["INPUT0"] + inputs["INPUT1"],
            "OUTPUT1": inputs["INPUT0"] - inputs["INPUT1"],
        }
    if kind == "logistic":
        logit = inputs["x"].astype(np.float64) @ np.array(LOGISTIC_WEIGHTS) + LOGISTIC_BIAS
        positive = 1.0 / (1.0 + np.exp(-logit))
        probabilities = np.stack([1.0 - positive, positive], axis=-1).astype(np.float32)
        return {"label": (positive > 0.5).astype(np.int64), "probabilities": probabilities}
    if kind == "linear":
        return {"score": inputs["x"] @ np.array(LINEAR_WEIGHTS) + LINEAR_BIAS}
    raise ValueError("the secret of the model")
