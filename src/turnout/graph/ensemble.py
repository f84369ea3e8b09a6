"""Several models that together answer one request: steps with named tensors between them, each when it can begin."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Any

import msgspec
import numpy as np

from turnout.core.errors import DeadlineExceeded, Failure, Fault, InvalidInput, ModelFailed
from turnout.core.messages import InferRequest, InferResponse, Journey, StepTrace
from turnout.core.servable import Servable
from turnout.core.tensors import Array, Tensors
from turnout.graph.combine import WHOLE, check_way, combine

PARTIAL = "partial"
#: Of what is left of a deadline, so much is kept for putting a partial answer together (seconds at least, and a share).
_LEAST, _SHARE = 0.003, 0.05


class Condition(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Holds for the rows in which a tensor's value fits all that is said. tensor: an input, or STEP.OUTPUT."""

    tensor: str
    equals: float | str | None = None
    above: float | None = None
    below: float | None = None

    def rows(self, values: Array) -> Array:
        """Which rows; where a row has several elements all of them have to fit."""
        flat = values.reshape(len(values), -1)
        fits: Any = np.ones(flat.shape, bool)
        if self.equals is not None:
            wanted = self.equals.encode() if isinstance(self.equals, str) else self.equals
            fits = np.logical_and(fits, flat == wanted)
        if self.above is not None:
            fits = np.logical_and(fits, flat > self.above)
        if self.below is not None:
            fits = np.logical_and(fits, flat < self.below)
        found: Array = fits.all(axis=1)
        return found


class Case(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One way of a switch: what is used where a condition holds, or for all other rows."""

    use: str
    when: Condition | None = None


class StepPolicy(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """use: a version of the same endpoint, or MODEL or MODEL@VERSION served beside it; or `switch` between such.

    inputs: where each input comes from, an input of the ensemble or STEP.OUTPUT; left out, what has the same name.
    soft: the rest goes on where it fails. deadline: seconds for this step. retries: of failures that may pass.
    """

    use: str = ""
    switch: tuple[Case, ...] = ()
    inputs: dict[str, str] = {}
    soft: bool = False
    deadline: float | None = None
    retries: int = 0

    def __post_init__(self) -> None:
        """Raises InvalidInput."""
        if bool(self.use) == bool(self.switch):
            raise InvalidInput("not one way to answer", field="use", expected="exactly one of use, switch")
        if self.switch and (self.switch[-1].when is not None or any(one.when is None for one in self.switch[:-1])):
            raise InvalidInput(
                "not all rows have a way", field="switch", expected="a condition for all but the last",
                example="switch: [{when: {tensor: x, above: 0}, use: large}, {use: small}]",
            )  # fmt: skip
        if self.deadline is not None and not 0.0 < self.deadline < math.inf:
            raise InvalidInput("not a duration", field="deadline", expected="seconds above 0", got=str(self.deadline))
        if not 0 <= self.retries <= 5:
            raise InvalidInput("out of range", field="retries", expected="0 to 5", got=str(self.retries))

    @property
    def uses(self) -> tuple[str, ...]:
        """Everything that it may use."""
        return (self.use,) if self.use else tuple(dict.fromkeys(case.use for case in self.switch))


class CombinePolicy(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One output made of several. of: STEP.OUTPUT each. weights: of weighted_mean, vote, argmax; equal by default."""

    combine: str
    of: tuple[str, ...]
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        """Raises InvalidInput."""
        check_way(self.combine, "combine")
        if not self.of:
            raise InvalidInput("nothing to combine", field="of", expected="at least one STEP.OUTPUT")
        if self.weights is not None and (
            len(self.weights) != len(self.of) or not all(0.0 < one < math.inf for one in self.weights)
        ):
            raise InvalidInput(
                "not a weight for each",
                field="weights",
                expected=f"{len(self.of)} numbers above 0",
                got=str(self.weights),
            )


class EnsemblePolicy(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """steps: by name. outputs: where each output comes from, STEP.OUTPUT or a combination.

    partial: answer at the deadline with the members that have finished, weights renormalised, and say so.
    """

    steps: dict[str, StepPolicy]
    outputs: dict[str, str | CombinePolicy]
    partial: bool = False

    @property
    def uses(self) -> tuple[str, ...]:
        """Everything that its steps may use."""
        return tuple(dict.fromkeys(use for step in self.steps.values() for use in step.uses))


class Ensemble:
    """Runs the steps of a proved policy. `parts`: what answers for each thing that is used, with its input names."""

    def __init__(
        self,
        name: str,
        policy: EnsemblePolicy,
        parts: Mapping[str, Servable],
        inputs: Mapping[str, Sequence[str]],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._name = name
        self._policy = policy
        self._parts = dict(parts)
        self._clock = clock
        #: By step: its inputs with where they come from, and the steps that have to be done before.
        self._sources = {step: sources_of(one, inputs) for step, one in policy.steps.items()}
        self._needs = {
            step: {place.partition(".")[0] for place in self._places(step) if "." in place} for step in policy.steps
        }

    def __repr__(self) -> str:
        return f"Ensemble({self._name}: {', '.join(self._policy.steps)} -> {', '.join(self._policy.outputs)})"

    @property
    def children(self) -> Mapping[str, Servable]:
        """What its steps use."""
        return self._parts

    async def infer(self, request: InferRequest) -> InferResponse:
        """Raises the failure of a step that is needed, with the step's name; a caller's mistake stays one."""
        run = _Run(self._policy, self._parts, self._sources, self._needs, request, self._clock)
        outputs = await run.all()
        journey = request.context.journey
        missing = sorted(run.failed)
        if missing and journey is not None:
            journey.degraded = journey.degraded or PARTIAL
        if request.outputs:
            outputs = {name: outputs[name] for name in request.outputs}
        return InferResponse(
            outputs, request.model, self._name, run.parameters(), run.queue_seconds, run.predict_seconds, request.rows
        )

    def _places(self, step: str) -> list[str]:
        conditions = [case.when.tensor for case in self._policy.steps[step].switch if case.when is not None]
        return [*self._sources[step].values(), *conditions]


class _Run:
    """One request on its way through the steps."""

    def __init__(
        self, policy: EnsemblePolicy, parts: Mapping[str, Servable], sources: Mapping[str, Mapping[str, str]],
        needs: Mapping[str, set[str]], request: InferRequest, clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self._policy, self._parts, self._sources, self._needs = policy, parts, sources, needs
        self._request, self._clock = request, clock
        self.done: dict[str, Tensors] = {}
        self.failed: dict[str, BaseException] = {}
        self.queue_seconds = self.predict_seconds = 0.0
        self._answers: dict[str, str] = {}
        self._running: dict[asyncio.Task[Tensors], str] = {}

    async def all(self) -> Tensors:
        """The outputs of the ensemble."""
        begun: set[str] = set()
        try:
            while True:
                ready = [
                    step for step in self._policy.steps if step not in begun and self._needs[step] <= self.done.keys()
                ]
                begun.update(ready)
                if len(ready) == 1 and not self._running and not self._policy.partial:
                    self._take(ready[0], await self._guarded(ready[0]))  # a chain needs no task
                    continue
                for step in ready:
                    self._running[asyncio.ensure_future(self._step(step))] = step
                if not self._running:
                    return self._outputs()
                if not await self._wait():
                    return self._outputs()
        finally:
            for task in self._running:
                task.cancel()

    async def _wait(self) -> bool:
        """Waits for the next step to end; False where time is up and a partial answer has to do."""
        limit: float | None = None
        deadline = self._request.context.deadline
        if self._policy.partial and deadline < math.inf:
            left = deadline - self._clock()
            limit = max(0.0, left - max(_LEAST, left * _SHARE))
        ended, _ = await asyncio.wait(self._running, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        if not ended:
            for step in self._running.values():
                self.failed[step] = DeadlineExceeded(f"step {step!r} was not done in time")
            return False
        for task in ended:
            step = self._running.pop(task)
            self._take(step, task.exception() or task.result())
        return True

    def _take(self, step: str, found: Tensors | BaseException) -> None:
        if not isinstance(found, BaseException):
            self.done[step] = found
            return
        soft = self._policy.steps[step].soft or self._policy.partial
        if not soft or (isinstance(found, Failure) and found.fault is Fault.CALLER):
            raise _of_step(step, found)
        self.failed[step] = found

    async def _guarded(self, step: str) -> Tensors | BaseException:
        try:
            return await self._step(step)
        except Exception as problem:  # noqa: BLE001  who takes it decides what it means
            return problem

    async def _step(self, step: str) -> Tensors:
        policy = self._policy.steps[step]
        inputs = {name: self._tensor(place) for name, place in self._sources[step].items()}
        begun = self._clock()
        deadline = self._request.context.deadline
        if policy.deadline is not None:
            deadline = min(deadline, begun + policy.deadline)
        journey = self._request.context.journey
        outcome = "answered"
        try:
            if policy.use:
                return await self._ask(step, policy.use, inputs, self._request.rows, deadline)
            return await self._switch(step, policy, inputs, deadline)
        except BaseException as problem:
            outcome = type(problem).__name__
            raise
        finally:
            if journey is not None and journey.steps is not None:
                used = self._answers.get(step, "")
                journey.steps.append(StepTrace("step", step, outcome, self._clock() - begun, detail=used))

    async def _switch(self, step: str, policy: StepPolicy, inputs: Tensors, deadline: float) -> Tensors:
        """Each row goes its own way; the answers come back in the order of the rows."""
        left = np.ones(self._request.rows, bool)
        parts: list[tuple[Array, Tensors]] = []
        for case in policy.switch:
            mask = left if case.when is None else left & case.when.rows(self._tensor(case.when.tensor))
            places = np.flatnonzero(mask)
            left &= ~mask
            if len(places):
                rows = inputs if len(places) == self._request.rows else {n: a[places] for n, a in inputs.items()}
                parts.append((places, await self._ask(step, case.use, rows, len(places), deadline)))
        if len(parts) == 1:
            return parts[0][1]
        order = np.argsort(np.concatenate([places for places, _ in parts]), kind="stable")
        names = [name for name in parts[0][1] if all(name in answer for _, answer in parts)]
        return {name: np.concatenate([answer[name] for _, answer in parts])[order] for name in names}

    async def _ask(self, step: str, use: str, inputs: Tensors, rows: int, deadline: float) -> Tensors:
        context = self._request.context._replace(deadline=deadline, journey=Journey() if _told(self._request) else None)
        asked = self._request._replace(
            model=use, inputs=inputs, rows=rows, version="", outputs=(), context=context, reply=None
        )
        response = await self._answer(use, asked, self._policy.steps[step].retries)
        self.queue_seconds += response.queue_seconds
        self.predict_seconds += response.predict_seconds
        said = self._answers.get(step)
        served = f"{response.model}@{response.version}"
        self._answers[step] = served if said is None or said == served else f"{said}+{served}"
        return response.outputs

    async def _answer(self, use: str, asked: InferRequest, retries: int) -> InferResponse:
        try:
            return await self._parts[use].infer(asked)
        except Failure as failure:
            over = not retries or not failure.retryable or self._clock() >= asked.context.deadline
            if over or failure.fault is Fault.CALLER:
                raise
        return await self._answer(use, asked, retries - 1)

    def _tensor(self, place: str) -> Array:
        step, dot, output = place.partition(".")
        return self.done[step][output] if dot and step in self.done else self._request.inputs[place]

    def _outputs(self) -> Tensors:
        return {name: self._output(name, said) for name, said in self._policy.outputs.items()}

    def _output(self, name: str, said: str | CombinePolicy) -> Array:
        if isinstance(said, str):
            self._check_there(name, [said])
            return self._tensor(said)
        weights = said.weights or (1.0,) * len(said.of)
        there = [(place, weight) for place, weight in zip(said.of, weights, strict=True) if self._is_there(place)]
        if not there or (said.combine in WHOLE and len(there) < len(said.of)):
            self._check_there(name, said.of)
        return combine(said.combine, [self._tensor(place) for place, _ in there], [weight for _, weight in there])

    def _is_there(self, place: str) -> bool:
        step, dot, _ = place.partition(".")
        return not dot or step in self.done

    def _check_there(self, name: str, places: Sequence[str]) -> None:
        for place in places:
            step = place.partition(".")[0]
            if not self._is_there(place):
                known = self.failed.get(step) or next(iter(self.failed.values()), None)
                raise _of_step(step, known or ModelFailed(f"output {name!r} has no value"))

    def parameters(self) -> dict[str, Any]:
        """Who answered for each step, and which of them are missing."""
        found: dict[str, Any] = {"steps": ", ".join(f"{step}={who}" for step, who in self._answers.items())}
        if self.failed:
            found["missing"] = ", ".join(sorted(self.failed))
        return found


def sources_of(step: StepPolicy, inputs: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Where each input of a step comes from: as it says, else what is called the same."""
    names = dict.fromkeys(name for use in step.uses for name in inputs.get(use, ()))
    return {**{name: name for name in names}, **step.inputs}


def _told(request: InferRequest) -> bool:
    journey = request.context.journey
    return journey is not None and journey.steps is not None


def _of_step(step: str, problem: BaseException) -> BaseException:
    """The same failure, which says where; it keeps its kind."""
    if isinstance(problem, InvalidInput):
        return InvalidInput(
            f"step {step!r}: {problem.reason}", field=problem.field, expected=problem.expected, got=problem.got
        )
    if isinstance(problem, Failure):
        problem.message = f"step {step!r}: {problem.message}"
        problem.args = (problem.message,)
        return problem
    return ModelFailed(f"step {step!r} failed ({type(problem).__name__})")
