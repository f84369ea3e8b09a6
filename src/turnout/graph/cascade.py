"""Cheap models first: only the rows of which one is not sure go on to the next, which is dearer and better."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Literal

import msgspec
import numpy as np

from turnout.core.errors import DeadlineExceeded, Failure, Fault, InvalidInput, QueueFull
from turnout.core.messages import InferRequest, InferResponse, Journey, StepTrace
from turnout.core.servable import Servable
from turnout.core.signature import Signature
from turnout.core.tensors import Array, Tensors

PARTIAL = "partial"
Measure = Literal["max", "margin", "entropy", "value"]


class CascadePolicy(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """steps: versions or models, the cheapest first. output: the one whose values say how sure a step is.

    measure: of a row of probabilities the greatest (`max`), the greatest less the second (`margin`), or 1 less the
    entropy by its greatest possible (`entropy`); or the number itself (`value`). threshold: a row that is below it goes
    on; one for each step but the last, or one for all.
    """

    steps: tuple[str, ...]
    output: str
    measure: Measure = "max"
    threshold: float | tuple[float, ...] = 0.8

    def __post_init__(self) -> None:
        """Raises InvalidInput."""
        if len(self.steps) < 2:
            raise InvalidInput("nowhere to go on to", field="steps", expected="at least two", got=str(list(self.steps)))
        if isinstance(self.threshold, tuple) and len(self.threshold) != len(self.steps) - 1:
            raise InvalidInput(
                "not one for each step but the last", field="threshold", expected=f"{len(self.steps) - 1} numbers",
                got=str(len(self.threshold)),
            )  # fmt: skip
        for one in self.thresholds:
            if not -1e300 < one < 1e300 or (self.measure != "value" and not 0.0 <= one <= 1.0):
                raise InvalidInput("not a threshold", field="threshold", expected="0 to 1", got=str(one))

    @property
    def thresholds(self) -> tuple[float, ...]:
        """One for each step but the last."""
        return self.threshold if isinstance(self.threshold, tuple) else (self.threshold,) * (len(self.steps) - 1)


def confidence(values: Array, measure: Measure) -> Array:
    """How sure each row is: one number a row, the higher the surer; a NaN is never sure."""
    flat = values.reshape(len(values), -1).astype(np.float64, copy=False)
    if measure == "value":
        found: Array = flat[:, 0]
    elif flat.shape[1] == 1:  # the probability of one of two classes
        found = np.maximum(flat[:, 0], 1.0 - flat[:, 0]) if measure == "max" else np.abs(2.0 * flat[:, 0] - 1.0)
    elif measure == "max":
        found = flat.max(axis=1)
    elif measure == "margin":
        ordered = np.sort(flat, axis=1)
        found = ordered[:, -1] - ordered[:, -2]
    else:
        with np.errstate(divide="ignore", invalid="ignore"):
            bits = np.where(flat > 0.0, flat * np.log(flat), 0.0).sum(axis=1)
        found = 1.0 + bits / np.log(flat.shape[1])
    return np.nan_to_num(found, nan=-np.inf)


def prove(policy: CascadePolicy, signatures: Mapping[str, Signature]) -> Signature:
    """The cascade's own signature: that of its steps, which have to take and give the same. Raises InvalidInput."""
    for place, step in enumerate(policy.steps):
        if step not in signatures:
            known = ", ".join(signatures) or "nothing"
            raise InvalidInput("no such version or model", field=f"steps[{place}]", expected=known, got=repr(step))
    first = signatures[policy.steps[0]]
    if not first.batched:
        raise InvalidInput("it has no rows that could go on", field="steps[0]", expected="a model with a row axis")
    for place, step in enumerate(policy.steps[1:], 1):
        other = signatures[step]
        for what, ours, theirs in (("input", first.inputs, other.inputs), ("output", first.outputs, other.outputs)):
            there = {spec.name: (spec.datatype, len(spec.shape)) for spec in theirs}
            for spec in ours:
                if there.get(spec.name) != (spec.datatype, len(spec.shape)):
                    raise InvalidInput(
                        f"it differs in its {what} {spec.name!r}", field=f"steps[{place}]",
                        expected=f"{spec.datatype} with {len(spec.shape)} dimensions, as {policy.steps[0]} has it",
                        got=str(there.get(spec.name, "nothing")),
                    )  # fmt: skip
    known_outputs = {spec.name: spec for spec in first.outputs}
    if policy.output not in known_outputs:
        raise InvalidInput("no such output", field="output", expected=", ".join(known_outputs), got=repr(policy.output))
    if known_outputs[policy.output].dtype.kind not in "fiu":
        raise InvalidInput("not a number", field="output", expected="probabilities or a number", got=policy.output)
    return Signature(first.inputs, first.outputs, source="cascade")


class CascadeMemory:
    """How many rows each step has answered, and how many were left unsure because time was up."""

    def __init__(self) -> None:
        self.rows: Counter[str] = Counter()
        self.unsure = 0


class Cascade:
    """Steps of a proved policy, by name."""

    def __init__(
        self,
        name: str,
        policy: CascadePolicy,
        parts: Mapping[str, Servable],
        memory: CascadeMemory | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._name = name
        self._policy = policy
        self._parts = [(step, parts[step]) for step in policy.steps]
        self._limits = [*policy.thresholds, -np.inf]
        self.memory = memory or CascadeMemory()
        self._clock = clock

    def __repr__(self) -> str:
        ways = " -> ".join(
            f"{step} (below {limit:g})" for (step, _), limit in zip(self._parts, self._limits[:-1], strict=False)
        )
        return f"Cascade({ways} -> {self._parts[-1][0]})"

    @property
    def children(self) -> Mapping[str, Servable]:
        """The steps."""
        return dict(self._parts)

    async def infer(self, request: InferRequest) -> InferResponse:
        """Raises what the first step raises. Where a later one cannot answer, what is known stands and is marked."""
        journey = request.context.journey
        places = np.arange(request.rows)
        inputs: Tensors = request.inputs
        answers: list[tuple[Array, Tensors]] = []
        queue = predict = 0.0
        for number, (step, part) in enumerate(self._parts):
            begun = self._clock()
            context = request.context._replace(journey=Journey() if journey is not None else None)
            asked = request._replace(
                inputs=inputs, rows=len(places), outputs=(), version="", context=context, reply=None
            )
            try:
                response = await part.infer(asked)
            except Failure as failure:
                if number == 0 or failure.fault is Fault.CALLER:
                    raise
                self._trace(journey, step, type(failure).__name__, begun, len(places))
                self.memory.unsure += len(places)
                if journey is not None:
                    journey.degraded = journey.degraded or _why(failure)
                break
            queue, predict = queue + response.queue_seconds, predict + response.predict_seconds
            unsure = confidence(response.outputs[self._policy.output], self._policy.measure) < self._limits[number]
            self._trace(journey, step, "answered", begun, len(places))
            self.memory.rows[step] += int(len(places) - unsure.sum())
            answers.append((places, response.outputs))
            if not unsure.any():
                break
            inputs = inputs if unsure.all() else {name: array[unsure] for name, array in inputs.items()}
            places = places[unsure]
        outputs = _joined(answers, request.rows)
        if request.outputs:
            outputs = {name: outputs[name] for name in request.outputs}
        return InferResponse(outputs, request.model, self._name, {}, queue, predict, request.rows)

    def _trace(self, journey: Journey | None, step: str, outcome: str, begun: float, rows: int) -> None:
        if journey is not None and journey.steps is not None:
            journey.steps.append(StepTrace("step", step, outcome, self._clock() - begun, detail=f"{rows} rows"))


def _joined(answers: Sequence[tuple[Array, Tensors]], rows: int) -> Tensors:
    """Each row as the last step that it came to has answered it."""
    if len(answers) == 1:
        return answers[0][1]
    found: dict[str, Array] = {}
    for name, first in answers[0][1].items():
        parts = [outputs[name] for _, outputs in answers]
        whole = np.array(first, np.result_type(*parts) if first.dtype.kind in "fiu" else first.dtype)
        for (places, _), part in zip(answers[1:], parts[1:], strict=True):
            if part.shape[1:] == whole.shape[1:]:
                whole[places] = part
        found[name] = whole
    return found


def _why(failure: Failure) -> str:
    return PARTIAL if isinstance(failure, DeadlineExceeded | QueueFull) else "error"
