"""The short way of the usual HTTP request: which heads have one, and the long way from the middle of it.

It takes the Open Inference Protocol as JSON, of heads that were read before (`entrypoints/lanes.py` has the rest).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np

from turnout.core.messages import NO_PARAMETERS, Context, InferRequest, Journey
from turnout.core.tensors import dtype_name
from turnout.entrypoints import lanes
from turnout.entrypoints.http.responses import answer_start, usual_fields
from turnout.protocols.http import JSON, HttpRequest
from turnout.protocols.json_values import FLOAT_LIMITS
from turnout.protocols.provenance import usual_parameters
from turnout.protocols.v2_rest import PLAIN_REPLY, Reply, V2Infer, usual_start, usual_tensor

if TYPE_CHECKING:
    from turnout.entrypoints.http.exchange import Exchange
    from turnout.entrypoints.http.head import Head
    from turnout.entrypoints.http.state import DoorState
    from turnout.runtime.batch import Whole

_lane = lanes.compiled("turnout.entrypoints.http._lane")


#: The answers of a model are nearly all alike in what is said of their tensors.
_tensor_head = lru_cache(512)(usual_tensor)


def never(_connection: Any, _data: bytes) -> bool:
    """What stands for the lane where there is none."""
    return False


#: Whether the bytes that came on a connection were one whole request that is on its short way now.
take: Callable[[Any, bytes], bool] = never if _lane is None else _lane.take


def lane_of(state: DoorState, head: Head) -> Any:
    """The lane that requests with this head may take, or False."""
    head.lane_until = monotonic() + lanes.AGAIN
    if head.codec is None or type(head.codec) is not V2Infer or head.version or head.explain or head.refused:
        return False
    if head.close or head.keep_alive_field or head.expects or head.head_only or head.coding or head.length < 0:
        return False
    if "inference-header-content-length" in head.headers or head.method != "POST":
        return False
    known = lanes.known(state, head.name, head.codec.name)
    if known is None or _lane is None:
        return False
    spec = known["input"]
    low = high = 0.0
    if spec.datatype.startswith("INT"):
        bounds = np.iinfo(spec.dtype)
        low, high = float(bounds.min), float(bounds.max)
    return _lane.JsonLane(
        **known, head=head, deadline=head.deadline, bounds=(low, high), kind=lanes.KINDS[spec.datatype],
        limit=FLOAT_LIMITS.get(spec.datatype, math.inf), start=answer_start(200, JSON), texts=_texts,
        tensor_head=_tensor_head, type_name=dtype_name, failing=_failing, answering=_answering,
    )  # fmt: skip


def _texts(lane: Any, twin: str) -> tuple[bytes, bytes]:
    """What every answer of a lane says before its prediction id, in the body and in the head."""
    endpoint, seal = lane.endpoint, lane.seal
    said = usual_parameters(twin, seal.served_by, seal.digest, seal.variant, endpoint.revision, "")
    fields = usual_fields(twin, seal.served_by, seal.variant, endpoint.revision)
    return usual_start(endpoint.name, lane.version, said), fields


def _exchange(lane: Any, item: Any, journey: Journey) -> Exchange:
    """The request as an ordinary exchange, in the item's place."""
    from turnout.entrypoints.http.exchange import Exchange

    head, state, connection = lane.head, lane.state, item.connection
    exchange = Exchange(state, connection, head)
    http = exchange.http = HttpRequest(head.method, head.path, head.query, head.headers, item.body)
    exchange.model = lane.model
    exchange.journey = journey
    context = Context(item.id, item.deadline, head.codec.name, "", http, journey)
    reply = Reply(item.id) if item.named else PLAIN_REPLY
    exchange.request = InferRequest(
        lane.model.name, item.inputs, item.rows, context, lane.model.version, (), NO_PARAMETERS, reply
    )
    exchange.started, exchange.decoded = item.started, item.enqueued
    exchange.over = True
    return exchange


def _failing(lane: Any, item: Any, problem: BaseException) -> None:
    """Answers with a failure, if the connection still waits for it."""
    journey = Journey()
    lane.endpoint.failed(journey, problem, item.deadline)
    exchange = _exchange(lane, item, journey)
    item.connection.replace(item, exchange)
    exchange.fail(problem)


def _answering(lane: Any, item: Any, whole: Whole, first: int, now: float) -> None:
    """Makes an answer the long way: what no text was made of, or what ends its connection."""
    journey = Journey()
    lane.endpoint.sign(journey, whole.version)
    exchange = _exchange(lane, item, journey)
    item.connection.replace(item, exchange)
    response = whole.share(first, item.rows, item.enqueued)
    exchange.ended(response._replace(model=lane.endpoint.name), None)
