"""The numbers at which trees decide, by feature: there two engines differ first."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from turnout.core.tensors import Array

Thresholds = dict[int, Array]


def _gathered(pairs: Iterator[tuple[int, float]]) -> Thresholds:
    found: dict[int, set[float]] = {}
    for feature, value in pairs:
        if np.isfinite(value):
            found.setdefault(feature, set()).add(value)
    return {feature: np.array(sorted(values)) for feature, values in found.items()}


def of_lightgbm(booster: Any) -> Thresholds:
    """From a LightGBM Booster, in FP64."""

    def walk(node: dict[str, Any]) -> Iterator[tuple[int, float]]:
        waiting = [node]
        while waiting:
            at = waiting.pop()
            if "split_feature" in at:
                if isinstance(at["threshold"], (int, float)):
                    yield int(at["split_feature"]), float(at["threshold"])
                waiting += [at["left_child"], at["right_child"]]

    trees = booster.dump_model()["tree_info"]
    return _gathered(pair for tree in trees for pair in walk(tree["tree_structure"]))


def of_xgboost(booster: Any) -> Thresholds:
    """From an XGBoost Booster, in FP32 (given as FP64)."""
    learner = json.loads(bytes(booster.save_raw("json")))["learner"]
    model = learner["gradient_booster"].get("model", {})
    if "gbtree" in learner["gradient_booster"]:  # dart keeps its trees one level further down
        model = learner["gradient_booster"]["gbtree"]["model"]

    def pairs() -> Iterator[tuple[int, float]]:
        for tree in model.get("trees", ()):
            for feature, value, left in zip(
                tree["split_indices"], tree["split_conditions"], tree["left_children"], strict=True
            ):
                if left != -1:
                    yield int(feature), float(np.float32(value))

    return _gathered(pairs())


def of_catboost(model: Any) -> Thresholds:
    """From a CatBoost model: the borders of its numeric columns."""
    return {int(feature): np.array(values, dtype=np.float64) for feature, values in model.get_borders().items()}


def of_sklearn(estimator: Any) -> Thresholds:
    """From one of scikit-learn's trees or ensembles of them, or a boosting library's estimator; {} for any other."""
    if hasattr(estimator, "get_booster"):
        return of_xgboost(estimator.get_booster())
    if hasattr(estimator, "booster_"):
        return of_lightgbm(estimator.booster_)
    if hasattr(estimator, "_predictors"):
        return _gathered(_histogram(estimator))
    return _gathered(pair for tree in trees_of(estimator) for pair in _decisions(tree))


def trees_of(estimator: Any) -> Iterator[Any]:
    """The fitted trees of one of scikit-learn's estimators, in its order."""
    tree = getattr(estimator, "tree_", None)
    if tree is not None:
        yield tree
        return
    inner = getattr(estimator, "estimators_", None)
    for one in np.ravel(np.asarray(inner, dtype=object)) if inner is not None else ():
        if hasattr(one, "tree_") or hasattr(one, "estimators_"):
            yield from trees_of(one)


def _decisions(tree: Any) -> Iterator[tuple[int, float]]:
    used = tree.children_left != -1
    return zip(tree.feature[used].tolist(), tree.threshold[used].tolist(), strict=True)


def _histogram(estimator: Any) -> Iterator[tuple[int, float]]:
    for iteration in estimator._predictors:  # noqa: SLF001  histogram boosting says its thresholds nowhere else
        for predictor in iteration:
            nodes = predictor.nodes
            used = (nodes["is_leaf"] == 0) & (nodes["is_categorical"] == 0)
            yield from zip(nodes["feature_idx"][used].tolist(), nodes["num_threshold"][used].tolist(), strict=True)
