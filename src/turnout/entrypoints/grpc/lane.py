"""The short way of the usual gRPC call: which messages have one, and the long way from the middle of it.

It takes calls of `ModelInfer` whose headers and whose message, but for its id and its one raw tensor, were read before
(`entrypoints/lanes.py` has the rest).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

from turnout.core.messages import NO_PARAMETERS, Context, InferRequest, Journey
from turnout.entrypoints import lanes
from turnout.entrypoints.grpc.answers import HEADERS_BLOCKS, OK_BLOCK, answerer_start
from turnout.entrypoints.grpc.messages import PREFIX
from turnout.protocols.v2_grpc_infer import JOIN_BELOW, ModelInferCodec
from turnout.protocols.v2_grpc_parameters import usual_parameters_start

if TYPE_CHECKING:
    from turnout.entrypoints.grpc.calls import Calls, InferCall
    from turnout.entrypoints.grpc.heads import Head
    from turnout.runtime.batch import Whole

_MAX_REMEMBERED = 256
#: Tensors lie in messages as they lie in memory here.
_lane = lanes.compiled("turnout.entrypoints.grpc._lane") if sys.byteorder == "little" else None


def nothing(_connection: Any, _data: bytes | memoryview) -> int:
    """What stands for the lane where there is none."""
    return 0


#: Takes the whole frames at the start of what came on a connection; gives how many bytes that were.
receive: Callable[[Any, bytes | memoryview], int] = nothing if _lane is None else _lane.receive


def lane_of(calls: Calls, head: Head, serialized: bytes) -> Any:
    """The lane that messages may take that begin with these bytes, or None."""
    codec = head.method.infer if head.method is not None else None
    if _lane is None or type(codec) is not ModelInferCodec:
        return None
    said = codec.remembered(serialized)
    if said is None:  # the long way is to read it first, and to find it in order
        return None
    if len(calls.lanes) >= _MAX_REMEMBERED:
        calls.lanes.clear()
    calls.lanes[serialized] = monotonic() + lanes.AGAIN
    if said.version or said.outputs or said.parameters or said.typed or len(said.tensors) != 1:
        return None
    known = lanes.known(calls, said.model, "grpc")
    if known is None:
        return None
    (tensor,), spec = said.tensors, known["input"]
    if (tensor.name, tensor.datatype, tensor.shape[1:]) != (spec.name, spec.datatype, spec.shape[1:]):
        return None
    if not tensor.shape or not 1 <= tensor.shape[0] <= known["batching"].max_rows:
        return None
    found = calls.lanes[serialized] = _lane.MessageLane(
        **known, key=serialized, deadline=calls.default_deadline, rows=tensor.shape[0], field=codec.output_field,
        block=HEADERS_BLOCKS["identity"], most=JOIN_BELOW, texts=_Texts(codec), failing=_failing, answering=_answering,
    )  # fmt: skip
    return found


class _Texts:
    """What every answer of a lane says: before the ids in the message, and before the prediction id in the trailers."""

    def __init__(self, codec: ModelInferCodec) -> None:
        self._codec = codec

    def __call__(self, lane: Any, twin: str, size: int) -> tuple[bytes, bytes, bytes]:
        endpoint, seal = lane.endpoint, lane.seal
        said = usual_parameters_start(size, twin, seal.served_by, seal.digest, seal.variant, endpoint.revision, "")
        trailers = OK_BLOCK + answerer_start(seal.served_by, seal.variant, endpoint.revision, "") + bytes((size,))
        return self._codec.model_field(endpoint.name, lane.version), said, trailers


def _call(lane: Any, item: Any, journey: Journey) -> InferCall:
    """The request as an ordinary call of an ordinary stream, in the item's place."""
    from turnout.entrypoints.grpc.calls import InferCall
    from turnout.entrypoints.grpc.stream import Stream

    calls, table, head = lane.state, item.table, item.head
    stream = Stream(table, item.number, head, 0, item.send_window)
    stream.received = item.size + PREFIX.size
    stream.ended = True
    stream.closed = item.closed
    if not item.closed:
        table.open[item.number] = stream
    call = InferCall(stream, calls, head.method.infer)
    context = Context(item.id, item.deadline, "grpc", "", head, journey)
    own = item.id if item.named else ""
    model = lane.model
    request = InferRequest(model.name, item.inputs, item.rows, context, model.version, (), NO_PARAMETERS, own)
    call.resume(model, request, item.started, item.enqueued, item.size)
    return call


def _failing(lane: Any, item: Any, problem: BaseException) -> None:
    """Answers with a failure, if the client still waits for it."""
    journey = Journey()
    lane.endpoint.failed(journey, problem, item.deadline)
    _call(lane, item, journey).ended(None, problem)


def _answering(lane: Any, item: Any, whole: Whole, first: int, now: float) -> None:
    """Makes an answer the long way: one that no window lets out at once, or that is no array of plain numbers."""
    journey = Journey()
    lane.endpoint.sign(journey, whole.version)
    response = whole.share(first, item.rows, item.enqueued)
    _call(lane, item, journey).ended(response._replace(model=lane.endpoint.name), None)
