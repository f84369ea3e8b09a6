"""Exported JAX functions: several inputs and outputs, 64-bit numbers, free lengths, a fixed batch, mixed rows."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from keeping import ROWS, Keep

jax.config.update("jax_enable_x64", True)
keep = Keep(sys.argv[1])
random = np.random.default_rng(0)
first, second = (random.standard_normal(shape).astype(np.float32) for shape in ((4, 16), (16, 3)))
CLOSE = (1e-5, 1e-6)


@jax.jit
def network(x):
    probabilities = jax.nn.softmax(jnp.tanh(x @ first) @ second)
    return {"label": jnp.argmax(probabilities, -1), "probabilities": probabilities}


@jax.jit
def weighted(table, *, weight):
    return (table["a"] * weight[:, None]).sum(1) + table["b"], table["b"] > 3


@jax.jit
def centred(x):
    return x - x.mean(0)


def save(name, function, *shapes, **keywords):
    (Path(sys.argv[1]) / f"{name}.jax").write_bytes(export.export(function)(*shapes, **keywords).serialize())


def spec(shape, dtype):
    return jax.ShapeDtypeStruct(export.symbolic_shape(shape), dtype)


x = random.standard_normal((ROWS, 4)).astype(np.float32)
save("network", network, spec("b, 4", np.float32))
keep(
    "network",
    "network.jax",
    format="jax",
    rows={"input": x},
    expected={key: np.asarray(value) for key, value in network(x).items()},
    tolerance=CLOSE,
    inputs={"input": ["FP32", -1, 4]},
    served=True,
    wrong_suffix=".onnx",
)

table = {"a": random.standard_normal((ROWS, 5)), "b": random.integers(0, 9, ROWS)}
weight = random.standard_normal(ROWS)
scope = export.SymbolicScope()
b, n = export.symbolic_shape("b, n", scope=scope)
save(
    "weighted",
    weighted,
    {"a": jax.ShapeDtypeStruct((b, n), np.float64), "b": jax.ShapeDtypeStruct((b,), np.int64)},
    weight=jax.ShapeDtypeStruct((b,), np.float64),
)
total, many = weighted(table, weight=weight)
keep(
    "several-of-64-bits",
    "weighted.jax",
    format="jax",
    rows={**table, "weight": weight},
    expected={"output_0": np.asarray(total), "output_1": np.asarray(many)},
    tolerance=(1e-12, 1e-12),
    inputs={"a": ["FP64", -1, -1], "b": ["INT64", -1], "weight": ["FP64", -1]},
    served=True,
    damage=False,
)

save("fixed", network, jax.ShapeDtypeStruct((8, 4), np.float32))
keep(
    "fixed-batch",
    "fixed.jax",
    format="jax",
    rows={"input": x},
    expected={key: np.asarray(value) for key, value in network(x).items()},
    tolerance=CLOSE,
    inputs={"input": ["FP32", 8, 4]},
    few=8,
    damage=False,
)
save("centred", centred, spec("b, 4", np.float32))
keep(
    "mixed-rows",
    "centred.jax",
    format="jax",
    rows={"input": x},
    expected={"output": np.asarray(centred(x))},
    tolerance=CLOSE,
    batched=False,
    damage=False,
)
