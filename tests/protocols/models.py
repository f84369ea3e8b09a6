"""The models that the protocol tests ask, and how they ask."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from turnout.core.signature import Signature, TensorSpec
from turnout.core.tensors import Tensors
from turnout.protocols.http import HttpRequest, HttpResponse
from turnout.protocols.rest import REST_PROTOCOLS
from turnout.testing.protocols import FakeModel, FakeServing, call, whole

COLUMNS = ("sepal_length", "sepal_width", "petal_length", "petal_width")


def iris_predict(inputs: Tensors) -> Tensors:
    rows = inputs["x"]
    label = np.array([b"setosa" if row[2] < 2.5 else b"virginica" for row in rows], dtype=object)
    scores = np.stack([1 / (1 + np.abs(rows[:, 0])), np.tanh(rows[:, 1])], axis=1).astype(np.float32)
    return {"label": label, "probabilities": scores}


IRIS = FakeModel(
    "iris",
    Signature(
        (TensorSpec("x", "FP32", (-1, 4), COLUMNS),),
        (TensorSpec("label", "BYTES", (-1,)), TensorSpec("probabilities", "FP32", (-1, 2), ("setosa", "virginica"))),
        lenient=True,
    ),
    iris_predict,
    format="sklearn",
)

LINEAR = FakeModel(
    "linear",
    Signature((TensorSpec("x", "FP32", (-1, 3)),), (TensorSpec("y", "FP32", (-1, 2)),)),
    lambda inputs: {"y": np.stack([inputs["x"].sum(axis=1), inputs["x"][:, 0]], axis=1)},
    format="onnx",
)

#: One input and output of every type, so that each goes there and back.
TYPES = ("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP32", "FP64", "BYTES")
MIXED = FakeModel(
    "mixed",
    Signature(
        (
            TensorSpec("number", "FP64", (-1,)),
            TensorSpec("count", "INT32", (-1, 1)),
            TensorSpec("word", "BYTES", (-1,)),
        ),
        (TensorSpec("total", "FP64", (-1,)), TensorSpec("shout", "BYTES", (-1,))),
    ),
    lambda inputs: {
        "total": inputs["number"] + inputs["count"][:, 0],
        "shout": np.array([word.upper() for word in inputs["word"]] or [], dtype=object),
    },
    format="python",
)


def echo(datatype: str, shape: tuple[int, ...] = (-1, -1), *, batched: bool = True, name: str = "echo") -> FakeModel:
    """A model that answers what it was asked."""
    signature = Signature((TensorSpec("x", datatype, shape),), (TensorSpec("y", datatype, shape),), batched=batched)
    return FakeModel(name, signature, lambda inputs: {"y": inputs["x"]})


def ask(model: FakeModel, path: str, body: Any, **headers: str) -> tuple[int, Any]:
    """Status and content of a POST; a body that is not bytes is sent as JSON."""
    response = raw_ask(model, path, body, **headers)
    return response.status, json.loads(whole(response))


def raw_ask(model: FakeModel, path: str, body: Any, **headers: str) -> HttpResponse:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {"content-type": "application/json"} | {key.replace("_", "-"): value for key, value in headers.items()}
    return call(REST_PROTOCOLS, FakeServing((model,)), "POST", path, data, sent)


def refused(model: FakeModel, path: str, body: Any, status: int = 400, **headers: str) -> str:
    """The error text of a request that has to be refused."""
    got, content = ask(model, path, body, **headers)
    assert got == status, content
    text = content.get("error") or content["message"]
    assert isinstance(text, str)
    return text


def request(body: bytes, **headers: str) -> HttpRequest:
    return HttpRequest("POST", "/", "", {key.replace("_", "-"): value for key, value in headers.items()}, body)


def v2_tensor(name: str, shape: list[int], datatype: str, data: Any) -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": datatype, "data": data}
