"""What a document says of a cascade: its steps, what says how sure they are, and how sure is sure enough."""

from __future__ import annotations

import msgspec

from turnout.core.errors import InvalidInput
from turnout.graph.confidence import Measure


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
        if len(set(self.steps)) < len(self.steps):
            raise InvalidInput("one stands twice", field="steps", expected="each once", got=str(list(self.steps)))
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
