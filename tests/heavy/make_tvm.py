"""Compiled libraries: rows of free number, two inputs with a tuple of answers, a fixed batch."""

from __future__ import annotations

import sys

import numpy as np
import tvm
from keeping import ROWS, Keep
from tvm import relax
from tvm.relax.frontend import nn

keep = Keep(sys.argv[1])
random = np.random.default_rng(0)


class Layers(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 16)
        self.last = nn.Linear(16, 3)

    def forward(self, x):
        return nn.op.softmax(self.last(nn.op.relu(self.first(x))), axis=-1)


class Pair(nn.Module):
    def forward(self, left, right):
        return nn.op.add(left, right), nn.op.multiply(left, right)


def compiled(module, spec, name):
    """The library, and the function in it as TVM runs it."""
    program, parameters = module.export_tvm({"forward": spec})
    values = {
        key: tvm.runtime.tensor(random.standard_normal([int(size) for size in parameter.shape]).astype("float32"))
        for key, parameter in parameters
    }
    program = relax.transform.BindParams("forward", values)(program)
    path = f"{keep.folder}/{name}.so"
    tvm.compile(program, target="llvm").export_library(path)
    return relax.VirtualMachine(tvm.runtime.load_module(path), tvm.cpu())["forward"]


def answers(function, *arrays):
    found = function(*(tvm.runtime.tensor(array) for array in arrays))
    return [found.numpy()] if hasattr(found, "numpy") else [part.numpy() for part in found]


x = random.standard_normal((ROWS, 4)).astype(np.float32)
y = random.standard_normal((ROWS, 4)).astype(np.float32)
layers = compiled(Layers(), {"x": nn.spec.Tensor(["n", 4], "float32")}, "layers")
keep(
    "tvm-layers",
    "layers.so",
    format="tvm",
    rows={"x": x},
    expected={"output": answers(layers, x)[0]},
    split=(1e-5, 1e-6),
    trust_pickle=True,
    wrong_suffix=".onnx",
    inputs={"x": ["FP32", -1, 4]},
    served=True,
)
pair = {"left": nn.spec.Tensor(["n", 4], "float32"), "right": nn.spec.Tensor(["n", 4], "float32")}
both = answers(compiled(Pair(), pair, "pair"), x, y)
keep(
    "tvm-pair",
    "pair.so",
    format="tvm",
    rows={"left": x, "right": y},
    expected={"output_0": both[0], "output_1": both[1]},
    trust_pickle=True,
    damage=False,
    served=True,
)
fixed = compiled(Layers(), {"x": nn.spec.Tensor([2, 4], "float32")}, "fixed")
parts = [answers(fixed, x[at : at + 2])[0] for at in range(0, ROWS, 2)]
keep(
    "tvm-fixed",
    "fixed.so",
    format="tvm",
    rows={"x": x},
    expected={"output": np.concatenate(parts)},
    trust_pickle=True,
    damage=False,
    inputs={"x": ["FP32", 2, 4]},
    few=2,
)
