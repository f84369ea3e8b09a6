"""KServe v1 and TensorFlow Serving: rows, columns, base64, and the exact rules."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.protocols.models import IRIS, LINEAR, MIXED, ask, echo, raw_ask, refused
from turnout.core.servable import State
from turnout.core.signature import Signature, TensorSpec
from turnout.protocols.rest import REST_PROTOCOLS
from turnout.testing.protocols import FakeModel, FakeServing, call, whole

PATH = "/v1/models/linear:predict"


def test_rows_and_columns_have_each_their_answer() -> None:
    assert ask(LINEAR, PATH, {"instances": [[1, 2, 3], [4, 5, 6]]})[1] == {"predictions": [[6.0, 1.0], [15.0, 4.0]]}
    assert ask(LINEAR, PATH, {"instances": [{"x": [1, 2, 3]}]})[1] == {"predictions": [[6.0, 1.0]]}
    assert ask(LINEAR, PATH, {"inputs": [[1, 2, 3]]})[1] == {"outputs": [[6.0, 1.0]]}
    assert ask(LINEAR, PATH, {"inputs": {"x": [[1, 2, 3]], "more": 1}})[1] == {"outputs": [[6.0, 1.0]]}
    assert ask(LINEAR, "/v1/models/linear/versions/1:predict", {"instances": [[1, 2, 3]]})[0] == 200
    assert raw_ask(LINEAR, PATH, {"instances": [[1, 2, 3]]}, content_type="").status == 200


def test_a_large_body_means_the_same() -> None:
    rows = np.random.default_rng(0).random((100, 3)).astype(np.float32)
    got = ask(LINEAR, PATH, {"instances": rows.tolist()})[1]["predictions"]
    assert np.array_equal(np.array(got, np.float32), LINEAR.predict({"x": rows})["y"])


def test_several_inputs_and_outputs_are_objects() -> None:
    rows = [{"number": 0.5, "count": [1], "word": "a"}, {"number": 1, "count": [2], "word": {"b64": "Yg=="}}]
    answer = ask(MIXED, "/v1/models/mixed:predict", {"instances": rows, "signature_name": "serving_default"})[1]
    assert answer == {"predictions": [{"total": 1.5, "shout": "A"}, {"total": 3.0, "shout": "B"}]}
    columns = {"number": [0.5, 1], "count": [[1], [2]], "word": ["a", "b"]}
    answer = ask(MIXED, "/v1/models/mixed:predict", {"inputs": columns})[1]
    assert answer == {"outputs": {"total": [1.5, 3.0], "shout": ["A", "B"]}}


def test_a_library_model_answers_what_its_predict_gives_unless_asked() -> None:
    rows = {"instances": [[1, 2, 3, 4]]}
    assert ask(IRIS, "/v1/models/iris:predict", rows)[1] == {"predictions": ["virginica"]}
    answer = ask(IRIS, "/v1/models/iris:predict?outputs=label,probabilities", rows)[1]["predictions"][0]
    assert set(answer) == {"label", "probabilities"}
    assert "no output 'q'" in refused(IRIS, "/v1/models/iris:predict?outputs=q", rows)
    named = {"instances": [dict(zip(IRIS.signature.inputs[0].columns, [1, 2, 3, 4], strict=True))]}
    assert ask(IRIS, "/v1/models/iris:predict", named)[1] == {"predictions": ["virginica"]}


def test_bytes_outputs_are_base64_by_name_or_need() -> None:
    signature = Signature((TensorSpec("x", "BYTES", (-1,)),), (TensorSpec("y_bytes", "BYTES", (-1,)),))
    model = FakeModel("b", signature, lambda inputs: {"y_bytes": inputs["x"]})
    assert ask(model, "/v1/models/b:predict", {"instances": ["a"]})[1] == {"predictions": [{"b64": "YQ=="}]}
    odd = base64.b64encode(b"\xff").decode()
    answer = ask(echo("BYTES", (-1,)), "/v1/models/echo:predict", {"instances": [{"b64": odd}, "a"]})[1]
    assert answer == {"predictions": [{"b64": odd}, "a"]}
    assert "not base64" in refused(echo("BYTES", (-1,)), "/v1/models/echo:predict", {"instances": [{"b64": "*"}]})


def test_nan_is_a_bare_token() -> None:
    answer = whole(raw_ask(echo("FP32"), "/v1/models/echo:predict", b'{"instances":[[NaN,-Infinity]]}'))
    assert answer == b'{"predictions":[[NaN,-Infinity]]}'


@pytest.mark.parametrize(
    ("model", "body", "parts"),
    [
        (LINEAR, b"", ["body is empty"]),
        (LINEAR, {}, ["exactly one of instances and inputs"]),
        (LINEAR, {"instances": [[1, 2, 3]], "inputs": [[1, 2, 3]]}, ["exactly one"]),
        (LINEAR, {"instances": []}, ["instances", "at least one"]),
        (LINEAR, {"instances": 5}, ["instances: must be a list"]),
        (LINEAR, {"instances": [[1, 2]]}, ["instances: wrong shape", "[-1, 3]", "[1, 2]"]),
        (LINEAR, {"instances": [[1, 2, "3"]]}, ["instances[0][2]", "a number"]),
        (LINEAR, {"instances": [[1, 2, 3], {"x": [1, 2, 3]}]}, ["instances[1]", "mixed"]),
        (LINEAR, {"instances": [[1, 2, 3], [1, 2]]}, ["instances[1]", "differ in length"]),
        (LINEAR, {"instances": [{"z": [1, 2, 3]}]}, ["instances[0]", "'x'", "an object with 'z'"]),
        (LINEAR, {"instances": [{"x": [1, 2, 3], "z": 1}]}, ["instances[0]", "keys"]),
        (LINEAR, {"instances": [[1, 2, 3]], "signature_name": "q"}, ["not found in signature def"]),
        (LINEAR, {"inputs": {"z": 1}}, ["input 'x' is missing"]),
        (MIXED, {"instances": [1]}, ["several inputs", "'number', 'count', 'word'"]),
        (MIXED, {"inputs": {"number": [1], "count": [[1.5]], "word": ["a"]}}, ["inputs.count[0][0]", "an integer"]),
        (MIXED, {"inputs": {"number": [1], "count": [[1]]}}, ["input 'word' is missing"]),
        (echo("INT32"), {"instances": [[1.0]]}, ["an integer"]),
        (echo("BOOL"), {"instances": [[1]]}, ["true or false"]),
    ],
)
def test_a_bad_request_is_told_what_is_wrong_and_what_works(model: Any, body: Any, parts: list[str]) -> None:
    path = f"/v1/models/{model.name}:predict"
    text = refused(model, path, body)
    for part in parts:
        assert part in text
    assert ask(model, path, json.loads(text.partition("Example that works: ")[2]))[0] == 200


@pytest.mark.parametrize("verb", ["explain", "classify", "regress"])
def test_other_verbs_say_that_they_are_not_offered(verb: str) -> None:
    assert ":predict" in refused(LINEAR, f"/v1/models/linear:{verb}", {}, 501)
    assert refused(LINEAR, f"/v1/models/none:{verb}", {}, 404)


def get(serving: FakeServing, path: str) -> tuple[int, Any]:
    response = call(REST_PROTOCOLS, serving, "GET", path)
    return response.status, json.loads(whole(response))


def test_status_holds_what_both_kinds_of_client_look_for() -> None:
    old = replace(LINEAR, version="0", state=State.FAILED, reason="no memory")
    serving = FakeServing((old, LINEAR))
    assert get(serving, "/v1/models") == (200, {"models": ["linear"]})
    status, content = get(serving, "/v1/models/linear")
    assert (status, content["name"], content["ready"]) == (200, "linear", True)
    assert content["model_version_status"][1] == {
        "version": "1",
        "state": "AVAILABLE",
        "status": {"error_code": "OK", "error_message": ""},
    }
    status, content = get(serving, "/v1/models/linear/versions/0")
    assert status == 503
    assert content["model_version_status"][0]["status"]["error_message"] == "no memory"
    assert get(serving, "/v1/models/other")[0] == 404


def test_a_signature_of_another_name_is_asked_for_by_that_name() -> None:
    named = FakeModel("linear", replace(LINEAR.signature, name="score"), LINEAR.predict)
    for name in ("", "score"):
        assert ask(named, PATH, {"instances": [[1, 2, 3]], "signature_name": name})[0] == 200
    assert ask(named, PATH, {"instances": [[1, 2, 3]], "signature_name": "serving_default"})[0] == 400
    definitions = get(FakeServing((named,)), "/v1/models/linear/metadata")[1]["metadata"]["signature_def"]
    assert list(definitions["signature_def"]) == ["score"]


def test_metadata_is_a_signature_def() -> None:
    content = get(FakeServing((LINEAR,)), "/v1/models/linear/metadata")[1]
    definition = content["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert definition["inputs"]["x"]["dtype"] == "DT_FLOAT"
    assert [dim["size"] for dim in definition["inputs"]["x"]["tensor_shape"]["dim"]] == ["-1", "3"]
    assert content["model_spec"] == {"name": "linear", "signature_name": "", "version": "1"}


@pytest.mark.parametrize("depth", [40, 300, 900, 2000])
@pytest.mark.parametrize("datatype", ["FP32", "BYTES"])
def test_no_depth_of_nesting_breaks_it(datatype: str, depth: int) -> None:
    value = b'"a"' if datatype == "BYTES" else b"1"
    nested = b"[" * depth + value + b"]" * depth
    for path in ("/v1/models/echo:predict", "/invocations"):
        assert refused(echo(datatype), path, b'{"instances":' + nested + b"}")
    assert refused(echo(datatype), "/predict/echo", nested)


def test_outputs_of_text_arrays_are_written() -> None:
    signature = Signature((TensorSpec("x", "FP32", (-1,)),), (TensorSpec("y", "BYTES", (-1,)),))
    model = FakeModel("m", signature, lambda inputs: {"y": np.array(["a\u00e9"] * len(inputs["x"]))})
    assert ask(model, "/v1/models/m:predict", {"instances": [1]})[1] == {"predictions": ["a\u00e9"]}
    assert ask(model, "/predict/m", [1.0])[1]["predictions"] == [{"y": "a\u00e9"}]
    tensor = {"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}
    assert ask(model, "/v2/models/m/infer", {"inputs": [tensor]})[1]["outputs"][0]["data"] == ["a\u00e9"]
