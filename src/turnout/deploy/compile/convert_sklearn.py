"""scikit-learn estimators and pipelines to ONNX, in the precision that their own code has.

scikit-learn computes in FP64, but its trees round their rows to FP32 first and compare them with FP64 thresholds.
Each way below does the same in the graph; FP32 throughout comes last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from turnout.core.errors import LoadFailed
from turnout.core.signature import Signature
from turnout.deploy.compile.graph import ELEMENTS, Converted, Feed, Piece, onnx_library
from turnout.deploy.compile.thresholds import of_sklearn, trees_of
from turnout.deploy.compile.trees import exact_votes, imputed, missing_goes, widened
from turnout.formats.refusals import library
from turnout.formats.sklearn_inputs import inputs_of

#: Estimators that round their rows to FP32 themselves.
_TREES = (
    "RandomForest", "ExtraTree", "ExtraTrees", "DecisionTree", "GradientBoosting", "IsolationForest",
    "XGBClassifier", "XGBRegressor",
)  # fmt: skip
_BOOSTED = ("XGBClassifier", "XGBRegressor", "LGBMClassifier", "LGBMRegressor")
_TEXTS = ("CountVectorizer", "TfidfVectorizer")
_OPSETS = {"": 18, "ai.onnx.ml": 3}
_DEPTH = 8


def from_sklearn(source: Any) -> Iterator[Callable[[], Converted]]:
    """The ways for this estimator."""
    estimator = unwrapped(source.native)
    last = unwrapped(estimator.steps[-1][1]) if _is_pipeline(estimator) else estimator
    if type(last).__name__ in _BOOSTED:
        _register(last)
    if _rounds(last):
        if estimator is last:
            yield lambda: _convert(source, estimator, "double, rounded", "FP64", rounded=True)
        else:
            yield lambda: _in_two(source, estimator)
    yield lambda: _convert(source, estimator, "double", "FP64")
    yield lambda: _convert(source, estimator, "float", "FP32")


def unwrapped(estimator: Any) -> Any:
    """The estimator that a search has found best."""
    for _ in range(_DEPTH):
        if not hasattr(estimator, "best_estimator_"):
            break
        estimator = estimator.best_estimator_
    return estimator


def _is_pipeline(estimator: Any) -> bool:
    return type(estimator).__name__ == "Pipeline" and len(getattr(estimator, "steps", ())) > 1


def _rounds(last: Any) -> bool:
    """Whether all that the estimator does with its rows is to round them and walk through trees."""
    inner = getattr(last, "estimators_", None)
    name = type(last).__name__
    if name.startswith(_TREES):
        return True
    return name.startswith(("Bagging", "AdaBoost")) and bool(inner) and all(_rounds(one) for one in inner or ())


def _convert(source: Any, estimator: Any, name: str, datatype: str, *, rounded: bool = False) -> Converted:
    feeds = _feeds(source, estimator, datatype, rounded=rounded)
    model = _onnx(estimator, feeds, source.signature)
    last = unwrapped(estimator.steps[-1][1]) if _is_pipeline(estimator) else estimator
    _mended(model, estimator, last, datatype, rounded=rounded)
    return Converted(name, model, feeds, _outputs(model, source.signature))


def _mended(model: Any, whole: Any, last: Any, datatype: str, *, rounded: bool = False) -> None:
    """Puts back what the converter rounds or leaves out."""
    if last is not None:
        trees = list(trees_of(last))
        missing_goes(model, trees)
        kind = type(last).__name__
        if rounded and kind.startswith(("RandomForestC", "ExtraTreesC")) and np.ndim(last.classes_[0]) == 0:
            exact_votes(model, trees, last.classes_.tolist())
        elif datatype == "FP64" and not rounded and (hasattr(last, "_predictors") or kind in _BOOSTED):
            widened(model, of_sklearn(last), zero_band=kind.startswith("LGBM"))
    if datatype == "FP64" and whole is not None:
        imputed(model, [float(value) for step in steps_of(whole) for value in _fills(step)])


def _fills(step: Any) -> list[Any]:
    found = getattr(step, "statistics_", ())
    return [value for value in found if isinstance(value, (int, float))]


def steps_of(estimator: Any, depth: int = _DEPTH) -> Iterator[Any]:
    """An estimator and the steps inside it."""
    estimator = unwrapped(estimator)
    if estimator is None or isinstance(estimator, str) or not depth:
        return
    yield estimator
    inner = [step for _, step in getattr(estimator, "steps", ()) or ()]
    inner += [one[1] for one in getattr(estimator, "transformers_", ()) or ()]
    inner += [one[1] for one in getattr(estimator, "transformer_list", ()) or ()]
    for step in inner:
        yield from steps_of(step, depth - 1)


def _in_two(source: Any, pipeline: Any) -> Converted:
    """What comes before the trees in FP64, then the rounding, then the trees: as the pipeline itself does it."""
    onnx = onnx_library()
    before, last = pipeline[:-1], unwrapped(pipeline.steps[-1][1])
    feeds = _feeds(source, before, "FP64")
    first = _onnx(before, feeds, source.signature)
    width = int(getattr(last, "n_features_in_", 0))
    second = _onnx(last, [Feed("inner", "FP64", [Piece("inner")])], source.signature, width=width)
    _mended(first, before, None, "FP64")
    _mended(second, None, last, "FP64", rounded=True)
    first = onnx.compose.add_prefix(first, "first_", rename_inputs=False)
    second = onnx.compose.add_prefix(second, "last_")
    make = onnx.helper.make_node
    given, taken = first.graph.output[0].name, second.graph.input[0].name
    second.graph.node.insert(0, make("Cast", ["first_rounded"], [taken], to=ELEMENTS["FP64"]))
    second.graph.node.insert(0, make("Cast", [given], ["first_rounded"], to=ELEMENTS["FP32"]))
    second.graph.ClearField("input")
    second.graph.input.extend(first.graph.input)
    nodes = [*first.graph.node, *second.graph.node]
    second.graph.ClearField("node")
    second.graph.node.extend(nodes)
    second.graph.initializer.extend(first.graph.initializer)
    known = {entry.domain: entry.version for entry in (*first.opset_import, *second.opset_import)}
    del second.opset_import[:]
    second.opset_import.extend(onnx.helper.make_opsetid(*entry) for entry in known.items())
    return Converted("double, rounded before the trees", second, feeds, _outputs(second, source.signature))


def _feeds(source: Any, estimator: Any, datatype: str, *, rounded: bool = False) -> list[Feed]:
    """How the signature's inputs become the converter's: one table of numbers, or each column by its name."""
    signature: Signature = source.signature
    known = inputs_of(estimator)
    if len(signature.inputs) == 1:
        spec = signature.inputs[0]
        if spec.datatype == "BYTES" or not _by_name(estimator):
            kind = "BYTES" if spec.datatype == "BYTES" else datatype
            return [Feed("input", kind, [Piece(spec.name)], rounded)]
        names = list(known.features or spec.columns)
        return [Feed(name, datatype, [Piece(spec.name, at)], rounded) for at, name in enumerate(names)]
    by_name = {spec.name: spec for spec in signature.inputs}
    if all(spec.datatype != "BYTES" for spec in signature.inputs) and not _by_name(estimator):
        order = [name for name in known.features if name in by_name] or list(by_name)
        if known.width and len(order) != known.width:
            raise LoadFailed("the model was fitted on columns that it never reads; its converter needs all of them")
        return [Feed("input", datatype, [Piece(name) for name in order], rounded)]
    return [
        Feed(spec.name, "BYTES" if spec.datatype == "BYTES" else datatype, [Piece(spec.name)], rounded)
        for spec in signature.inputs
    ]


def _by_name(estimator: Any) -> bool:
    """Whether the first step picks its columns by name."""
    first = unwrapped(estimator)
    for _ in range(_DEPTH):
        if not getattr(first, "steps", None):
            break
        first = unwrapped(first.steps[0][1])
    return any(
        isinstance(chosen, str) or (isinstance(chosen, (list, tuple)) and any(isinstance(c, str) for c in chosen))
        for _, _, chosen in getattr(first, "transformers_", ())
    )


def _onnx(estimator: Any, feeds: list[Feed], signature: Signature, *, width: int = 0) -> Any:
    tools = library("skl2onnx", "turnout compile, for a scikit-learn model,")
    types = library("skl2onnx.common.data_types", "turnout compile")
    kinds = {"BYTES": types.StringTensorType, "FP32": types.FloatTensorType, "FP64": types.DoubleTensorType}
    specs = {spec.name: spec for spec in signature.inputs}
    initial = []
    for feed in feeds:
        columns = width
        for piece in () if width else feed.pieces:
            spec = specs[piece.input]
            columns += 1 if piece.column is not None or len(spec.shape) == 1 else spec.shape[1]
        initial.append((feed.name, kinds[feed.datatype]([None, columns])))
    last = unwrapped(estimator.steps[-1][1]) if _is_pipeline(estimator) else estimator
    wished = {"zipmap": False} if hasattr(last, "classes_") else {}
    if wished and "scores" in {spec.name for spec in signature.outputs}:
        wished["raw_scores"] = True
    # The locale decides how text is put into lower case; this one is there wherever glibc is.
    texts = {id(step): {"locale": "C.UTF-8"} for step in steps_of(estimator) if type(step).__name__ in _TEXTS}
    for options in ([wished, {"zipmap": False}] if wished else []) + [{}]:
        chosen = texts | ({id(last): options} if options else {})
        try:
            return tools.convert_sklearn(estimator, initial_types=initial, target_opset=_OPSETS, options=chosen or None)
        except NameError:  # how it says that it does not know an option for this estimator
            if not options:
                raise
    raise LoadFailed("the converter knows none of its own options for this model")


def _outputs(model: Any, signature: Signature) -> dict[str, str]:
    names = [value.name for value in model.graph.output]
    order = {"probabilities": 1, "scores": 1}
    wanted = [spec.name for spec in signature.outputs]
    unknown = [name for name in wanted if name.startswith("probabilities_")]
    if unknown or any(order.get(name, 0) >= len(names) for name in wanted):
        raise LoadFailed(f"the converted model gives {', '.join(names)}; the original {', '.join(wanted)}")
    return {name: names[order.get(name, 0)] for name in wanted}


def _register(last: Any) -> None:
    """Tells skl2onnx which converter the boosting libraries' own estimators have."""
    register = library("skl2onnx", "turnout compile").update_registered_converter
    shapes = library("skl2onnx.common.shape_calculator", "turnout compile")
    kind = type(last)
    classifies = kind.__name__.endswith("Classifier")
    shape = (
        shapes.calculate_linear_classifier_output_shapes
        if classifies
        else shapes.calculate_linear_regressor_output_shapes
    )
    if kind.__name__.startswith("XGB"):
        found = library("onnxmltools.convert.xgboost.operator_converters.XGBoost", "turnout compile").convert_xgboost
    else:
        found = library("onnxmltools.convert.lightgbm.operator_converters.LightGbm", "turnout compile").convert_lightgbm
    options = {"nocl": [True, False], "zipmap": [True, False, "columns"]} if classifies else None
    register(kind, f"Turnout{kind.__name__}", shape, found, options=options)
