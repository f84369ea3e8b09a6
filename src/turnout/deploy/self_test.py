"""A model predicts its own stored example before it is ready, and what it answers is compared with what is expected."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from turnout.core.errors import InvalidInput, SelfTestFailed
from turnout.core.servable import Model
from turnout.core.signature import PARAMETERS, Signature
from turnout.core.tensors import Tensors, canonical, slice_rows
from turnout.deploy.expected import NAME, Expected, differences, read_expected, read_json
from turnout.formats import Artifact
from turnout.formats.examples import array_of, tensors_of
from turnout.formats.matching import match
from turnout.runtime.predict import run_model

EXAMPLES = ("example.json", "input_example.json", "serving_input_example.json")
#: How many rows of an example are predicted where nothing is expected of them.
MAX_ROWS = 1000
_SHOWN = 5
_COUNTED = 1000
_RUNS, _SECONDS = 3, 0.5


class SelfTest(NamedTuple):
    """What was checked, in words ("3 rows predicted, 3 compared"; "" without an example), and (rows, seconds) a run."""

    said: str = ""
    measured: tuple[tuple[int, float], ...] = ()


def self_test(model: Model, artifact: Artifact, example: Tensors | None = None) -> SelfTest:
    """Predicts the example stored with the artifact, else the user's own `example`, and compares.

    Raises SelfTestFailed where the example does not fit, the model fails on it, answers something else than is
    expected, or takes longer than it may.
    """
    found, wanted = stored(artifact, *EXAMPLES), stored(artifact, NAME)
    expected = read_expected(wanted, model.signature) if wanted is not None else None
    if found is None and example is None:
        if wanted is not None:
            raise SelfTestFailed(
                f"{wanted.name} says what {artifact.label} answers, and there is no example to predict: put its rows "
                f"into {wanted.name.replace(NAME, EXAMPLES[0])} beside it"
            )
        return SelfTest()
    name = found.name if found is not None else "the example"
    inputs, rows = _inputs(model.signature, found, example, name)
    if expected is None and model.signature.batched and rows > MAX_ROWS:
        inputs, rows = slice_rows(inputs, 0, MAX_ROWS), MAX_ROWS
    outputs, measured = _predicted(model, inputs, rows, artifact.label, name)
    said = _rows(max(rows, _shared_rows(inputs)))
    if expected is None:
        return SelfTest(f"{said} predicted", measured)
    _compare(model.signature, outputs, expected, f"{artifact.label}, asked for the {said} of {name}, does not answer")
    fastest = min(seconds for count, seconds in measured if count == rows)
    if expected.max_seconds is not None and fastest > expected.max_seconds:
        raise SelfTestFailed(
            f"{artifact.label} took {fastest:.4g} s for the {said} of {name}, and {NAME} allows "
            f"{expected.max_seconds:g} s. Give the model more threads, or the test more seconds"
        )
    compared = max(len(array) if array.ndim else 1 for array in expected.outputs.values())
    return SelfTest(f"{said} predicted, {compared} compared", measured)


def stored(artifact: Artifact, *names: str) -> Path | None:
    """The first file of these names in the artifact's directory; beside a file `iris.onnx` it is `iris.NAME`."""
    path = artifact.path
    if path is None:
        return None
    folder = artifact.directory or (path if path.is_dir() else None)
    places = [folder / name for name in names] if folder else [path.with_name(f"{path.stem}.{name}") for name in names]
    return next((place for place in places if place.is_file()), None)


def _inputs(signature: Signature, path: Path | None, example: Tensors | None, name: str) -> tuple[Tensors, int]:
    """The example's rows as the model takes them, with the parameters that stand beside them."""
    document: Any = read_json(path) if path is not None else None
    try:
        columns = tensors_of(document) if path is not None else example or {}
        given: Any = document.get("params") if isinstance(document, dict) else None
        plain = Signature(
            tuple(spec for spec in signature.inputs if not spec.name.startswith(PARAMETERS)),
            (),
            lenient=signature.lenient,
        )
        inputs = dict(match({key: canonical(np.asarray(value)) for key, value in columns.items()}, plain))
        for spec in signature.inputs:
            key = spec.name.removeprefix(PARAMETERS)
            if spec.name.startswith(PARAMETERS) and isinstance(given, dict) and key in given:
                values = given[key] if isinstance(given[key], list) else [given[key]]
                inputs |= match({spec.name: array_of(values, spec.name)}, Signature((spec,), ()))
        return signature.validate(inputs)
    except InvalidInput as problem:
        raise SelfTestFailed(f"{name} does not fit the model: {problem}. Mend the example, or remove it") from None


def _predicted(
    model: Model, inputs: Tensors, rows: int, label: str, name: str
) -> tuple[Tensors, tuple[tuple[int, float], ...]]:
    """The outputs, and how long a few runs took; the first, which is always slower, does not count.

    A single row is measured too: most requests have one.
    """
    outputs: Tensors = {}
    measured: list[tuple[int, float]] = []
    sizes = (
        [(1, slice_rows(inputs, 0, 1)), (rows, inputs)] if model.signature.batched and rows > 1 else [(rows, inputs)]
    )
    for count, part in sizes:
        runs: list[tuple[int, float]] = []
        while len(runs) < _RUNS and (len(runs) < 2 or sum(seconds for _, seconds in runs) < _SECONDS):
            started = perf_counter()
            try:
                outputs = run_model(model, part, count)
            except Exception as problem:
                place = f"the first row of {name}" if part is not inputs else name
                raise SelfTestFailed(
                    f"{label} fails on its own example ({place}): {type(problem).__name__}: {str(problem)[:500]}"
                ) from problem
            runs.append((count, perf_counter() - started))
        measured += runs[1:]
    return outputs, tuple(measured)


def _compare(signature: Signature, outputs: Tensors, expected: Expected, what: str) -> None:
    found = differences(signature, outputs, expected)
    first = list(islice(found, _COUNTED))
    if not first:
        return
    specs = {spec.name: spec for spec in signature.outputs}
    lines = [one.said(specs[one.output], batched=signature.batched) for one in first[:_SHOWN]]
    if len(first) > _SHOWN:
        more = f"{len(first) - _SHOWN}" if len(first) < _COUNTED else f"{_COUNTED - _SHOWN} or"
        lines.append(f"... and {more} more")
    raise SelfTestFailed(f"{what} what {NAME} expects:\n" + "\n".join(f"  {line}" for line in lines))


def _shared_rows(inputs: Tensors) -> int:
    """The length that all inputs share, for a model whose requests are not joined; else 1."""
    lengths = {len(array) if array.ndim else 1 for name, array in inputs.items() if not name.startswith(PARAMETERS)}
    return lengths.pop() if len(lengths) == 1 else 1


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"
