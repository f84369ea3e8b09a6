"""What a small request costs between its socket and its batch, in microseconds: `python -m benchmarks.lane`.

Real doors with a real queue, connections that are no sockets, and a place that answers at once: HTTP with 32
connections, gRPC with one of 32 streams. With TURNOUT_NATIVE=0 it is the long way that is measured. The best of several
rounds, because a busy machine only ever adds.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Iterator, Sequence
from time import perf_counter
from typing import Any

import numpy as np
import uvloop

from turnout.core.signature import Signature, TensorSpec
from turnout.deploy.build import build_version
from turnout.deploy.live import LiveVersion
from turnout.deploy.version import VersionSpec
from turnout.entrypoints.grpc.calls import Calls
from turnout.entrypoints.grpc.connection import Connection
from turnout.entrypoints.grpc.header_blocks import literal
from turnout.entrypoints.grpc.limits import MAX_WINDOW, GrpcLimits
from turnout.entrypoints.http import lane
from turnout.entrypoints.http.door import HttpDoor
from turnout.monitoring.access_log import AccessLog
from turnout.monitoring.fanout import Fanout
from turnout.monitoring.metrics import Metrics
from turnout.protocols.grpc_messages import message_class
from turnout.protocols.v2_grpc import GRPC_METHODS
from turnout.protocols.v2_rest import V2Rest
from turnout.runtime.batch import Batch
from turnout.runtime.predict import Outcome

SIGNATURE = Signature((TensorSpec("x", "FP32", (-1, 4)),), (TensorSpec("y", "FP32", (-1, 3)),))
CALLERS, PASSES, ROUNDS = 32, 500, 7
#: For each pass what is received, and by whom.
Received = Iterator[list[tuple[Callable[[bytes], None], bytes]]]


class Place:
    """Keeps a batch until it is told to answer."""

    name, free, busy_since = "place", 1, 0.0

    def __init__(self, version: LiveVersion) -> None:
        self.version = version
        self.batch: Any = None

    def inside(self) -> Sequence[Batch]:
        return ()

    def run(self, batch: Batch) -> None:
        for item in batch.items:
            item.part("x")
        self.batch, self.free = batch, 0

    def close(self) -> None:
        """Holds nothing."""

    def answer(self) -> None:
        self.free = 1
        outputs = {"y": np.random.default_rng().random((self.batch.total_rows, 3), np.float32)}
        self.version.batching.done(self, self.batch, Outcome(outputs, (), 1e-4))


class Nowhere(asyncio.Transport):
    """Takes what is written."""

    def write(self, data: Any) -> None:
        """Nobody reads it."""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing is ever full."""

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default


class One:
    """Serves one model."""

    ready = True

    def __init__(self, model: LiveVersion) -> None:
        self.model = model

    def models(self) -> Sequence[LiveVersion]:
        return [self.model]

    def find(self, name: str, version: str = "") -> LiveVersion:
        del name, version
        return self.model


class Anybody:
    """Takes every connection."""

    def opened(self, _connection: Connection) -> str:
        return ""

    def closed(self, _connection: Connection) -> None:
        """Keeps no count."""


def request(number: int) -> bytes:
    """One that differs from the others in its id and its values."""
    said = f'"shape":[1,4],"datatype":"FP32","data":[0.43,0.62,{number % 97 / 97:.6f},0.{number:06d}]'
    body = f'{{"id":"q{number:07d}","inputs":[{{"name":"x",{said}}}]}}'
    fields = "Host: h\r\nUser-Agent: load\r\nAccept: */*\r\nContent-Type: application/json"
    return f"POST /v2/models/m/infer HTTP/1.1\r\n{fields}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


def http(version: LiveVersion) -> Received:
    """Connections that send a request each."""
    door = HttpDoor(One(version), [V2Rest()], Fanout(Metrics(), AccessLog("off")))
    connections = [door.connection() for _ in range(CALLERS)]
    for connection in connections:
        connection.connection_made(Nowhere())
    requests = [request(number) for number in range(CALLERS)]
    while True:
        yield [(connection.data_received, data) for connection, data in zip(connections, requests, strict=True)]


def message(number: int) -> bytes:
    """A ModelInferRequest as DATA would have it, different from others in its id and its values."""
    made = message_class("inference.ModelInferRequest")(model_name="m", id=f"q{number:07d}")
    made.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    made.raw_input_contents.append(struct.pack("<4f", 0.43, 0.62, number, 1 / (number + 1)))
    body = made.SerializeToString()
    return struct.pack(">BI", 0, len(body)) + body


def grpc(version: LiveVersion) -> Received:
    """One connection with so many streams in one piece."""
    observer = Fanout(Metrics(), AccessLog("off"))
    calls = Calls(asyncio.get_running_loop(), One(version), GRPC_METHODS, observer, GrpcLimits(), 30.0)
    scratch = memoryview(bytearray(1 << 18))
    connection = Connection(calls, scratch, Anybody())
    connection.connection_made(Nowhere())

    def receive(data: bytes) -> None:
        scratch[: len(data)] = data
        connection.buffer_updated(len(data))

    path = "/inference.GRPCInferenceService/ModelInfer"
    fields = {":method": "POST", ":scheme": "http", ":path": path, "content-type": "application/grpc"}
    block = literal([(name.encode(), value.encode()) for name, value in fields.items()])
    messages = [message(number) for number in range(CALLERS)]
    receive(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + struct.pack(">IBI", 4, 0, 0))
    number = 1
    while True:
        connection.out.window = MAX_WINDOW
        frames = b""
        for body in messages:
            frames += struct.pack(">IBI", len(block) << 8 | 1, 4, number) + block
            frames += struct.pack(">IBI", len(body) << 8, 1, number) + body
            number += 2
        yield [(receive, frames)]


async def measure(callers: Callable[[LiveVersion], Received]) -> tuple[float, float]:
    """Seconds on the way in, to the queue, and on the way out, from the batch's outcome; for each request."""
    version = build_version(VersionSpec("m", "m.onnx", digest="sha256:ab"), SIGNATURE, "onnx")
    place = Place(version)
    version.batching.add_place(place)
    passes = callers(version)
    best_in = best_out = float("inf")
    for _ in range(ROUNDS):
        way_in = way_out = 0.0
        for _ in range(PASSES):
            received = next(passes)
            began = perf_counter()
            for receive, data in received:
                receive(data)
            way_in += perf_counter() - began
            await asyncio.sleep(0)  # the batch is cut
            began = perf_counter()
            place.answer()
            await asyncio.sleep(0)  # what was gathered is written
            way_out += perf_counter() - began
        best_in, best_out = min(best_in, way_in), min(best_out, way_out)
    return best_in / PASSES / CALLERS, best_out / PASSES / CALLERS


def main() -> None:
    """Prints it."""
    kind = "the long way" if lane.take is lane.never else "the lane"
    for name, callers in (("HTTP", http), ("gRPC", grpc)):
        way_in, way_out = uvloop.run(measure(callers))
        both = way_in + way_out
        print(f"{name}, {kind}: in {way_in * 1e6:.2f} us, out {way_out * 1e6:.2f} us, together {both * 1e6:.2f} us")


if __name__ == "__main__":
    main()
