"""A real gRPC door with real methods over models in this process, on a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import uvloop

from turnout.core.errors import ModelFailed, ModelNotFound, VersionNotFound
from turnout.core.messages import InferRequest, InferResponse
from turnout.core.servable import ServedModel, State
from turnout.core.signature import Signature, TensorSpec
from turnout.core.tensors import DTYPES, canonical
from turnout.entrypoints.grpc.door import GrpcDoor
from turnout.entrypoints.grpc.limits import GrpcLimits
from turnout.monitoring.record import RequestRecord
from turnout.protocols.v2_grpc import GRPC_METHODS

WEIGHTS = np.random.default_rng(7).normal(size=(4, 3)).astype(np.float32)


class Linear:
    """Class scores and the best class of each row."""

    async def infer(self, request: InferRequest) -> InferResponse:
        scores = request.inputs["x"] @ WEIGHTS
        return InferResponse({"scores": scores, "best": scores.argmax(axis=1)}, request.model, "1", request.parameters)


class Echo:
    """Every input under its own name."""

    async def infer(self, request: InferRequest) -> InferResponse:
        return InferResponse(request.inputs, request.model, "1")


class Sleepy:
    """Answers after as many seconds as the input says."""

    async def infer(self, request: InferRequest) -> InferResponse:
        await asyncio.sleep(float(request.inputs["seconds"][0]))
        return InferResponse(request.inputs, request.model, "1")


class Broken:
    """Fails on every input, and not by a failure that anybody foresaw where asked to."""

    async def infer(self, request: InferRequest) -> InferResponse:
        if request.parameters.get("unforeseen"):
            raise KeyError("/secret/path")
        raise ModelFailed("the model raised ZeroDivisionError")


@dataclass
class Served:
    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    servable: Any
    batched: bool = True
    version: str = "1"
    format: str = "onnx"
    state: State = State.READY
    reason: str = ""
    signature: Signature = field(init=False)

    def __post_init__(self) -> None:
        self.signature = Signature(self.inputs, self.outputs, batched=self.batched)


class Models:
    """What is served: a list that tests may change."""

    def __init__(self, *models: ServedModel) -> None:
        self.served: list[ServedModel] = list(models)

    @property
    def ready(self) -> bool:
        return all(model.state is State.READY for model in self.served)

    def models(self) -> Sequence[ServedModel]:
        return self.served

    def find(self, name: str, version: str = "") -> ServedModel:
        found = [model for model in self.served if model.name == name]
        if not found:
            raise ModelNotFound(f"no model {name!r} is served here")
        for model in found:
            if version in ("", model.version):
                return model
        raise VersionNotFound(f"model {name!r} has no version {version!r}")


def models() -> Models:
    """The models of these tests; `echo-FP32` and so on take two axes of any length."""
    seconds = (TensorSpec("seconds", "FP64", (-1,)),)
    echoes = [
        Served(f"echo-{datatype}", (spec,), (spec,), Echo(), batched=False)
        for datatype in DTYPES
        for spec in [TensorSpec("x", datatype, (-1, -1))]
    ]
    return Models(
        Served(
            "linear",
            (TensorSpec("x", "FP32", (-1, 4)),),
            (TensorSpec("scores", "FP32", (-1, 3)), TensorSpec("best", "INT64", (-1,))),
            Linear(),
        ),
        Served("sleepy", seconds, seconds, Sleepy()),
        Served("broken", seconds, seconds, Broken()),
        *echoes,
    )


class Records:
    """Keeps what the door tells."""

    def __init__(self) -> None:
        self.seen: list[RequestRecord] = []

    def request(self, record: RequestRecord) -> None:
        self.seen.append(record)


@dataclass
class Running:
    """A door that listens."""

    address: str
    models: Models
    records: Records
    loop: asyncio.AbstractEventLoop


@contextmanager
def running(served: Models | None = None, limits: GrpcLimits | None = None) -> Iterator[Running]:
    """A door on a free port of this machine, until the block ends."""
    serving = served or models()
    records = Records()
    loop = uvloop.new_event_loop()  # as in production
    door = GrpcDoor(serving, GRPC_METHODS, records, limits or GrpcLimits(), default_deadline=30.0)
    port = loop.run_until_complete(door.start("127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield Running(f"127.0.0.1:{port}", serving, records, loop)
    finally:
        asyncio.run_coroutine_threadsafe(door.close(), loop).result(timeout=10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=10)
        loop.close()


def some_array(datatype: str) -> Any:
    """Three rows of two elements of that type."""
    if datatype == "BYTES":
        return np.array([[b"a", b""], ["ü".encode(), b"\x00\xff"], [b"long" * 50, b"z"]], dtype=object)
    if datatype == "BOOL":
        return np.array([[True, False], [False, True], [True, True]])
    return canonical(np.array([[0, 1], [2, 100], [7, 9]]).astype(DTYPES[datatype]))
