"""What a request costs inside each door, without sockets, workers and models: `python -m benchmarks.doors`.

Each door is fed whole requests by its own protocol object, over a servable that answers at once, with and without the
root that says who answered. What is shown is the least processor time of many rounds: a busy machine only ever adds.
"""

from __future__ import annotations

import asyncio
import json
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

from turnout.core.messages import NO_PARAMETERS, InferRequest, InferResponse
from turnout.core.servable import Servable, ServedModel, State
from turnout.core.signature import Signature, TensorSpec
from turnout.entrypoints.grpc import GrpcLimits
from turnout.entrypoints.grpc.calls import Calls
from turnout.entrypoints.grpc.connection import Connection
from turnout.entrypoints.grpc.header_blocks import literal
from turnout.entrypoints.http import HttpDoor
from turnout.graph.endpoint import Endpoint
from turnout.monitoring.metrics import Metrics
from turnout.protocols.grpc_messages import message_class
from turnout.protocols.rest import rest_protocols
from turnout.protocols.v2_grpc import GRPC_METHODS

ROUNDS, REQUESTS = 300, 100
SIGNATURE = Signature((TensorSpec("x", "FP32", (-1, 4)),), (TensorSpec("y", "FP32", (-1, 3)),))
OUTPUTS = {"y": np.ones((1, 3), np.float32)}


class AtOnce:
    """Answers without being waited for."""

    async def infer(self, request: InferRequest) -> InferResponse:
        return InferResponse(OUTPUTS, "tiny", "1", NO_PARAMETERS, 1e-5, 1e-4, 1)


class Tiny:
    """One model, and all that is served."""

    name, version, format, signature, state, reason = "tiny", "1", "onnx", SIGNATURE, State.READY, ""
    ready = True

    def __init__(self, servable: Servable) -> None:
        self.servable = servable

    def models(self) -> Sequence[ServedModel]:
        return (self,)

    def find(self, name: str, version: str = "") -> ServedModel:
        return self


class Sink:
    """A transport that takes everything and counts it."""

    def __init__(self) -> None:
        self.size = 0

    def write(self, data: bytes) -> None:
        self.size += len(data)

    def writelines(self, parts: Sequence[bytes]) -> None:
        self.size += sum(map(len, parts))

    def get_extra_info(self, *_names: Any) -> tuple[str, int]:
        return "127.0.0.1", 1

    def __getattr__(self, name: str) -> Callable[..., int]:
        return lambda *_args, **_named: 0


def _report(door: str, root: str, seconds: float, size: float) -> None:
    print(f"{door:5} {root:9} {seconds * 1e6:6.2f} us  {size:4.0f} bytes sent")


async def _http(root: str, served: Tiny) -> None:
    sink = Sink()
    connection = HttpDoor(served, rest_protocols(), Metrics()).connection()
    connection.connection_made(cast("asyncio.Transport", sink))
    body = json.dumps({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [0.1, 0.2, 0.3, 0.4]}]})
    head = f"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n"
    request = (head + body).encode()
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.thread_time()
        for _ in range(REQUESTS):
            connection.data_received(request)
        best = min(best, time.thread_time() - began)
        await asyncio.sleep(0)
    _report("http", root, best / REQUESTS, sink.size / (ROUNDS * REQUESTS))


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">IBI", len(payload) << 8 | kind, flags, stream) + payload


async def _grpc(root: str, served: Tiny) -> None:
    sink = Sink()
    calls = Calls(asyncio.get_running_loop(), served, GRPC_METHODS, Metrics(), GrpcLimits(), 30.0)
    scratch = memoryview(bytearray(1 << 18))
    connection = Connection(calls, scratch, cast("Any", Sink()))
    connection.connection_made(cast("asyncio.Transport", sink))

    def feed(data: bytes) -> None:
        while data:
            room = connection.get_buffer(-1)
            taken = min(len(room), len(data))
            room[:taken] = data[:taken]
            connection.buffer_updated(taken)
            data = data[taken:]

    message = message_class("inference.ModelInferRequest")(model_name="tiny")
    message.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    message.raw_input_contents.append(np.ones(4, np.float32).tobytes())
    body = message.SerializeToString()
    path = b"/inference.GRPCInferenceService/ModelInfer"
    fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b"content-type", b"application/grpc")]
    block = literal(fields)
    feed(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0, b""))
    stream, best = 1, float("inf")
    for _ in range(ROUNDS):
        sent = []
        for _ in range(REQUESTS):
            data = struct.pack(">BI", 0, len(body)) + body
            sent.append(_frame(1, 4, stream, block) + _frame(0, 1, stream, data))
            stream += 2
        feed(_frame(8, 0, 0, struct.pack(">I", 1 << 20)))
        began = time.thread_time()
        for one in sent:
            feed(one)
        await asyncio.sleep(0)
        best = min(best, time.thread_time() - began)
    _report("grpc", root, best / REQUESTS, sink.size / (ROUNDS * REQUESTS))


async def _main() -> None:
    rooted = Endpoint("tiny", AtOnce(), versions={"1": "sha256:" + "a" * 64})
    for door in (_http, _grpc):
        for root, servable in (("no root", AtOnce()), ("endpoint", rooted)):
            await door(root, Tiny(servable))


if __name__ == "__main__":
    asyncio.run(_main())
