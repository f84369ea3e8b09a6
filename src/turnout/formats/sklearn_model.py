"""A fitted scikit-learn estimator, or one with its interface, as a model with named outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from turnout.core.errors import InvalidInput, LoadFailed
from turnout.core.signature import Signature
from turnout.core.tensors import Array, Tensors, canonical
from turnout.formats.refusals import library
from turnout.formats.signatures import with_outputs
from turnout.formats.sklearn_inputs import Inputs, first_step, picks_by_name, works_on_frames
from turnout.formats.table import FP64, Table

#: Classifiers whose `predict` is, by their own code, the class of the largest `predict_proba`.
_BY_PROBABILITY = frozenset(
    {
        "RandomForestClassifier",
        "ExtraTreesClassifier",
        "DecisionTreeClassifier",
        "ExtraTreeClassifier",
        "BaggingClassifier",
    }
)
_DEPTH = 8


class SklearnModel:
    """Runs an estimator. Outputs: `label` and `probabilities`, `prediction`, `cluster` or `transformed`."""

    __slots__ = ("_convert", "_outputs", "_prepare", "signature")

    def __init__(
        self,
        signature: Signature,
        convert: Callable[[Tensors], Any],
        prepare: Callable[[Any], Any] | None,
        outputs: Mapping[str, Callable[[Any], Any]],
    ) -> None:
        self.signature = signature
        self._convert = convert
        self._prepare = prepare
        self._outputs = outputs

    def predict(self, inputs: Tensors) -> Tensors:
        """The estimator's answers for the rows. Steps before the last one run once for all outputs.

        Raises InvalidInput for categories never seen and for missing values where the estimator takes none.
        """
        try:
            return self._answer(self._convert(inputs))
        except ValueError as problem:
            fault = _caller_fault(problem)
            if fault is None:
                raise
            raise fault from problem

    def _answer(self, rows: Any) -> Tensors:
        if self._prepare is not None:
            rows = self._prepare(rows)
        answer: dict[str, Array] = {}
        for name, method in self._outputs.items():
            value = method(rows)
            if type(value) is list and name == "probabilities":
                answer.update((f"{name}_{i}", canonical(np.asarray(part))) for i, part in enumerate(value))
            elif type(value) is dict:
                answer.update(value)
            else:
                answer[name] = plain(value)
        return answer


def plain(value: Any) -> Array:
    """A dense array of a type that has a name on the wire."""
    if hasattr(value, "toarray"):
        value = value.toarray()
    array = np.asarray(value)
    if array.dtype.kind in "OUS":
        flat = array.ravel().tolist()
        if flat and not any(isinstance(v, (str, bytes)) for v in flat):
            return np.array(flat).reshape(array.shape)
    elif array.dtype.kind == "i" and array.dtype.itemsize < 8:
        return array.astype(np.int64)
    return canonical(array)


def build(
    estimator: Any, inputs: Inputs, signature: Signature, label: str, *, example: Tensors | None, threads: int
) -> SklearnModel:
    """The model for an estimator whose input signature is known. Raises LoadFailed if it cannot answer."""
    _set_threads(estimator, threads)
    table = Table(signature.inputs, inputs.features)
    convert = _converter(estimator, inputs, signature, table, label)
    prepare, outputs, columns = _outputs(estimator, label)
    if signature.outputs:
        unknown = [s.name for s in signature.outputs if s.name not in outputs]
        if unknown:
            raise LoadFailed(f"{label} gives the outputs {', '.join(outputs)}; there is no {', '.join(unknown)}")
        outputs = {spec.name: outputs[spec.name] for spec in signature.outputs}
    model = SklearnModel(signature, convert, prepare, outputs)
    model.signature = with_outputs(signature, model.predict, values=inputs.values, columns=columns, example=example)
    return model


def _outputs(
    estimator: Any, label: str
) -> tuple[Callable[[Any], Any] | None, dict[str, Callable[[Any], Any]], dict[str, tuple[str, ...]]]:
    """What runs before the last step, the outputs by name, and the names of their columns."""
    prepare = None
    last = estimator
    for _ in range(_DEPTH):
        if hasattr(last, "best_estimator_"):
            last = last.best_estimator_
        elif type(last).__name__ == "Pipeline" and type(last).__module__ == "sklearn.pipeline" and prepare is None:
            if len(last.steps) > 1 and last.steps[-1][1] not in (None, "passthrough"):
                prepare = last[:-1].transform
                last = last.steps[-1][1]
            else:
                break
        else:
            break
    outputs, columns = _methods(last)
    if not outputs:
        raise LoadFailed(f"{label} holds a {type(estimator).__name__}, which has neither predict nor transform")
    return prepare, outputs, columns


def _methods(last: Any) -> tuple[dict[str, Callable[[Any], Any]], dict[str, tuple[str, ...]]]:
    kind = getattr(last, "_estimator_type", None)
    classes = getattr(last, "classes_", None)
    if not hasattr(last, "predict"):
        return ({"transformed": last.transform} if hasattr(last, "transform") else {}), {}
    if kind == "clusterer" or (kind is None and _is_clusterer(last)):
        outputs = {"cluster": last.predict}
        if hasattr(last, "predict_proba"):
            outputs["probabilities"] = last.predict_proba
        return outputs, {}
    if kind == "outlier_detector" or (hasattr(last, "fit_predict") and hasattr(last, "decision_function")):
        return {"label": last.predict, "scores": last.decision_function}, {}
    if classes is None and not hasattr(last, "predict_proba"):
        return {"prediction": last.predict}, {}
    columns = {"probabilities": _column_names(classes)}
    if not hasattr(last, "predict_proba"):
        outputs = {"label": last.predict}
        if hasattr(last, "decision_function"):
            outputs["scores"] = last.decision_function
        return outputs, {}
    if type(last).__name__ in _BY_PROBABILITY and isinstance(classes, np.ndarray) and classes.ndim == 1:
        return {"label": _ByProbability(last), "probabilities": _nothing}, columns
    return {"label": last.predict, "probabilities": last.predict_proba}, columns


class _ByProbability:
    """Both outputs of a forest from one walk through its trees, as its own `predict` does."""

    def __init__(self, forest: Any) -> None:
        self._predict_proba = forest.predict_proba
        self._classes = forest.classes_

    def __call__(self, rows: Any) -> dict[str, Array]:
        probabilities = self._predict_proba(rows)
        return {"label": plain(self._classes.take(np.argmax(probabilities, axis=1))), "probabilities": probabilities}


def _nothing(_rows: Any) -> dict[str, Array]:
    """Stands where an output has come with another one."""
    return {}


def _is_clusterer(last: Any) -> bool:
    return hasattr(last, "fit_predict") and type(last).__module__.startswith(("sklearn.cluster", "sklearn.mixture"))


def _column_names(classes: Any) -> tuple[str, ...]:
    if isinstance(classes, np.ndarray) and classes.ndim == 1:
        return tuple(str(value) for value in classes.tolist())
    return ()


def _converter(
    estimator: Any, inputs: Inputs, signature: Signature, table: Table, label: str
) -> Callable[[Tensors], Any]:
    """How tensors become what the estimator was fitted on: an array, a list of texts, or a data frame."""
    if not inputs.width:
        return table.text if table.has_text and table.single else lambda tensors: table.matrix(tensors, FP64)
    if inputs.features and (table.has_text or _needs_frame(estimator)):
        pandas = library("pandas", f"{label} (fitted on a data frame with named columns)")
        single = table.single if len(signature.inputs[0].shape) == 2 else ""
        names = list(inputs.features)

        def frame(tensors: Tensors) -> Any:
            if single:
                return pandas.DataFrame(tensors[single], columns=names, copy=False)
            made = pandas.DataFrame(dict(table.columns(tensors)))
            return made if len(made.columns) == len(names) else made.reindex(columns=names)

        return frame
    if inputs.features:
        _forget_names(estimator, inputs.features)
    if table.has_text:
        return table.text if table.single else lambda tensors: np.column_stack(list(table.columns(tensors).values()))
    datatype = signature.inputs[0].dtype if table.single else FP64
    return lambda tensors: table.matrix(tensors, datatype)


def _needs_frame(estimator: Any) -> bool:
    """Whether some step works on a data frame itself, so that an array would not do."""
    for step in _parts(estimator):
        config = getattr(step, "_sklearn_output_config", None)
        if works_on_frames(step) or picks_by_name(step) or (config and config.get("transform") in {"pandas", "polars"}):
            return True
        if not type(step).__module__.startswith("sklearn.") and hasattr(step, "feature_names_in_"):
            return True
        if getattr(step, "is_categorical_", None) is not None and getattr(step, "_preprocessor", None) is not None:
            return True
    return False


def _forget_names(estimator: Any, features: Sequence[str]) -> None:
    """Removes the fitted column names from this private copy of the estimator.

    It gets arrays whose columns the signature has already named and ordered; with the names left in,
    scikit-learn would warn at each call that an array has none.
    """
    for step in _parts(estimator):
        names = getattr(step, "__dict__", {}).get("feature_names_in_")
        if names is not None and [str(n) for n in names] == list(features):
            del step.__dict__["feature_names_in_"]


def _parts(estimator: Any) -> Iterator[Any]:
    """The estimator and all estimators inside it, each once."""
    seen: set[int] = set()
    waiting = [(estimator, 0)]
    while waiting:
        value, depth = waiting.pop()
        if id(value) in seen or depth > _DEPTH:
            continue
        seen.add(id(value))
        if isinstance(value, (list, tuple)):
            if len(value) <= 1000:
                waiting.extend((inner, depth + 1) for inner in value if not isinstance(inner, (str, bytes, int, float)))
        elif isinstance(value, dict):
            waiting.extend((inner, depth + 1) for inner in value.values())
        elif hasattr(value, "get_params") and hasattr(value, "__dict__"):
            yield value
            waiting.extend((inner, depth + 1) for inner in vars(value).values())


def _set_threads(estimator: Any, threads: int) -> None:
    """One prediction uses the threads it was given, not those of the machine where the model was trained."""
    for step in _parts(estimator):
        if "n_jobs" in vars(step) and step.n_jobs is not None:
            step.n_jobs = threads


def _caller_fault(problem: ValueError) -> InvalidInput | None:
    """The caller's fault behind scikit-learn's complaint about a value, if it is one."""
    said = str(problem)
    if said.startswith("Found unknown categories"):
        return InvalidInput("a value is none of those the model was fitted on", got=said.partition(" during")[0][:300])
    if said.startswith(("Input X contains", "Input contains")):
        return InvalidInput("the model takes no missing or infinite values", got=said.splitlines()[0][:100])
    return None


def has_interface(value: Any) -> bool:
    """Whether an object can be served: it has a `predict` or `transform` that can be called."""
    return callable(getattr(first_step(value), "transform", None)) or callable(getattr(value, "predict", None))


def as_source(signature: Signature) -> Signature:
    """An example's whole numbers are numbers: a later row may have a fraction."""
    if signature.source != "example":
        return signature
    loose = tuple(replace(s, datatype="FP64") if s.dtype.kind in "iu" else s for s in signature.inputs)
    return replace(signature, inputs=loose)
