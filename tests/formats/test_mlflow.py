"""MLflow's model directories: read without MLflow where a format of ours reads the flavor's file."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import skops.io
import xgboost
from sklearn.linear_model import LogisticRegression

from tests.formats.data import TRUSTED, cancer, iris
from turnout import formats
from turnout.core.errors import LoadFailed, MissingExtra, PickleRefused
from turnout.core.messages import Context, InferResponse
from turnout.core.signature import PARAMETERS, Signature, TensorSpec
from turnout.formats.mlmodel import open_mlmodel, specs
from turnout.formats.mlmodel_text import parse
from turnout.protocols.http import HttpRequest
from turnout.protocols.mlflow import MlflowInvocations
from turnout.runtime.predict import run_model
from turnout.testing.formats import (
    Tolerance,
    assert_same,
    check_recognised,
    check_signature,
    check_splits,
    check_threads,
)

COLUMNS = ("a", "b", "c", "d")


def described(path, flavors, inputs=None, *, params=None):
    """An MLmodel file in the directory."""
    entries = inputs if inputs is not None else [{"type": "double", "name": name} for name in COLUMNS]
    lines = ["flavors:"]
    for flavor, said in flavors.items():
        lines += [f"  {flavor}:", *(f"    {key}: {value}" for key, value in said.items())]
    lines += ["signature:", f"  inputs: '{json.dumps(entries)}'", "  outputs: null"]
    lines += [f"  params: '{json.dumps(params)}'" if params else "  params: null", "utc_time_created: '2026-01-01'"]
    (path / "MLmodel").write_text("\n".join(lines) + "\n")
    return path


def logistic(path, *, predict="predict"):
    """A directory as MLflow writes it for a scikit-learn model without a pickle."""
    features, classes = iris()
    model = LogisticRegression(max_iter=500).fit(features, classes)
    path.mkdir(exist_ok=True)
    skops.io.dump(model, path / "model.skops")
    own = {"loader_module": "mlflow.sklearn", "predict_fn": predict}
    return described(path, {"python_function": own, "sklearn": {"pickled_model": "model.skops"}}), model


def invoked(model, body):
    """What `POST /invocations` answers."""
    served = SimpleNamespace(name="m", version="1", signature=model.signature)
    http = HttpRequest("POST", "/invocations", "", {"content-type": "application/json"}, json.dumps(body).encode())
    codec = MlflowInvocations()
    request = codec.decode(http, served, Context())
    outputs = run_model(model, request.inputs, request.rows)
    return json.loads(codec.encode(http, request, InferResponse(outputs, "m", "1")).body)["predictions"]


def test_the_native_library_answers_for_a_flavor_it_knows(tmp_path):
    path, own = logistic(tmp_path / "m")
    check_recognised(path, "mlflow")
    model = formats.load(path)
    features, _ = iris()
    assert model.signature.inputs[0].columns == COLUMNS
    assert_same(model.predict({"x": features})["label"], own.predict(features))
    check_signature(model, {"x": features})
    check_splits(model, {"x": features}, Tolerance(relative=1e-12))
    check_threads(model, {"x": features})
    rows = [dict(zip(reversed(COLUMNS), map(float, row[::-1]), strict=True)) for row in features[:3]]
    assert invoked(model, {"dataframe_records": rows}) == own.predict(features[:3]).tolist()


def test_pyfunc_may_answer_with_probabilities(tmp_path):
    path, own = logistic(tmp_path / "m", predict="predict_proba")
    features, _ = iris()
    assert invoked(formats.load(path), {"inputs": features[:3].tolist()}) == own.predict_proba(features[:3]).tolist()


@pytest.mark.parametrize("objective", ["binary:logistic", "multi:softprob", "multi:softmax", "reg:squarederror"])
def test_a_booster_answers_what_it_predicts_itself(tmp_path, objective):
    features, classes = iris() if objective.startswith("multi") else cancer()
    how = {"objective": objective, "nthread": 1} | ({"num_class": 3} if objective.startswith("multi") else {})
    data = xgboost.DMatrix(np.asarray(features), classes)
    booster = xgboost.train(how, data, 4)
    booster.save_model(tmp_path / "model.ubj")
    columns = [{"type": "double", "name": f"c{i}"} for i in range(data.num_col())]
    described(tmp_path, {"xgboost": {"data": "model.ubj", "model_class": "xgboost.core.Booster"}}, columns)
    model = formats.load(tmp_path)
    assert_same(model.predict({"x": np.asarray(features, dtype=np.float32)})["prediction"], booster.predict(data))
    assert model.signature.outputs[0].name == "prediction"


def test_code_is_refused_with_what_to_do(tmp_path):
    described(tmp_path, {"python_function": {"loader_module": "mlflow.pyfunc.model"}})
    with pytest.raises(PickleRefused, match=r"loaded by mlflow\.pyfunc\.model.*--trust-pickle.*skops"):
        formats.load(tmp_path)
    with pytest.raises(MissingExtra, match=r"pip install 'turnout\[mlflow\]'"):
        formats.load(tmp_path, TRUSTED)


def test_a_pickle_in_an_mlflow_directory_is_refused_as_one(tmp_path):
    (tmp_path / "model.pkl").write_bytes(b"\x80\x04K\x01.")
    described(tmp_path, {"sklearn": {"pickled_model": "model.pkl"}})
    with pytest.raises(PickleRefused, match="serialization_format='skops'"):
        formats.load(tmp_path)


def test_what_a_directory_lacks_is_said(tmp_path):
    path, _ = logistic(tmp_path / "m")
    (path / "model.skops").unlink()
    with pytest.raises(LoadFailed, match=r"'model\.skops', which is not there"):
        formats.load(path)
    described(path, {"sklearn": {"pickled_model": "../../etc/passwd"}})
    with pytest.raises(LoadFailed, match="outside the model's directory"):
        formats.load(path)
    described(path, {"onnx": {"onnx_version": "1"}})
    with pytest.raises(LoadFailed, match="which file"):
        formats.load(path)
    described(path, {"spark": {"model_data": "sparkml"}})
    with pytest.raises(LoadFailed, match="spark, which has no python_function"):
        formats.load(path)
    (path / "MLmodel").write_text("")
    with pytest.raises(LoadFailed, match="MLmodel is empty"):
        formats.load(path)


def test_a_broken_mlmodel_is_refused_and_raises_nothing_else(tmp_path):
    path, _ = logistic(tmp_path / "m")
    text = (path / "MLmodel").read_text()
    copies = [text[:end] for end in range(len("flavors:\n"), len(text), 3)]
    copies += [text[:at] + chr(ord(text[at]) ^ 4) + text[at + 1 :] for at in range(0, len(text), 5)]
    refused = 0
    for copy in copies:
        (path / "MLmodel").write_text(copy)
        try:
            specs(open_mlmodel(path).inputs or ())
        except LoadFailed:
            refused += 1
    assert refused > len(copies) / 2


def test_nested_columns_are_refused_by_name(tmp_path):
    path, _ = logistic(tmp_path / "m")
    described(
        path, {"sklearn": {"pickled_model": "model.skops"}}, [{"name": "v", "type": "array", "items": {"type": "long"}}]
    )
    with pytest.raises(LoadFailed, match="column 'v' has the type 'array'"):
        formats.load(path)


def test_mlmodel_text_is_read_as_yaml():
    text = (
        "a:\n- x\n- y: 1\n  z: 'it''s\n    long'\nb: {}\nc: null\n\n"
        "d:\n  e: plain\n    folded\n  f: |\n    one\n    two\n"
        '"k k": true\n'
    )
    expected = {
        "a": ["x", {"y": "1", "z": "it's long"}],
        "b": {},
        "c": None,
        "d": {"e": "plain folded", "f": "one\ntwo"},
        "k k": True,
    }
    assert parse(text, "t") == expected
    for broken in ("a: 'x\n", "just text\n", "a: 1\n   b: 2\n", "a: 1\na: 2\n", "- 1\n"):
        with pytest.raises(LoadFailed):
            parse(broken, "t")


class Doubled:
    """A model that was logged with parameters."""

    signature = Signature(
        (
            TensorSpec("v", "FP64", (-1,), ("v",)),
            TensorSpec("w", "FP64", (-1,), ("w",), optional=True),
            TensorSpec(f"{PARAMETERS}k", "FP64", (1,), optional=True),
            TensorSpec(f"{PARAMETERS}names", "BYTES", (-1,), optional=True),
        ),
        (TensorSpec("y", "FP64", (-1,)),),
        batched=False,
        form="table",
    )

    def predict(self, inputs):
        names = len(inputs.get(f"{PARAMETERS}names", ()))
        return {"y": inputs["v"] * inputs.get(f"{PARAMETERS}k", np.array([1.0])) + inputs.get("w", 0.0) + names}


def test_parameters_and_optional_columns_reach_the_model():
    records = [{"v": 1.0}, {"v": 2.0}]
    assert invoked(Doubled(), {"dataframe_records": records}) == [{"y": 1.0}, {"y": 2.0}]
    parameters = {"k": 3, "names": ["a", "b"], "unknown": 1}
    assert invoked(Doubled(), {"dataframe_records": records, "params": parameters}) == [{"y": 5.0}, {"y": 8.0}]
    assert invoked(Doubled(), {"dataframe_records": [{"v": 1.0, "w": 0.5}]}) == [{"y": 1.5}]
