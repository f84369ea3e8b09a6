"""What reading and writing a v2 request costs, in microseconds: `python benchmarks/json_decoding.py`.

The best of several rounds, because a busy machine only ever adds. Values differ from body to body.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import orjson
import simdjson

from turnout.core.messages import Context, InferResponse
from turnout.core.signature import Signature, TensorSpec
from turnout.protocols.http import HttpRequest
from turnout.protocols.v2_rest import V2Infer
from turnout.testing.protocols import FakeModel

CODEC, CONTEXT, BODIES = V2Infer(), Context(), 16


def microseconds(function: Callable[[int], Any]) -> float:
    """The price of one call; the argument says which of the bodies to take."""

    def rounds() -> None:
        for number in range(BODIES):
            function(number)

    count = max(2, int(0.05 / timeit.timeit(rounds, number=1)))
    return min(timeit.repeat(rounds, number=count, repeat=9)) / count / BODIES * 1e6


def body(array: Any, *, nested: bool) -> bytes:
    tensor = {"name": "x", "shape": array.shape, "datatype": "FP32", "data": array if nested else array.ravel()}
    return orjson.dumps({"id": "r-17", "inputs": [tensor]}, option=orjson.OPT_SERIALIZE_NUMPY)


class Tensor(msgspec.Struct):
    name: str
    data: list[float]


class Request(msgspec.Struct):
    inputs: list[Tensor]


MSGSPEC = msgspec.json.Decoder(Request)


def by_msgspec(text: bytes) -> Any:
    return np.array(MSGSPEC.decode(text).inputs[0].data, np.float32)


def by_orjson(text: bytes) -> Any:
    return np.array(orjson.loads(text)["inputs"][0]["data"], np.float32)


def by_simdjson(text: bytes, parser: simdjson.Parser) -> Any:
    values = parser.parse(text)["inputs"][0]["data"]
    return np.frombuffer(values.as_buffer(of_type="d"), np.float64).astype(np.float32)


def measure(rows: int, width: int, outputs: int, *, nested: bool) -> None:
    chance = np.random.default_rng(0)
    bodies = [body(chance.random((rows, width), dtype=np.float32), nested=nested) for _ in range(BODIES)]
    answers = [{"y": chance.random((rows, outputs), dtype=np.float32)} for _ in range(BODIES)]
    signature = Signature((TensorSpec("x", "FP32", (-1, width)),), (TensorSpec("y", "FP32", (-1, outputs)),))
    model = FakeModel("m", signature, lambda inputs: inputs)
    https = [HttpRequest("POST", "/", "", {"content-type": "application/json"}, text) for text in bodies]
    requests = [CODEC.decode(http, model, CONTEXT) for http in https]
    parser = simdjson.Parser()
    columns = {
        "decode": microseconds(lambda n: CODEC.decode(https[n], model, CONTEXT)),
        "encode": microseconds(lambda n: CODEC.encode(https[n], requests[n], InferResponse(answers[n], "m", "1"))),
        "simdjson": microseconds(lambda n: by_simdjson(bodies[n], parser)),
    }
    if not nested:
        columns["msgspec"] = microseconds(lambda n: by_msgspec(bodies[n]))
        columns["orjson"] = microseconds(lambda n: by_orjson(bodies[n]))
    shape = f"{rows}x{width} {'nested' if nested else 'flat'}, {len(bodies[0])} bytes"
    print(f"{shape:32}", *(f"{name} {price:8.1f}" for name, price in columns.items()))


if __name__ == "__main__":
    for rows, width, outputs in ((1, 4, 3), (1, 784, 10), (32, 784, 10)):
        for nested in (False, True):
            measure(rows, width, outputs, nested=nested)
