"""What a node asks of a part in the caller's name: other inputs, the same caller, and a journey of its own."""

from __future__ import annotations

import math

from turnout.core.messages import Attributes, Context, InferRequest, Journey
from turnout.core.tensors import Tensors
from turnout.graph.split import ROUTE_TO

#: Why an answer of several parts is degraded, where some of them were not there in time.
PARTIAL = "partial"
#: Of what is left of a deadline, so much is kept for putting a partial answer together (seconds at least, and a share).
_LEAST, _SHARE = 0.003, 0.05
_new = tuple.__new__


class InnerAttributes:
    """The caller's attributes, but for the version that he has named: he meant the whole, not its parts."""

    __slots__ = ("_outer",)

    def __init__(self, outer: Attributes) -> None:
        self._outer = outer

    def header(self, name: str) -> str | None:
        """The header of that name."""
        return None if name == ROUTE_TO else self._outer.header(name)

    def cookie(self, name: str) -> str | None:
        """The cookie of that name."""
        return self._outer.cookie(name)

    def argument(self, name: str) -> str | None:
        """The argument of that name in the URL."""
        return self._outer.argument(name)


def inner_context(outer: Context) -> Context:
    """What travels with requests to parts, once for all of them; deadline and journey are set for each."""
    if outer.attributes is None or isinstance(outer.attributes, InnerAttributes):
        return outer
    return outer._replace(attributes=InnerAttributes(outer.attributes))


def inner_request(
    outer: InferRequest, context: Context, use: str, inputs: Tensors, rows: int, deadline: float, journey: Journey
) -> InferRequest:
    """A request for all outputs of a part. A third of what `_replace` costs."""
    id_, _, protocol, caller, attributes, _, avoid = context
    inner = _new(Context, (id_, deadline, protocol, caller, attributes, journey, avoid))
    return _new(InferRequest, (use, inputs, rows, inner, "", (), outer.parameters, None))


def inner_journey(outer: Journey | None) -> Journey:
    """Hears what happens to a part, in as much detail as the caller wants to know of the whole."""
    return Journey(explain=True) if outer is not None and outer.steps is not None else Journey()


def tell(outer: Journey | None, step: str, inner: Journey) -> None:
    """Adds what happened inside a step to what happened to the whole, each with the step before its name."""
    if outer is not None and outer.steps is not None and inner.steps:
        outer.steps += [trace._replace(name=f"{step}/{trace.name}") for trace in inner.steps]


def with_margin(deadline: float, now: float) -> float:
    """Until when parts may take (monotonic seconds), so that what is known by then can still be answered in time."""
    return deadline if deadline == math.inf else deadline - max(_LEAST, (deadline - now) * _SHARE)
