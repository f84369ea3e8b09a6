"""What passes between a door and a servable: frozen, made of named arrays, free of any wire form."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple, Protocol

from turnout.core.tensors import Tensors

Parameter = str | int | float | bool
Parameters = Mapping[str, Parameter]

NO_PARAMETERS: Parameters = {}
#: The parameter of a response that names which of several equal models, original or twin, has answered.
TWIN = "twin"


@lru_cache(maxsize=256)
def answered_by(twin: str) -> Parameters:
    """The parameters of an answer of a model that chooses; none of one that does not. Shared: not to be changed."""
    return {TWIN: twin} if twin else NO_PARAMETERS


class Attributes(Protocol):
    """What a door knows of a request beside its message; None where that is not there. Header names in lower case."""

    def header(self, name: str) -> str | None: ...
    def cookie(self, name: str) -> str | None: ...
    def argument(self, name: str) -> str | None: ...


class StepTrace(NamedTuple):
    """What one node did for one request. `outcome`: "answered", "hit", or the kind of failure. Times in seconds."""

    node: str
    name: str
    outcome: str
    seconds: float
    queue_seconds: float = 0.0
    detail: str = ""


class Journey:
    """What happened to one request on its way: nodes write it, doors and observers read it. One per request.

    `variant` is the version that the request was assigned to, `served_by` the one that answered (ENDPOINT@VERSION);
    they differ after a fallback, and then `degraded` says why. `direct`: the caller named the version himself, so
    the answer says nothing about a split. `counted`: the split takes the answer as evidence of the variant, which it
    does not where the caller or a rule has chosen. `steps` is a list only where the caller asked for an explanation.
    """

    __slots__ = (
        "counted",
        "degraded",
        "digest",
        "direct",
        "prediction_id",
        "revision",
        "served_by",
        "steps",
        "variant",
    )

    def __init__(self, *, explain: bool = False) -> None:
        self.variant = ""
        self.served_by = ""
        self.digest = ""
        self.revision = 0
        self.prediction_id = ""
        self.degraded = ""
        self.direct = False
        self.counted = False
        self.steps: list[StepTrace] | None = [] if explain else None


class Context(NamedTuple):
    """What travels with a request: who, until when, under which id.

    `deadline` is on the `time.monotonic` clock, in seconds; infinity where there is none. Without `attributes` the
    request came through no door (the library); without a `journey` nobody wants to know what happens to it. `avoid`
    are those that failed this request before (`Failure.by`): somebody else is asked as long as there is one.
    """

    id: str = ""
    deadline: float = math.inf
    protocol: str = ""
    caller: str = ""
    attributes: Attributes | None = None
    journey: Journey | None = None
    avoid: tuple[object, ...] = ()


class InferRequest(NamedTuple):
    """One request for a prediction: `rows` is the length of the first axis (1 if not batched).

    `outputs` are the names the caller asked for; empty means all. `reply` is what the codec that decoded the
    request needs to encode the answer (row or column form, binary or not); nobody else looks at it.
    """

    model: str
    inputs: Tensors
    rows: int
    context: Context
    version: str = ""
    outputs: tuple[str, ...] = ()
    parameters: Parameters = NO_PARAMETERS
    reply: object = None


class InferResponse(NamedTuple):
    """One answer, with the time it took where it was made (seconds) and the size of its batch."""

    outputs: Tensors
    model: str
    version: str
    parameters: Parameters = NO_PARAMETERS
    queue_seconds: float = 0.0
    predict_seconds: float = 0.0
    batch_rows: int = 0
