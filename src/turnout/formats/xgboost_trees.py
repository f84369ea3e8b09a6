"""Checks the structure of a saved XGBoost model before XGBoost reads it.

XGBoost follows child and feature numbers in a file without looking whether they exist, and a damaged file ends
the process. Here every number that is later used as a place is checked to be one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from turnout.formats.ubjson import decode

MAX_FEATURES = 1 << 24
MAX_GROUPS = 1 << 16


class Unsound(ValueError):
    """A saved model whose parts do not fit together; the text says which part."""


def check_model(data: bytes, *, is_json: bool) -> None:
    """Raises ValueError where the model is cut off, or a part of it points to something that is not there."""
    document = json.loads(data) if is_json else decode(data)
    learner = _object(_object(document, "the model").get("learner"), "learner")
    settings = _object(learner.get("learner_model_param"), "learner_model_param")
    features = _count(settings, "num_feature", MAX_FEATURES)
    groups = max(1, _count(settings, "num_class", MAX_GROUPS), _count(settings, "num_target", MAX_GROUPS))
    _check_score(settings.get("base_score"), groups)
    for key in ("feature_names", "feature_types"):
        names = learner.get(key) or []
        if (
            not isinstance(names, list)
            or (names and len(names) != features)
            or any(not isinstance(n, str) for n in names)
        ):
            raise Unsound(f"{key} does not name {features} features")
    booster = _object(learner.get("gradient_booster"), "gradient_booster")
    name = booster.get("name")
    if name == "dart":
        _check_weights(booster)
        booster = _object(booster.get("gbtree"), "gbtree")
    model = _object(booster.get("model"), "gradient_booster.model")
    if name == "gblinear":
        weights = _numbers(model.get("weights"), "weights")
        if len(weights) != (features + 1) * groups:
            raise Unsound(f"{len(weights)} weights for {features} features and {groups} groups")
    elif name in {"gbtree", "dart"}:
        _check_forest(model, features, groups)
    else:
        raise Unsound(f"there is no booster {name!r}")


def _check_score(text: Any, groups: int) -> None:
    values = [float(part) for part in str(text or "0").strip("[]").split(",") if part.strip()]
    if len(values) not in (0, 1, groups):
        raise Unsound(f"{len(values)} base scores for {groups} groups")


def _check_weights(booster: Mapping[str, Any]) -> None:
    trees = _object(_object(booster.get("gbtree"), "gbtree").get("model"), "gbtree.model").get("trees")
    if len(_numbers(booster.get("weight_drop"), "weight_drop")) != len(trees or ()):
        raise Unsound("weight_drop does not have one weight for each tree")


def _check_forest(model: Mapping[str, Any], features: int, groups: int) -> None:
    trees = model.get("trees")
    settings = _object(model.get("gbtree_model_param"), "gbtree_model_param")
    count = _count(settings, "num_trees", 1 << 31)
    if not isinstance(trees, list) or len(trees) != count:
        raise Unsound(f"num_trees says {count}, and there are {len(trees or ())} trees")
    _count(settings, "num_parallel_tree", 1 << 31)
    info = _places(model.get("tree_info"), "tree_info", groups)
    if len(info) != count:
        raise Unsound(f"tree_info has {len(info)} entries for {count} trees")
    bounds = model.get("iteration_indptr")
    if bounds is not None:
        ends = _places(bounds, "iteration_indptr", count + 1)
        if len(ends) and (ends[0] != 0 or ends[-1] != count or bool(np.any(np.diff(ends) < 0))):
            raise Unsound("iteration_indptr does not run from 0 to the number of trees")
    for number, tree in enumerate(trees):
        try:
            _check_tree(_object(tree, "tree"), number, features, groups)
        except Unsound as problem:
            raise Unsound(f"tree {number}: {problem}") from None


def _check_tree(tree: Mapping[str, Any], number: int, features: int, groups: int) -> None:
    settings = _object(tree.get("tree_param"), "tree_param")
    nodes = _count(settings, "num_nodes", 1 << 31)
    if nodes < 1:
        raise Unsound("it has no nodes")
    if _count(settings, "num_feature", MAX_FEATURES) != features:
        raise Unsound(f"it was made for {settings.get('num_feature')} features, the model for {features}")
    if int(tree.get("id", number)) != number:
        raise Unsound(f"its id is {tree.get('id')}")
    vector = max(1, _count(settings, "size_leaf_vector", MAX_GROUPS))
    if vector not in (1, groups):
        raise Unsound(f"its leaves have {vector} values for {groups} groups")
    left, right = (_places(tree.get(key), key, nodes, -1) for key in ("left_children", "right_children"))
    if vector > 1:
        right = _without_leaves(tree, left, right, vector)
    split = _numbers(tree.get("split_indices"), "split_indices")
    lengths = {"left_children": left, "right_children": right, "split_indices": split}
    for key in ("split_conditions", "default_left"):
        lengths[key] = _numbers(tree.get(key), key)
    for key, values in lengths.items():
        if len(values) != nodes:
            raise Unsound(f"{key} has {len(values)} entries for {nodes} nodes")
    if tree.get("base_weights") is not None and len(_numbers(tree["base_weights"], "base_weights")) < nodes:
        raise Unsound("base_weights has fewer entries than there are nodes")
    inner = left != -1
    if bool(np.any(inner != (right != -1))):
        raise Unsound("a node has one child")
    children = np.concatenate([left[inner], right[inner]])
    if bool(np.any(children == 0)) or len(np.unique(children)) != len(children):
        raise Unsound("a node has two parents, or the root has one")
    if bool(np.any((split[inner] < 0) | (split[inner] >= features))):
        raise Unsound("a split asks for a feature that is not there")
    _check_parents(tree, left, right, inner, nodes)
    _check_categories(tree, nodes)


def _without_leaves(tree: Mapping[str, Any], left: Any, right: Any, vector: int) -> Any:
    """The right children of a tree whose leaves hold vectors: there, a leaf's own number stands in their place."""
    leaf = left == -1
    values = len(_numbers(tree.get("leaf_weights") if "leaf_weights" in tree else [], "leaf_weights"))
    if values and (values % vector or bool(np.any(right[leaf] < 0)) or int(right[leaf].max()) >= values // vector):
        raise Unsound("a leaf has no values")
    return np.where(leaf, -1, right) if values else right


def _check_parents(tree: Mapping[str, Any], left: Any, right: Any, inner: Any, nodes: int) -> None:
    if tree.get("parents") is None:
        return
    parents = _numbers(tree["parents"], "parents")
    if len(parents) != nodes:
        raise Unsound("parents does not have one entry for each node")
    at = np.flatnonzero(inner)
    if bool(np.any(parents[left[at]] != at)) or bool(np.any(parents[right[at]] != at)):
        raise Unsound("parents and children disagree")


def _check_categories(tree: Mapping[str, Any], nodes: int) -> None:
    """Each categorical split names a stretch of `categories`; the stretch must exist."""
    kinds = _numbers(tree.get("split_type", [0] * nodes), "split_type")
    if len(kinds) != nodes or bool(np.any((kinds != 0) & (kinds != 1))):
        raise Unsound("split_type does not have 0 or 1 for each node")
    values = _places(tree.get("categories", []), "categories", MAX_FEATURES)
    owners = _places(tree.get("categories_nodes", []), "categories_nodes", nodes)
    starts = _places(tree.get("categories_segments", []), "categories_segments", len(values) + 1)
    sizes = _places(tree.get("categories_sizes", []), "categories_sizes", len(values) + 1)
    if not len(owners) == len(starts) == len(sizes):
        raise Unsound("the categories' nodes, starts and sizes differ in number")
    if bool(np.any(starts + sizes > len(values))):
        raise Unsound("a split's categories are not there")
    if not np.array_equal(np.sort(owners), np.flatnonzero(kinds == 1)):
        raise Unsound("the categorical splits and their categories do not fit")


def _object(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise Unsound(f"{what} is missing or is not an object")
    return value


def _count(settings: Mapping[str, Any], key: str, limit: int) -> int:
    text = settings.get(key, "0")
    if not isinstance(text, str) or not text.isascii() or not text.isdigit() or int(text) > limit:
        raise Unsound(f"{key} is {text!r}, not a count")
    return int(text)


def _numbers(values: Any, what: str) -> Any:
    if not isinstance(values, (list, np.ndarray)):
        raise Unsound(f"{what} is missing or is not a list")
    array = np.asarray(values)
    if len(array) == 0:
        return array.astype(np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iufb":
        raise Unsound(f"{what} is not a list of numbers")
    return array


def _places(values: Sequence[int] | Any, what: str, limit: int, least: int = 0) -> Any:
    array = _numbers(values, what)
    if array.dtype.kind not in "iu":
        raise Unsound(f"{what} is not a list of whole numbers")
    array = array.astype(np.int64)
    if len(array) and (int(array.min()) < least or int(array.max()) >= limit):
        raise Unsound(f"{what} holds {int(array.min())} to {int(array.max())}; {least} to {limit - 1} exist")
    return array
