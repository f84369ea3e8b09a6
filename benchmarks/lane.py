"""What a small request costs between its socket and its batch, in microseconds: `python -m benchmarks.lane`.

A real door with a real queue, connections that are no sockets, and a place that answers at once. With TURNOUT_NATIVE=0
it is the long way that is measured. The best of several rounds, because a busy machine only ever adds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import perf_counter
from typing import Any

import numpy as np
import uvloop

from turnout.core.signature import Signature, TensorSpec
from turnout.deploy.build import build_version
from turnout.deploy.live import LiveVersion
from turnout.deploy.version import VersionSpec
from turnout.entrypoints.http import lane
from turnout.entrypoints.http.door import HttpDoor
from turnout.monitoring.access_log import AccessLog
from turnout.monitoring.fanout import Fanout
from turnout.monitoring.metrics import Metrics
from turnout.protocols.v2_rest import V2Rest
from turnout.runtime.batch import Batch
from turnout.runtime.predict import Outcome

SIGNATURE = Signature((TensorSpec("x", "FP32", (-1, 4)),), (TensorSpec("y", "FP32", (-1, 3)),))
CONNECTIONS, PASSES, ROUNDS = 32, 500, 7


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


def request(number: int) -> bytes:
    """One that differs from the others in its id and its values."""
    said = f'"shape":[1,4],"datatype":"FP32","data":[0.43,0.62,{number % 97 / 97:.6f},0.{number:06d}]'
    body = f'{{"id":"q{number:07d}","inputs":[{{"name":"x",{said}}}]}}'
    fields = "Host: h\r\nUser-Agent: load\r\nAccept: */*\r\nContent-Type: application/json"
    return f"POST /v2/models/m/infer HTTP/1.1\r\n{fields}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


async def measure() -> tuple[float, float]:
    """Seconds on the way in, to the queue, and on the way out, from the batch's outcome; for each request."""
    version = build_version(VersionSpec("m", "m.onnx", digest="sha256:ab"), SIGNATURE, "onnx")
    place = Place(version)
    version.batching.add_place(place)
    door = HttpDoor(One(version), [V2Rest()], Fanout(Metrics(), AccessLog("off")))
    connections = [door.connection() for _ in range(CONNECTIONS)]
    for connection in connections:
        connection.connection_made(Nowhere())
    requests = [request(number) for number in range(CONNECTIONS)]
    best_in = best_out = float("inf")
    for _ in range(ROUNDS):
        way_in = way_out = 0.0
        for _ in range(PASSES):
            began = perf_counter()
            for connection, data in zip(connections, requests, strict=True):
                connection.data_received(data)
            way_in += perf_counter() - began
            await asyncio.sleep(0)  # the batch is cut
            began = perf_counter()
            place.answer()
            way_out += perf_counter() - began
        best_in, best_out = min(best_in, way_in), min(best_out, way_out)
    for connection in connections:
        connection.connection_lost(None)
    await door.close()
    return best_in / PASSES / CONNECTIONS, best_out / PASSES / CONNECTIONS


def main() -> None:
    """Prints it."""
    way_in, way_out = uvloop.run(measure())
    kind = "the long way" if lane.take is lane.never else "the lane"
    print(f"{kind}: in {way_in * 1e6:.2f} us, out {way_out * 1e6:.2f} us, together {(way_in + way_out) * 1e6:.2f} us")


if __name__ == "__main__":
    main()
