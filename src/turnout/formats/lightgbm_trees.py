"""Checks the structure of a LightGBM text model before LightGBM follows what a damaged file says."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

_OF_LEAVES = ("leaf_weight", "leaf_count")
_OF_NODES = ("split_gain", "internal_value", "internal_weight", "internal_count")
MAX_LEAVES = 1 << 24


class Unsound(ValueError):
    """A saved model whose parts do not fit together; the text says which part."""


def check_text(text: str) -> None:
    """Raises ValueError where the model is cut off, or a part of it points to something that is not there."""
    if "\0" in text:
        raise Unsound("there are zero bytes in it")  # the library would take the first for the end of the text
    body, found, rest = text.partition("\nend of trees")
    if not found:
        raise Unsound("the file is cut off before its end of trees")
    _check_parameters(rest)
    head, *trees = re.split(r"\n\n*Tree=", body)
    settings = _entries(head)
    features = _whole(settings, "max_feature_idx") + 1
    names = settings.get("feature_names", "").split(" ")
    if len(names) != features or len(settings.get("feature_infos", "").split(" ")) != features:
        raise Unsound(f"it does not name {features} features")
    if _whole(settings, "num_class") < 1 or _whole(settings, "num_tree_per_iteration") < 1:
        raise Unsound("it has no classes")
    sizes = settings.get("tree_sizes", "").split()
    if len(sizes) != len(trees):
        raise Unsound(f"tree_sizes names {len(sizes)} trees, and there are {len(trees)}")
    for number, tree in enumerate(trees):
        first, _, rest = tree.partition("\n")
        if first.strip() != str(number):
            raise Unsound(f"tree {number} is called {first.strip()[:20]!r}")
        try:
            _check_tree(_entries(rest), features)
        except ValueError as problem:
            raise Unsound(f"tree {number}: {problem}") from None
    _check_sizes(text, body, sizes)


def _check_parameters(rest: str) -> None:
    """The parameters end where they say, and each is a name and a value: LightGBM reads on until it finds their end."""
    _, found, block = rest.partition("\nparameters:")
    if not found:
        return
    lines, ended, _ = block.partition("\nend of parameters")
    if not ended:
        raise Unsound("the file is cut off before its end of parameters")
    for line in lines.splitlines():
        if line.strip() and not re.fullmatch(r"\[\w+: .*\]", line.strip()):
            raise Unsound(f"the parameter {line.strip()[:40]!r} is damaged")


def _check_sizes(text: str, body: str, sizes: list[str]) -> None:
    """The sizes are byte offsets that LightGBM jumps by: each tree must start where they say."""
    raw = text.encode()
    at = len(body[: body.find("\nTree=") + 1].encode()) if sizes else 0
    for number, size in enumerate(sizes):
        if not raw.startswith(f"Tree={number}\n".encode(), at):
            raise Unsound(f"tree_sizes does not lead to tree {number}")
        at += int(size)
    if sizes and not raw[at:].lstrip().startswith(b"end of trees"):
        raise Unsound("tree_sizes does not lead to the end of the trees")


def _entries(block: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in block.split("\n"):
        key, equals, value = line.partition("=")
        if equals:
            if key in found:
                raise Unsound(f"{key} stands twice")
            found[key] = value.strip("\r")
    return found


def _whole(settings: Mapping[str, str], key: str, limit: int = MAX_LEAVES) -> int:
    text = settings.get(key, "")
    if not text.isascii() or not text.isdigit() or int(text) > limit:
        raise Unsound(f"{key} is {text[:20]!r}, not a count")
    return int(text)


def _row(tree: Mapping[str, str], key: str, length: int) -> npt.NDArray[np.float64]:
    values = np.array([float(part) for part in tree.get(key, "").split()])
    if len(values) != length:
        raise Unsound(f"{key} has {len(values)} entries, not {length}")
    return values


def _places(tree: Mapping[str, str], key: str, length: int) -> npt.NDArray[np.int64]:
    return np.array([int(part) for part in _texts(tree, key, length)], dtype=np.int64)


def _texts(tree: Mapping[str, str], key: str, length: int) -> list[str]:
    parts = tree.get(key, "").split()
    if len(parts) != length:
        raise Unsound(f"{key} has {len(parts)} entries, not {length}")
    return parts


def _check_tree(tree: Mapping[str, str], features: int) -> None:
    leaves = _whole(tree, "num_leaves")
    if leaves < 1:
        raise Unsound("it has no leaves")
    _row(tree, "leaf_value", leaves)
    inner = leaves - 1
    for key, length in (*((k, leaves) for k in _OF_LEAVES), *((k, inner) for k in _OF_NODES), ("shrinkage", 1)):
        if tree.get(key):
            _row(tree, key, length)  # unused in a prediction, but LightGBM ends the process over a letter in them
    if inner == 0:
        return
    splits = _places(tree, "split_feature", inner)
    if splits.min() < 0 or splits.max() >= features:
        raise Unsound("a split asks for a feature that is not there")
    _row(tree, "threshold", inner)
    kinds = _places(tree, "decision_type", inner)
    children = np.concatenate([_places(tree, "left_child", inner), _places(tree, "right_child", inner)])
    below, ends = children[children >= 0], ~children[children < 0]
    # Every node but the root has one parent, and so has every leaf: then what hangs together is a tree.
    if not np.array_equal(np.sort(below), np.arange(1, inner)) or not np.array_equal(np.sort(ends), np.arange(leaves)):
        raise Unsound("its children are not a tree")
    if len(below) and bool(np.any(below <= np.tile(np.arange(inner), 2)[children >= 0])):
        raise Unsound("a child stands before its parent")
    _check_categories(tree, kinds)


def _check_categories(tree: Mapping[str, str], kinds: npt.NDArray[np.int64]) -> None:
    count = _whole(tree, "num_cat") if "num_cat" in tree else 0
    by_category = kinds & 1 == 1
    if not count:
        if bool(by_category.any()):
            raise Unsound("a split is by categories, and there are none")
        return
    bounds = _places(tree, "cat_boundaries", count + 1)
    words = tree.get("cat_threshold", "").split()
    if bounds[0] != 0 or bool(np.any(np.diff(bounds) < 0)) or bounds[-1] != len(words):
        raise Unsound("cat_boundaries does not fit cat_threshold")
    chosen = np.array([float(part) for part in tree["threshold"].split()])[by_category]
    if len(chosen) and (chosen.min() < 0 or chosen.max() >= count):
        raise Unsound("a split's categories are not there")
