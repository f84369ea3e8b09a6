"""XGBoost models saved as JSON or UBJSON."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from turnout.core.errors import LoadFailed
from turnout.core.servable import Model
from turnout.core.signature import Signature
from turnout.core.tensors import Array, Tensors
from turnout.formats.artifact import Artifact, LoadOptions
from turnout.formats.declared import declared_inputs
from turnout.formats.probabilities import classes, many_labels, numbers_of, softmax, two_classes
from turnout.formats.refusals import library, loading
from turnout.formats.signatures import with_outputs
from turnout.formats.table import FP32, Table, fitted, numbers
from turnout.formats.xgboost_trees import check_model

_JSON = re.compile(rb'\s*\{\s*"(learner|version)"\s*:\s*[\[{]')
_UBJSON = re.compile(rb"\{(L.{7}|l.{3}|I.|i|U)\x07(learner|version)", re.DOTALL)

Answer = Callable[[Array], Tensors]


class XGBoost:
    """The XGBoost formats."""

    name = "xgboost"
    extra = "xgboost"
    suffixes = (".json", ".ubj", ".bst", ".xgb")

    def recognise(self, artifact: Artifact) -> bool:
        """Whether the file is a saved Booster in JSON or UBJSON."""
        head = artifact.head
        if _JSON.match(head):
            return b'"learner"' in head
        return bool(_UBJSON.match(head)) and b"learner" in head

    def load(self, artifact: Artifact, options: LoadOptions) -> Model:
        """The Booster as a model. Its structure is checked first: XGBoost itself crashes on a damaged tree."""
        xgboost, booster = booster_of(artifact, options)
        with loading(artifact, "an XGBoost model"):
            return _model(xgboost, booster, artifact, options)


def booster_of(artifact: Artifact, options: LoadOptions) -> tuple[Any, Any]:
    """The library and the Booster in the file, checked. Raises as `load` does."""
    is_json = artifact.head.lstrip()[:1] == b"{" and bool(_JSON.match(artifact.head))
    if is_json:
        artifact.check_suffix("XGBoost's JSON", "XGBoost's UBJSON", ".ubj")
    else:
        artifact.check_suffix("XGBoost's UBJSON", "JSON", ".json")
    xgboost = library("xgboost", f"{artifact.label} (an XGBoost model)")
    with loading(artifact, "an XGBoost model"):
        data = artifact.file.read_bytes()
        check_model(data, is_json=is_json)
        booster = xgboost.Booster(params={"nthread": options.threads})
        booster.load_model(bytearray(data))
        booster.set_param({"nthread": options.threads})
        return xgboost, booster


class XGBoostModel:
    """Runs a Booster on rows of FP32; NaN is a missing value."""

    __slots__ = ("_answer", "_table", "signature")

    def __init__(self, signature: Signature, table: Table, answer: Answer) -> None:
        self.signature = signature
        self._table = table
        self._answer = answer

    def predict(self, inputs: Tensors) -> Tensors:
        """`label` and `probabilities`, or `prediction`."""
        return self._answer(self._table.matrix(inputs, FP32))


def _model(xgboost: Any, booster: Any, artifact: Artifact, options: LoadOptions) -> XGBoostModel:
    features = tuple(booster.feature_names or ())
    width = int(booster.num_features())
    own = Signature((numbers(features, width, "FP32"),), (), lenient=True)
    signature = fitted(declared_inputs(artifact, options), own, features, width, artifact.label)
    table = Table(signature.inputs, features)
    if table.has_text:
        raise LoadFailed(f"{artifact.label}: an XGBoost model takes numbers; the signature or example has text")
    config = json.loads(booster.save_config())["learner"]
    answer, columns = _answer_of(xgboost, booster, config)
    model = XGBoostModel(signature, table, answer)
    model.signature = with_outputs(signature, model.predict, columns={"probabilities": tuple(columns)})
    return model


def _answer_of(xgboost: Any, booster: Any, config: dict[str, Any]) -> tuple[Answer, list[str]]:
    """How the Booster's answers are named: as xgboost's own classifier and regressor would give them."""
    objective = config["objective"]["name"]
    settings = config["learner_model_param"]
    targets = int(settings.get("num_target") or 1)
    value, margin = _runner(xgboost, booster, config, "value"), _runner(xgboost, booster, config, "margin")
    if objective == "binary:logistic":
        if targets > 1:
            return lambda rows: many_labels(value(rows)), []
        return lambda rows: two_classes(value(rows)), list(numbers_of(2))
    if objective == "binary:hinge":
        return lambda rows: {"label": value(rows).astype(np.int64)}, []
    if objective in {"multi:softprob", "multi:softmax"}:
        names = list(numbers_of(int(settings["num_class"])))
        if objective == "multi:softprob":
            return lambda rows: classes(value(rows)), names
        return lambda rows: classes(softmax(margin(rows))), names
    return lambda rows: {"prediction": value(rows)}, []


def _runner(xgboost: Any, booster: Any, config: dict[str, Any], kind: str) -> Callable[[Array], Array]:
    """The Booster's predict for one kind of answer.

    A model saved by the scikit-learn interface stops at its best iteration, as that interface does; a Booster
    saved by itself uses all its trees, as it does too.
    """
    attributes = booster.attributes()
    best = attributes.get("best_iteration") if "scikit_learn" in attributes else None
    trees = (0, int(best) + 1) if best is not None else (0, 0)
    if config["gradient_booster"].get("name") == "gblinear":
        return lambda rows: booster.predict(
            xgboost.DMatrix(rows), output_margin=kind == "margin", validate_features=False
        )
    predict = booster.inplace_predict
    return lambda rows: predict(rows, iteration_range=trees, predict_type=kind, validate_features=False)
