"""The shipped suite over every REST codec, the answers that need no prediction, and all protocols side by side."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.protocols.models import IRIS, MIXED, ask, echo, raw_ask, request, v2_tensor
from tests.protocols.test_v2_binary import read
from turnout import __version__
from turnout.core.servable import State
from turnout.core.tensors import Array, Tensors
from turnout.protocols.http import HttpRequest, HttpResponse, InferCodec
from turnout.protocols.mlflow import MlflowInvocations
from turnout.protocols.plain import PlainPredict
from turnout.protocols.rest import REST_PROTOCOLS, rest_protocols
from turnout.protocols.v1 import V1Predict
from turnout.protocols.v2_rest import V2Infer
from turnout.testing.protocols import FakeModel, FakeServing, call, check_codec, match, whole

MEANT: Tensors = {
    "number": np.array([0.5, -2.0]),
    "count": np.array([[1], [2]], np.int32),
    "word": np.array([b"a", "\u00e9".encode()], dtype=object),
}
RECORDS = [{"number": 0.5, "count": [1], "word": "a"}, {"number": -2, "count": [2], "word": "\u00e9"}]
V2 = {
    "inputs": [
        v2_tensor("number", [2], "FP64", [0.5, -2]),
        v2_tensor("count", [2, 1], "INT32", [1, 2]),
        v2_tensor("word", [2], "BYTES", ["a", "\u00e9"]),
    ]
}


def sent(body: Any, kind: str = "application/json", **headers: str) -> HttpRequest:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return request(data, content_type=kind, **headers)


def typed(values: dict[str, Any]) -> dict[str, Array]:
    found: dict[str, Array] = {}
    if "total" in values:
        found["total"] = np.array(values["total"], np.float64)
    if "shout" in values:
        found["shout"] = np.array([word.encode() for word in values["shout"]], dtype=object)
    return found


def by_row(rows: list[dict[str, Any]]) -> dict[str, Array]:
    return typed({name: [row[name] for row in rows] for name in rows[0]})


def read_v2(http: HttpRequest, response: HttpResponse) -> Tensors:
    return read(response)[1]


def read_v1(http: HttpRequest, response: HttpResponse) -> Tensors:
    content = json.loads(whole(response))
    return typed(content["outputs"]) if "outputs" in content else by_row(content["predictions"])


def read_predictions(http: HttpRequest, response: HttpResponse) -> Tensors:
    values = json.loads(whole(response))["predictions"]
    return typed(values) if isinstance(values, dict) else by_row(values)


def blobs() -> HttpRequest:
    number, count = MEANT["number"].tobytes(), MEANT["count"].tobytes()
    inputs = [
        {"name": "number", "shape": [2], "datatype": "FP64", "parameters": {"binary_data_size": len(number)}},
        {"name": "count", "shape": [2, 1], "datatype": "INT32", "parameters": {"binary_data_size": len(count)}},
        v2_tensor("word", [2], "BYTES", ["a", "\u00e9"]),
    ]
    head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    return sent(head + number + count, inference_header_content_length=str(len(head)))


CSV = "number,count,word\n0.5,1,a\n-2,2,\u00e9\n".encode()
COLUMNS = {"number": [0.5, -2], "count": [[1], [2]], "word": ["a", "\u00e9"]}
CODECS: list[tuple[InferCodec, list[HttpRequest], list[HttpRequest], Callable[..., Tensors]]] = [
    (
        V2Infer(),
        [
            sent(V2),
            sent({**V2, "id": "7", "outputs": [{"name": "total"}]}),
            blobs(),
            sent(json.dumps(V2).encode() + b" " * 3000),
        ],
        [sent(b""), sent({}), sent({"inputs": [V2["inputs"][0]]}), sent(b"{}", inference_header_content_length="9")],
        read_v2,
    ),
    (
        V1Predict(),
        [sent({"instances": RECORDS}), sent({"inputs": COLUMNS})],
        [sent(b""), sent({}), sent({"instances": [1]}), sent({"inputs": {}})],
        read_v1,
    ),
    (
        MlflowInvocations(),
        [
            sent({"inputs": COLUMNS}),
            sent({"instances": RECORDS}),
            sent({"dataframe_records": RECORDS}),
            sent(CSV, "text/csv"),
        ],
        [sent(b""), sent({}), sent({"inputs": 5}), sent(b"", "text/csv"), sent({"inputs": COLUMNS}, "text/plain")],
        read_predictions,
    ),
    (
        PlainPredict(),
        [sent(RECORDS), sent(COLUMNS), sent(CSV, "text/csv"), sent(RECORDS, "")],
        [sent(b""), sent(b"7"), sent([1]), sent({}), sent(b"x", "image/png")],
        read_predictions,
    ),
]


@pytest.mark.parametrize(("codec", "good", "bad", "read_answer"), CODECS, ids=[case[0].name for case in CODECS])
def test_every_codec_keeps_its_contract(
    codec: InferCodec, good: list[HttpRequest], bad: list[HttpRequest], read_answer: Callable[..., Tensors]
) -> None:
    check_codec(codec, MIXED, [(http, MEANT) for http in good], bad, read_answer, mutations=1500)


def test_the_suite_notices_a_codec_that_breaks_its_contract() -> None:
    class Wrong(V2Infer):
        def decode(self, http: Any, model: Any, context: Any) -> Any:
            request = super().decode(http, model, context)
            request.inputs["number"][0] += 1  # type: ignore[index]
            return request

    _, good, bad, read_answer = CODECS[0]
    with pytest.raises(AssertionError, match="meant"):
        check_codec(Wrong(), MIXED, [(http, MEANT) for http in good], bad, read_answer)


@given(hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=30)))
def test_every_protocol_gives_the_models_own_answer(array: Array) -> None:
    def own(inputs: Tensors) -> Tensors:
        with np.errstate(all="ignore"):
            return {"y": inputs["x"] * np.float32(3) - np.float32(1)}

    model = FakeModel("echo", echo("FP32").signature, own)
    expected = own({"x": array})["y"]
    rows = array.tolist()
    flat = array.ravel().tolist()
    answers = [
        ask(model, "/v1/models/echo:predict", {"instances": rows})[1]["predictions"],
        ask(model, "/v1/models/echo:predict", {"inputs": rows})[1]["outputs"],
        ask(model, "/invocations", {"inputs": rows})[1]["predictions"],
        [row["y"] for row in ask(model, "/predict/echo", rows)[1]["predictions"]],
        ask(model, "/v2/models/echo/infer", {"inputs": [v2_tensor("x", list(array.shape), "FP32", flat)]})[1][
            "outputs"
        ][0]["data"],
    ]
    for answer in answers:
        got = np.array(answer, np.float32).reshape(array.shape)
        assert np.array_equal(got, expected, equal_nan=True)


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(["FP32", "BYTES", "x", "word", "b64", "\ud800", 2**64, 10**400, 1e39, -0.0])
)
KEYS = st.text(max_size=3) | st.sampled_from(
    [
        "inputs",
        "outputs",
        "instances",
        "name",
        "shape",
        "datatype",
        "data",
        "parameters",
        "id",
        "x",
        "number",
        "count",
        "word",
        "columns",
        "index",
        "b64",
        "params",
        "dataframe_split",
        "dataframe_records",
        "signature_name",
        "binary_data_size",
    ]
)
DOCUMENTS = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=25
)


def spoilt(document: Any, place: list[int], value: Any) -> Any:
    """The document with the value at `place` replaced; indices wrap around."""
    if not place or not isinstance(document, dict | list) or not document:
        return value
    if isinstance(document, dict):
        key = list(document)[place[0] % len(document)]
        return {**document, key: spoilt(document[key], place[1:], value)}
    at = place[0] % len(document)
    return [*document[:at], spoilt(document[at], place[1:], value), *document[at + 1 :]]


GOOD_DOCUMENTS = st.sampled_from(
    [V2, {"instances": RECORDS}, {"inputs": COLUMNS}, {"dataframe_records": RECORDS}, RECORDS, COLUMNS]
)
PATHS = ("/v2/models/{}/infer", "/v1/models/{}:predict", "/invocations", "/predict/{}")


@settings(max_examples=200)
@given(
    DOCUMENTS | st.builds(spoilt, GOOD_DOCUMENTS, st.lists(st.integers(0, 5), max_size=5), DOCUMENTS),
    st.sampled_from([MIXED, IRIS, echo("BYTES"), echo("INT8", (-1,)), echo("BOOL", (2,), batched=False)]),
)
def test_no_document_gets_anything_but_an_answer_or_a_refusal(document: Any, model: FakeModel) -> None:
    body = json.dumps(document).encode()
    for path in PATHS:
        for pad in (b"", b" " * 2000):
            response = raw_ask(model, path.format(model.name), body + pad)
            content = json.loads(whole(response))
            assert response.status == 200 or content.get("error") or content.get("message")
            assert response.status in {200, 400, 501}


def get(serving: FakeServing, path: str, method: str = "GET", body: bytes = b"") -> tuple[int, Any]:
    response = call(REST_PROTOCOLS, serving, method, path, body)
    return response.status, json.loads(whole(response))


LOADING = replace(IRIS, name="slow", state=State.WARMING)


def test_v2_health_and_metadata() -> None:
    good, mixed = FakeServing((IRIS,)), FakeServing((IRIS, LOADING))
    assert get(good, "/v2") == get(good, "/v2/")
    server = get(good, "/v2")[1]
    assert server == {"name": "turnout", "version": __version__, "extensions": ["binary_tensor_data", "parameters"]}
    assert json.loads(whole(call(rest_protocols("triton"), good, "GET", "/v2")))["name"] == "triton"
    assert get(mixed, "/v2/health/live") == (200, {"live": True})
    assert get(good, "/v2/health/ready") == (200, {"live": True, "ready": True})
    assert get(mixed, "/v2/health/ready") == (503, {"live": True, "ready": False})
    assert get(mixed, "/v2/models") == (200, {"models": ["iris", "slow"]})
    assert get(mixed, "/v2/models/iris/ready") == (200, {"name": "iris", "ready": True})
    assert get(mixed, "/v2/models/slow/versions/1/ready") == (503, {"name": "slow", "ready": False})
    assert get(mixed, "/v2/models/none/ready")[0] == 404
    metadata = get(FakeServing((IRIS, replace(IRIS, version="2"))), "/v2/models/iris")[1]
    assert (metadata["name"], metadata["versions"], metadata["platform"]) == ("iris", ["1", "2"], "sklearn")
    assert metadata["inputs"][0]["shape"] == [-1, 4]
    assert metadata["outputs"][0] == {"name": "label", "datatype": "BYTES", "shape": [-1]}


def test_the_repository_can_be_read_but_not_changed() -> None:
    serving = FakeServing((IRIS, LOADING))
    index = get(serving, "/v2/repository/index", "POST")[1]
    assert index[1] == {"name": "slow", "version": "1", "state": "LOADING"}
    assert len(get(serving, "/v2/repository/index", "POST", b'{"ready": true}')[1]) == 1
    assert get(serving, "/v2/repository/index", "POST", b"[")[0] == 400
    assert get(serving, "/v2/repository/index", "POST", b'{"ready": "yes"}')[0] == 400
    assert get(serving, "/v2/repository/models/iris/unload", "POST")[0] == 501


def test_no_two_protocols_claim_the_same_path() -> None:
    claimed = [(route.method, route.pattern) for protocol in REST_PROTOCOLS for route in protocol.routes()]
    assert len(set(claimed)) == len(claimed)
    for protocol in REST_PROTOCOLS:
        for route in protocol.routes():
            assert (route.codec is None) != (route.answer is None)
            assert route.summary
    assert match(REST_PROTOCOLS, "GET", "/nothing") is None
