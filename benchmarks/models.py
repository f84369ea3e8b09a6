"""The models that every server of the benchmark serves: three ONNX files, the same weights in every run.

Run as a program it writes them: `python benchmarks/models.py DIRECTORY`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Floats = NDArray[np.float32]


def _model(name: str, features: int, outputs: int, nodes: list[onnx.NodeProto], weights: dict[str, Floats]) -> bytes:
    """A graph from `x` [-1, features] to `probabilities` [-1, outputs]."""
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", features])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["rows", outputs])],
        [numpy_helper.from_array(value, key) for key, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _dense(sizes: list[int], scale: float) -> tuple[list[onnx.NodeProto], dict[str, Floats]]:
    """Fully connected sizes with ReLU between and a softmax at the end."""
    random = np.random.default_rng(20240229)
    nodes, weights, flowing = [], {}, "x"
    for index, (before, after) in enumerate(pairwise(sizes)):
        weights[f"w{index}"] = random.normal(0, scale / np.sqrt(before), (before, after)).astype(np.float32)
        weights[f"b{index}"] = random.normal(0, 0.1, after).astype(np.float32)
        nodes.append(helper.make_node("Gemm", [flowing, f"w{index}", f"b{index}"], [f"d{index}"]))
        flowing = f"d{index}"
        if index < len(sizes) - 2:
            nodes.append(helper.make_node("Relu", [flowing], [f"r{index}"]))
            flowing = f"r{index}"
    nodes.append(helper.make_node("Softmax", [flowing], ["probabilities"], axis=-1))
    return nodes, weights


def tiny() -> bytes:
    """Multinomial logistic regression: 4 features, 3 classes."""
    return _model("tiny", 4, 3, *_dense([4, 3], 1.5))


def mlp() -> bytes:
    """784-512-512-10, about 0.7 million weights: 0.1 ms for one row."""
    return _model("mlp", 784, 10, *_dense([784, 512, 512, 10], 1.6))


def heavy() -> bytes:
    """24 3x3 convolutions over 28x28 with 64 channels: 10 to 20 ms for one row, and n times that for n rows.

    A convolution and not a bigger matrix, so that joining requests gains nothing: what is measured is only what
    the server adds.
    """
    random = np.random.default_rng(20240301)
    weights: dict[str, Floats] = {}
    nodes = [helper.make_node("Reshape", ["x", "image"], ["c"])]
    flowing, channels = "c", 1
    for index in range(24):
        scale = np.sqrt(2 / (9 * channels))
        weights[f"k{index}"] = random.normal(0, scale, (64, channels, 3, 3)).astype(np.float32)
        nodes.append(helper.make_node("Conv", [flowing, f"k{index}"], [f"c{index}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"]))
        flowing, channels = f"r{index}", 64
    weights["w"] = random.normal(0, 0.4, (64, 10)).astype(np.float32)
    nodes += [
        helper.make_node("GlobalAveragePool", [flowing], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=-1),
    ]
    model = onnx.load_from_string(_model("heavy", 784, 10, nodes, {**weights, "image": np.zeros(0, np.float32)}))
    image = next(tensor for tensor in model.graph.initializer if tensor.name == "image")
    image.CopyFrom(numpy_helper.from_array(np.array([-1, 1, 28, 28], np.int64), "image"))
    return bytes(model.SerializeToString())


MODELS: dict[str, Callable[[], bytes]] = {"tiny": tiny, "mlp": mlp, "heavy": heavy}
FEATURES = {"tiny": 4, "mlp": 784, "heavy": 784, "forest": 20}
CLASSES = {"tiny": 3, "mlp": 10, "heavy": 10}


def write(directory: Path) -> None:
    """Writes NAME.onnx for each model into `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, make in MODELS.items():
        (directory / f"{name}.onnx").write_bytes(make())


if __name__ == "__main__":
    write(Path(sys.argv[1]))
