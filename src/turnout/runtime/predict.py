"""A batch is predicted: late items dropped, fixed batch sizes padded, a guilty item found and set apart.

Runs where the model is, in a worker or inline; knows nothing of processes or queues.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from time import monotonic, perf_counter
from typing import NamedTuple

import numpy as np

from turnout.core.errors import DeadlineExceeded, Failure, InvalidOutput, ModelFailed
from turnout.core.servable import Choose, Model
from turnout.core.signature import Signature
from turnout.core.tensors import Array, Tensors, canonical, join_rows, slice_rows


class Outcome(NamedTuple):
    """What came of a batch: one failure or None per item, and the outputs of those without one, in order.

    `details` holds the traceback behind a model's failure, for the log and never for the wire. `twin` names what
    answered, where the model chooses; several names are joined by "+".
    """

    outputs: Tensors
    failures: Sequence[Failure | None]
    seconds: float
    details: Sequence[str] = ()
    twin: str = ""


class _Naming:
    """A model that chooses, for one batch: keeps the names of what has answered."""

    __slots__ = ("_choose", "names", "signature")

    def __init__(self, signature: Signature, choose: Choose) -> None:
        self.signature = signature
        self._choose = choose
        self.names: dict[str, None] = {}

    def predict(self, inputs: Tensors) -> Tensors:
        name, predict = self._choose(inputs)
        outputs = predict(inputs)
        self.names[name] = None
        return outputs


def predict_batch(model: Model, inputs: Tensors, rows: Sequence[int], deadlines: Sequence[float]) -> Outcome:
    """Predicts items of `rows[i]` rows each, joined along the first axis of every input.

    An item whose deadline (monotonic seconds) has passed is not run. When the batch fails, it is halved
    until only the guilty items fail: at most 2 log2(n) further calls for one of them.
    """
    started = perf_counter()
    now = monotonic()
    naming = None
    choose = getattr(model, "choose", None)
    if choose is not None:
        model = naming = _Naming(model.signature, choose)
    late = min(deadlines, default=now) < now
    failures: list[Failure | None] = [None] * len(rows)
    details: list[str] = []
    alive = list(range(len(rows)))
    if late:
        for i in [i for i, deadline in enumerate(deadlines) if deadline < now]:
            failures[i] = DeadlineExceeded("the deadline passed while the request was queued")
        alive = [i for i in alive if failures[i] is None]
    if not model.signature.batched:
        done = _guarded(model, inputs, 1, alive, failures, details) if alive else []
    elif late:
        done = _bisect(model, inputs, _spans(rows), alive, failures, details)
    else:
        done = _guarded(model, inputs, sum(rows), alive, failures, details)
        if not done and len(rows) > 1:  # somebody in it is guilty
            failures, details = [None] * len(rows), []
            done = _halves(model, inputs, _spans(rows), alive, failures, details)
    outputs = (done[0] if len(done) == 1 else join_rows(done)) if done else {}
    twin = "+".join(naming.names) if naming is not None else ""
    return Outcome(outputs, failures, perf_counter() - started, details, twin)


def _spans(rows: Sequence[int]) -> list[tuple[int, int]]:
    spans, at = [], 0
    for count in rows:
        spans.append((at, at + count))
        at += count
    return spans


def _bisect(
    model: Model,
    inputs: Tensors,
    spans: Sequence[tuple[int, int]],
    items: list[int],
    failures: list[Failure | None],
    details: list[str],
) -> list[Tensors]:
    if not items:
        return []
    total = sum(stop - start for start, stop in (spans[i] for i in items))
    if len(items) == len(spans):
        part: Tensors = inputs
    elif items[-1] - items[0] + 1 == len(items):
        part = slice_rows(inputs, spans[items[0]][0], spans[items[-1]][1])
    else:
        part = join_rows([slice_rows(inputs, *spans[i]) for i in items])
    trial: list[Failure | None] = list(failures)
    notes: list[str] = []
    done = _guarded(model, part, total, items, trial, notes)
    if done or len(items) == 1:
        failures[:] = trial
        details.extend(notes)
        return done
    return _halves(model, inputs, spans, items, failures, details)


def _halves(
    model: Model,
    inputs: Tensors,
    spans: Sequence[tuple[int, int]],
    items: list[int],
    failures: list[Failure | None],
    details: list[str],
) -> list[Tensors]:
    middle = len(items) // 2
    return _bisect(model, inputs, spans, items[:middle], failures, details) + _bisect(
        model, inputs, spans, items[middle:], failures, details
    )


def _guarded(
    model: Model, part: Tensors, rows: int, items: Sequence[int], failures: list[Failure | None], details: list[str]
) -> list[Tensors]:
    """The outputs, in a list of one; or an empty list, and a failure noted for every item."""
    failure: Failure
    try:
        return [run_model(model, part, rows)]
    except ModelFailed as problem:
        failure = problem
        details.append(str(problem))
    except Failure as problem:
        failure = problem
    except KeyboardInterrupt:
        raise
    except BaseException as problem:  # noqa: BLE001  sys.exit() in a model, or a native library's panic, ends one batch only
        failure = ModelFailed(f"the model failed on this input ({type(problem).__name__}); the server log says more")
        details.append(traceback.format_exc(limit=-8))
    for i in items:
        failures[i] = failure
    return []


def run_model(model: Model, inputs: Tensors, rows: int) -> Tensors:
    """One checked call of `model.predict`; fixed batch sizes are split and padded. Raises what the model raises."""
    signature = model.signature
    size = signature.rows_limit
    if size is None or size == rows:
        return checked_outputs(signature, model.predict(inputs), rows)
    parts = []
    for start in range(0, rows, size):
        stop = min(start + size, rows)
        part = slice_rows(inputs, start, stop)
        if stop - start < size:
            part = {name: pad_rows(a, size) for name, a in part.items()}
        whole = checked_outputs(signature, model.predict(part), size)
        parts.append(slice_rows(whole, 0, stop - start))
    return join_rows(parts)


def pad_rows(array: Array, size: int) -> Array:
    """The array with its last row repeated up to `size` rows."""
    missing = size - array.shape[0]
    return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])


def checked_outputs(signature: Signature, outputs: Tensors, rows: int) -> Tensors:
    """The outputs that the signature names, canonical. Raises InvalidOutput where they do not fit."""
    usual = signature.usual_outputs(outputs, rows)
    if usual is not None:
        return usual
    if not isinstance(outputs, dict) and not hasattr(outputs, "keys"):
        raise InvalidOutput("the model did not return named outputs")
    signature.check_outputs(outputs, rows)
    result = {}
    for spec in signature.outputs:
        array = outputs[spec.name]
        if array.dtype != spec.dtype:
            if not np.can_cast(array.dtype, spec.dtype, "same_kind") or spec.datatype == "BYTES":
                array = canonical(array)
                if array.dtype != spec.dtype:
                    raise InvalidOutput(f"the model's output {spec.name!r} has type {array.dtype}, not {spec.datatype}")
            else:
                array = array.astype(spec.dtype)
        result[spec.name] = canonical(array)
    return result
