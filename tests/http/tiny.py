"""A small real protocol with small real servables, for doors under test.

`POST /predict/NAME` takes `{"x": [numbers], "key": "...", "size": n}`. What the answer is depends on the model:
`double` answers at once, `held` when the test releases the key, `broken` raises, `full` refuses before decoding,
`large` answers with `size` bytes in parts, `sleeping` never answers, `bad_output` has an answer that cannot be encoded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from turnout.core.errors import Failure, InvalidInput, ModelNotFound, QueueFull, VersionNotFound
from turnout.core.messages import Context, InferRequest, InferResponse
from turnout.core.servable import Servable, ServedModel, Serving, State
from turnout.core.signature import Signature, TensorSpec
from turnout.graph.endpoint import Endpoint, EndpointPolicy
from turnout.monitoring.record import RequestRecord
from turnout.protocols.http import (
    JSON,
    HttpRequest,
    HttpResponse,
    Route,
    UnsupportedMediaType,
    status_of,
)

SIGNATURE = Signature((TensorSpec("x", "FP64", (-1,)),), (TensorSpec("y", "FP64", (-1,)),))


@dataclass
class Row:
    """One served model."""

    name: str
    servable: Servable
    version: str = "1"
    format: str = "test"
    signature: Signature = SIGNATURE
    state: State = State.READY
    reason: str = ""


class Double:
    """Answers at once with twice the input."""

    async def infer(self, request: InferRequest) -> InferResponse:
        return InferResponse({"y": request.inputs["x"] * 2}, request.model, "1", batch_rows=request.rows)


class Soon(Double):
    """Answers one loop pass later, as a batcher does."""

    async def infer(self, request: InferRequest) -> InferResponse:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        loop.call_soon(future.set_result, None)
        await future
        return await super().infer(request)


@dataclass
class Held(Double):
    """Answers when the test says so; knows what it was asked and what was cancelled."""

    waiting: dict[str, asyncio.Future[None]] = field(default_factory=dict)
    cancelled: list[str] = field(default_factory=list)

    async def infer(self, request: InferRequest) -> InferResponse:
        key = str(request.parameters["key"])
        future = self.waiting[key] = asyncio.get_running_loop().create_future()
        try:
            await future
        except asyncio.CancelledError:
            self.cancelled.append(key)
            raise
        finally:
            self.waiting.pop(key, None)
        return await super().infer(request)


class Broken:
    """Raises what is no failure."""

    async def infer(self, request: InferRequest) -> InferResponse:
        raise ZeroDivisionError("the secret path is /etc/secret")


class Full(Double):
    """Refuses before anything is decoded."""

    def __init__(self) -> None:
        self.refused = 0

    def refuse_now(self, deadline: float) -> Failure | None:
        self.refused += 1
        return QueueFull("the queue of full is full", retry_after=0.2)


class Large:
    """Answers with as many bytes as it is asked for."""

    async def infer(self, request: InferRequest) -> InferResponse:
        size = int(request.parameters["size"])
        return InferResponse({"bytes": np.arange(size, dtype=np.uint8)}, request.model, "1")


class BadOutput:
    """Answers what the codec cannot encode."""

    async def infer(self, request: InferRequest) -> InferResponse:
        return InferResponse({}, request.model, "1")


class Guided(Double):
    """Does to a journey what a split and a fallback do, as the request's parameters say."""

    async def infer(self, request: InferRequest) -> InferResponse:
        journey = request.context.journey
        assert journey is not None
        journey.variant = "1"
        if "degraded" in request.parameters:
            journey.variant, journey.degraded = "2", str(request.parameters["degraded"])
        if "fails" in request.parameters:
            raise QueueFull("the queue is full", retry_after=0.2)
        return await super().infer(request)


class TinyServing:
    """A fixed set of models."""

    def __init__(self) -> None:
        self.held = Held()
        self.full = Full()
        self.rows: list[Row] = [
            Row("double", Double()),
            Row("soon", Soon()),
            Row("held", self.held),
            Row("a/b", Double()),
            Row("broken", Broken()),
            Row("full", self.full),
            Row("large", Large()),
            Row("bad_output", BadOutput()),
            Row("guided", Endpoint("guided", Guided(), revision=4, versions={"1": "sha256:11", "2": ""})),
            Row("strange", Endpoint("str\u00e4nge\r\nX-Evil: 1", Double(), versions={"1": ""})),
            Row("quick", Endpoint("quick", self.held, versions={"1": ""}, policy=EndpointPolicy(deadline=0.05))),
        ]
        self._by_name: dict[str, Row] = {row.name: row for row in self.rows}

    @property
    def ready(self) -> bool:
        return True

    def models(self) -> Sequence[ServedModel]:
        return self.rows

    def find(self, name: str, version: str = "") -> ServedModel:
        row = self._by_name.get(name)
        if row is None:
            raise ModelNotFound(f"there is no model {name!r}")
        if version not in ("", row.version):
            raise VersionNotFound(f"there is no version {version!r} of {name!r}")
        return row


class TinyCodec:
    """JSON in, JSON out; bytes in parts for the model that has them."""

    name = "tiny"

    def decode(self, http: HttpRequest, model: ServedModel, context: Context) -> InferRequest:
        content_type = http.headers.get("content-type", JSON)
        if content_type == "application/octet-stream":
            raw = np.frombuffer(http.body, np.uint8)
            return InferRequest(
                model.name, {"x": np.array([raw.size, int(raw.sum(dtype=np.int64))], float)}, 2, context
            )
        if content_type != JSON:
            raise UnsupportedMediaType(f"content-type: expected {JSON}, got {content_type}")
        try:
            message = orjson.loads(http.body)
        except orjson.JSONDecodeError:
            raise InvalidInput("not JSON", field="body") from None
        parameters: dict[str, Any] = {name: value for name, value in message.items() if name != "x"}
        rows = np.array(message.get("x", [1.0]), float)
        return InferRequest(model.name, {"x": rows}, len(rows), context, parameters=parameters)

    def encode(self, http: HttpRequest, request: InferRequest, response: InferResponse) -> HttpResponse:
        if "bytes" in response.outputs:
            data = memoryview(response.outputs["bytes"])
            half = len(data) // 2
            return HttpResponse(200, "application/octet-stream", [data[:half], data[half:]])
        body: dict[str, Any] = {"y": response.outputs["y"].tolist()}
        if request.context.id:
            body["id"] = request.context.id
        if "key" in request.parameters:
            body["key"] = request.parameters["key"]
        return HttpResponse(200, JSON, orjson.dumps(body))

    def encode_failure(self, http: HttpRequest, failure: Failure) -> HttpResponse:
        return HttpResponse(status_of(failure), JSON, orjson.dumps({"failure": failure.message}))


class TinyProtocol:
    """Routes of every shape that the real protocols have."""

    name = "tiny"

    def __init__(self) -> None:
        self.codec = TinyCodec()
        self.cancelled = 0

    def routes(self) -> tuple[Route, ...]:
        return (
            Route("POST", "/predict/{name}", codec=self.codec),
            Route("POST", "/v2/models/{name}/infer", codec=self.codec),
            Route("POST", "/v2/models/{name}/versions/{version}/infer", codec=self.codec),
            Route("POST", "/v1/models/{name}:predict", codec=self.codec),
            Route("POST", "/v1/models/{name}/versions/{version}:predict", codec=self.codec),
            Route("GET", "/v1/models/{name}", answer=self.describe),
            Route("GET", "/v2/models/{name}", answer=self.describe),
            Route("GET", "/v2/health/live", answer=self.live),
            Route("GET", "/", answer=self.live),
            Route("GET", "/broken", answer=self.broken),
            Route("GET", "/split", answer=self.split),
            Route("GET", "/later", answer=self.later),
            Route("POST", "/echo", answer=self.echo),
        )

    def describe(self, http: HttpRequest, serving: Serving, name: str, version: str) -> HttpResponse:
        return HttpResponse(200, JSON, orjson.dumps({"name": serving.find(name, version).name, "query": http.query}))

    def live(self, http: HttpRequest, serving: Serving, name: str, version: str) -> HttpResponse:
        return HttpResponse(200, JSON, b'{"live":true}')

    def broken(self, http: HttpRequest, serving: Serving, name: str, version: str) -> HttpResponse:
        raise ZeroDivisionError("the secret path is /etc/secret")

    def split(self, http: HttpRequest, serving: Serving, name: str, version: str) -> HttpResponse:
        return HttpResponse(200, JSON, b"{}", (("X-Name", "a\r\nSet-Cookie: b"),))

    async def later(self, http: HttpRequest, serving: Serving, name: str, version: str) -> HttpResponse:
        try:
            await asyncio.sleep(0 if not http.query else 60)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if http.headers.get("x-break"):
            raise ZeroDivisionError("the secret path is /etc/secret")
        return HttpResponse(200, JSON, b'{"later":true}')

    def echo(self, http: HttpRequest, serving: Serving, name: str, version: str) -> HttpResponse:
        return HttpResponse(200, "application/octet-stream", bytes(http.body))

    def encode_failure(self, http: HttpRequest, failure: Failure) -> HttpResponse:
        return self.codec.encode_failure(http, failure)


class Kept:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.records: list[RequestRecord] = []

    def request(self, record: RequestRecord) -> None:
        self.records.append(record)
