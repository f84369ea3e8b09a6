"""scikit-learn: skops, joblib and pickle files, what they take and what they answer."""

from __future__ import annotations

import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.svm import SVC, LinearSVC

from tests.formats.data import TRUSTED, as_bytes, cancer, diabetes, iris, mixed
from turnout import formats
from turnout.core.errors import FormatMismatch, InvalidInput, LoadFailed, PickleRefused
from turnout.core.signature import Signature, TensorSpec
from turnout.formats import LoadOptions
from turnout.testing.formats import Tolerance, check_format

CLOSE = Tolerance(1e-12, 1e-12)


def saved(model, path):
    if path.suffix == ".skops":
        skops.io.dump(model, path)
    elif path.suffix == ".joblib":
        joblib.dump(model, path)
    else:
        path.write_bytes(pickle.dumps(model))
    return path


@pytest.mark.parametrize(
    ("name", "wrong"), [("m.skops", ".joblib"), ("m.joblib", ".onnx"), ("m.pkl", ".skops"), ("m.pickle", ".txt")]
)
def test_a_fitted_pipeline_answers_as_itself(tmp_path, name, wrong):
    frame, target = cancer()
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(frame, target)
    path = saved(model, tmp_path / name)
    expected = {"label": model.predict(frame), "probabilities": model.predict_proba(frame)}
    loaded = check_format(
        path,
        format="sklearn",
        rows={"x": frame.to_numpy()},
        expected=expected,
        options=TRUSTED,
        tolerance=CLOSE,  # a data frame keeps its columns together, so sums may differ in the last bit
        wrong_suffix=wrong,
    )
    (spec,) = loaded.signature.inputs
    assert spec == TensorSpec("x", "FP64", (-1, 30), tuple(frame.columns))
    assert loaded.signature.outputs[1].columns == ("0", "1")


@pytest.mark.parametrize("compress", [("zlib", 3), ("gzip", 3), ("bz2", 3), ("xz", 3), ("lzma", 3)])
def test_joblib_files_are_recognised_through_their_compression(tmp_path, compress):
    features, target = iris()
    path = tmp_path / "m.joblib"
    joblib.dump(RandomForestClassifier(5, random_state=0).fit(features, target), path, compress=compress)
    assert formats.detect(formats.Artifact.of(path)).name == "sklearn"
    assert set(formats.load(path, TRUSTED).predict({"x": features})) == {"label", "probabilities"}


def test_a_pickle_is_refused_with_the_reason_and_the_way_out(tmp_path):
    path = tmp_path / "m.pkl"
    path.write_bytes(b"\x80\x04cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR.")
    with pytest.raises(PickleRefused, match="--trust-pickle") as refusal:
        formats.load(path)
    assert "skops" in str(refusal.value)
    assert "ONNX" in str(refusal.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "estimator",
    [
        RandomForestClassifier(5, random_state=0),
        GradientBoostingClassifier(n_estimators=3),
        HistGradientBoostingClassifier(max_iter=3),
        KNeighborsClassifier(),
        MLPClassifier((8,), max_iter=2000, random_state=0),
        SVC(),
        GridSearchCV(LogisticRegression(max_iter=1000), {"C": [1.0]}),
    ],
    ids=lambda e: type(e).__name__,
)
def test_skops_takes_ordinary_estimators_without_trust(tmp_path, estimator):
    features, target = iris()
    estimator.fit(features, target)
    model = formats.load(saved(estimator, tmp_path / "m.skops"))
    assert np.array_equal(model.predict({"x": features})["label"], estimator.predict(features))


def shout(values):
    return values


def test_skops_names_the_types_it_does_not_know(tmp_path):
    features, target = iris()
    model = make_pipeline(FunctionTransformer(shout), LogisticRegression(max_iter=1000)).fit(features, target)
    path = saved(model, tmp_path / "m.skops")
    with pytest.raises(PickleRefused, match=r"test_sklearn\.shout"):
        formats.load(path)


OUTPUTS = [
    (RandomForestClassifier(4, n_jobs=-1, random_state=0), ["label", "probabilities"]),
    (LinearSVC(), ["label", "scores"]),
    (IsolationForest(n_estimators=4, random_state=0), ["label", "scores"]),
    (KMeans(2, n_init=1, random_state=0), ["cluster"]),
    (GaussianMixture(2, random_state=0), ["cluster", "probabilities"]),
    (PCA(2), ["transformed"]),
    (make_pipeline(StandardScaler(), PCA(2)), ["transformed"]),
    (LinearRegression(), ["prediction"]),
    (make_pipeline(StandardScaler(), RandomForestRegressor(3, random_state=0)), ["prediction"]),
]
METHODS = {"label": "predict", "cluster": "predict", "prediction": "predict", "transformed": "transform"}
METHODS |= {"probabilities": "predict_proba", "scores": "decision_function"}


@pytest.mark.parametrize(("estimator", "names"), OUTPUTS, ids=lambda v: type(v).__name__ if hasattr(v, "fit") else "")
def test_outputs_are_named_for_what_they_are(tmp_path, estimator, names):
    features, target = iris()
    estimator.fit(features, target)
    path = saved(estimator, tmp_path / "m.joblib")
    expected = {name: getattr(estimator, METHODS[name])(features) for name in names}
    model = check_format(
        path,
        format="sklearn",
        rows={"x": features},
        expected=expected,
        options=TRUSTED,
        tolerance=CLOSE,
        damage=False,
    )
    assert [spec.name for spec in model.signature.outputs] == names


def test_columns_of_numbers_and_text_are_one_input_each(tmp_path):
    frame, target = mixed()
    columns = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["length"]),
            ("text", OneHotEncoder(handle_unknown="ignore"), ["colour"]),
            ("as it is", "passthrough", ["width"]),
        ]
    )
    model = make_pipeline(columns, LogisticRegression()).fit(frame, target)
    rows = {
        "length": frame["length"].to_numpy(),
        "width": frame["width"].to_numpy(),
        "colour": as_bytes(frame["colour"]),
    }
    loaded = check_format(
        saved(model, tmp_path / "m.skops"),
        format="sklearn",
        rows=rows,
        expected={"label": model.predict(frame), "probabilities": model.predict_proba(frame)},
        split=CLOSE,
        damage=False,
    )
    found = {spec.name: (spec.datatype, spec.shape) for spec in loaded.signature.inputs}
    assert found == {"length": ("FP64", (-1,)), "width": ("FP64", (-1,)), "colour": ("BYTES", (-1,))}
    assert loaded.signature.outputs[1].columns == ("far", "near")


def test_an_unknown_category_is_the_callers_fault(tmp_path):
    frame, target = mixed()
    columns = ColumnTransformer([("text", OneHotEncoder(), ["colour"]), ("number", "passthrough", ["length"])])
    model = formats.load(saved(make_pipeline(columns, LogisticRegression()).fit(frame, target), tmp_path / "m.skops"))
    with pytest.raises(InvalidInput, match="fitted on"):
        model.predict({"colour": as_bytes(["lila"]), "length": np.array([5.0])})


def test_a_missing_value_is_the_callers_fault_where_the_model_takes_none(tmp_path):
    features, target = iris()
    model = formats.load(saved(LogisticRegression(max_iter=1000).fit(features, target), tmp_path / "m.skops"))
    with pytest.raises(InvalidInput, match="missing"):
        model.predict({"x": np.full((1, 4), np.nan)})


def test_lines_of_text_are_one_text_input(tmp_path):
    lines = ["a good film", "a bad film", "good", "bad"]
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(lines, [1, 0, 1, 0])
    loaded = check_format(
        saved(model, tmp_path / "m.skops"),
        format="sklearn",
        rows={"text": as_bytes(lines)},
        expected={"label": model.predict(lines), "probabilities": model.predict_proba(lines)},
        split=CLOSE,
        damage=False,
    )
    assert loaded.signature.inputs == (TensorSpec("text", "BYTES", (-1,)),)


def test_a_model_that_does_not_say_its_columns_asks_for_an_example(tmp_path):
    frame, target = mixed()
    columns = ColumnTransformer([("own", FunctionTransformer(shout), ["length", "width"])])
    path = saved(make_pipeline(columns, LogisticRegression()).fit(frame, target), tmp_path / "m.joblib")
    with pytest.raises(LoadFailed, match="example"):
        formats.load(path, TRUSTED)
    example = {name: frame[name].to_numpy()[:2] for name in ("id", "length", "width")} | {
        "colour": as_bytes(frame["colour"][:2])
    }
    model = formats.load(path, LoadOptions(trust_pickle=True, example=example))
    assert model.signature.source == "example"
    rows = {name: frame[name].to_numpy().astype(float) for name in ("id", "length", "width")}
    answer = model.predict(rows | {"colour": as_bytes(frame["colour"])})
    assert set(answer["label"]) == {b"near", b"far"}


def test_integer_categories_stay_numbers(tmp_path):
    frame = pd.DataFrame({"code": [1, 2, 3] * 10, "size": np.arange(30.0)})
    columns = ColumnTransformer([("code", OrdinalEncoder(), ["code"]), ("size", StandardScaler(), ["size"])])
    model = make_pipeline(columns, LogisticRegression()).fit(frame, frame["code"] > 1)
    loaded = formats.load(saved(model, tmp_path / "m.skops"))
    assert [spec.datatype for spec in loaded.signature.inputs] == ["FP64"]
    answer = loaded.predict({"x": frame.to_numpy(dtype=float)})
    assert np.array_equal(answer["probabilities"], model.predict_proba(frame))


def test_the_users_signature_chooses_the_outputs(tmp_path):
    features, target = iris()
    path = saved(LogisticRegression(max_iter=1000).fit(features, target), tmp_path / "m.skops")
    inputs = (TensorSpec("flower", "FP32", (-1, 4)),)
    wanted = Signature(inputs, (TensorSpec("label", "INT64", (-1,)),))
    model = formats.load(path, LoadOptions(signature=wanted))
    assert model.signature.source == "user"
    assert list(model.predict({"flower": features.astype(np.float32)})) == ["label"]
    with pytest.raises(LoadFailed, match="there is no score"):
        formats.load(path, LoadOptions(signature=Signature(inputs, (TensorSpec("score", "FP64", (-1,)),))))


def test_several_targets_have_their_own_probabilities(tmp_path):
    features, target = iris()
    model = RandomForestClassifier(4, random_state=0).fit(features, np.c_[target, target > 0])
    loaded = formats.load(saved(model, tmp_path / "m.skops"))
    shapes = {spec.name: spec.shape for spec in loaded.signature.outputs}
    assert shapes == {"label": (-1, 2), "probabilities_0": (-1, 3), "probabilities_1": (-1, 2)}


def test_a_pickle_of_something_else_is_refused(tmp_path):
    with pytest.raises(LoadFailed, match="dict, which has no predict"):
        formats.load(saved({"weights": [1, 2]}, tmp_path / "m.pkl"), TRUSTED)


def test_a_pickle_that_names_a_missing_module_says_so(tmp_path):
    path = tmp_path / "m.pkl"
    path.write_bytes(b"\x80\x04cno_such_module\nModel\n.")
    with pytest.raises(LoadFailed, match="no_such_module"):
        formats.load(path, TRUSTED)


def test_a_skops_ending_over_a_pickle_is_refused_even_when_trusted(tmp_path):
    path = tmp_path / "m.skops"
    path.write_bytes(pickle.dumps(LogisticRegression()))
    with pytest.raises(FormatMismatch, match="skops"):
        formats.load(path, TRUSTED)


def test_regression_on_named_columns_takes_arrays_without_warnings(tmp_path, recwarn):
    features, target = diabetes()
    frame = pd.DataFrame(features, columns=[f"f{i}" for i in range(10)])
    model = RandomForestRegressor(3, random_state=0).fit(frame, target)
    loaded = formats.load(saved(model, tmp_path / "m.skops"))
    assert np.array_equal(loaded.predict({"x": features})["prediction"], model.predict(frame))
    assert not [w for w in recwarn if "feature names" in str(w.message)]
