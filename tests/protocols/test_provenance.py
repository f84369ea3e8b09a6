"""Who gave an answer, as each protocol tells it; clients of the protocols read what they read before."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from tests.protocols.models import LINEAR, request, v2_tensor
from turnout.core.errors import InvalidInput, QueueFull
from turnout.core.messages import TWIN, Context, InferResponse, Journey, Parameters, StepTrace
from turnout.core.servable import ServedModel
from turnout.protocols.failures import error_body
from turnout.protocols.grpc_messages import message_class
from turnout.protocols.http import HttpResponse, InferCodec
from turnout.protocols.mlflow import MlflowInvocations
from turnout.protocols.plain import PlainPredict
from turnout.protocols.provenance import explained, parameters_json
from turnout.protocols.v1 import V1Predict
from turnout.protocols.v2_grpc_infer import ModelInferCodec
from turnout.protocols.v2_rest import V2Infer
from turnout.testing.protocols import FakeServing, run, whole

ID = "R12-1-5f1b8c0e9d7a4b3c2d1e0f9a"
SAID = {"served_by": "linear@v7", "digest": "sha256:77", "variant": "v8", "revision": 12, "prediction_id": ID}
ROWS = [[1, 2, 3]]
BODIES: dict[str, tuple[InferCodec, Any]] = {
    "v2": (V2Infer(), {"inputs": [v2_tensor("x", [1, 3], "FP32", ROWS)]}),
    "v1": (V1Predict(), {"instances": ROWS}),
    "v1 columns": (V1Predict(), {"inputs": ROWS}),
    "mlflow": (MlflowInvocations(), {"inputs": ROWS}),
    "plain": (PlainPredict(), ROWS),
}


def journey(*, explain: bool = False, degraded: str = "") -> Journey:
    """What an endpoint and its nodes leave behind."""
    found = Journey(explain=explain)
    found.served_by, found.digest, found.variant, found.revision = "linear@v7", "sha256:77", "v8", 12
    found.prediction_id, found.degraded = ID, degraded
    if found.steps is not None:
        found.steps += [
            StepTrace("cache", "v8", "miss", 1.23456789),
            StepTrace("version", "linear@v7", "answered", 0.5, 0.25, "in a batch of 1 rows"),
        ]
    return found


def encoded(
    protocol: str, body: Any, told: Journey | None, parameters: Parameters | None = None, **headers: str
) -> tuple[HttpResponse, InferResponse]:
    codec = BODIES[protocol][0]
    sent = request(json.dumps(body).encode(), content_type="application/json", **headers)
    asked = codec.decode(sent, LINEAR, Context("id", journey=told))
    response = run(LINEAR.servable.infer(asked))._replace(
        version="v7", **({"parameters": parameters} if parameters else {})
    )
    return codec.encode(sent, asked, response), response


def answer(protocol: str, told: Journey | None, **more: Any) -> Any:
    return json.loads(whole(encoded(protocol, BODIES[protocol][1], told, **more)[0]))


@pytest.mark.parametrize("protocol", BODIES)
def test_only_parameters_are_added(protocol: str) -> None:
    before, after = answer(protocol, Journey()), answer(protocol, journey())
    assert before == answer(protocol, None)
    if protocol == "v2":
        assert after.pop("parameters") == SAID
        assert after["model_version"] == "v7"
    assert after == before


def test_parameters_beside_others() -> None:
    assert answer("v2", journey(), parameters={TWIN: "onnx"})["parameters"] == {"twin": "onnx", **SAID}
    assert answer("v2", journey(degraded="timeout"))["parameters"] == {**SAID, "degraded": "timeout"}
    both = {TWIN: "onnx", "score": float("inf"), "large": 2**70, "odd": "\ud800"}
    assert json.loads(parameters_json(both, journey())) == {**both, **SAID}
    assert json.loads(parameters_json(both, Journey())) == both
    assert parameters_json({}, Journey()) == b""


def test_an_answer_with_blobs_says_it_too() -> None:
    body = {**BODIES["v2"][1], "parameters": {"binary_data_output": True}}
    response, _ = encoded("v2", body, journey())
    size = int(dict(response.headers)["Inference-Header-Content-Length"])
    head = json.loads(whole(response)[:size])
    assert head["parameters"] == SAID
    assert len(whole(response)) == size + head["outputs"][0]["parameters"]["binary_data_size"]


@pytest.mark.parametrize("protocol", BODIES)
def test_steps_are_told_to_who_asks(protocol: str) -> None:
    steps = [
        {"node": "cache", "name": "v8", "outcome": "miss", "seconds": 1.234568},
        {
            "node": "version",
            "name": "linear@v7",
            "outcome": "answered",
            "seconds": 0.5,
            "queue_seconds": 0.25,
            "detail": "in a batch of 1 rows",
        },
    ]
    after = answer(protocol, journey(explain=True, degraded="error"))
    found = after.pop("parameters").pop("explain") if protocol == "v2" else after.pop("explain")
    assert found == {**SAID, "degraded": "error", "steps": steps}
    assert after == answer(protocol, None)


def test_explain_is_a_parameter_of_the_request() -> None:
    for wanted in (True, False):
        told = Journey()
        encoded("v2", {**BODIES["v2"][1], "parameters": {"explain": wanted}}, told)
        assert (told.steps is not None) == wanted
    with pytest.raises(InvalidInput, match=r"parameters\.explain: must be true or false; got 'yes'"):
        encoded("v2", {**BODIES["v2"][1], "parameters": {"explain": "yes"}}, Journey())


def test_what_is_no_json_object_has_no_steps() -> None:
    told = journey(explain=True)
    for untouched in (
        HttpResponse(200, "text/csv", b"{}"),
        HttpResponse(200, "application/json", b"{}"),
        HttpResponse(200, "application/json", b"[1, 2]"),
        HttpResponse(200, "application/json", [b'{"a":1}']),
    ):
        assert explained(untouched, told) is untouched
    failed = explained(error_body(QueueFull("full")), told)
    assert list(json.loads(whole(failed))) == ["error", "explain"]


def test_csv_is_left_alone() -> None:
    response, _ = encoded("plain", ROWS, journey(explain=True), accept="text/csv")
    assert whole(response).startswith(b"y.0,y.1\n")


# -- gRPC -------------------------------------------------------------------------------------------------------------

ModelInferRequest = message_class("inference.ModelInferRequest")
ModelInferResponse = message_class("inference.ModelInferResponse")


def infer(told: Journey | None, made: Parameters | None = None, **sent: Any) -> tuple[ServedModel, Any]:
    message = ModelInferRequest(model_name="linear", **sent)
    message.inputs.add(name="x", datatype="FP32", shape=[1, 3])
    message.raw_input_contents.append(np.array(ROWS, np.float32).tobytes())
    codec = ModelInferCodec()
    served, asked = codec.decode(
        message.SerializeToString(), FakeServing((LINEAR,)), Context("id", protocol="grpc", journey=told)
    )
    response = run(LINEAR.servable.infer(asked))._replace(version="v7", **({"parameters": made} if made else {}))
    body = codec.encode(asked, response)
    return served, ModelInferResponse.FromString(body if isinstance(body, bytes) else b"".join(body))


def values(message: Any) -> dict[str, Any]:
    return {name: getattr(value, value.WhichOneof("parameter_choice")) for name, value in message.parameters.items()}


def test_grpc_answers_say_it_as_parameters() -> None:
    assert values(infer(journey())[1]) == SAID
    assert values(infer(journey(degraded="error"))[1]) == {**SAID, "degraded": "error"}
    assert values(infer(journey(), {TWIN: "onnx"})[1]) == {**SAID, "twin": "onnx"}
    assert values(infer(journey(), {"other": 1.5})[1]) == {**SAID, "other": 1.5}
    assert values(infer(Journey())[1]) == values(infer(None)[1]) == {}
    assert infer(journey())[1].model_version == "v7"


def test_grpc_steps_are_json_text() -> None:
    told = Journey()
    message = ModelInferRequest()
    message.parameters["explain"].bool_param = True
    infer(told, parameters=message.parameters)
    assert told.steps == []
    found = values(infer(journey(explain=True))[1])
    steps = json.loads(found.pop("explain"))
    assert found == SAID
    assert [step["node"] for step in steps["steps"]] == ["cache", "version"]
    message.parameters["explain"].string_param = "yes"
    with pytest.raises(InvalidInput, match="explain"):
        infer(Journey(), parameters=message.parameters)


def test_a_version_in_the_message_is_a_direct_target() -> None:
    for version, direct in (("", False), (LINEAR.version, True)):
        told = Journey()
        infer(told, model_version=version)
        assert (told.direct, told.variant) == (direct, version)
