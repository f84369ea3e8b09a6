"""The short way of the usual request: which heads and models have one, and the long way from the middle of it.

Most requests are alike: a head that was read before, one input of a few numbers as JSON (Open Inference Protocol v2),
to a model whose endpoint has nothing to decide. For those `_lane`, which is compiled, does in one go what the codec,
the exchange and the coroutines between door and queue do for all others, with the same answer, the same counts and
the same record. Whatever it does not know goes the long way, and so does everything where it was not compiled.
"""

from __future__ import annotations

import math
import os
from array import array
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np

from turnout.core.errors import Failure
from turnout.core.messages import NO_PARAMETERS, Context, InferRequest, Journey
from turnout.core.signature import Signature
from turnout.core.tensors import dtype_name
from turnout.entrypoints.http.responses import answer_start, usual_fields
from turnout.graph.endpoint import Endpoint
from turnout.monitoring.families import SECONDS
from turnout.protocols.http import JSON, HttpRequest
from turnout.protocols.json_values import FLOAT_LIMITS
from turnout.protocols.provenance import usual_parameters
from turnout.protocols.v2_rest import PLAIN_REPLY, Reply, V2Infer, usual_start, usual_tensor
from turnout.runtime.batching import Batching

if TYPE_CHECKING:
    from turnout.entrypoints.http.exchange import Exchange
    from turnout.entrypoints.http.head import Head
    from turnout.entrypoints.http.state import DoorState
    from turnout.runtime.batch import Whole

#: Set to 0, nothing goes the short way.
SWITCH = "TURNOUT_NATIVE"
#: For so long (seconds) a head that leads to no lane is not asked again: the model may be another one by then.
_AGAIN = 1.0
_KINDS = {"FP32": "f", "FP64": "d", "INT32": "i", "INT64": "q"}


def never(_connection: Any, _data: bytes) -> bool:
    """What stands for the lane where there is none."""
    return False


#: Whether the bytes that came on a connection were one whole request that is on its short way now.
take: Callable[[Any, bytes], bool] = never
if os.environ.get(SWITCH, "1") != "0":
    try:
        from turnout.entrypoints.http import _lane

        if abs(_lane.clock() - monotonic()) < 1.0:  # or this system's clocks are others than those that are known here
            take = _lane.take
    except ImportError:  # not compiled: Python alone does it all
        pass


def lane_of(state: DoorState, head: Head) -> Any:
    """The lane that requests with this head may take, or False."""
    head.lane_until = monotonic() + _AGAIN
    if head.codec is None or type(head.codec) is not V2Infer or head.version or head.explain or head.refused:
        return False
    if head.close or head.keep_alive_field or head.expects or head.head_only or head.coding or head.length < 0:
        return False
    if "inference-header-content-length" in head.headers or head.method != "POST":
        return False
    try:
        model = state.serving.find(head.name, head.version)
    except Failure:
        return False
    endpoint = model.servable
    if type(endpoint) is not Endpoint:
        return False
    batching = endpoint.only_child
    if type(batching) is not Batching or not _is_plain(batching.signature) or batching.signature != model.signature:
        return False
    spec = batching.signature.inputs[0]
    if spec.datatype.startswith("INT"):
        bounds = np.iinfo(spec.dtype)
        low, high = float(bounds.min), float(bounds.max)
    else:
        low = high = 0.0
    ask = getattr(state.observer, "usual", None)
    usual = ask(endpoint.name, batching.version, head.codec.name) if ask is not None else None
    seal_key, seal = endpoint.only_seal(batching.version)
    return _lane.Lane(
        state=state, head=head, model=model, endpoint=endpoint, batching=batching, input=spec, bounds=(low, high),
        kind=_KINDS[spec.datatype], limit=FLOAT_LIMITS.get(spec.datatype, math.inf), usual=usual,
        seal_key=seal_key, seal=seal, version=batching.version, start=answer_start(200, JSON), texts=_texts,
        time_bounds=array("d", SECONDS), tensor_head=usual_tensor, type_name=dtype_name,
        failing=_failing, answering=_answering,
    )  # fmt: skip


def _is_plain(signature: Signature) -> bool:
    """One input of rows of one fixed shape, of numbers."""
    if not signature.batched or len(signature.inputs) != 1 or "FP16" in signature.output_types:
        return False
    spec = signature.inputs[0]
    if spec.optional or spec.datatype not in _KINDS or not spec.shape or spec.shape[0] != -1:
        return False
    return -1 not in spec.shape[1:] and len(spec.shape) <= 8 and spec.name.isascii() and spec.name.isprintable()


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
