"""What passes between a door and a servable: frozen, made of named arrays, free of any wire form."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from turnout.core.tensors import Tensors

Parameter = str | int | float | bool
Parameters = Mapping[str, Parameter]

NO_PARAMETERS: Parameters = {}
#: The parameter of a response that names which of several equal models has answered.
VARIANT = "variant"


@lru_cache(maxsize=256)
def answered_by(variant: str) -> Parameters:
    """The parameters of an answer of a model that chooses; none of one that does not. Shared: not to be changed."""
    return {VARIANT: variant} if variant else NO_PARAMETERS


class Context(NamedTuple):
    """What travels with a request: who, until when, under which id.

    `deadline` is on the `time.monotonic` clock, in seconds; infinity where there is none.
    """

    id: str = ""
    deadline: float = math.inf
    protocol: str = ""
    caller: str = ""


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
