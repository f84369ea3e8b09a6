"""CatBoost models: its own binary form (cbm) and JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from turnout.core.errors import LoadFailed
from turnout.core.servable import Model
from turnout.core.signature import Signature
from turnout.core.tensors import Array, Tensors
from turnout.formats.artifact import Artifact, LoadOptions
from turnout.formats.declared import declared_inputs
from turnout.formats.refusals import library, loading
from turnout.formats.signatures import with_outputs
from turnout.formats.sklearn_model import plain
from turnout.formats.table import FP32, Table, column, fitted, numbers

_CLASSIFIERS = frozenset(
    {"Logloss", "CrossEntropy", "MultiClass", "MultiClassOneVsAll", "MultiLogloss", "MultiCrossEntropy"}
)
_JSON = re.compile(rb'\s*\{\s*"(features_info|ctr_data|model_info|oblivious_trees|trees|scale_and_bias)"\s*:')


class CatBoost:
    """The CatBoost formats."""

    name = "catboost"
    extra = "catboost"
    suffixes = (".cbm", ".cb", ".json")

    def recognise(self, artifact: Artifact) -> bool:
        """Whether the file is a saved CatBoost model in either form."""
        return artifact.head.startswith(b"CBM1") or _is_json(artifact)

    def load(self, artifact: Artifact, options: LoadOptions) -> Model:
        """The model with its own class names, feature names and kinds."""
        catboost, found, form = model_of(artifact)
        with loading(artifact, "a CatBoost model"):
            return _model(catboost, found, artifact, options, form)


def model_of(artifact: Artifact) -> tuple[Any, Any, str]:
    """The library, the model in the file, and which form the file has. Raises as `load` does."""
    binary = artifact.head.startswith(b"CBM1")
    if binary:
        artifact.check_suffix("CatBoost's binary form", "JSON", ".json")
    else:
        artifact.check_suffix("CatBoost's JSON", "CatBoost's binary form", ".cbm")
    catboost = library("catboost", f"{artifact.label} (a CatBoost model)")
    with loading(artifact, "a CatBoost model"):
        if binary:
            _check_length(artifact)
        else:
            json.loads(artifact.file.read_bytes())
        found = catboost.CatBoost()
        found.load_model(str(artifact.file), format="cbm" if binary else "json")
        return catboost, found, "cbm" if binary else "json"


class CatBoostModel:
    """Runs a CatBoost model; columns of categories and text are text, all others FP32 with NaN for a missing value."""

    __slots__ = ("_answer", "_features", "_table", "_text", "signature")

    def __init__(
        self,
        signature: Signature,
        table: Table,
        features: Sequence[str],
        text: frozenset[str],
        answer: Callable[[Any], Tensors],
    ) -> None:
        self.signature = signature
        self._table = table
        self._features = features
        self._text = text
        self._answer = answer

    def predict(self, inputs: Tensors) -> Tensors:
        """`label` and `probabilities`, or `prediction`."""
        if not self._text:
            return self._answer(self._table.matrix(inputs, FP32))
        rows = np.empty((len(next(iter(inputs.values()))), len(self._features)), dtype=object)
        for place, values in enumerate(self._table.columns(inputs).values()):
            rows[:, place] = values
        return self._answer(rows)


def _is_json(artifact: Artifact) -> bool:
    head = artifact.head
    return bool(_JSON.match(head)) and (
        b'"float_features"' in head or b'"categorical_features"' in head or b'"borders"' in head
    )


def _check_length(artifact: Artifact) -> None:
    """The binary form says how long its core is; more may follow, less may not."""
    if artifact.size < 8 or int.from_bytes(artifact.head[4:8], "little") + 8 > artifact.size:
        raise LoadFailed(f"{artifact.label}: the CatBoost model is cut off")


def _model(catboost: Any, found: Any, artifact: Artifact, options: LoadOptions, form: str) -> CatBoostModel:
    names = tuple(found.feature_names_ or ())
    width = len(names)
    features = () if names == tuple(str(i) for i in range(width)) else names
    labels = names or tuple(str(i) for i in range(width))
    if found.get_embedding_feature_indices():
        raise LoadFailed(
            f"{artifact.label}: the model takes embedding columns, which are not served yet; export it to ONNX"
        )
    text = frozenset(labels[i] for i in (*found.get_cat_feature_indices(), *found.get_text_feature_indices()))
    if text:
        own = Signature(tuple(column(n, "BYTES" if n in text else "FP32") for n in labels), (), lenient=True)
        features = labels
    else:
        own = Signature((numbers(features, width, "FP32"),), (), lenient=True)
    signature = fitted(declared_inputs(artifact, options), own, features, width, artifact.label)
    if any((spec.datatype == "BYTES") != (spec.name in text) for spec in signature.inputs):
        raise LoadFailed(
            f"{artifact.label}: its text columns are {', '.join(sorted(text)) or 'none'}; the signature differs"
        )
    answer, columns = _answer_of(catboost, found, artifact, form, options.threads)
    model = CatBoostModel(signature, Table(signature.inputs, features), features, text, answer)
    model.signature = with_outputs(signature, model.predict, columns={"probabilities": columns})
    return model


def _answer_of(
    catboost: Any, found: Any, artifact: Artifact, form: str, threads: int
) -> tuple[Callable[[Any], Tensors], tuple[str, ...]]:
    """How the model's answers are named: as CatBoost's own classifier and regressor would give them."""
    loss = str(_loss(found))
    if loss in _CLASSIFIERS or (not loss and len(found.classes_)):
        predict = found.predict

        def classify(rows: Any) -> Tensors:
            label = plain(predict(rows, prediction_type="Class", thread_count=threads))
            if label.ndim == 2 and label.shape[1] == 1:
                label = label[:, 0]
            return {"label": label, "probabilities": predict(rows, prediction_type="Probability", thread_count=threads)}

        return classify, tuple(str(value) for value in np.asarray(found.classes_).tolist())
    regressor = catboost.CatBoostRegressor()
    regressor.load_model(str(artifact.file), format=form)

    def regress(rows: Any) -> Tensors:
        value: Array = regressor.predict(rows, thread_count=threads)
        return {"prediction": value}

    return regress, ()


def _loss(found: Any) -> str:
    try:
        parameters = json.loads(found.get_metadata()["params"])
    except (KeyError, ValueError):
        return ""
    return str((parameters.get("loss_function") or {}).get("type", ""))
