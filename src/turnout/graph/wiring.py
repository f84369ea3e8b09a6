"""A proved ensemble as it is run: every tensor with where it comes from, every step after those that it needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from turnout.core.signature import Signature, TensorSpec
from turnout.graph.ensemble_policy import Condition, StepPolicy


class Place(NamedTuple):
    """Where a tensor comes from: an output of a step, or an input of the ensemble where `step` is empty."""

    step: str
    tensor: str

    def __str__(self) -> str:
        return f"{self.step}.{self.tensor}" if self.step else self.tensor


class Take(NamedTuple):
    """An input of what is used. wanted: what it has to be, where that has to be looked at or made at run time."""

    name: str
    place: Place
    wanted: TensorSpec | None


class Way(NamedTuple):
    """What answers the rows of a condition, or all others."""

    use: str
    takes: tuple[Take, ...]
    when: Condition | None = None
    tested: Place | None = None


class WiredStep(NamedTuple):
    """A step. outputs: its names for what is given, with those of the model; needs: what has to be done before."""

    name: str
    policy: StepPolicy
    ways: tuple[Way, ...]
    outputs: tuple[tuple[str, str], ...]
    needs: frozenset[str]


class WiredOutput(NamedTuple):
    """An output of the ensemble: one tensor where `way` is empty, else a combination of several."""

    name: str
    way: str
    members: tuple[Place, ...]
    weights: tuple[float, ...]


class Wiring(NamedTuple):
    """A whole ensemble; its steps in an order in which they could be run."""

    steps: tuple[WiredStep, ...]
    outputs: tuple[WiredOutput, ...]
    signature: Signature

    def needed(self, outputs: Sequence[WiredOutput]) -> frozenset[str]:
        """The steps that these outputs need."""
        needed = {place.step for output in outputs for place in output.members}
        for step in reversed(self.steps):
            if step.name in needed:
                needed |= step.needs
        return frozenset(needed - {""})
