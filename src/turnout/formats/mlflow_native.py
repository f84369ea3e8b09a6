"""Which file of an MLflow directory a format of ours loads, and how its answer becomes what pyfunc would answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from turnout.core.errors import LoadFailed
from turnout.core.servable import Model
from turnout.core.signature import Signature, TensorSpec
from turnout.core.tensors import Array, Tensors
from turnout.formats.mlmodel import MlModel

Answering = Callable[[Model], Model]
Choice = Callable[[Mapping[str, Any], MlModel], "Native | None"]


@dataclass(frozen=True)
class Native:
    """The file a flavor names, what the MLmodel says of it, and what gives its model the answers of pyfunc."""

    path: Path
    configuration: Mapping[str, Any]
    answering: Answering


class FirstOutput:
    """A model with one more output in front: what the library's `predict` gives, for those who ask pyfunc."""

    __slots__ = ("_answer", "_model", "_name", "signature")

    def __init__(self, model: Model, spec: TensorSpec, answer: Callable[[Tensors], Array]) -> None:
        self._model = model
        self._name = spec.name
        self._answer = answer
        others = tuple(one for one in model.signature.outputs if one.name != spec.name)
        self.signature = replace(model.signature, outputs=(spec, *others))

    def predict(self, inputs: Tensors) -> Tensors:
        """All outputs of the model, the one in front included."""
        answer = self._model.predict(inputs)
        return {**answer, self._name: self._answer(answer)}


class Tabular:
    """A model whose outputs are the columns of a table, as pyfunc makes one: tensors of one column are flat."""

    __slots__ = ("_flat", "_model", "signature")

    def __init__(self, model: Model, signature: Signature) -> None:
        self._model = model
        self._flat = frozenset(s.name for s in signature.outputs if len(s.shape) == 2 and s.shape[1] == 1)
        outputs = tuple(replace(s, shape=s.shape[:1]) if s.name in self._flat else s for s in signature.outputs)
        self.signature = replace(signature, outputs=outputs, form="table")

    def predict(self, inputs: Tensors) -> Tensors:
        """The model's outputs, flat where they are one column."""
        answer = self._model.predict(inputs)
        return {name: array.reshape(-1) if name in self._flat else array for name, array in answer.items()}


def native(mlmodel: MlModel) -> Native | None:
    """The flavor whose file a format of ours loads; None where only pyfunc answers as MLflow does.

    Raises LoadFailed where the MLmodel names a file that is not there.
    """
    if mlmodel.params or any(entry.get("type") == "datetime" for entry in mlmodel.inputs or ()):
        return None
    for flavor, choice in _CHOICES.items():
        configuration = mlmodel.flavors.get(flavor)
        if configuration is not None:
            return choice(configuration, mlmodel)
    return None


def _sklearn(configuration: Mapping[str, Any], mlmodel: MlModel) -> Native | None:
    function = mlmodel.flavors.get("python_function", {}).get("predict_fn") or "predict"
    path = mlmodel.file(configuration.get("pickled_model"))
    if function == "predict":
        return Native(path, configuration, _unchanged)
    if function == "predict_proba":
        return Native(path, configuration, _probabilities)
    return None


def _unchanged(model: Model) -> Model:
    return model


def _probabilities(model: Model) -> Model:
    spec = next((one for one in model.signature.outputs if one.name == "probabilities"), None)
    if spec is None:
        raise LoadFailed("the model was logged with pyfunc_predict_fn='predict_proba', and gives no probabilities")
    return FirstOutput(model, spec, lambda answer: answer["probabilities"])


def _xgboost(configuration: Mapping[str, Any], mlmodel: MlModel) -> Native | None:
    path = mlmodel.file(configuration.get("data"))
    if str(configuration.get("model_class") or "").endswith("Classifier"):
        return Native(path, configuration, _unchanged)
    data = path.read_bytes() if path.is_file() else b""
    codes, several = b"multi:softmax" in data, b"multi:softprob" in data
    return Native(path, configuration, lambda model: _raw(model, "FP32", several=several, codes=codes))


def _lightgbm(configuration: Mapping[str, Any], mlmodel: MlModel) -> Native | None:
    path = mlmodel.file(configuration.get("data"))
    if str(configuration.get("model_class") or "lightgbm.basic.Booster").endswith(".Booster"):
        several = path.is_file() and b"\nobjective=multiclass" in path.read_bytes()
        return Native(path, configuration, lambda model: _raw(model, "FP64", several=several))
    return Native(path, configuration, _unchanged)


def _raw(model: Model, datatype: str, *, several: bool, codes: bool = False) -> Model:
    """What a Booster itself predicts: the probability of class 1, all probabilities, or the class as a number."""
    outputs = {spec.name: spec for spec in model.signature.outputs}
    if "prediction" in outputs:
        return model
    probabilities = outputs.get("probabilities")
    dtype = TensorSpec("prediction", datatype, (-1,)).dtype
    if probabilities is None or codes:
        spec = TensorSpec("prediction", datatype, outputs["label"].shape)
        return FirstOutput(model, spec, lambda answer: answer["label"].astype(dtype))
    if not several and len(outputs["label"].shape) == 1:
        spec = TensorSpec("prediction", probabilities.datatype, (-1,))
        return FirstOutput(model, spec, lambda answer: np.ascontiguousarray(answer["probabilities"][:, 1]))
    spec = TensorSpec("prediction", probabilities.datatype, probabilities.shape, probabilities.columns)
    return FirstOutput(model, spec, lambda answer: answer["probabilities"])


def _catboost(configuration: Mapping[str, Any], mlmodel: MlModel) -> Native | None:
    path = mlmodel.file(configuration.get("data"))
    kind = configuration.get("model_type")
    if kind == "CatBoostRegressor":
        return Native(path, configuration, _unchanged)
    if kind != "CatBoostClassifier" or not path.is_file():
        return None
    loss = re.search(rb'"?loss_function"?\W{1,8}type\W{1,8}(\w+)', path.read_bytes())
    several = loss is not None and loss[1].startswith(b"MultiClass")
    return Native(path, configuration, _column if several else _unchanged)


def _column(model: Model) -> Model:
    """CatBoost's own predict gives the classes of a model of several as one column."""
    label = next(spec for spec in model.signature.outputs if spec.name == "label")
    return FirstOutput(model, replace(label, shape=(-1, 1)), lambda answer: answer["label"].reshape(-1, 1))


def _onnx(configuration: Mapping[str, Any], mlmodel: MlModel) -> Native | None:
    def answering(model: Model) -> Model:
        signature = replace(model.signature, form="names" if mlmodel.has_tensors else "")
        if not mlmodel.has_columns:
            model.signature = signature
            return model
        names = tuple(str(entry.get("name") or "") for entry in mlmodel.inputs or ())
        first = signature.inputs[0]
        if len(signature.inputs) == 1 and len(first.shape) == 2 and first.shape[1] == len(names) and all(names):
            signature = replace(signature, inputs=(replace(first, columns=names),))
        return Tabular(model, signature)

    return Native(mlmodel.file(configuration.get("data")), configuration, answering)


#: By flavor, the first that a directory has. Others answer through pyfunc.
_CHOICES: Mapping[str, Choice] = {
    "sklearn": _sklearn,
    "xgboost": _xgboost,
    "lightgbm": _lightgbm,
    "catboost": _catboost,
    "onnx": _onnx,
}
