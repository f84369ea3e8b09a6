"""Cheap models first: only the rows of which one is not sure go on to the next, which is dearer and better."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Any, NamedTuple

import numpy as np

from turnout.core.errors import DeadlineExceeded, InvalidInput, InvalidOutput, QueueFull
from turnout.core.messages import Context, InferRequest, InferResponse, StepTrace
from turnout.core.servable import Servable
from turnout.core.signature import Signature, TensorSpec
from turnout.core.tensors import Array, Tensors
from turnout.graph.attempt import Times, within
from turnout.graph.cascade_policy import CascadePolicy
from turnout.graph.cascade_proof import prove
from turnout.graph.confidence import confidence
from turnout.graph.edges import fitted, is_parameter, is_sure, of_rows
from turnout.graph.fallback import wants_original
from turnout.graph.inner import PARTIAL, inner_context, inner_journey, inner_request, tell, with_margin
from turnout.graph.reasons import reason_of
from turnout.graph.step_failure import of_step
from turnout.graph.tree import expected

__all__ = ["Cascade", "CascadeMemory", "CascadePolicy", "prove"]


class CascadeMemory:
    """How many rows each step was asked for and has answered, and how many stayed unsure because nobody else could."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.rows: Counter[str] = Counter()
        self.unsure = 0

    @property
    def escalated(self) -> float:
        """The share of the rows of which the first step was not sure; 0.0 before the first row."""
        first, *others = [*self.asked.values(), 0, 0][:2]
        return others[0] / first if first else 0.0

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "asked": dict(self.asked), "rows": dict(self.rows), "unsure": self.unsure, "escalated": self.escalated
        }  # fmt: skip


class _Part(NamedTuple):
    """A step. takes: its inputs, each with what it has to be where that has to be made; limit: sure is not below it."""

    name: str
    servable: Servable
    takes: tuple[tuple[str, TensorSpec | None], ...]
    limit: float


class _Known(NamedTuple):
    """What a step has answered for the rows at these places."""

    places: Array
    outputs: Tensors


class Cascade:
    """Serves a policy that was proved. parts: what answers for each step, with their signatures.

    Raises InvalidInput where they cannot stand in for each other.
    """

    def __init__(
        self,
        name: str,
        policy: CascadePolicy,
        parts: Mapping[str, Servable],
        signatures: Mapping[str, Signature],
        memory: CascadeMemory | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._name = name
        self._policy = policy
        self.signature = prove(policy, signatures)
        self._parts = [
            _Part(step, parts[step], _takes(self.signature, signatures[step]), limit)
            for step, limit in zip(policy.steps, (*policy.thresholds, -math.inf), strict=True)
        ]
        self._times = Times()
        self.memory = memory or CascadeMemory()
        self._clock = clock

    def __repr__(self) -> str:
        ways = " -> ".join(f"{part.name} (below {part.limit:g})" for part in self._parts[:-1])
        return f"Cascade({ways} -> {self._parts[-1].name})"

    @property
    def children(self) -> Mapping[str, Servable]:
        """The steps."""
        return {part.name: part.servable for part in self._parts}

    def expected_seconds(self) -> float:
        """What one row is expected to take that every step is asked for; infinity where a part does not know."""
        return sum(expected(part.servable) for part in self._parts)

    async def infer(self, request: InferRequest) -> InferResponse:
        """Raises what the first step raises. Where a later one cannot answer, what is known stands and is marked."""
        self._check_asked(request.outputs)
        journey = request.context.journey
        context = inner_context(request.context)
        until = with_margin(request.context.deadline, self._clock())
        places = np.arange(request.rows)
        known: list[_Known] = []
        queue = predict = 0.0
        for number, part in enumerate(self._parts):
            self.memory.asked[part.name] += len(places)
            try:
                response = await self._ask(part, request, context, places, until if number else math.inf)
                unsure = self._unsure(part, response.outputs, len(places))
            except Exception as problem:  # noqa: BLE001  raised again, or what is known stands
                if number == 0 or wants_original(request) or not (why := reason_of(problem)):
                    raise of_step(part.name, problem) from None
                self.memory.unsure += len(places)
                if journey is not None:
                    journey.degraded = journey.degraded or _word(problem, why)
                break
            queue, predict = queue + response.queue_seconds, predict + response.predict_seconds
            known.append(_Known(places, response.outputs))
            if not unsure.any():
                break
            places = places[unsure]
        outputs, by = self._joined(known, request.rows, request.outputs)
        return InferResponse(outputs, request.model, self._name, {"rows_by_step": by}, queue, predict, request.rows)

    async def _ask(
        self, part: _Part, request: InferRequest, context: Context, places: Array, until: float
    ) -> InferResponse:
        """A step's answer for some rows. until: when a later step is given up, on the clock (seconds)."""
        journey = request.context.journey
        begun = self._clock()
        inner = inner_journey(journey)
        outcome = "answered"
        try:
            if until <= begun:
                raise DeadlineExceeded("the deadline leaves no time for another step")
            inputs = _picked(request, part.takes, places)
            deadline = min(until, request.context.deadline)
            asked = inner_request(request, context, part.name, inputs, len(places), deadline, inner)
            answering = part.servable.infer(asked)
            response = await (answering if until == math.inf else within(answering, until, self._times))
        except BaseException as problem:
            outcome = type(problem).__name__
            raise
        finally:
            tell(journey, part.name, inner)
            if journey is not None and journey.steps is not None:
                seconds = self._clock() - begun
                journey.steps.append(StepTrace("step", part.name, outcome, seconds, detail=f"{len(places)} rows"))
        if inner.degraded and journey is not None:
            journey.degraded = journey.degraded or inner.degraded
        return response

    def _unsure(self, part: _Part, outputs: Tensors, rows: int) -> Array:
        """Which of the rows have to go on."""
        for name in (spec.name for spec in self.signature.outputs):
            if name not in outputs or len(outputs[name]) != rows:
                raise InvalidOutput(f"{part.name} did not give {rows} rows of {name!r}")
        if part.limit == -math.inf:
            return np.zeros(rows, bool)
        if self._policy.output not in outputs:
            raise InvalidOutput(f"{part.name} gave no output {self._policy.output!r}")
        found: Array = confidence(outputs[self._policy.output], self._policy.measure) < part.limit
        return found

    def _joined(self, known: Sequence[_Known], rows: int, asked: Sequence[str]) -> tuple[Tensors, str]:
        """Each row as the last step that it came to has answered it, and how many rows each step has answered."""
        found: dict[str, Array] = {}
        for spec in self.signature.outputs:
            if asked and spec.name not in asked:
                continue
            first = known[0].outputs[spec.name]
            whole = first if first.dtype == spec.dtype else first.astype(spec.dtype)
            if len(known) > 1 and whole is first:
                whole = whole.copy()
            for places, outputs in known[1:]:
                part = outputs[spec.name]
                if part.shape[1:] != whole.shape[1:]:
                    raise InvalidOutput(
                        f"the steps differ in the shape of {spec.name!r}: {list(whole.shape)} and {list(part.shape)}"
                    )
                whole[places] = part
            found[spec.name] = whole
        return found, self._count(known, rows)

    def _count(self, known: Sequence[_Known], rows: int) -> str:
        by = []
        went_on = [len(places) for places, _ in known[1:]]
        for part, came, left in zip(self._parts, [rows, *went_on], [*went_on, 0], strict=False):
            self.memory.rows[part.name] += came - left
            if came > left:
                by.append(f"{part.name}={came - left}")
        return ", ".join(by)

    def _check_asked(self, outputs: Sequence[str]) -> None:
        known = [spec.name for spec in self.signature.outputs]
        for name in outputs:
            if name not in known:
                raise InvalidInput(
                    "there is no such output", field="outputs", expected=", ".join(known), got=repr(name)
                )


def _takes(whole: Signature, part: Signature) -> tuple[tuple[str, TensorSpec | None], ...]:
    """The inputs of a step, of those that the whole has."""
    found = []
    for spec in part.inputs:
        given, wanted = whole.input(spec.name), of_rows(spec, part)
        if given is not None:
            found.append((spec.name, None if is_sure(given, wanted) else wanted))
    return tuple(found)


def _picked(request: InferRequest, takes: Sequence[tuple[str, TensorSpec | None]], places: Array) -> Tensors:
    """What a step takes of a request, for the rows at these places."""
    found: dict[str, Array] = {}
    for name, wanted in takes:
        array = request.inputs.get(name)
        if array is None:
            continue
        if len(places) < request.rows and not is_parameter(name):
            array = array[places]
        found[name] = array if wanted is None else fitted(array, wanted, name)
    return found


def _word(problem: Exception, why: str) -> str:
    """Why an answer is degraded: where it was a matter of time, it is as far as time has reached."""
    late = isinstance(problem, DeadlineExceeded) or (isinstance(problem, QueueFull) and problem.too_late)
    return PARTIAL if late else why
