"""MOJO archives of a cluster that lives as long as this maker: classes, numbers, clusters, outliers, categories."""

# ruff: noqa: E402  the libraries warn while they are imported

from __future__ import annotations

import contextlib
import socket
import sys
import warnings

warnings.simplefilter("ignore")

import h2o
import numpy as np
import pandas as pd
from h2o import estimators
from keeping import ROWS, Keep

keep = Keep(sys.argv[1])
random = np.random.default_rng(0)
frame = pd.DataFrame({"a": random.standard_normal(ROWS), "b": random.standard_normal(ROWS)})
frame["size"] = random.choice(["lo", "mid", "hï"], ROWS)
frame["two"] = np.where(frame.a + (frame["size"] == "lo") + 0.3 * random.standard_normal(ROWS) > 0.3, "yes", "no")
frame["three"] = random.choice(["x", "y", "z"], ROWS)
frame["number"] = frame.a * 2 + frame.b


def free_port():
    """A port whose neighbour is free, too: H2O takes both."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as one:
            port = one.getsockname()[1]
            with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port + 1)):
                return port


h2o.init(bind_to_localhost=True, nthreads=1, max_mem_size="1G", port=free_port(), verbose=False)
h2o.no_progress()
try:
    kinds = {"size": "enum", "two": "enum", "three": "enum"}
    given = h2o.H2OFrame(frame, column_types={name: kinds.get(name, "numeric") for name in frame})
    unseen = frame[["a", "b", "size"]].copy()
    unseen.loc[:9, "size"] = "never"
    unseen.loc[10:19, "size"] = ""
    unseen.loc[20:29, "a"] = np.nan
    asked = h2o.H2OFrame(unseen, column_types={"a": "numeric", "b": "numeric", "size": "enum"}, na_strings=[""])
    trees = {"ntrees": 10, "seed": 1}
    for name, estimator, target, features in (
        ("boosted", estimators.H2OGradientBoostingEstimator(**trees), "two", ["a", "b", "size"]),
        ("forest", estimators.H2ORandomForestEstimator(**trees), "three", ["a", "b", "size"]),
        ("linear", estimators.H2OGeneralizedLinearEstimator(family="binomial"), "two", ["a", "b", "size"]),
        ("regression", estimators.H2OGradientBoostingEstimator(**trees), "number", ["a", "b"]),
        ("clusters", estimators.H2OKMeansEstimator(k=3, seed=1), None, ["a", "b"]),
        ("outliers", estimators.H2OIsolationForestEstimator(**trees), None, ["a", "b"]),
    ):
        estimator.train(features, target, given)
        archive = estimator.download_mojo(path=str(keep.folder / f"{name}.zip"))
        answer = estimator.predict(asked).as_data_frame()
        if target in {"two", "three"}:
            labels = sorted(set(frame[target]))
            expected = {"label": answer["predict"].to_numpy(str), "probabilities": answer[labels].to_numpy()}
        elif name == "clusters":
            expected = {"cluster": answer["predict"].to_numpy()}
        elif name == "outliers":
            expected = {"scores": answer["predict"].to_numpy(), "mean_length": answer["mean_length"].to_numpy()}
        else:
            expected = {"prediction": answer["predict"].to_numpy()}
        columns = {key: unseen[key].to_numpy() for key in features}
        keep(
            f"h2o-{name}",
            f"{name}.zip",
            format="h2o",
            rows=columns if "size" in features else {"x": np.stack(list(columns.values()), 1)},
            expected=expected,
            tolerance=(1e-12, 1e-12),  # the cluster's answers come back as text
            damage=name == "boosted",
            wrong_suffix=".skops" if name == "boosted" else None,
            served=name in {"boosted", "regression"},
        )
finally:
    h2o.cluster().shutdown()
