"""A twin is adopted only where it is equal; everywhere else the original answers, or nobody does; never silently."""

from __future__ import annotations

import json
import shutil
import threading
from dataclasses import replace

import lightgbm
import numpy as np
import onnx
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from tests.compile.compiled_models import QUICK, TRUSTED, both, compiled, numbers, saved
from turnout import formats
from turnout.core.errors import FormatUnknown, InvalidInput, LoadFailed, PickleRefused
from turnout.core.signature import Signature, TensorSpec
from turnout.deploy.compile.compare import Tolerance, answers, compare
from turnout.deploy.compile.measure import best, measure
from turnout.deploy.compile.rows import Rows
from turnout.deploy.compile.seen import columns_of, seen_of
from turnout.formats.compiled_file import FILE, Choice, Compiled, Guard, Twin
from turnout.runtime.predict import predict_batch

X = numbers(300, 5)
Y = (X[:, 0] + X[:, 1] * X[:, 2] > 0).astype(int)
FOREST = RandomForestClassifier(10, random_state=0).fit(X, Y)
NUMBERS = Signature(
    (TensorSpec("x", "FP64", (-1, 5)),),
    (TensorSpec("label", "INT64", (-1,)), TensorSpec("probabilities", "FP64", (-1, 2))),
)


@pytest.fixture(scope="module")
def forest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("forest")
    path = saved(FOREST, folder)
    outcome, target = compiled(path)
    assert outcome.adopted
    return path, target, outcome


def answer(labels, probabilities):
    return {"label": np.array(labels), "probabilities": np.array(probabilities)}


def test_differences_are_found_and_told_apart():
    rows = {"x": np.zeros((4, 5))}
    mine = answer([0, 1, 0, 1], [[0.9, 0.1], [0.4, 0.6], [0.5, 0.5], [0.2, 0.8]])
    its = answer([0, 0, 1, 1], [[0.9, 0.1], [0.4, 0.6], [0.5, 0.5], [0.3, 0.7]])
    found = compare(answers(lambda _: mine, rows), answers(lambda _: its, rows), rows, NUMBERS, Tolerance(1e-5, 1e-4))
    assert (found.outputs["label"].outside, found.outputs["label"].ties) == (1, 1)
    assert found.outputs["probabilities"].outside == 1
    assert found.outputs["probabilities"].max_absolute == pytest.approx(0.1)
    assert not found.inside
    assert found.worst[0]["original"]["label"] == 1
    assert found.worst[0]["twin"]["label"] == 0


@pytest.mark.parametrize(("mine", "its"), [(np.nan, 1.0), (1.0, np.nan), (np.inf, 1.0), (np.inf, -np.inf)])
def test_nan_and_infinity_are_never_close_to_anything_else(mine, its):
    signature = replace(NUMBERS, outputs=(TensorSpec("y", "FP64", (-1,)),))
    rows = {"x": np.zeros((1, 5))}
    left, right = (answers(lambda _, value=value: {"y": np.array([value])}, rows) for value in (mine, its))
    assert compare(left, left, rows, signature, Tolerance(1.0, 1.0)).inside
    assert not compare(left, right, rows, signature, Tolerance(1.0, 1.0)).inside


def test_a_row_that_only_one_of_them_takes_is_a_difference():
    def strict(rows):
        if np.isnan(rows["x"]).any():
            raise ValueError("no")
        return lax(rows)

    def lax(rows):
        return answer([0] * len(rows["x"]), [[1.0, 0.0]] * len(rows["x"]))

    rows = {"x": numbers(20, 5)}
    rows["x"][7, 2] = np.nan
    refused, taken = answers(strict, rows), answers(lax, rows)
    assert list(refused.failed) == [7]
    found = compare(refused, taken, rows, NUMBERS, Tolerance())
    assert (found.only_original_failed, found.only_twin_failed, found.inside) == (1, 0, False)
    assert compare(taken, refused, rows, NUMBERS, Tolerance()).only_twin_failed == 1


def test_rows_stand_on_each_side_of_every_threshold(forest):
    path, _, _ = forest
    signature = formats.load(path, TRUSTED).signature
    seen = seen_of("sklearn", FOREST, signature)
    turns = FOREST.estimators_[0].tree_
    feature, threshold = int(turns.feature[0]), float(turns.threshold[0])
    assert threshold in seen["x", feature].turns
    rows = Rows(signature, seen, 0).at_thresholds(10**6, {"x": X[:5]})["x"][:, feature]
    single = np.float32(threshold)
    for near in (
        threshold,
        np.nextafter(threshold, 9),
        np.nextafter(threshold, -9),
        single,
        np.nextafter(single, np.float32(9)),
    ):
        assert float(near) in rows


def test_thresholds_behind_a_scaler_are_brought_back():
    model = make_pipeline(StandardScaler(), RandomForestClassifier(3, random_state=0)).fit(X * 100 + 7, Y)
    seen = seen_of("sklearn", model, NUMBERS)
    tree = model.steps[1][1].estimators_[0].tree_
    scaler, feature = model.steps[0][1], int(tree.feature[0])
    raw = tree.threshold[0] * scaler.scale_[feature] + scaler.mean_[feature]
    assert min(abs(turn - raw) for turn in seen["x", feature].turns) < 1e-9
    assert set(columns_of(NUMBERS)) == set(seen)


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")  # scikit-learn's own
def test_what_the_original_refuses_is_refused(forest):
    path, target, _ = forest
    original, twin = (formats.load(place, TRUSTED) for place in (path, target))
    for value in (np.inf, -np.inf, 1e39):
        odd = {"x": np.where(np.arange(5) == 2, value, X[:3])}
        with pytest.raises(InvalidInput):
            original.predict(odd)
        with pytest.raises(InvalidInput):
            twin.predict(odd)
    for value in (np.nan, 3.4028234e38, 0.0, -0.0, 5e-324):
        odd = {"x": np.where(np.arange(5) == 2, value, X[:3])}
        assert (original.predict(odd)["probabilities"] == twin.predict(odd)["probabilities"]).all()


def test_values_on_which_the_twin_differs_go_to_the_original(tmp_path):
    original, twin, _ = both(saved(KNeighborsClassifier(3).fit(X, Y), tmp_path))
    far = {"x": np.full((2, 5), 1e200)}
    assert twin.choose({"x": X[:2]})[0] == "onnx"
    assert twin.choose(far)[0] == "sklearn"
    assert (original.predict(far)["label"] == twin.predict(far)["label"]).all()


def test_unseen_text_is_refused_by_both(tmp_path):
    words = pd.DataFrame({"letter": ["a", "b", "c"] * 20})
    model = make_pipeline(OneHotEncoder(), LogisticRegression()).fit(words, [0, 1, 1] * 20)
    _, twin, _ = both(saved(model, tmp_path))
    assert twin.predict({"letter": np.array([b"a"], dtype=object)})["label"].tolist() == [0]
    with pytest.raises(InvalidInput, match="none of those"):
        twin.predict({"letter": np.array([b"d"], dtype=object)})


def test_what_differs_is_not_adopted_and_says_where(tmp_path):
    """Zero as a missing value, which ONNX does not know: the rows show it."""
    sparse = np.where(np.random.default_rng(2).random(X.shape) < 0.5, 0.0, X)
    settings = {"objective": "regression", "zero_as_missing": True, "verbose": -1, "min_data_in_leaf": 5}
    booster = lightgbm.train(settings, lightgbm.Dataset(sparse, sparse[:, 0] + (sparse[:, 1] == 0)), 20)
    booster.save_model(tmp_path / "model.txt")
    outcome, target = compiled(tmp_path / "model.txt", replace(QUICK, rows={"x": sparse}))
    assert not outcome.adopted
    assert not target.exists()
    assert list(tmp_path.iterdir()) == [tmp_path / "model.txt"]
    said = "\n".join(outcome.reasons)
    assert "outside the tolerance: 'prediction' in" in said
    assert "the original gives" in said


def test_the_tolerance_decides(tmp_path):
    none = replace(QUICK, tolerance=Tolerance(0.0, 0.0))
    model = lightgbm.train({"objective": "regression", "verbose": -1}, lightgbm.Dataset(X, X[:, 0]), 20)
    model.save_model(tmp_path / "model.txt")
    assert not compiled(tmp_path / "model.txt", none)[0].adopted
    assert compiled(tmp_path / "model.txt")[0].adopted


def test_the_fastest_is_chosen_for_each_size():
    times = {"native": 1.0, "onnx": 0.95}
    assert best(times, "native") == "onnx"
    assert best({"native": 0.5, "onnx": 0.6, "onnx-threads": 0.55}, "native") == "onnx-threads"  # too little to load it
    assert best({"native": 0.5, "onnx": 0.6}, "native") == "native"
    slow = {"native": lambda rows: threading.Event().wait(0.02) and {}}
    assert [choice.rows for choice in measure(slow, {"x": X}, (1, 64, 4096), 0.1, "native")] == [1]
    calls: list[int] = []
    found = measure({"native": lambda rows: calls.append(len(rows["x"])) or {}}, {"x": X}, (1, 4096), 0.01, "native")
    assert [(choice.rows, choice.variant) for choice in found] == [(1, "native"), (4096, "native")]
    assert set(calls) == {1, 4096}


def test_a_table_picks_by_rows_and_what_never_wins_is_not_loaded():
    description = Compiled(
        original="original/m", original_format="xgboost", twins=(Twin("onnx", "twin.onnx"),), files={"twin.onnx": "-"},
        signature=NUMBERS, guards=(),
        choices=(Choice(1, "onnx", {}), Choice(64, "onnx", {}), Choice(4096, "xgboost", {})),
    )  # fmt: skip
    assert description.table() == [(512.0, "onnx"), (np.inf, "xgboost")]
    assert description.needs_original
    assert not replace(description, choices=description.choices[:2]).needs_original
    assert replace(description, choices=description.choices[:2], guards=(Guard("x", nan="native"),)).needs_original
    assert Compiled.from_json(json.loads(json.dumps(description.to_json()))) == description


def test_the_batch_says_who_answered(forest):
    _, target, _ = forest
    model = formats.load(target, TRUSTED)
    outcome = predict_batch(model, {"x": X[:4]}, [1, 3], [np.inf, np.inf])
    assert outcome.twin == "onnx"
    assert model.variants == ("onnx",)
    odd = np.where(np.arange(4)[:, None] == 0, np.inf, X[:4])
    outcome = predict_batch(model, {"x": odd}, [1, 3], [np.inf, np.inf])
    assert isinstance(outcome.failures[0], InvalidInput)
    assert outcome.failures[1] is None
    assert outcome.twin == "onnx"


def test_a_pickle_is_not_opened_where_the_twin_always_answers(forest):
    path, target, _ = forest
    assert formats.load(target).predict({"x": X[:2]})["label"].tolist() == FOREST.predict(X[:2]).tolist()
    with pytest.raises(PickleRefused):
        formats.load(path)


def test_what_was_changed_afterwards_is_refused(forest, tmp_path):
    _, target, _ = forest
    copy = tmp_path / "copy"
    shutil.copytree(target, copy)
    held = onnx.load(copy / "twin.onnx")
    held.producer_name = "another"
    onnx.save(held, copy / "twin.onnx")
    with pytest.raises(LoadFailed, match=r"twin\.onnx was changed or damaged"):
        formats.load(copy)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda found: "{", r"compiled\.json cannot be read"),
        (lambda found: json.dumps({**found, "schema": 99}), "compile the model again"),
        (lambda found: json.dumps({**found, "choices": []}), "no variant"),
        (lambda found: json.dumps({**found, "original": "../../etc"}), "not inside"),
        (lambda found: json.dumps({**found, "twins": [{"name": "onnx", "file": "/etc/passwd"}]}), "not inside"),
        (lambda found: json.dumps({**found, "files": {}}), "no digest"),
        (lambda found: json.dumps([1]), "cannot be read"),
    ],
)
def test_a_description_that_is_wrong_is_refused(change, said, forest, tmp_path):
    _, target, _ = forest
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / FILE).write_text(change(json.loads((target / FILE).read_text())))
    with pytest.raises(LoadFailed, match=said):
        formats.load(copy)


def test_another_machine_is_said(forest, tmp_path, caplog):
    _, target, _ = forest
    copy = tmp_path / "copy"
    shutil.copytree(target, copy)
    found = json.loads((copy / FILE).read_text())
    (copy / FILE).write_text(json.dumps({**found, "machine": {"cpu": "Abacus 1", "cores": 3}}))
    formats.load(copy)
    assert "was measured on Abacus 1 (3 cores, 1 threads)" in caplog.text


def test_what_has_no_converter_is_said(tmp_path):
    (tmp_path / "model.py").write_text("def predict(rows):\n    return rows\n")
    with pytest.raises(LoadFailed, match="has no converter; those that have one are sklearn, xgboost"):
        compiled(tmp_path / "model.py")
    (tmp_path / "text.joblib").write_bytes(b"nothing")
    with pytest.raises((FormatUnknown, LoadFailed)):
        compiled(tmp_path / "text.joblib")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.py", "text.joblib"]


def test_compiling_twice_and_compiling_what_is_compiled(forest, tmp_path):
    path, target, _ = forest
    with pytest.raises(LoadFailed, match="is there already"):
        compiled(path)
    copy = tmp_path / "old"
    shutil.copytree(target, copy)
    outcome, again = compiled(copy)
    assert outcome.adopted
    assert formats.load(again).signature == formats.load(target).signature
