"""Trained models with their own predict, each saved in its format: what every door has to answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import lightgbm
import numpy as np
import onnx
import onnxruntime
import skops.io
import xgboost
from skl2onnx import to_onnx
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPRegressor

WIDTH = 4


@dataclass(frozen=True)
class Known:
    """A saved model. `predict` is the library's own; it gives one number, or one text, for each row.

    `output` is the output that holds these. Every row has an answer of its own, so a mix-up shows.
    """

    name: str
    path: Path
    input: str
    datatype: str
    output: str
    predict: Callable[[np.ndarray], np.ndarray]

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.float32 if self.datatype == "FP32" else np.float64)

    def check(self, rows: np.ndarray, answer: list | np.ndarray) -> None:
        """Equal, to the last bits of a float32: how many rows run together decides about those."""
        wanted = self.predict(rows.astype(self.dtype))
        if wanted.dtype.kind in "UO":
            assert [str(one) for one in answer] == [str(one) for one in wanted]
        else:
            np.testing.assert_allclose(np.asarray(answer, dtype=np.float64), wanted, rtol=2e-6, atol=1e-6)


def _save(folder: Path) -> list[Known]:
    table, classes = load_iris(return_X_y=True)
    chance = np.random.default_rng(0)
    numbers = table @ chance.normal(size=WIDTH) + chance.normal(size=len(table))
    forest = RandomForestRegressor(20, random_state=0).fit(table, numbers)
    skops.io.dump(forest, folder / "forest.skops")
    flowers = LogisticRegression(max_iter=500).fit(table, np.array(["setosa", "versicolor", "virginica"])[classes])
    skops.io.dump(flowers, folder / "flowers.skops")
    boosted = xgboost.XGBRegressor(n_estimators=30, nthread=1).fit(table, numbers)
    boosted.save_model(folder / "boosted.json")
    light = lightgbm.LGBMRegressor(n_estimators=30, min_child_samples=2, verbose=-1, num_threads=1).fit(table, numbers)
    light.booster_.save_model(folder / "light.txt")
    net = MLPRegressor(hidden_layer_sizes=(16,), max_iter=2000, random_state=0).fit(table.astype(np.float32), numbers)
    graph = to_onnx(net, table[:1].astype(np.float32))
    onnx.save(graph, folder / "net.onnx")
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    return [
        Known("forest", folder / "forest.skops", "x", "FP64", "prediction", forest.predict),
        Known("flowers", folder / "flowers.skops", "x", "FP64", "label", flowers.predict),
        Known("boosted", folder / "boosted.json", "x", "FP32", "prediction", boosted.predict),
        Known("light", folder / "light.txt", "x", "FP64", "prediction", light.booster_.predict),
        Known(
            "net",
            folder / "net.onnx",
            taken.name,
            "FP32",
            given.name,
            lambda rows: session.run(None, {taken.name: rows})[0].ravel(),
        ),
    ]


_saved: dict[Path, list[Known]] = {}


def saved(folder: Path) -> list[Known]:
    """The models, trained once for a folder."""
    if folder not in _saved:
        _saved[folder] = _save(folder)
    return _saved[folder]


NAMES = ("forest", "flowers", "boosted", "light", "net")
