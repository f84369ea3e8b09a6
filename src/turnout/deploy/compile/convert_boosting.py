"""XGBoost, LightGBM and CatBoost models to ONNX. Their rows, thresholds and comparisons are kept as they are."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from turnout.core.errors import LoadFailed
from turnout.core.signature import Signature
from turnout.deploy.compile.graph import Converted, Feed, Piece, onnx_library, without_zipmap
from turnout.deploy.compile.thresholds import of_lightgbm
from turnout.deploy.compile.trees import widened
from turnout.formats.refusals import library

_NAME = "x"


def pieces(signature: Signature, features: list[str]) -> list[Piece]:
    """The inputs of the signature side by side, in the order of the model's features."""
    if any(spec.datatype == "BYTES" for spec in signature.inputs):
        raise LoadFailed("the model takes text columns, for which its converter has no form")
    if len(signature.inputs) == 1:
        return [Piece(signature.inputs[0].name)]
    names = [spec.name for spec in signature.inputs]
    if features and not set(features) <= set(names):
        raise LoadFailed("the signature lacks some of the model's columns")
    return [Piece(name) for name in (features or names)]


def _width(signature: Signature) -> int:
    first = signature.inputs[0]
    return len(signature.inputs) if len(signature.inputs) > 1 or len(first.shape) == 1 else first.shape[1]


def outputs_of(model: Any, signature: Signature) -> dict[str, str]:
    """Which output of the graph is which of the signature: the label or the value first, then the probabilities."""
    names = [value.name for value in model.graph.output]
    wanted = [spec.name for spec in signature.outputs]
    if len(wanted) > len(names):
        raise LoadFailed(f"the converted model gives {', '.join(names)}; the original {', '.join(wanted)}")
    order = {"probabilities": 1, "scores": 1}
    return {name: names[min(order.get(name, 0), len(names) - 1)] for name in wanted}


def from_xgboost(source: Any) -> Iterator[Callable[[], Converted]]:
    """One way: XGBoost itself computes in FP32."""

    def convert() -> Converted:
        tools = library("onnxmltools", "turnout compile, for an XGBoost model,")
        booster = source.native
        features = list(booster.feature_names or ())
        booster.feature_names = None  # its converter takes numbered features only
        model = tools.convert_xgboost(booster, initial_types=[(_NAME, _floats(_width(source.signature)))])
        feed = Feed(_NAME, "FP32", pieces(source.signature, features))
        return Converted("float", model, [feed], outputs_of(model, source.signature))

    yield convert


def from_lightgbm(source: Any) -> Iterator[Callable[[], Converted]]:
    """Two ways: with LightGBM's own FP64 thresholds, else in FP32."""

    def convert(*, double: bool) -> Converted:
        tools = library("onnxmltools", "turnout compile, for a LightGBM model,")
        booster = source.native
        types = [(_NAME, _floats(_width(source.signature)))]
        options = {"zipmap": False} if "probabilities" in {s.name for s in source.signature.outputs} else {}
        model = tools.convert_lightgbm(booster, initial_types=types, **options)
        features = list(booster.feature_name())
        if double:
            widened(model, of_lightgbm(booster), zero_band=True)
        feed = Feed(_NAME, "FP64" if double else "FP32", pieces(source.signature, features))
        if double:
            model.graph.input[0].type.tensor_type.elem_type = 11
        return Converted("double" if double else "float", model, [feed], outputs_of(model, source.signature))

    yield lambda: convert(double=True)
    yield lambda: convert(double=False)


def from_catboost(source: Any) -> Iterator[Callable[[], Converted]]:
    """One way: CatBoost's own exporter, without the dictionaries it wraps probabilities in."""

    def convert() -> Converted:
        onnx = onnx_library()
        with tempfile.TemporaryDirectory() as place:
            path = Path(place) / "model.onnx"
            source.native.save_model(str(path), format="onnx")
            model = onnx.load(str(path))
        without_zipmap(model)
        names = list(source.native.feature_names_ or ())
        own = [] if names == [str(i) for i in range(len(names))] else names
        feed = Feed(model.graph.input[0].name, "FP32", pieces(source.signature, own))
        return Converted("float", model, [feed], outputs_of(model, source.signature))

    yield convert


def _floats(width: int) -> Any:
    types = library("onnxmltools.convert.common.data_types", "turnout compile")
    return types.FloatTensorType([None, width])
