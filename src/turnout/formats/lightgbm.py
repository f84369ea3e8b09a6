"""LightGBM models saved as text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from turnout.core.errors import LoadFailed
from turnout.core.servable import Model
from turnout.core.signature import Signature
from turnout.core.tensors import Array, Tensors
from turnout.formats.artifact import Artifact, LoadOptions
from turnout.formats.declared import declared_inputs
from turnout.formats.lightgbm_trees import check_text
from turnout.formats.probabilities import classes, numbers_of, two_classes
from turnout.formats.refusals import library, loading
from turnout.formats.signatures import with_outputs
from turnout.formats.table import FP64, Table, column, fitted, numbers

_START = re.compile(rb"tree\r?\nversion=v\d+\r?\n")
_BINARY = ("binary",)
_CLASSES = ("multiclass", "multiclassova")


class LightGBM:
    """The LightGBM format."""

    name = "lightgbm"
    extra = "lightgbm"
    suffixes = (".txt", ".lgb", ".lgbm")

    def recognise(self, artifact: Artifact) -> bool:
        """Whether the file is a Booster saved as text."""
        return bool(_START.match(artifact.head))

    def load(self, artifact: Artifact, options: LoadOptions) -> Model:
        """The Booster as a model. Its structure is checked first: LightGBM itself may crash on a damaged tree."""
        booster, text = booster_of(artifact)
        with loading(artifact, "a LightGBM model"):
            return _model(booster, text, artifact, options)


def booster_of(artifact: Artifact) -> tuple[Any, str]:
    """The Booster in the file, checked, and the text it was made from. Raises as `load` does."""
    lightgbm = library("lightgbm", f"{artifact.label} (a LightGBM model)")
    with loading(artifact, "a LightGBM model"):
        text = artifact.file.read_text(encoding="utf-8")
        check_text(text)
        return lightgbm.Booster(model_str=text), text


class LightGBMModel:
    """Runs a Booster on rows of FP64; NaN is a missing value."""

    __slots__ = ("_answer", "_categories", "_predict", "_table", "_threads", "signature")

    def __init__(
        self,
        signature: Signature,
        table: Table,
        predict: Callable[..., Array],
        answer: Callable[[Array], Tensors],
        categories: Mapping[str, Mapping[Any, float]],
        threads: int,
    ) -> None:
        self.signature = signature
        self._table = table
        self._predict = predict
        self._answer = answer
        self._categories = categories
        self._threads = threads

    def predict(self, inputs: Tensors) -> Tensors:
        """`label` and `probabilities`, or `prediction`."""
        if self._categories:
            inputs = {name: self._codes(inputs, name) for name in inputs}
        return self._answer(self._predict(self._table.matrix(inputs, FP64), num_threads=self._threads))

    def _codes(self, inputs: Tensors, name: str) -> Array:
        """A text column as the numbers it was trained with; a value never seen is missing, as in LightGBM."""
        known = self._categories.get(name)
        if known is None:
            return inputs[name]
        values = self._table.column(inputs, name)
        return np.array([known.get(value, np.nan) for value in values.tolist()] if values is not None else [])


def _model(booster: Any, text: str, artifact: Artifact, options: LoadOptions) -> LightGBMModel:
    features = tuple(booster.feature_name())
    width = int(booster.num_feature())
    if features == tuple(f"Column_{i}" for i in range(width)):
        features = ()
    categories = _text_columns(text, features)
    if categories:
        specs = tuple(column(name, "BYTES" if name in categories else "FP64") for name in features)
        own = Signature(specs, (), lenient=True)
    else:
        own = Signature((numbers(features, width, "FP64"),), (), lenient=True)
    signature = fitted(declared_inputs(artifact, options), own, features, width, artifact.label)
    table = Table(signature.inputs, features)
    if any(spec.datatype == "BYTES" and spec.name not in categories for spec in signature.inputs):
        raise LoadFailed(f"{artifact.label}: a text column in the signature or example is a number in the model")
    objective = re.search(r"^objective=(\S+)(?: num_class:(\d+))?", text, re.MULTILINE)
    kind, count = (objective[1], int(objective[2] or 0)) if objective else ("", 0)
    answer: Callable[[Array], Tensors]
    names: Sequence[str] = ()
    if kind in _BINARY:
        answer, names = two_classes, numbers_of(2)
    elif kind in _CLASSES:
        answer, names = classes, numbers_of(count)
    else:
        answer = _prediction
    model = LightGBMModel(signature, table, booster.predict, answer, categories, options.threads)
    values = {name: str(next(iter(known))).encode() for name, known in categories.items() if known}
    model.signature = with_outputs(signature, model.predict, values=values, columns={"probabilities": tuple(names)})
    return model


def _prediction(value: Array) -> Tensors:
    return {"prediction": value}


def _text_columns(text: str, features: Sequence[str]) -> dict[str, dict[Any, float]]:
    """The text columns of a model fitted on a pandas data frame: each value and the number it was trained as."""
    stored = re.search(r"^pandas_categorical:(.*)$", text, re.MULTILINE)
    lists = json.loads(stored[1]) if stored and stored[1].strip() not in {"", "null"} else []
    if not lists or not features:
        return {}
    chosen = re.search(r"^\[categorical_feature: ([\d,]*)\]", text, re.MULTILINE)
    places = [int(place) for place in chosen[1].split(",") if place] if chosen else []
    if len(places) != len(lists):
        return {}
    return {
        features[place]: {value: float(code) for code, value in enumerate(values)}
        for place, values in zip(places, lists, strict=True)
        if all(isinstance(value, str) for value in values)
    }
