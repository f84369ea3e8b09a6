"""Symbols with parameters: a Module with its loss, a convolution of Gluon; with a numpy of their time."""

# ruff: noqa: E402  the library warns while it is imported

from __future__ import annotations

import json
import sys
import warnings

warnings.simplefilter("ignore")

import mxnet as mx
import numpy as np
from keeping import ROWS, Keep

keep = Keep(sys.argv[1])
random = np.random.default_rng(0)
mx.random.seed(0)
assert np.__version__.startswith("1.23."), np.__version__

x = random.standard_normal((ROWS, 4)).astype(np.float32)
classes = random.integers(0, 3, ROWS)
symbol = mx.sym.Activation(mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=16), act_type="relu")
symbol = mx.sym.SoftmaxOutput(mx.sym.FullyConnected(symbol, num_hidden=3), name="softmax")
module = mx.mod.Module(symbol)
module.fit(mx.io.NDArrayIter(x, classes, 100), num_epoch=2, initializer=mx.init.Xavier())
(keep.folder / "module").mkdir()
module.save_checkpoint(f"{keep.folder}/module/net", 2)
again = mx.mod.Module.load(f"{keep.folder}/module/net", 2)
again.bind([("data", x.shape)], for_training=False)
found = again.predict(mx.io.NDArrayIter(x, batch_size=ROWS)).asnumpy()
shared = {"format": "mxnet", "rows": {"data": x}, "expected": {"softmax_output": found}, "split": (1e-5, 1e-6)}
keep(
    "mxnet-module",
    "module",
    **shared,
    essential=["net-symbol.json", "net-0002.params"],
    inputs={"data": ["FP32", -1, 4]},
    served=True,
)
keep("mxnet-symbol-file", "module/net-symbol.json", **shared, damage=False)
keep("mxnet-params-file", "module/net-0002.params", **shared, damage=False)


(keep.folder / "epochs").mkdir()
module.save_checkpoint(f"{keep.folder}/epochs/net", 2)
module.fit(mx.io.NDArrayIter(x, classes, 100), num_epoch=1, force_init=False)
again.save_checkpoint(f"{keep.folder}/epochs/net", 3)
module.save_checkpoint(f"{keep.folder}/epochs/net", 1)
keep("mxnet-epochs", "epochs", **shared, damage=False)


def exported(name, block, *arrays):
    """A Gluon block as `export` writes it, and what it answers."""
    block.initialize(mx.init.Xavier())
    block.hybridize()
    answer = block(*(mx.nd.array(array) for array in arrays)).asnumpy()
    (keep.folder / name).mkdir()
    block.export(f"{keep.folder}/{name}/block")
    return answer


images = random.standard_normal((ROWS, 3, 8, 8)).astype(np.float32)
convolution = mx.gluon.nn.HybridSequential()
convolution.add(
    mx.gluon.nn.Conv2D(4, 3),
    mx.gluon.nn.BatchNorm(),
    mx.gluon.nn.GlobalAvgPool2D(),
    mx.gluon.nn.Dense(2, activation="tanh"),
)
answer = exported("convolution", convolution, images)
symbol_text = (keep.folder / "convolution" / "block-symbol.json").read_text()
head = json.loads(symbol_text)["nodes"][-1]["name"]
keep(
    "mxnet-convolution",
    "convolution",
    format="mxnet",
    rows={"data": images},
    expected={f"{head}_output": answer},
    split=(1e-5, 1e-6),
    damage=False,
    inputs={"data": ["FP32", -1, 3, -1, -1]},
)
