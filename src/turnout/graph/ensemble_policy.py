"""What a document says of an ensemble: its steps, where the inputs of each come from, and what its outputs are."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np

from turnout.core.errors import InvalidInput
from turnout.core.signature import TensorSpec
from turnout.core.tensors import DTYPES, Array
from turnout.graph.combine import WEIGHTED, check_way


class InputPolicy(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """An input of the ensemble. shape: -1 for a free axis; the first one is the row."""

    datatype: str
    shape: tuple[int, ...]
    columns: tuple[str, ...] = ()
    text: bool = True
    optional: bool = False

    def __post_init__(self) -> None:
        """Raises InvalidInput."""
        if self.datatype not in DTYPES:
            raise InvalidInput("no data type", field="datatype", expected=", ".join(DTYPES), got=repr(self.datatype))
        if any(size < -1 for size in self.shape):
            raise InvalidInput("not a shape", field="shape", expected="sizes, or -1", got=str(list(self.shape)))

    def spec(self, name: str) -> TensorSpec:
        """As a part of a signature."""
        return TensorSpec(name, self.datatype, self.shape, self.columns, self.text, self.optional)


class Condition(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Holds for the rows in which a tensor's value fits all that is said. tensor: an input, or STEP.OUTPUT."""

    tensor: str
    equals: bool | float | str | None = None
    above: float | None = None
    below: float | None = None

    def __post_init__(self) -> None:
        """Raises InvalidInput."""
        if self.equals is None and self.above is None and self.below is None:
            raise InvalidInput(
                "no condition", field="when", expected="equals, above or below", example="when: {tensor: x, above: 0}"
            )

    def fits(self, values: Array) -> Array:
        """Element by element. A NaN fits nothing."""
        found: Any = np.ones(values.shape, bool)
        if self.equals is not None:
            found &= np.equal(values, self.equals.encode() if isinstance(self.equals, str) else self.equals).astype(
                bool
            )
        if self.above is not None:
            found &= values > self.above
        if self.below is not None:
            found &= values < self.below
        return np.asarray(found)

    def rows(self, values: Array, rows: int) -> Array:
        """Which of the rows; where a row has several elements all of them have to fit."""
        return np.asarray(self.fits(values).reshape(rows, -1).all(axis=1))


class Case(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One way of a switch: what is used where a condition holds, or for all other rows."""

    use: str
    when: Condition | None = None


class StepPolicy(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """use: a version of the same endpoint, or MODEL or MODEL@VERSION served beside it; or `switch` between such.

    inputs: where each input comes from, an input of the ensemble or STEP.OUTPUT; left out, what has the same name.
    outputs: other names for its outputs, STEP.NAME: what the model calls it. soft: the rest goes on where it fails.
    weight: in weighted combinations. deadline: seconds for this step. retries: of failures that may pass.
    """

    use: str = ""
    switch: tuple[Case, ...] = ()
    inputs: dict[str, str] = {}
    outputs: dict[str, str] = {}
    soft: bool = False
    weight: float = 1.0
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
        if not 0.0 < self.weight < math.inf:
            raise InvalidInput("not a weight", field="weight", expected="a number above 0", got=str(self.weight))

    @property
    def uses(self) -> tuple[str, ...]:
        """Everything that it may use."""
        return (self.use,) if self.use else tuple(dict.fromkeys(case.use for case in self.switch))

    @property
    def cases(self) -> tuple[Case, ...]:
        """Its ways; a plain step has one, for all rows."""
        return self.switch or (Case(use=self.use),)


class CombinePolicy(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One output made of several. of: STEP.OUTPUT each. weights: of weighted_mean, vote, argmax; else the steps'."""

    combine: str
    of: tuple[str, ...]
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        """Raises InvalidInput."""
        check_way(self.combine, "combine")
        if not self.of:
            raise InvalidInput("nothing to combine", field="of", expected="at least one STEP.OUTPUT")
        if self.weights is None:
            return
        if self.combine not in WEIGHTED:
            raise InvalidInput(
                f"{self.combine} has no weights", field="weights", expected=f"them with {', '.join(sorted(WEIGHTED))}"
            )
        if len(self.weights) != len(self.of) or not all(0.0 < one < math.inf for one in self.weights):
            raise InvalidInput(
                "not a weight for each", field="weights", expected=f"{len(self.of)} numbers above 0",
                got=str(list(self.weights)),
            )  # fmt: skip


class EnsemblePolicy(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """steps: by name. outputs: where each output comes from, STEP.OUTPUT or a combination.

    inputs: those of the ensemble; left out, what the steps take and nobody gives. partial: answer at the deadline with
    the members that have finished, weights renormalised, and say so.
    """

    steps: dict[str, StepPolicy]
    outputs: dict[str, str | CombinePolicy]
    inputs: dict[str, InputPolicy] = {}
    partial: bool = False

    @property
    def uses(self) -> tuple[str, ...]:
        """Everything that its steps may use."""
        return tuple(dict.fromkeys(use for step in self.steps.values() for use in step.uses))
