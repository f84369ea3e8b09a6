"""XGBoost, LightGBM and CatBoost: what their own classifiers and regressors answer, and what a damaged file does."""

from __future__ import annotations

import json

import catboost
import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost

from tests.formats.data import as_bytes, cancer, diabetes, iris, mixed
from turnout import formats
from turnout.core.errors import LoadFailed
from turnout.core.signature import TensorSpec
from turnout.formats.xgboost_trees import check_model
from turnout.testing.formats import check_format

XGB = {"n_estimators": 4, "max_depth": 3, "n_jobs": 1}
LGB = {"n_estimators": 4, "verbose": -1, "n_jobs": 1}
CAT = {"iterations": 4, "verbose": 0, "allow_writing_files": False, "thread_count": 1}


def classes(model, features):
    return {"label": np.asarray(model.predict(features)).squeeze(), "probabilities": model.predict_proba(features)}


def prediction(model, features):
    return {"prediction": model.predict(features)}


@pytest.mark.parametrize(("name", "wrong"), [("m.json", ".ubj"), ("m.ubj", ".json"), ("m.bst", ".onnx")])
def test_xgboost_classifier(tmp_path, name, wrong):
    frame, target = cancer()
    model = xgboost.XGBClassifier(**XGB).fit(frame, target)
    booster = model.get_booster()
    (tmp_path / name).write_bytes(booster.save_raw("json" if name == "m.json" else "ubj"))
    rows = frame.to_numpy(dtype=np.float32)
    loaded = check_format(
        tmp_path / name,
        format="xgboost",
        rows={"x": rows},
        expected=classes(model, rows),
        wrong_suffix=wrong,
        damage=name != "m.bst",
    )
    assert loaded.signature.inputs == (TensorSpec("x", "FP32", (-1, 30), tuple(frame.columns)),)
    assert [spec.name for spec in loaded.signature.outputs] == ["label", "probabilities"]


def xgboost_models():
    features, target = iris()
    table, number = diabetes()
    yield xgboost.XGBClassifier(**XGB).fit(features, target), features, classes
    yield xgboost.XGBClassifier(**XGB, objective="multi:softmax").fit(features, target), features, classes
    yield xgboost.XGBClassifier(**XGB).fit(features, np.c_[target == 0, target == 1]), features, classes
    yield xgboost.XGBClassifier(**XGB, booster="dart").fit(features, target), features, classes
    worse = (target[::3] + 1) % 3
    yield (
        xgboost.XGBClassifier(**XGB, early_stopping_rounds=1).fit(
            features, target, eval_set=[(features[::3], worse)], verbose=False
        ),
        features,
        classes,
    )
    yield xgboost.XGBRegressor(**XGB).fit(table, number), table, prediction
    yield xgboost.XGBRegressor(**XGB).fit(table, np.c_[number, -number]), table, prediction
    yield (
        xgboost.XGBRegressor(**XGB, multi_strategy="multi_output_tree").fit(table, np.c_[number, -number]),
        table,
        prediction,
    )
    yield xgboost.XGBRegressor(n_estimators=4, n_jobs=1, booster="gblinear").fit(table, number), table, prediction


@pytest.mark.parametrize("form", ["json", "ubj"])
def test_xgboost_answers_as_its_own_interface(tmp_path, form):
    for model, features, expected in xgboost_models():
        path = tmp_path / f"m.{form}"
        model.save_model(path)
        answer = formats.load(path).predict({"x": features.astype(np.float32)})
        for name, want in expected(model, features.astype(np.float32)).items():
            assert np.array_equal(answer[name], want), (model, name)


def edit(document, path, value):
    *way, last = path
    for step in way:
        document = document[step]
    document[last] = value


TREE = ("learner", "gradient_booster", "model", "trees", 0)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ((*TREE, "left_children", 0), 99_999, "left_children"),
        ((*TREE, "left_children", 0), 0, "two parents"),
        ((*TREE, "split_indices", 0), 77, "feature"),
        ((*TREE, "tree_param", "num_nodes"), "100000", "nodes"),
        ((*TREE, "tree_param", "size_leaf_vector"), "9", "leaves"),
        ((*TREE, "split_type", 0), 1, "categor"),
        (("learner", "gradient_booster", "model", "tree_info", 0), 5, "tree_info"),
        (("learner", "gradient_booster", "model", "gbtree_model_param", "num_trees"), "9", "num_trees"),
        (("learner", "learner_model_param", "num_feature"), "99999999999", "num_feature"),
        (("learner", "gradient_booster", "name"), "gbother", "booster"),
    ],
)
def test_xgboost_trees_that_lead_nowhere_are_refused_before_xgboost_reads_them(tmp_path, path, value, said):
    features, target = iris()
    xgboost.XGBClassifier(**XGB).fit(features, target == 0).save_model(tmp_path / "m.json")
    document = json.loads((tmp_path / "m.json").read_text())
    edit(document, path, value)
    (tmp_path / "m.json").write_text(json.dumps(document))
    with pytest.raises(LoadFailed, match=said):
        formats.load(tmp_path / "m.json")


def test_ubjson_and_json_are_the_same_model():
    frame, target = cancer()
    booster = xgboost.XGBClassifier(**XGB).fit(frame, target).get_booster()
    check_model(bytes(booster.save_raw("json")), is_json=True)
    data = bytes(booster.save_raw("ubj"))
    check_model(data, is_json=False)
    for end in range(0, len(data), 97):
        with pytest.raises(ValueError, match=r"."):
            check_model(data[:end], is_json=False)


def test_lightgbm_classifier(tmp_path):
    frame, target = cancer()
    model = lightgbm.LGBMClassifier(**LGB).fit(frame, target)
    model.booster_.save_model(tmp_path / "m.txt")
    rows = frame.to_numpy()
    loaded = check_format(
        tmp_path / "m.txt",
        format="lightgbm",
        rows={"x": rows},
        expected={"label": model.predict(frame), "probabilities": model.predict_proba(frame)},
        wrong_suffix=".cbm",
    )
    assert loaded.signature.inputs[0].columns[0] == "mean_radius"  # LightGBM itself stores it so


def test_lightgbm_answers_as_its_own_interface(tmp_path):
    features, target = iris()
    table, number = diabetes()
    made = [
        (lightgbm.LGBMClassifier(**LGB).fit(features, target), features, classes),
        (lightgbm.LGBMClassifier(**LGB, objective="multiclassova").fit(features, target), features, classes),
        (lightgbm.LGBMRegressor(**LGB).fit(table, number), table, prediction),
        (lightgbm.LGBMRegressor(**LGB, linear_tree=True).fit(table, number), table, prediction),
        (lightgbm.LGBMRegressor(**LGB, objective="poisson").fit(table, number), table, prediction),
    ]
    for model, rows, expected in made:
        model.booster_.save_model(tmp_path / "m.txt")
        answer = formats.load(tmp_path / "m.txt").predict({"x": rows})
        for name, want in expected(model, rows).items():
            assert np.array_equal(answer[name], want), (model, name)


def test_lightgbm_takes_the_text_of_pandas_categories(tmp_path):
    frame, _ = mixed()
    table = pd.DataFrame({"length": frame["length"], "colour": frame["colour"].astype("category")})
    options = {"min_child_samples": 1, "min_data_per_group": 1, "cat_smooth": 0.0}
    model = lightgbm.LGBMRegressor(**LGB, **options).fit(table, table["colour"].cat.codes)
    model.booster_.save_model(tmp_path / "m.txt")
    loaded = formats.load(tmp_path / "m.txt")
    assert [(s.name, s.datatype) for s in loaded.signature.inputs] == [("length", "FP64"), ("colour", "BYTES")]
    rows = {"length": table["length"].to_numpy(), "colour": as_bytes(frame["colour"])}
    want = model.predict(table)
    assert len(set(want)) > 2
    assert np.array_equal(loaded.predict(rows)["prediction"], want)
    rows["colour"] = as_bytes(["lila"] * len(frame))
    unseen = pd.DataFrame({"length": table["length"], "colour": pd.Categorical([None] * len(frame))})
    assert np.array_equal(loaded.predict(rows)["prediction"], model.predict(unseen.astype({"colour": "category"})))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("\nleft_child=1", "\nleft_child=77", "not a tree"),
        ("\nsplit_feature=", "\nsplit_feature=9", "feature"),
        ("\nnum_leaves=", "\nnum_leaves=1", "entries"),
        ("end of trees", "", "cut off"),
        ("end of parameters", "", "cut off"),
        ("[num_threads: ", "\0\0", "zero bytes"),
        ("[num_threads: ", "[num_threads ", "damaged"),
        ("\ntree_sizes=", "\ntree_sizes=1", "tree_sizes"),
        ("\nshrinkage=", "\nnum_leaves=2\nshrinkage=", "twice|tree_sizes"),
    ],
)
def test_lightgbm_trees_that_lead_nowhere_are_refused(tmp_path, old, new, said):
    features, target = iris()
    lightgbm.LGBMClassifier(**LGB).fit(features, target == 0).booster_.save_model(tmp_path / "m.txt")
    text = (tmp_path / "m.txt").read_text()
    assert old in text
    (tmp_path / "m.txt").write_text(text.replace(old, new, 1))
    with pytest.raises(LoadFailed, match=said):
        formats.load(tmp_path / "m.txt")


@pytest.mark.parametrize(("name", "wrong"), [("m.cbm", ".json"), ("m.json", ".cbm")])
def test_catboost_classifier(tmp_path, name, wrong):
    frame, target = cancer()
    model = catboost.CatBoostClassifier(**CAT).fit(frame, np.where(target == 1, "benign", "malignant"))
    model.save_model(tmp_path / name, format=name[2:])
    again = catboost.CatBoostClassifier().load_model(tmp_path / name, format=name[2:])  # JSON rounds
    rows = frame.to_numpy(dtype=np.float32)
    loaded = check_format(
        tmp_path / name, format="catboost", rows={"x": rows}, expected=classes(again, rows), wrong_suffix=wrong
    )
    assert loaded.signature.outputs[1].columns == ("benign", "malignant")
    assert loaded.signature.inputs[0].columns == tuple(frame.columns)


def test_catboost_answers_as_its_own_interface(tmp_path):
    features, target = iris()
    table, number = diabetes()
    made = [
        (catboost.CatBoostClassifier(**CAT).fit(features, target), features, classes),
        (
            catboost.CatBoostClassifier(**CAT, loss_function="MultiLogloss").fit(
                features, np.c_[target == 0, target == 1].astype(int)
            ),
            features,
            classes,
        ),
        (catboost.CatBoostRegressor(**CAT).fit(table, number), table, prediction),
        (catboost.CatBoostRegressor(**CAT, loss_function="Poisson").fit(table, number), table, prediction),
        (
            catboost.CatBoostRegressor(**CAT, loss_function="MultiRMSE").fit(table, np.c_[number, -number]),
            table,
            prediction,
        ),
    ]
    for model, rows, expected in made:
        model.save_model(tmp_path / "m.cbm")
        answer = formats.load(tmp_path / "m.cbm").predict({"x": rows.astype(np.float32)})
        for name, want in expected(model, rows.astype(np.float32)).items():
            assert np.array_equal(answer[name], want), (model, name)


def test_catboost_takes_categories_as_text(tmp_path):
    frame, target = mixed()
    table = frame[["length", "colour"]]
    model = catboost.CatBoostClassifier(**CAT, cat_features=["colour"], one_hot_max_size=1).fit(table, target)
    model.save_model(tmp_path / "m.cbm")
    rows = {"length": frame["length"].to_numpy(dtype=np.float32), "colour": as_bytes(frame["colour"])}
    loaded = check_format(
        tmp_path / "m.cbm", format="catboost", rows=rows, expected=classes(model, table), damage=False
    )
    assert [(s.name, s.datatype) for s in loaded.signature.inputs] == [("length", "FP32"), ("colour", "BYTES")]
