"""Every kind of model that has a converter: its twin has its signature, and its answers on a thousand rows."""

from __future__ import annotations

import catboost
import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC

from tests.compile.compiled_models import both, numbers, saved
from turnout.core.signature import Signature
from turnout.formats import LoadOptions
from turnout.formats.artifact import Artifact
from turnout.formats.onnx import Onnx

ROWS, WIDTH = 1000, 6
X = numbers(400, WIDTH)
Y = (X[:, 0] + X[:, 1] * X[:, 2] > 0).astype(int)
GAPS = np.where(np.random.default_rng(1).random(X.shape) < 0.1, np.nan, X)
THREE = np.array(["a", "b", "c"])[(X[:, 0] > 0).astype(int) + (X[:, 1] > 1)]

ESTIMATORS = {
    "forest": RandomForestClassifier(30, random_state=0).fit(X, Y),
    "forest of text": RandomForestClassifier(10, max_depth=5, random_state=0).fit(X, THREE),
    "extra trees": ExtraTreesClassifier(30, random_state=0).fit(X, Y),
    "forest of numbers": RandomForestRegressor(10, random_state=0).fit(X, X[:, 0] * 50),
    "boosting": GradientBoostingRegressor(n_estimators=10).fit(X, X[:, 1]),
    "histogram boosting": HistGradientBoostingClassifier(max_iter=10).fit(GAPS, Y),
    "linear": LinearRegression().fit(X, X @ np.arange(WIDTH)),
    "scaled": make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y),
    "imputed forest": make_pipeline(SimpleImputer(), StandardScaler(), RandomForestClassifier(10, random_state=0)).fit(
        GAPS, Y
    ),
    "vectors": make_pipeline(StandardScaler(), SVC()).fit(X, Y),
    "xgboost in a pipeline": make_pipeline(StandardScaler(), xgboost.XGBClassifier(n_estimators=5)).fit(X, Y),
    "lightgbm in a pipeline": make_pipeline(StandardScaler(), lightgbm.LGBMRegressor(n_estimators=5, verbose=-1)).fit(
        X, X[:, 0]
    ),
}


def assert_equal(original, twin, rows, absolute=1e-5, relative=1e-4):
    """The same answers in one batch, in small ones, and alone."""
    assert twin.signature == original.signature
    for size in (len(rows["x"]) if "x" in rows else 1000, 64, 1):
        few = {name: array[: max(size, 20)] for name, array in rows.items()}
        count = len(next(iter(few.values())))
        for start in range(0, count, size):
            part = {name: array[start : start + size] for name, array in few.items()}
            want, got = original.predict(part), twin.predict(part)
            assert set(want) == set(got)
            for name, array in want.items():
                if array.dtype.kind in "OSUib":
                    assert got[name].tolist() == array.tolist()
                else:
                    np.testing.assert_allclose(got[name], array, atol=absolute, rtol=relative)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_estimator_and_its_twin_answer_alike(name, tmp_path):
    original, twin, outcome = both(saved(ESTIMATORS[name], tmp_path))
    rows = numbers(ROWS, WIDTH, seed=5)
    if "imputed" in name or "histogram" in name:
        rows[::7, 2] = np.nan
    assert_equal(original, twin, {"x": rows})
    assert outcome.candidates[0].inside.rows > 200


@pytest.mark.parametrize("name", ["forest", "extra trees", "imputed forest"])
def test_a_forest_s_votes_are_counted_as_it_does(name, tmp_path):
    """Not close to it: the same. In a tie of votes the smallest rounding would decide the label."""
    original, twin, _ = both(saved(ESTIMATORS[name], tmp_path))
    rows = {"x": np.vstack([X, numbers(3000, WIDTH, seed=9)])}
    want, got = original.predict(rows), twin.predict(rows)
    assert (want["probabilities"][:, 0] == 0.5).any()
    assert (want["label"] == got["label"]).all()
    assert (want["probabilities"] == got["probabilities"]).all()


def test_the_twin_alone_has_the_signature(tmp_path):
    """Anybody can take twin.onnx out of the directory and serve it by itself."""
    original, _, _ = both(saved(ESTIMATORS["forest of text"], tmp_path))
    twin = Onnx().load(Artifact.of(tmp_path / "model.compiled" / "twin.onnx"), LoadOptions())

    def tensors(signature: Signature):
        return [(spec.name, spec.datatype, spec.shape) for spec in (*signature.inputs, *signature.outputs)]

    assert tensors(twin.signature) == tensors(original.signature)


def people() -> pd.DataFrame:
    random = np.random.default_rng(3)
    frame = pd.DataFrame(
        {
            "age": random.integers(18, 90, 300).astype(float),
            "income": random.normal(5e4, 1e4, 300),
            "city": random.choice(["rome", "oslo", "bern"], 300),
        }
    )
    frame.loc[::17, "income"] = np.nan
    return frame


@pytest.mark.parametrize("unknown", ["ignore", "error"])
@pytest.mark.parametrize("last", [LogisticRegression(), RandomForestClassifier(10, random_state=0)])
def test_columns_of_text_and_numbers(unknown, last, tmp_path):
    frame = people()
    numeric = make_pipeline(SimpleImputer(), StandardScaler())
    columns = ColumnTransformer(
        [("n", numeric, ["age", "income"]), ("t", OneHotEncoder(handle_unknown=unknown), ["city"])]
    )
    labels = np.where((frame.age > 50) ^ (frame.city == "oslo"), "yes", "no")
    original, twin, _ = both(saved(make_pipeline(columns, last).fit(frame, labels), tmp_path))
    cities = np.array([value.encode() for value in frame.city], dtype=object)
    rows = {"age": frame.age.to_numpy(), "income": frame.income.to_numpy(), "city": cities}
    assert_equal(original, twin, rows)


def test_texts(tmp_path):
    texts = ["good film", "bad film", "nice work good", "awful bad thing"] * 5
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, [1, 0, 1, 0] * 5)
    original, twin, _ = both(saved(model, tmp_path))
    some = np.array([b"A good FILM, truly", b"", b"awful", b"nothing of this"], dtype=object)
    assert_equal(original, twin, {"text": some})


@pytest.mark.parametrize("objective", ["binary:logistic", "multi:softprob", "reg:squarederror", "count:poisson"])
def test_xgboost(objective, tmp_path):
    many = {"num_class": 3} if objective.startswith("multi") else {}
    target = {"m": (X[:, 0] > 0).astype(int) + (X[:, 1] > 1), "b": Y}.get(objective[0], np.abs(X[:, 0]))
    booster = xgboost.train({"objective": objective, **many}, xgboost.DMatrix(GAPS, target), 20)
    booster.save_model(tmp_path / "model.ubj")
    rows = numbers(ROWS, WIDTH, seed=5).astype(np.float32)
    rows[::5, 1] = np.nan
    original, twin, _ = both(tmp_path / "model.ubj")
    assert_equal(original, twin, {"x": rows})


@pytest.mark.parametrize("objective", ["binary", "multiclass", "regression"])
def test_lightgbm(objective, tmp_path):
    target = {"multiclass": (X[:, 0] > 0).astype(int) + (X[:, 1] > 1), "binary": Y}.get(objective, X[:, 0])
    settings = {"objective": objective, "num_class": 3 if objective == "multiclass" else 1, "verbose": -1}
    lightgbm.train(settings, lightgbm.Dataset(GAPS, target), 20).save_model(tmp_path / "model.txt")
    original, twin, _ = both(tmp_path / "model.txt")
    rows = numbers(ROWS, WIDTH, seed=5)
    rows[::5, 1] = np.nan
    rows[::3, 3] = 0.0
    assert_equal(original, twin, {"x": rows})


@pytest.mark.parametrize("kind", [catboost.CatBoostClassifier, catboost.CatBoostRegressor])
def test_catboost(kind, tmp_path):
    model = kind(iterations=20, verbose=0, allow_writing_files=False)
    model.fit(GAPS, THREE if kind is catboost.CatBoostClassifier else X[:, 0])
    model.save_model(str(tmp_path / "model.cbm"))
    original, twin, _ = both(tmp_path / "model.cbm")
    rows = numbers(ROWS, WIDTH, seed=5).astype(np.float32)
    rows[::5, 1] = np.nan
    assert_equal(original, twin, {"x": rows})
