"""What converters round or leave out of trees is put back: FP64 thresholds, the side of missing values, exact votes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from turnout.core.tensors import Array
from turnout.deploy.compile.graph import ELEMENTS, onnx_library

_BAND = float(np.float32(1e-35))
_BELOW_BAND = float(np.nextafter(-_BAND, -1.0))
_ROUNDED = ("nodes_values", "nodes_hitrates", "base_values", "target_weights", "class_weights")


def ensembles(model: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The tree nodes of a graph with their attributes by name."""
    for node in model.graph.node:
        if node.op_type.startswith("TreeEnsemble"):
            yield node, {attribute.name: attribute for attribute in node.attribute}


def widened(model: Any, thresholds: Mapping[int, Array] | None = None, *, zero_band: bool = False) -> None:
    """Turns the trees of a graph from FP32 into FP64, in place.

    `thresholds` are the exact ones of each feature: each rounded one in the graph gets back the one it was. Two that
    round to the same number stay as they are; the proof then says whether it matters. `zero_band`: numbers no larger
    than 1e-35 count as zero, as LightGBM has it, so the band's lower end is on the side of zero.
    """
    exact = {feature: _by_rounded(values) for feature, values in (thresholds or {}).items()}
    for node, held in ensembles(model):
        features = list(held["nodes_featureids"].ints)
        for name in _ROUNDED:
            attribute = held.get(name)
            if attribute is None or not attribute.floats:
                continue
            numbers = [float(v) for v in attribute.floats]
            if name == "nodes_values":
                numbers = [exact.get(f, {}).get(v, v) for f, v in zip(features, numbers, strict=True)]
                numbers = [_BELOW_BAND if zero_band and v == -_BAND else v for v in numbers]
            node.attribute.remove(attribute)
            node.attribute.append(_doubles(f"{name}_as_tensor", numbers))
    _with_tensors(model)


def _by_rounded(values: Array) -> dict[float, float]:
    """The only exact number behind each rounded one; converters round to the nearest or downwards."""
    found: dict[float, set[float]] = {}
    with np.errstate(over="ignore"):
        for value in np.asarray(values, dtype=np.float64).tolist():
            nearest = np.float32(value)
            below = np.nextafter(nearest, np.float32(-np.inf)) if float(nearest) > value else nearest
            for key in {float(nearest), float(below)}:
                found.setdefault(key, set()).add(value)
    return {key: next(iter(exact)) for key, exact in found.items() if len(exact) == 1}


def _doubles(name: str, numbers: Sequence[float]) -> Any:
    onnx = onnx_library()
    tensor = onnx.helper.make_tensor(name, ELEMENTS["FP64"], [len(numbers)], list(numbers))
    return onnx.helper.make_attribute(name, tensor)


def _with_tensors(model: Any) -> None:
    """Trees have FP64 attributes since version 3 of their operators."""
    for entry in model.opset_import:
        if entry.domain == "ai.onnx.ml":
            entry.version = 3


def missing_goes(model: Any, trees: Sequence[Any]) -> None:
    """Says in a graph of scikit-learn's trees on which side a missing value goes, which its converter leaves out.

    `trees` in the order of the graph. Where their sizes do not fit, the graph stays as it is, and the proof judges it.
    """
    waiting = list(trees)
    for node, held in ensembles(model):
        numbers = list(held["nodes_treeids"].ints)
        order = list(dict.fromkeys(numbers))
        mine, waiting = waiting[: len(order)], waiting[len(order) :]
        sizes = [tree.node_count for tree in mine]
        if sizes != [numbers.count(number) for number in order]:
            return
        by_tree = dict(zip(order, mine, strict=True))
        attribute = held.get("nodes_missing_value_tracks_true") or node.attribute.add(
            name="nodes_missing_value_tracks_true", type=held["nodes_treeids"].type
        )
        places = zip(numbers, held["nodes_nodeids"].ints, strict=True)
        sides = [int(bool(by_tree[number].missing_go_to_left[at])) for number, at in places]
        del attribute.ints[:]
        attribute.ints.extend(sides)


def exact_votes(model: Any, trees: Sequence[Any], classes: Sequence[Any]) -> bool:
    """Has a forest's graph add up what each tree says as scikit-learn does: in FP64, divided at the end.

    Its converter divides first, in FP32, and lets the class be decided there: where two classes have the same number
    of votes, which is often, the rounding would decide. False where the graph is not one node of these trees.
    """
    found = list(ensembles(model))
    if len(found) != 1 or found[0][0].op_type != "TreeEnsembleClassifier":
        return False
    node, held = found[0]
    counts = list(held["nodes_treeids"].ints)
    order = list(dict.fromkeys(counts))
    if [tree.node_count for tree in trees] != [counts.count(number) for number in order]:
        return False
    helper = onnx_library().helper
    places: list[tuple[int, int, int, float]] = []
    for number, tree in zip(order, trees, strict=True):
        for leaf in np.flatnonzero(tree.children_left == -1).tolist():
            for at, weight in enumerate(tree.value[leaf, 0].tolist()):
                if weight:
                    places.append((number, leaf, at, weight))
    sums = helper.make_node(
        "TreeEnsembleRegressor",
        [node.input[0]],
        ["turnout_votes"],
        domain="ai.onnx.ml",
        n_targets=len(classes),
        target_treeids=[place[0] for place in places],
        target_nodeids=[place[1] for place in places],
        target_ids=[place[2] for place in places],
    )
    sums.attribute.extend(held[name] for name in held if name.startswith("nodes_") and name != "nodes_hitrates")
    sums.attribute.append(_doubles("target_weights_as_tensor", [place[3] for place in places]))
    label, probabilities = node.output
    kind = "STRING" if isinstance(classes[0], str) else "INT64"
    labels = [value.encode() for value in classes] if kind == "STRING" else [int(value) for value in classes]
    model.graph.initializer.append(
        helper.make_tensor("turnout_classes", ELEMENTS["BYTES" if kind == "STRING" else "INT64"], [len(labels)], labels)
    )
    model.graph.initializer.append(helper.make_tensor("turnout_trees", ELEMENTS["FP64"], [1], [float(len(trees))]))
    after = [
        helper.make_node("Cast", ["turnout_votes"], ["turnout_sums"], to=ELEMENTS["FP64"]),
        helper.make_node("Div", ["turnout_sums", "turnout_trees"], [probabilities]),
        helper.make_node("ArgMax", ["turnout_votes"], ["turnout_best"], axis=1, keepdims=0),
        helper.make_node("Gather", ["turnout_classes", "turnout_best"], [label], axis=0),
    ]
    at = next(place for place, one in enumerate(model.graph.node) if one.output[0] == label)
    nodes = [*list(model.graph.node)[:at], sums, *after, *list(model.graph.node)[at + 1 :]]
    model.graph.ClearField("node")
    model.graph.node.extend(nodes)
    widened(model)
    return True


def imputed(model: Any, statistics: Sequence[float]) -> None:
    """Replaces Imputer nodes, which run in FP32 only, by a choice between a value and what fills it, in FP64.

    `statistics` are the exact fills; the graph has them rounded.
    """
    onnx = onnx_library()
    exact = _by_rounded(np.asarray(statistics, dtype=np.float64))
    nodes: list[Any] = []
    for number, node in enumerate(list(model.graph.node)):
        if node.op_type != "Imputer":
            nodes.append(node)
            continue
        held = {attribute.name: attribute for attribute in node.attribute}
        fills = [exact.get(float(v), float(v)) for v in held["imputed_value_floats"].floats]
        name = f"turnout_fills_{number}"
        model.graph.initializer.append(onnx.helper.make_tensor(name, ELEMENTS["FP64"], [1, len(fills)], fills))
        nodes.append(onnx.helper.make_node("IsNaN", [node.input[0]], [f"{name}_missing"]))
        nodes.append(onnx.helper.make_node("Where", [f"{name}_missing", name, node.input[0]], [node.output[0]]))
    model.graph.ClearField("node")
    model.graph.node.extend(nodes)
