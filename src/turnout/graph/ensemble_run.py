"""One request on its way through the steps of an ensemble."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from turnout.core.errors import DeadlineExceeded, Failure, Fault, InvalidOutput, QueueFull
from turnout.core.messages import InferRequest, InferResponse, StepTrace
from turnout.core.servable import Servable
from turnout.core.tensors import Array, Tensors
from turnout.graph.attempt import Times, within
from turnout.graph.combine import WHOLE, combine
from turnout.graph.edges import fitted, is_parameter
from turnout.graph.fallback import wants_original
from turnout.graph.inner import PARTIAL, inner_context, inner_journey, inner_request, tell, with_margin
from turnout.graph.step_failure import of_step
from turnout.graph.together import ended_with, leave
from turnout.graph.wiring import Place, Way, WiredOutput, WiredStep

__all__ = ["PARTIAL", "Run"]


class Route(Protocol):
    """What has to be done: these steps, each after those that it needs, for these outputs."""

    @property
    def outputs(self) -> tuple[WiredOutput, ...]: ...
    @property
    def steps(self) -> tuple[WiredStep, ...]: ...


class Run:
    """Runs steps as soon as their inputs are there. `lost`: steps without an answer, with what came instead of it."""

    __slots__ = (
        "_clock", "_context", "_deadline", "_limit", "_partial", "_parts", "_request", "_route", "_times", "answers",
        "degraded", "done", "lost", "predict_seconds", "queue_seconds",
    )  # fmt: skip

    def __init__(
        self, route: Route, parts: Mapping[str, Servable], times: Times, request: InferRequest,
        clock: Callable[[], float], *, partial: bool,
    ) -> None:  # fmt: skip
        self._route, self._parts, self._times, self._request, self._clock = route, parts, times, request, clock
        self._context = inner_context(request.context)
        self._deadline = request.context.deadline
        self._partial = partial and not wants_original(request)
        self._limit = with_margin(self._deadline, clock()) if self._partial else math.inf
        self.done: dict[str, Tensors] = {}
        self.lost: dict[str, BaseException] = {}
        self.answers: dict[str, str] = {}
        self.degraded = ""
        self.queue_seconds = self.predict_seconds = 0.0

    async def one_by_one(self) -> Tensors:
        """The outputs, of steps that each need the one before: no task is made."""
        for step in self._route.steps:
            if step.name not in self.lost:
                self._take(step, await self._guarded(step))
                if self.lost and not self._wanted():
                    break
        return self._outputs()

    async def side_by_side(self) -> Tensors:
        """The outputs; whatever runs while nothing needs it any more is cancelled."""
        running: dict[asyncio.Task[Any], WiredStep] = {}
        begun: set[str] = set()
        try:
            while wanted := self._wanted():
                for task in [task for task, step in running.items() if step.name not in wanted]:
                    del running[task]
                    leave([task])
                for step in self._route.steps:
                    if step.name in wanted and step.name not in begun and step.needs <= self.done.keys():
                        begun.add(step.name)
                        running[asyncio.ensure_future(self._guarded(step))] = step
                ended, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in ended:
                    self._take(running.pop(task), ended_with(task))
            return self._outputs()
        finally:
            leave(running)

    def _wanted(self) -> frozenset[str]:
        """The steps without an answer yet that some output still needs. Raises the failure of an output's only hope."""
        wanted: set[str] = set()
        for output in self._route.outputs:
            self._check(output)
            for place in output.members:
                if place.step and place.step not in self.lost:
                    wanted.add(place.step)
                if output.way == "first" and self._is_there(place):
                    break
        wanted -= self.done.keys()
        for step in reversed(self._route.steps):
            if step.name in wanted:
                wanted |= step.needs - self.done.keys()
        return frozenset(wanted)

    def _take(self, step: WiredStep, found: Tensors | BaseException) -> None:
        """Notes what came of a step. Raises what it failed with, where the rest is nothing without it."""
        if not isinstance(found, BaseException):
            self.done[step.name] = found
            return
        late = isinstance(found, DeadlineExceeded) or (isinstance(found, QueueFull) and found.too_late)
        soft = step.policy.soft or (self._partial and late)
        if isinstance(found, Failure) and found.fault is Fault.CALLER:
            soft = False
        if not soft or wants_original(self._request):
            raise of_step(step.name, found)
        self._lose(step.name, found)

    def _lose(self, name: str, why: BaseException) -> None:
        """A step has no answer, and so have those that need it."""
        self.lost[name] = why
        for step in self._route.steps:
            if step.name not in self.lost and not step.needs.isdisjoint(self.lost):
                self.lost[step.name] = why

    # -- one step

    async def _guarded(self, step: WiredStep) -> Tensors | BaseException:
        """What a step gives, or what it failed with: whoever takes it decides what that means."""
        policy, begun = step.policy, self._clock()
        until = self._limit
        if policy.deadline is not None:
            until = min(until, begun + policy.deadline)
        outcome = "answered"
        try:
            if until == math.inf:
                return await self._step(step, self._deadline)
            if until <= begun:
                raise DeadlineExceeded("the time for this step was over before it could begin")
            return await within(self._step(step, min(until, self._deadline)), until, self._times)
        except Exception as problem:  # noqa: BLE001  see above
            outcome = type(problem).__name__
            return problem
        except BaseException as problem:
            outcome = type(problem).__name__
            raise
        finally:
            journey = self._request.context.journey
            if journey is not None and journey.steps is not None:
                served = self.answers.get(step.name, "")
                journey.steps.append(StepTrace("step", step.name, outcome, self._clock() - begun, detail=served))

    async def _step(self, step: WiredStep, deadline: float) -> Tensors:
        if len(step.ways) == 1:
            return await self._ask(step, step.ways[0], None, self._request.rows, deadline)
        return await self._switch(step, deadline)

    async def _switch(self, step: WiredStep, deadline: float) -> Tensors:
        """Each row goes its own way, all ways side by side; the answers come back in the order of the rows."""
        rows = self._request.rows
        left = np.ones(rows, bool)
        ways: list[tuple[Way, Array]] = []
        for way in step.ways:
            mask = left
            if way.when is not None and way.tested is not None:
                mask = left & way.when.rows(self._tensor(way.tested), rows)
            if mask.any():
                ways.append((way, np.flatnonzero(mask)))
                left = left & ~mask
        if len(ways) == 1:
            return await self._ask(step, ways[0][0], None, rows, deadline)
        tasks = [asyncio.ensure_future(self._ask(step, way, places, len(places), deadline)) for way, places in ways]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in tasks:
                if task.done() and isinstance(problem := ended_with(task), BaseException):
                    raise problem
            return _joined([places for _, places in ways], [task.result() for task in tasks], rows)
        finally:
            leave(tasks)

    async def _ask(self, step: WiredStep, way: Way, places: Array | None, rows: int, deadline: float) -> Tensors:
        """The outputs of a step for some rows, or for all, under the names that the step gives them."""
        outer = self._request
        inputs: dict[str, Array] = {}
        for name, place, wanted in way.takes:
            if not place.step and place.tensor not in outer.inputs:
                continue  # the proof has seen that it may be left out
            array = self._tensor(place)
            if wanted is not None:
                array = fitted(array, wanted, str(place))
            inputs[name] = array if places is None or is_parameter(name) else array[places]
        journey = inner_journey(outer.context.journey)
        asked = inner_request(outer, self._context, way.use, inputs, rows, deadline, journey)
        try:
            response = await self._answer(way.use, asked, step.policy.retries)
        finally:
            tell(outer.context.journey, step.name, journey)
        self.degraded = self.degraded or journey.degraded
        self.queue_seconds += response.queue_seconds
        self.predict_seconds += response.predict_seconds
        served = f"{response.model}@{response.version}"
        said = self.answers.get(step.name)
        self.answers[step.name] = served if said is None or said == served else f"{said}+{served}"
        outputs = response.outputs
        try:
            return {name: outputs[inner] for name, inner in step.outputs}
        except KeyError as missing:
            raise InvalidOutput(f"{way.use} gave no output {missing}") from None

    async def _answer(self, use: str, asked: InferRequest, retries: int) -> InferResponse:
        part = self._parts[use]
        while True:
            try:
                return await part.infer(asked)
            except Failure as failure:
                over = not retries or not failure.retryable or self._clock() >= asked.context.deadline
                if over or failure.fault is Fault.CALLER:
                    raise
            retries -= 1

    def _tensor(self, place: Place) -> Array:
        return self.done[place.step][place.tensor] if place.step else self._request.inputs[place.tensor]

    # -- what comes out

    def _outputs(self) -> Tensors:
        found: dict[str, Array] = {}
        for output in self._route.outputs:
            self._check(output)
            there = [
                (place, weight) for place, weight in zip(output.members, output.weights, strict=True)
                if self._is_there(place)
            ]  # fmt: skip
            members = [self._tensor(place) for place, _ in there]
            if not output.way:
                found[output.name] = members[0]
                continue
            try:
                found[output.name] = combine(output.way, members, [weight for _, weight in there])
            except (ValueError, TypeError):
                shapes = ", ".join(f"{place} {list(self._tensor(place).shape)}" for place, _ in there)
                raise InvalidOutput(f"{output.way} of output {output.name!r}: the members differ: {shapes}") from None
        return found

    def _check(self, output: WiredOutput) -> None:
        """Raises what a step has failed with, where an output is not possible without it."""
        if not self.lost:
            return
        gone = [place.step for place in output.members if place.step in self.lost]
        if len(gone) == len(output.members) or (gone and output.way in WHOLE):
            raise of_step(gone[0], self.lost[gone[0]])

    def _is_there(self, place: Place) -> bool:
        return not place.step or place.step in self.done

    def parameters(self) -> dict[str, str | int | float | bool]:
        """Who answered for each step, and which of them are missing."""
        found: dict[str, str | int | float | bool] = {
            "steps": ", ".join([f"{step}={who}" for step, who in self.answers.items()])
        }
        if self.lost:
            found["missing"] = ", ".join(self.lost)
        return found


def _joined(places: Sequence[Array], answers: Sequence[Tensors], rows: int) -> Tensors:
    """The rows of all ways in the order in which they came."""
    found: dict[str, Array] = {}
    for name in answers[0]:
        parts = [answer[name] for answer in answers]
        fits = all(len(part) == len(place) and part.shape[1:] == parts[0].shape[1:]
                   for part, place in zip(parts, places, strict=True))  # fmt: skip
        if not fits:
            shapes = ", ".join(str(list(part.shape)) for part in parts)
            raise InvalidOutput(f"the ways of the switch differ in the shape of their output {name!r}: {shapes}")
        whole = np.empty((rows, *parts[0].shape[1:]), np.result_type(*parts))
        for place, part in zip(places, parts, strict=True):
            whole[place] = part
        found[name] = whole
    return found
