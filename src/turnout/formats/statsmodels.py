"""statsmodels results as `results.save` writes them: pickles, so for trusted files only."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from turnout.core.errors import InvalidInput, LoadFailed
from turnout.core.servable import Model
from turnout.core.signature import Signature
from turnout.core.tensors import Tensors
from turnout.formats.artifact import Artifact, LoadOptions
from turnout.formats.declared import declared_inputs, example_of
from turnout.formats.pickles import SUFFIXES, first_module, looks_like_pickle
from turnout.formats.refusals import library, loading, untrusted
from turnout.formats.signatures import with_outputs
from turnout.formats.table import FP64, Table, column, fitted, numbers

OUTPUT = "prediction"


class Statsmodels:
    """The statsmodels format: results whose `predict` takes rows."""

    name = "statsmodels"
    extra = "statsmodels"
    suffixes = SUFFIXES

    def recognise(self, artifact: Artifact) -> bool:
        """Whether the file is a pickle whose first class is one of statsmodels'. Nothing is unpickled."""
        return looks_like_pickle(artifact) and first_module(artifact).partition(".")[0] == "statsmodels"

    def load(self, artifact: Artifact, options: LoadOptions) -> Model:
        """The results as a model. Raises PickleRefused without `trust_pickle`: there is no safe form of them."""
        if not options.trust_pickle:
            raise untrusted(
                f"{artifact.label} holds statsmodels results, which are saved as a Python pickle. Loading it runs "
                "whatever code was put into it"
            )
        what = f"{artifact.label} (statsmodels results)"
        library("statsmodels.api", what)
        reader = library("statsmodels.iolib.smpickle", what)
        with loading(artifact, "a pickle of statsmodels results"):
            results = reader.load_pickle(str(artifact.file))
            return _model(results, artifact, options)


class StatsmodelsModel:
    """Calls `results.predict` on rows."""

    __slots__ = ("_convert", "_predict", "_unseen", "signature")

    def __init__(self, signature: Signature, predict: Callable[[Any], Any], convert: Callable[[Tensors], Any]) -> None:
        self.signature = signature
        self._predict = predict
        self._convert = convert

    def predict(self, inputs: Tensors) -> Tensors:
        """`prediction`, one number a row or one for each class. Raises InvalidInput for a category never seen."""
        rows = self._convert(inputs)
        try:
            answer = self._predict(rows)
        except Exception as problem:
            said = str(problem)
            if "does not match any of the expected levels" not in said:
                raise
            told = said.partition("observation with value ")[2].splitlines()[0]
            raise InvalidInput("a value is none of those the model was fitted on", got=told[:300]) from problem
        answer = getattr(answer, "predicted_values", answer)  # what a model of hazards wraps its numbers in
        return {OUTPUT: np.asarray(answer, dtype=np.float64)}


def _model(results: Any, artifact: Artifact, options: LoadOptions) -> StatsmodelsModel:
    if not callable(getattr(results, "predict", None)) or not hasattr(results, "model"):
        raise LoadFailed(
            f"{artifact.label} holds a {type(results).__name__}, which is no statsmodels results to predict with"
        )
    if "exog" not in inspect.signature(results.predict).parameters:
        raise LoadFailed(
            f"{artifact.label} holds a {type(results).__name__}, which forecasts by time and not by row. Wrap it in a "
            "Python class whose predict calls results.forecast"
        )
    frame = getattr(results.model.data, "frame", None) if getattr(results.model, "formula", None) else None
    if getattr(results.model, "formula", None):
        signature, convert = _by_formula(results, frame, artifact, options)
        predict = results.predict
    else:
        signature, convert = _by_matrix(results, artifact, options)

        def predict(rows: Any) -> Any:
            return results.predict(rows, transform=False)

    model = StatsmodelsModel(signature, predict, convert)
    values = {} if frame is None else {name: _first(frame[name]) for name in frame.columns}
    model.signature = with_outputs(signature, model.predict, values=values, example=example_of(artifact, options))
    return model


def _by_matrix(results: Any, artifact: Artifact, options: LoadOptions) -> tuple[Signature, Callable[[Tensors], Any]]:
    """A model fitted on a matrix takes its columns in the same order, a constant among them where there was one."""
    exog = getattr(results.model, "exog", None)
    names = [str(name) for name in getattr(results.model, "exog_names", None) or []]
    params = np.asarray(results.params)
    width = exog.shape[1] if exog is not None else len(names) or params.shape[0]
    names = names if len(names) == width else []
    own = Signature((numbers(names, width, "FP64"),), (), lenient=True)
    signature = fitted(declared_inputs(artifact, options), own, names, width, artifact.label)
    table = Table(signature.inputs, names)
    if table.has_text:
        raise LoadFailed(f"{artifact.label} was fitted on numbers; the signature or example has text")
    return signature, lambda inputs: table.matrix(inputs, FP64)


def _by_formula(
    results: Any, frame: Any, artifact: Artifact, options: LoadOptions
) -> tuple[Signature, Callable[[Tensors], Any]]:
    """A model fitted by a formula takes a data frame with the columns that the formula's right side names."""
    pandas = library("pandas", f"{artifact.label} (fitted by a formula)")
    own = None
    names: list[str] = []
    if frame is not None:
        used = _names_in(str(results.model.formula).partition("~")[2])
        names = [str(name) for name in frame.columns if str(name) in used]
        own = Signature(tuple(column(n, "FP64" if _is_number(frame[n]) else "BYTES") for n in names), (), lenient=True)
    signature = fitted(declared_inputs(artifact, options), own, names, len(names), artifact.label)
    table = Table(signature.inputs, names)
    return signature, lambda inputs: pandas.DataFrame(dict(table.columns(inputs)))


def _names_in(formula: str) -> frozenset[str]:
    """Every name in the right side of a formula; its operators are Python's, so Python's parser finds them."""
    try:
        tree = ast.parse(formula.strip(), mode="eval")
    except SyntaxError:
        return frozenset(part for part in formula.replace("`", " ").split() if part.isidentifier())
    quoted = [n.args[0].value for n in ast.walk(tree) if _is_quoted(n)]  # type: ignore[attr-defined]  # as tested there
    return frozenset([*(node.id for node in ast.walk(tree) if isinstance(node, ast.Name)), *quoted])


def _is_quoted(node: ast.AST) -> bool:
    """Whether this is Q("a name"), which is how a formula says a name that Python has no spelling for."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "Q"
        and len(node.args) == 1
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    )


def _is_number(series: Any) -> bool:
    return getattr(series.dtype, "kind", "O") in "iufb"


def _first(values: Sequence[Any]) -> Any:
    """A value that the model has seen, for the row it is tried on."""
    value = np.asarray(values)[0]
    return str(value).encode() if isinstance(value, str) else value
