"""MLflow models through `mlflow.pyfunc`, in the model's own environment. The one file that calls MLflow's library."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from turnout.core.errors import InvalidInput, LoadFailed
from turnout.core.signature import PARAMETERS, Signature, TensorSpec
from turnout.core.tensors import Array, Tensors, as_text
from turnout.formats.artifact import Artifact, LoadOptions
from turnout.formats.declared import example_of, from_example
from turnout.formats.mlflow_answers import Answer, named
from turnout.formats.mlmodel import MlModel, specs
from turnout.formats.refusals import library, loading
from turnout.formats.signatures import example_rows, outputs_of, rows_of_example

Feed = Callable[[Tensors], Any]
_CLOSE = 1e-3


def from_pyfunc(artifact: Artifact, mlmodel: MlModel, options: LoadOptions) -> PyfuncModel:
    """The model behind `mlflow.pyfunc.load_model`. Raises MissingExtra without MLflow, LoadFailed without signature."""
    what = f"{artifact.label} (an MLflow model that is loaded by python_function)"
    pyfunc = library("mlflow.pyfunc", what)
    pandas = library("pandas", what)
    with loading(artifact, "an MLflow model"):
        found = pyfunc.load_model(str(artifact.file.resolve()), suppress_warnings=True)
    example = example_of(artifact, options)
    signature = _inputs(artifact, mlmodel, options, example)
    names, datetimes = _columns(mlmodel, signature)
    feed = _feed(pandas, mlmodel, signature, names, datetimes)
    model = PyfuncModel(signature, found.predict, feed, pandas)
    model.describe(artifact.label, example, mlmodel)
    return model


class PyfuncModel:
    """Calls pyfunc with what MLflow's scoring server would give it, and names what it answers."""

    __slots__ = ("_feed", "_pandas", "_parameters", "_predict", "signature")

    def __init__(self, signature: Signature, predict: Callable[..., Any], feed: Feed, pandas: Any) -> None:
        self.signature = signature
        self._predict = predict
        self._feed = feed
        self._pandas = pandas
        self._parameters = {s.name: s for s in signature.inputs if s.name.startswith(PARAMETERS)}

    def predict(self, inputs: Tensors) -> Tensors:
        """The outputs by name. Raises InvalidInput where MLflow finds that the rows do not fit the schema."""
        return self._ask(inputs).tensors

    def _ask(self, inputs: Tensors) -> Answer:
        data = self._feed(inputs)
        with _caller_faults():
            if not self._parameters:
                return named(self._predict(data), self._pandas)
            given = {
                name.removeprefix(PARAMETERS): _parameter(inputs[name], spec)
                for name, spec in self._parameters.items()
                if name in inputs
            }
            return named(self._predict(data, params=given), self._pandas)

    def describe(self, label: str, example: Tensors | None, mlmodel: MlModel) -> None:
        """Completes the signature by asking the model: its outputs, and whether its rows may be joined."""
        inputs = tuple(s for s in self.signature.inputs if s.name not in self._parameters)
        plain = replace(self.signature, inputs=inputs)
        trials = _trials(plain, example)
        try:
            answer, trial = self._tried(trials)
        except LoadFailed:
            raise
        except Exception as problem:
            outputs = _declared_outputs(mlmodel)
            if outputs is None:
                raise LoadFailed(
                    f"{label}: the model was tried on an example row and failed ({type(problem).__name__}: {problem}). "
                    "Log it with an input example of rows that it takes, or give one (--example rows.json)"
                ) from problem
            form = "" if outputs[0].name == "output" else "table"
            self.signature = replace(self.signature, outputs=outputs, batched=False, form=form)
            return
        rows = len(next(iter(trial.values()))) if all(a.ndim for a in trial.values()) else -1
        batched = plain.batched and not self._parameters and self._by_row(answer, trial, rows)
        outputs = outputs_of(answer.tensors, rows if batched else None)
        if not batched:
            outputs = tuple(replace(s, shape=(-1,) * len(s.shape)) for s in outputs)
        self.signature = replace(self.signature, outputs=outputs, batched=batched, form=answer.form)

    def _tried(self, trials: Iterator[Tensors]) -> tuple[Answer, Tensors]:
        failure: Exception | None = None
        for trial in trials:
            try:
                return self._ask(trial), trial
            except Exception as problem:  # noqa: BLE001  rows that were made up may be out of the model's domain
                failure = failure or problem
        raise failure or LoadFailed("there is no row to try the model on")

    def _by_row(self, whole: Answer, trial: Tensors, rows: int) -> bool:
        """Whether each row is answered alone as it is among others: only then may requests be joined."""
        if rows < 2 or any(a.ndim == 0 or len(a) != rows for a in whole.tensors.values()):
            return False
        for at in range(min(rows, 3)):
            try:
                alone = self._ask({name: array[at : at + 1] for name, array in trial.items()})
            except Exception:  # noqa: BLE001  a model that refuses one row takes the requests as they come
                return False
            for name, array in whole.tensors.items():
                other = alone.tensors.get(name)
                if other is None or other.shape != (1, *array.shape[1:]) or not _same(other[0], array[at]):
                    return False
        return True


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, (bytes, str)) or np.asarray(one).dtype.kind not in "fc":
        return bool(np.array_equal(one, other))
    return bool(np.allclose(one, other, rtol=_CLOSE, atol=_CLOSE / 10, equal_nan=True))


def _trials(signature: Signature, example: Tensors | None) -> Iterator[Tensors]:
    """Rows to try the model on: the example's own with others beside them, the example alone, made-up ones."""
    if not signature.batched:
        yield dict(example) if example is not None else example_rows(signature.inputs, 1)
        return
    count = len(next(iter(example.values()))) if example else 0
    if example is not None and count > 1 and (own := rows_of_example(signature, example, min(count, 64))):
        yield own
    one = rows_of_example(signature, example, 1)
    if one is not None:
        other = example_rows(signature.inputs, 1, seed=1)
        mixed = {n: a if a.dtype.kind == "O" else np.concatenate([a, other[n]]) for n, a in one.items()}
        yield {n: np.concatenate([a, a]) if len(a) == 1 else a for n, a in mixed.items()}
        yield {n: np.concatenate([a, a]) for n, a in one.items()}
        yield one
        return
    yield example_rows(signature.inputs, 2, seed=1)
    yield example_rows(signature.inputs, 2)
    yield example_rows(signature.inputs, 1)


@contextmanager
def _caller_faults() -> Iterator[None]:
    """MLflow says with one of its own exceptions that the rows do not fit the model's schema."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as problem:
        said = str(problem)
        if type(problem).__name__ == "MlflowException" and "enforce schema" in said:
            raise InvalidInput("the rows do not fit the model's schema", got=said.splitlines()[0][:300]) from problem
        raise


def _inputs(artifact: Artifact, mlmodel: MlModel, options: LoadOptions, example: Tensors | None) -> Signature:
    if options.signature is not None:
        found = replace(options.signature, source="user", lenient=False, outputs=())
    elif mlmodel.inputs:
        entries = mlmodel.inputs
        kinds = {str(entry.get("type")) for entry in entries}
        if mlmodel.has_columns and len(entries) > 1 and len(kinds) == 1 and not any(e.get("name") for e in entries):
            (datatype,) = {spec.datatype for spec in specs(entries)}
            found = Signature((TensorSpec("x", datatype, (-1, len(entries))),), ())
        else:
            found = Signature(specs(entries), ())
    elif example is not None:
        found = replace(from_example(example), lenient=False)
    else:
        raise LoadFailed(
            f"{artifact.label}: the MLflow model has no signature, so nobody knows what it takes. Log it with a "
            "signature or an input example, or give one (--signature FILE or --example rows.json)"
        )
    fixed = [s for s in found.inputs if not s.shape or s.shape[0] != -1]
    parameters = tuple(_parameter_spec(entry) for entry in mlmodel.params or ())
    return replace(found, inputs=(*found.inputs, *parameters), batched=found.batched and not parameters and not fixed)


def _parameter_spec(entry: Mapping[str, Any]) -> TensorSpec:
    (spec,) = specs([{**entry, "required": False}], "MLmodel: params")
    return replace(spec, name=PARAMETERS + spec.name, columns=(), shape=(-1,) if entry.get("shape") else (1,))


def _parameter(array: Array, spec: TensorSpec) -> Any:
    values = (as_text(array) if spec.datatype == "BYTES" and spec.text else array).tolist()
    return values if spec.shape == (-1,) else values[0]


def _columns(mlmodel: MlModel, signature: Signature) -> tuple[tuple[str, ...], frozenset[str]]:
    entries = mlmodel.inputs or ()
    datetimes = frozenset(str(e.get("name")) for e in entries if e.get("type") == "datetime")
    names = tuple(str(e["name"]) for e in entries if e.get("name"))
    if not entries:
        names = tuple(spec.name for spec in signature.inputs if len(spec.shape) == 1)
    return names, datetimes


def _feed(pandas: Any, mlmodel: MlModel, signature: Signature, names: Sequence[str], datetimes: frozenset[str]) -> Feed:
    """How tensors become what pyfunc is called with: a data frame, one array, arrays by name, or a list."""
    text = frozenset(s.name for s in signature.inputs if s.datatype == "BYTES" and s.text)
    inputs = [spec for spec in signature.inputs if not spec.name.startswith(PARAMETERS)]

    def value(tensors: Tensors, name: str) -> Any:
        array = as_text(tensors[name]) if name in text else tensors[name]
        return pandas.to_datetime(pandas.Series(array)) if name in datetimes else array

    tensors_by_name = mlmodel.has_tensors or (not mlmodel.inputs and any(len(s.shape) != 1 for s in inputs))
    if tensors_by_name and len(inputs) == 1 and not names:
        return lambda tensors: value(tensors, inputs[0].name)
    if tensors_by_name:
        return lambda tensors: {spec.name: value(tensors, spec.name) for spec in inputs if spec.name in tensors}
    if not names and len(inputs) == 1:
        return lambda tensors: pandas.DataFrame(value(tensors, inputs[0].name))

    def frame(tensors: Tensors) -> Any:
        columns = {spec.name: value(tensors, spec.name) for spec in inputs if spec.name in tensors}
        made = pandas.DataFrame(columns)
        return made if names else made.set_axis(range(made.shape[1]), axis=1)

    return frame


def _declared_outputs(mlmodel: MlModel) -> tuple[TensorSpec, ...] | None:
    """What the MLmodel says of the outputs, for a model that cannot be tried without a real row."""
    entries = mlmodel.outputs
    if not entries:
        return None
    found = [replace(spec, columns=(), optional=False) for spec in specs(entries)]
    if len(found) == 1 and not entries[0].get("name"):
        found = [replace(found[0], name="output")]
    return tuple(found)
