"""Networks of PyTorch and Keras for `turnout compile`: each is compiled, and its twin's answers are compared here.

Prints one line for each model: its name, and what came of it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

from turnout import formats
from turnout.deploy.compile.compiling import CompileOptions, compile_model
from turnout.formats import Artifact, LoadOptions

ROWS = np.random.default_rng(0).normal(0, 1, (1000, 6)).astype(np.float32)


def of_torch(folder: Path) -> dict[str, LoadOptions]:
    import torch

    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3), torch.nn.Softmax(1)
    ).eval()
    example = torch.from_numpy(ROWS[:2])
    torch.jit.script(net).save(str(folder / "script.pt"))
    rows = torch.export.Dim("rows", min=1, max=4096)
    program = torch.export.export(net, (example,), dynamic_shapes=({0: rows},))
    torch.export.save(program, folder / "program.pt2")
    return {"script.pt": LoadOptions(), "program.pt2": LoadOptions()}


def of_keras(folder: Path) -> dict[str, LoadOptions]:
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    import keras

    keras.utils.set_random_seed(0)
    left, right = keras.Input((6,), name="left"), keras.Input((6,), name="right")
    joined = keras.layers.Dense(8, activation="relu")(keras.layers.Concatenate()([left, right]))
    keras.Model([left, right], keras.layers.Dense(2, name="scores")(joined)).save(folder / "two.keras")
    layers = [keras.Input((6,)), keras.layers.Dense(16, activation="relu"), keras.layers.Dense(1, activation="sigmoid")]
    keras.Sequential(layers).save(folder / "net.keras")
    return {"net.keras": LoadOptions(), "two.keras": LoadOptions()}


def check(path: Path, options: LoadOptions, tried: frozenset[str]) -> str:
    target = path.with_suffix(".compiled")
    chosen = CompileOptions(generated=500, sizes=(1, 64), seconds=0.3, tried=tried)
    outcome = compile_model(Artifact.of(path), options, chosen, target, lambda _: None)
    if not outcome.adopted:
        return "; ".join(outcome.reasons)
    original, twin = formats.load(path, options), formats.load(target, options)
    assert twin.signature == original.signature
    rows = {spec.name: np.roll(ROWS, at, axis=0) for at, spec in enumerate(original.signature.inputs)}
    for size in (1000, 7, 1):
        part = {name: array[:size] for name, array in rows.items()}
        want, got = original.predict(part), twin.predict(part)
        for name, array in want.items():
            np.testing.assert_allclose(got[name], array, atol=1e-5, rtol=1e-4)
    return "adopted"


def main(folder: Path, kind: str) -> None:
    made = of_torch(folder) if kind == "torch" else of_keras(folder)
    for name, options in made.items():
        print(f"COMPILED {name} {check(folder / name, options, frozenset({'quantized'}))}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
