"""Several models that together answer one request: steps with named tensors between them, each when it can begin."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import monotonic
from typing import NamedTuple

from turnout.core.errors import InvalidInput
from turnout.core.messages import InferRequest, InferResponse, StepTrace
from turnout.core.servable import Servable
from turnout.core.signature import Signature
from turnout.graph.attempt import Times
from turnout.graph.ensemble_policy import CombinePolicy, EnsemblePolicy, StepPolicy
from turnout.graph.ensemble_proof import wire
from turnout.graph.ensemble_run import PARTIAL, Run
from turnout.graph.tree import expected
from turnout.graph.wiring import WiredOutput, WiredStep, Wiring

__all__ = ["PARTIAL", "CombinePolicy", "Ensemble", "EnsemblePolicy", "StepPolicy"]
#: So many choices of outputs are remembered.
_MOST = 64


class Route(NamedTuple):
    """What has to be done for a choice of outputs. alone: no two of the steps could ever run side by side."""

    outputs: tuple[WiredOutput, ...]
    steps: tuple[WiredStep, ...]
    alone: bool


class Ensemble:
    """Serves a policy that was proved. parts: what answers for each thing that it uses, with their signatures.

    Raises InvalidInput where it does not fit together.
    """

    def __init__(
        self,
        name: str,
        policy: EnsemblePolicy,
        parts: Mapping[str, Servable],
        signatures: Mapping[str, Signature],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._name = name
        self._policy = policy
        self._parts = dict(parts)
        self._clock = clock
        self._wiring = wire(policy, signatures)
        self._times = Times()
        self._routes: dict[tuple[str, ...], Route] = {(): _route(self._wiring, self._wiring.outputs)}

    def __repr__(self) -> str:
        return f"Ensemble({self._name}: {', '.join(self._policy.steps)} -> {', '.join(self._policy.outputs)})"

    @property
    def children(self) -> Mapping[str, Servable]:
        """What its steps use."""
        return self._parts

    @property
    def signature(self) -> Signature:
        """What the whole takes and gives."""
        return self._wiring.signature

    def expected_seconds(self) -> float:
        """What one row is expected to take: the longest way through the steps; infinity where a part does not know."""
        seconds = {use: expected(part) for use, part in self._parts.items()}
        ends: dict[str, float] = {}
        for step in self._wiring.steps:
            begins = max((ends[need] for need in step.needs), default=0.0)
            ends[step.name] = begins + max(seconds[way.use] for way in step.ways)
        return max(ends.values())

    async def infer(self, request: InferRequest) -> InferResponse:
        """Raises the failure of a step that is needed, with the step's name; a caller's mistake stays one."""
        route = self._routes.get(request.outputs) or self._route(request.outputs)
        run = Run(route, self._parts, self._times, request, self._clock, partial=self._policy.partial)
        begun = self._clock()
        outputs = await (run.one_by_one() if route.alone else run.side_by_side())
        journey = request.context.journey
        if journey is not None:
            if (run.lost or run.degraded) and not journey.degraded:
                journey.degraded = PARTIAL if run.lost else run.degraded
            if journey.steps is not None:
                without = "; ".join(f"without {step}: {type(why).__name__}" for step, why in run.lost.items())
                outcome = PARTIAL if run.lost else "answered"
                journey.steps.append(StepTrace("ensemble", self._name, outcome, self._clock() - begun, detail=without))
        return InferResponse(
            outputs, request.model, self._name, run.parameters(), run.queue_seconds, run.predict_seconds, request.rows
        )

    def _route(self, names: tuple[str, ...]) -> Route:
        """The way to some of the outputs: steps that only others need are not run."""
        known = {output.name: output for output in self._wiring.outputs}
        for name in names:
            if name not in known:
                raise InvalidInput(
                    "there is no such output", field="outputs", expected=", ".join(known), got=repr(name)
                )
        found = _route(self._wiring, tuple(known[name] for name in dict.fromkeys(names)))
        if len(self._routes) < _MOST:
            self._routes[names] = found
        return found


def _route(wiring: Wiring, outputs: tuple[WiredOutput, ...]) -> Route:
    needed = wiring.needed(outputs)
    steps = tuple(step for step in wiring.steps if step.name in needed)
    before: set[str] = set()
    behind: dict[str, frozenset[str]] = {}
    alone = True
    for step in steps:
        behind[step.name] = step.needs.union(*(behind[need] for need in step.needs))
        alone = alone and behind[step.name] == before
        before.add(step.name)
    return Route(outputs, steps, alone)
