"""One request and its answer: the whole data plane of the HTTP door, from a framed request to framed bytes."""

from __future__ import annotations

import logging
import math
from asyncio import CancelledError, Task, get_running_loop
from collections.abc import Coroutine
from time import monotonic
from typing import Any, Protocol

from turnout.core.errors import Cancelled, Code, DeadlineExceeded, Failure, QueueFull
from turnout.core.messages import TWIN, Context, InferRequest, InferResponse, Journey
from turnout.core.servable import Servable, ServedModel
from turnout.entrypoints.call import Driven
from turnout.entrypoints.http.compression import inflate
from turnout.entrypoints.http.head import Head
from turnout.entrypoints.http.parking import PARKED_SECONDS
from turnout.entrypoints.http.responses import (
    TWIN_FIELD,
    Parts,
    answerer_fields,
    encode_any,
    encode_plain,
    refusal,
    with_retry_after,
)
from turnout.entrypoints.http.state import DoorState
from turnout.entrypoints.pace import BUSY
from turnout.monitoring.record import RequestRecord
from turnout.protocols.http import HttpRequest, HttpResponse, status_of
from turnout.protocols.provenance import explained

_log = logging.getLogger("turnout")
#: Bodies from this size on cost more to decode than the question whether they would be refused anyway.
_DEAR_BYTES = 2048
UNREAD = "too little of the deadline was left when the request was read: the server has more to do than it can answer"


class ServerFailed(Failure):
    """Something in the server broke on this request. The log has the traceback, the caller this sentence."""


class Line(Protocol):
    """What an exchange needs of its connection."""

    peer: str
    lost: bool

    def deliver(self, exchange: Exchange) -> None: ...
    def ends_with(self, exchange: Exchange) -> bool: ...


def turn_away(state: DoorState, head: Head, peer: str, size: int, now: float, *, late: bool) -> bytes:
    """The whole response to a request that the server has no time for, at a fraction of the price of any other.

    `late`: it has waited unread for most of its deadline, or all of it.
    """
    route = head.found.route  # type: ignore[union-attr]  # a head with a codec has found it
    answer = state.busy.get((route, late))
    if answer is None:
        failure = DeadlineExceeded(UNREAD) if late else QueueFull(BUSY, retry_after=PARKED_SECONDS)
        http = HttpRequest(head.method, head.path, head.query, head.headers, b"")
        response = with_retry_after(route.codec.encode_failure(http, failure), failure)  # type: ignore[union-attr]
        parts, _ = encode_any(response, state.tail, state.limits)
        answer = state.busy[route, late] = parts if isinstance(parts, bytes) else b"".join(parts)
    code = Code.DEADLINE_EXCEEDED if late else Code.UNAVAILABLE
    state.observer.request(
        RequestRecord(
            "", "", head.codec.name, code, 0, 0.0, 0.0, 0.0, 0.0, monotonic() - now, 0,  # type: ignore[union-attr]
            head.request_id, peer, size, len(answer),
        )
    )  # fmt: skip
    return answer


class Exchange(Driven):
    """One request on one connection. `parts` is its answer once there is one; answers leave in order."""

    __slots__ = (
        "close", "decoded", "head", "http", "journey", "later", "line", "model", "parts", "request", "size", "started",
        "state",
    )  # fmt: skip

    http: HttpRequest

    def __init__(self, state: DoorState, line: Line, head: Head) -> None:
        super().__init__()
        self.state = state
        self.line = line
        self.head = head
        self.close = head.close
        self.later: Task[None] | None = None
        self.model: ServedModel | None = None
        self.journey: Journey | None = None
        self.request: InferRequest | None = None
        self.parts: Parts | None = None
        self.size = 0
        self.started = self.decoded = 0.0

    def answer(self, body: bytes | bytearray | memoryview, now: float, waited: float = 0.0) -> None:
        """Answers the request, at once or when its prediction is there. Never raises.

        `waited` is how long the body took to come (seconds): it counts for a deadline that the caller set.
        """
        head = self.head
        state = self.state
        self.started = now
        http = self.http = HttpRequest(head.method, head.path, head.query, head.headers, body)
        codec = head.codec
        if codec is None:
            self._answer_without_model()
            return
        try:
            left = head.deadline - waited if head.deadline_given else head.deadline
            if left <= 0.0:
                raise DeadlineExceeded("the deadline passed before the request was there")
            model = self.model = state.serving.find(head.name, head.version)
            servable = model.servable
            limit = getattr(servable, "deadline", math.inf)
            if limit < left:  # noqa: PLR1730  every request is here, and min() costs three times as much
                left = limit
            journey = self.journey = Journey(explain=True) if head.explain else Journey()
            if head.version:  # named by the caller, who then says nothing about how others are guided
                journey.direct = True
                journey.variant = model.version
            if len(body) > _DEAR_BYTES and (refused := self._refused(servable, now + left)) is not None:
                raise refused
            if head.coding:
                http = self.http = http._replace(body=inflate(body, head.coding, state.limits))
            deadline = now + left
            context = Context(head.request_id, deadline, codec.name, "", http, journey)
            request = self.request = codec.decode(http, model, context)
            self.decoded = monotonic()
            self.begin(servable.infer(request))
            if not self.over:
                state.deadlines.add(self, deadline)
        except Exception as problem:  # noqa: BLE001  the boundary: whatever a part raises becomes an answer
            self.fail(problem)

    def ended(self, response: InferResponse | None, problem: BaseException | None) -> None:
        """Sends what the servable answered."""
        now = monotonic()
        if response is None or self.line.lost:
            self.fail(problem or Cancelled("the caller went away"))
            return
        head = self.head
        try:
            answer = head.codec.encode(self.http, self.request, response)  # type: ignore[union-attr, arg-type]  # set by answer
            if response.parameters and (variant := response.parameters.get(TWIN)):
                answer = answer._replace(headers=(*answer.headers, (TWIN_FIELD, str(variant))))
            self._send(answer)
        except Exception as failed:  # noqa: BLE001  the boundary: whatever a codec raises becomes an answer
            self.fail(failed)
            return
        sent = monotonic()
        self.state.pace.touch(sent)
        started = self.started
        journey: Journey = self.journey  # type: ignore[assignment]  # set by answer
        self.state.observer.request(
            RequestRecord(
                response.model, response.version, head.codec.name, Code.OK, self.request.rows,  # type: ignore[union-attr]
                self.decoded - started, response.queue_seconds, response.predict_seconds, sent - now, sent - started,
                response.batch_rows, head.request_id, self.line.peer, len(self.http.body), self.size,
                journey.variant, journey.degraded, journey.prediction_id,
            )
        )  # fmt: skip

    @staticmethod
    def _refused(servable: Servable, deadline: float) -> Failure | None:
        """Why the servable would refuse, asked before a body is decoded that costs more than the question."""
        refuse_now = getattr(servable, "refuse_now", None)
        return None if refuse_now is None else refuse_now(deadline)

    def abandon(self) -> None:
        """Ends the prediction or the answer, if one is under way, because nobody waits for it any more."""
        if self.later is not None:
            self.later.cancel()
        else:
            self.cancel()

    def refuse(self, answer: HttpResponse) -> None:
        """Answers in the door's own words and ends the connection."""
        self.close = True
        self._send(answer)

    def _answer_without_model(self) -> None:
        head = self.head
        try:
            if head.answer is not None:
                self._send(head.answer)
            elif head.failure is not None:
                self.fail(head.failure)
            elif head.found is not None:
                found = head.found
                http = self.http
                if head.coding:
                    http = self.http = http._replace(body=inflate(http.body, head.coding, self.state.limits))
                answer = found.route.answer(http, self.state.serving, found.name, found.version)  # type: ignore[misc]
                if isinstance(answer, HttpResponse):
                    self._send(answer)
                else:
                    self._answer_later(answer)
        except Exception as problem:  # noqa: BLE001  the boundary: whatever an answer raises becomes an answer
            self.fail(problem)

    def _answer_later(self, coming: Coroutine[Any, Any, HttpResponse]) -> None:
        """Sends an answer that has to be waited for: one that asks other processes first."""

        async def answering() -> None:
            try:
                answer = await coming
                if not self.line.lost:
                    self._send(answer)
            except (CancelledError, Exception) as problem:  # noqa: BLE001  the boundary: whatever is raised becomes an answer
                self.fail(problem)

        self.later = get_running_loop().create_task(answering())

    def fail(self, problem: BaseException) -> None:
        """Answers with a failure in the protocol's form; what is not a failure is logged and not told."""
        if isinstance(problem, Failure):
            failure = problem
        elif isinstance(problem, CancelledError):
            failure = Cancelled("the request was cancelled")
        else:
            _log.error("a request for %s %s failed", self.head.method, self.head.path, exc_info=problem)
            failure = ServerFailed("the server failed on this request; its log says why")
        if not self.line.lost:
            try:
                answer = with_retry_after(self._encode_failure(failure), failure)
                self._send(explained(answer, self.journey))
            except Exception as broken:  # noqa: BLE001  a caller gets an answer even then
                _log.exception("a failure could not be encoded", exc_info=broken)
                self._send(refusal(500, "the server failed on this request; its log says why"))
        if self.head.codec is not None:
            self._record_failure(failure)

    def _encode_failure(self, failure: Failure) -> HttpResponse:
        head = self.head
        if head.found is None:
            return refusal(status_of(failure), failure.message)
        return (head.found.route.codec or head.found.protocol).encode_failure(self.http, failure)

    def _record_failure(self, failure: Failure) -> None:
        head, now = self.head, monotonic()
        model, journey = self.model, self.journey or Journey()
        self.state.observer.request(
            RequestRecord(
                model.name if model is not None else "",  # never the caller's text: it would name endless metrics
                journey.variant or (model.version if model is not None else ""),
                head.codec.name if head.codec is not None else "",
                failure.code,
                self.request.rows if self.request is not None else 0,
                self.decoded - self.started if self.decoded else now - self.started,
                0.0, 0.0, 0.0, now - self.started, 0, head.request_id, self.line.peer, len(self.http.body), self.size,
                journey.variant, journey.degraded, journey.prediction_id,
            )
        )  # fmt: skip

    def _send(self, answer: HttpResponse) -> None:
        """Encodes the answer and hands it to the connection. Raises ValueError for one that breaks its head."""
        head, state = self.head, self.state
        if state.draining and self.line.ends_with(self):
            self.close = True
        tail = state.tail
        if self.journey is not None and self.journey.prediction_id:
            tail = answerer_fields(self.journey) + tail
        data = None if self.close else encode_plain(answer, tail, head.plain_bytes)
        if data is not None:
            self.parts = data
            self.size = len(data)
        else:
            self.parts, self.size = encode_any(
                answer,
                tail,
                state.limits,
                connection="close" if self.close else head.keep_alive_field,
                head_only=head.head_only,
                coding=head.accepts,
            )
        self.line.deliver(self)
