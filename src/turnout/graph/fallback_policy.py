"""What a fallback answers for, and how long each of its steps gets: the policy, as the spec has it."""

from __future__ import annotations

import math

import msgspec

from turnout.core.errors import InvalidInput
from turnout.graph.reasons import REASONS


class FallbackPolicy(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """on: the reasons for which the next step answers. margin: the share of what is left of a deadline that no step but
    the last gets. timeout: seconds that the first step gets at most, also without a deadline; None for no bound.

    predict: a step is not tried where a miss is likelier than this. hedge: where a miss of the first step becomes
    likelier than this, the next one starts beside it; None for never. drill: percent of requests after which the
    others are tried on a copy, whose answer nobody gets.
    """

    on: tuple[str, ...] = REASONS
    margin: float = 0.1
    timeout: float | None = None
    predict: float = 0.9
    hedge: float | None = None
    drill: float = 0.0

    def __post_init__(self) -> None:
        """Raises InvalidInput."""
        unknown = [word for word in self.on if word not in REASONS]
        if unknown:
            raise InvalidInput("no reason", field="on", expected=", ".join(REASONS), got=repr(unknown[0]))
        for name, low, high in (
            ("margin", 0.0, 0.9),
            ("predict", 0.5, 1.0),
            ("hedge", 0.01, 1.0),
            ("drill", 0.0, 100.0),
        ):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise InvalidInput("out of range", field=name, expected=f"{low:g} to {high:g}", got=str(value))
        if self.timeout is not None and not 0.0 < self.timeout < math.inf:
            raise InvalidInput("not a duration", field="timeout", expected="seconds above 0", got=str(self.timeout))
