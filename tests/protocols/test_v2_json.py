"""The rules of an Open Inference Protocol v2 infer request in JSON, one after the other."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from tests.protocols.models import IRIS, LINEAR, MIXED, ask, echo, raw_ask, refused, v2_tensor
from turnout.testing.protocols import whole

PATH = "/v2/models/linear/infer"
GOOD = v2_tensor("x", [1, 3], "FP32", [1, 2, 3])


def test_an_answer_names_model_version_and_outputs() -> None:
    status, content = ask(LINEAR, PATH, {"inputs": [GOOD]})
    assert status == 200
    assert content == {
        "model_name": "linear",
        "model_version": "1",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [6.0, 1.0]}],
    }


def test_the_id_comes_back_and_only_where_one_was_given() -> None:
    assert ask(LINEAR, PATH, {"id": 'a"b\u2603', "inputs": [GOOD]})[1]["id"] == 'a"b\u2603'
    assert "id" not in ask(LINEAR, PATH, {"inputs": [GOOD]})[1]
    assert "id" not in ask(LINEAR, PATH, {"id": "", "inputs": [GOOD]})[1]


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("nested", [False, True])
def test_flat_and_nested_data_mean_the_same(large: bool, nested: bool) -> None:
    rows = 200 if large else 2
    array = np.random.default_rng(1).random((rows, 3)).astype(np.float32)
    data = array.tolist() if nested else array.ravel().tolist()
    status, content = ask(LINEAR, PATH, {"inputs": [v2_tensor("x", [rows, 3], "FP32", data)]})
    assert status == 200
    got = np.array(content["outputs"][0]["data"], np.float32).reshape(rows, 2)
    assert np.array_equal(got[:, 1], array[:, 0])


def test_null_counts_as_absent() -> None:
    body = {"id": None, "parameters": None, "outputs": None, "inputs": [{**GOOD, "parameters": None}]}
    assert ask(LINEAR, PATH, body)[0] == 200


def test_an_explicit_version_is_found() -> None:
    assert ask(LINEAR, "/v2/models/linear/versions/1/infer", {"inputs": [GOOD]})[0] == 200
    assert "no version '7'" in refused(LINEAR, "/v2/models/linear/versions/7/infer", {"inputs": [GOOD]}, 404)
    assert "'other'" in refused(LINEAR, "/v2/models/other/infer", {"inputs": [GOOD]}, 404)


BAD: list[tuple[Any, list[str]]] = [
    (b"", ["body is empty"]),
    (b"{", ["not valid JSON"]),
    (b'{"inputs":[]}x', ["not valid JSON"]),
    (b'{"a":"\xff"}', ["not valid UTF-8"]),
    (b"[1]", ["must be an object", "a list of 1"]),
    ({}, ["inputs: missing"]),
    ({"inputs": {}}, ["inputs: must be a list"]),
    ({"inputs": []}, ["input 'x' is missing"]),
    ({"inputs": [1]}, ["inputs[0]: must be an object", "got 1"]),
    ({"inputs": [GOOD, GOOD]}, ["inputs[1]: input 'x' is given twice"]),
    ({"inputs": [GOOD, {**GOOD, "name": "z"}]}, ["no input 'z'"]),
    ({"inputs": [{**GOOD, "name": "z"}]}, ["input 'x' is missing", "got 'z'"]),
    ({"inputs": [{**GOOD, "name": 5}]}, ["inputs[0].name", "a JSON string"]),
    ({"inputs": [{**GOOD, "datatype": "fp32"}]}, ["inputs[0].datatype", "unknown data type", "FP32"]),
    ({"inputs": [{**GOOD, "datatype": "FP64"}]}, ["inputs[0]", "wrong data type", "expected FP32", "got FP64"]),
    ({"inputs": [{**GOOD, "shape": [3]}]}, ["inputs[0]", "wrong shape", "[-1, 3]", "got [3]"]),
    ({"inputs": [{**GOOD, "shape": [1, 4]}]}, ["inputs[0].data", "expected 4 elements", "got 3"]),
    ({"inputs": [{**GOOD, "shape": [-1, 3]}]}, ["inputs[0].shape[0]", "got -1"]),
    ({"inputs": [{**GOOD, "shape": [1.0, 3]}]}, ["inputs[0].shape[0]", "got 1.0"]),
    ({"inputs": [{**GOOD, "shape": [True, 3]}]}, ["inputs[0].shape[0]", "got true"]),
    ({"inputs": [{**GOOD, "shape": "1,3"}]}, ["inputs[0].shape", "a JSON list"]),
    ({"inputs": [{**GOOD, "shape": [0, 3], "data": []}]}, ["at least one row"]),
    ({"inputs": [{**GOOD, "data": None}]}, ["inputs[0]: has no data"]),
    ({"inputs": [{**GOOD, "data": 5}]}, ["inputs[0].data: must be a list", "got 5"]),
    ({"inputs": [{**GOOD, "data": [1, 2, "3"]}]}, ["inputs[0].data[2]", "a number", 'got "3"']),
    ({"inputs": [{**GOOD, "data": [[1, 2, None]]}]}, ["inputs[0].data[0][2]", "a number", "got null"]),
    ({"inputs": [{**GOOD, "data": [1, True, 3]}]}, ["inputs[0].data[1]", "got true"]),
    ({"inputs": [{**GOOD, "data": [[1, 2], [3]]}]}, ["inputs[0].data[1]", "differ in length"]),
    ({"inputs": [{**GOOD, "data": [[1], [2], [3]]}]}, ["inputs[0].data", "nested differently", "got [3, 1]"]),
    ({"inputs": [{**GOOD, "data": [1, [2], 3]}]}, ["inputs[0].data[1]", "mixed", "a single value"]),
    ({"inputs": [{**GOOD, "data": [1, {"a": 2}, 3]}]}, ["inputs[0].data[1]", "an object with 'a'"]),
    ({"inputs": [{**GOOD, "data": [1, 2, 1e39]}]}, ["inputs[0].data[2]", "out of range", "FP32"]),
    (b'{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":[1,2,1e999]}]}', ["out of range", "1e999"]),
    ({"inputs": [{**GOOD, "data": [1, 2, 10**400]}]}, ["inputs[0].data[2]", "out of range"]),
    ({"inputs": [{**GOOD, "parameters": {"binary_data_size": 12}}]}, ["both data and binary_data_size"]),
    ({"inputs": [{**GOOD, "parameters": {"a": [1]}}]}, ["inputs[0].parameters.'a'", "single value"]),
    ({"inputs": [GOOD], "id": 5}, ["id: must be a string", "got 5"]),
    ({"inputs": [GOOD], "parameters": [1]}, ["parameters: must be an object"]),
    ({"inputs": [GOOD], "parameters": {"p": {}}}, ["parameters.'p'", "single value"]),
    ({"inputs": [GOOD], "parameters": {"triton_x": 1}}, ["parameters.triton_x", "reserved"]),
    ({"inputs": [GOOD], "parameters": {"binary_data_output": 1}}, ["binary_data_output", "true or false"]),
    ({"inputs": [GOOD], "outputs": [{"name": "q"}]}, ["outputs[0].name", "no output 'q'", "'y'"]),
    ({"inputs": [GOOD], "outputs": [{}]}, ["outputs[0].name: missing"]),
    ({"inputs": [GOOD], "outputs": [{"name": "y", "parameters": {"binary_data": "yes"}}]}, ["binary_data"]),
    (b'{"inputs":[{"name":"\\ud800","shape":[1,3],"datatype":"FP32","data":[1,2,3]}]}', ["surrogate"]),
    ({"inputs": [{**GOOD, "shape": [1] * 70, "data": [1]}]}, ["no tensor can have that shape"]),
    ({"inputs": [{**GOOD, "shape": [0, 2**62, 2**62], "data": []}]}, ["no tensor can have that shape"]),
    (b"[" * 100_000, ["nested too deeply"]),
    (b'{"inputs":[' + b"9" * 5000 + b"]}", ["too many digits"]),
]


@pytest.mark.parametrize(("body", "parts"), BAD)
def test_a_bad_request_is_told_what_is_wrong_where_and_what_works(body: Any, parts: list[str]) -> None:
    text = refused(LINEAR, PATH, body)
    for part in parts:
        assert part in text
    example = json.loads(text.partition("Example that works: ")[2])
    assert ask(LINEAR, PATH, example)[0] == 200


def test_a_large_bad_request_is_told_just_as_exactly() -> None:
    data: list[Any] = [0.5] * 3000
    data[2999] = "x"
    assert "inputs[0].data[2999]" in refused(LINEAR, PATH, {"inputs": [v2_tensor("x", [1000, 3], "FP32", data)]})


@pytest.mark.parametrize(
    ("datatype", "data", "expected"),
    [
        ("INT8", [128], "-128 to 127"),
        ("INT32", [2**31], "out of range"),
        ("INT64", [2**63], "out of range"),
        ("UINT8", [-1], "0 to 255"),
        ("UINT64", [2**64], "out of range"),
        ("UINT64", [-1], "out of range"),
        ("INT32", [1.0], "an integer"),
        ("INT32", ["1"], "an integer"),
        ("INT32", [True], "an integer"),
        ("INT32", [None], "an integer"),
        ("BOOL", [1], "true or false"),
        ("BOOL", ["true"], "true or false"),
        ("BYTES", [5], "a string"),
        ("FP64", ["NaN"], "a number"),
        ("FP16", [0.5], "FP16 has no JSON form"),
    ],
)
@pytest.mark.parametrize("pad", [0, 2000])
def test_nothing_is_bent_into_another_type(datatype: str, data: list[Any], expected: str, pad: int) -> None:
    body = json.dumps({"inputs": [v2_tensor("x", [1, 1], datatype, data)]}) + " " * pad
    assert expected in refused(echo(datatype), "/v2/models/echo/infer", body.encode())


def test_the_ends_of_every_integer_type_pass() -> None:
    for datatype in ("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"):
        model = echo(datatype, (-1,))
        bounds = np.iinfo(model.signature.inputs[0].dtype)
        for count in (1, 500):
            data = [int(bounds.min), int(bounds.max)] * count
            body = {"inputs": [v2_tensor("x", [2 * count], datatype, data)]}
            assert ask(model, "/v2/models/echo/infer", body)[1]["outputs"][0]["data"] == data


@pytest.mark.parametrize("count", [1, 500])
def test_nan_and_the_infinities_are_bare_tokens_both_ways(count: int) -> None:
    text = ",".join(["1.5,NaN,Infinity,-Infinity"] * count)
    body = f'{{"inputs":[{{"name":"x","shape":[{4 * count}],"datatype":"FP32","data":[{text}]}}]}}'
    answer = whole(raw_ask(echo("FP32", (-1,)), "/v2/models/echo/infer", body.encode()))
    assert f'"data":[{text}]'.encode() in answer
    assert math.isnan(json.loads(answer)["outputs"][0]["data"][1])


def test_floats_are_written_so_that_the_same_float_is_read() -> None:
    values = np.random.default_rng(2).standard_normal(50).astype(np.float32)
    body = {"inputs": [v2_tensor("x", [50], "FP32", values.tolist())]}
    answer = ask(echo("FP32", (-1,)), "/v2/models/echo/infer", body)[1]["outputs"][0]["data"]
    assert np.array_equal(np.array(answer, np.float32), values)
    assert ask(echo("FP32", (-1,)), "/v2/models/echo/infer", {"inputs": [v2_tensor("x", [1], "FP32", [0.1])]})[1][
        "outputs"
    ][0]["data"] == [0.1]


def test_only_the_asked_outputs_are_answered() -> None:
    body = {"inputs": [v2_tensor("x", [1, 4], "FP32", [1, 2, 3, 4])], "outputs": [{"name": "probabilities"}]}
    outputs = ask(IRIS, "/v2/models/iris/infer", body)[1]["outputs"]
    assert [output["name"] for output in outputs] == ["probabilities"]
    body["outputs"] = []
    assert len(ask(IRIS, "/v2/models/iris/infer", body)[1]["outputs"]) == 2


def test_several_inputs_of_several_types() -> None:
    body = {
        "inputs": [
            v2_tensor("word", [2], "BYTES", ["a", "\u00e9"]),
            v2_tensor("number", [2], "FP64", [0.5, 1]),
            v2_tensor("count", [2, 1], "INT32", [[1], [2]]),
        ]
    }
    outputs = ask(MIXED, "/v2/models/mixed/infer", body)[1]["outputs"]
    assert outputs[0]["data"] == [1.5, 3.0]
    body["inputs"][1] = v2_tensor("number", [3], "FP64", [0.5, 1, 2])
    assert "same number of rows" in refused(MIXED, "/v2/models/mixed/infer", body)


def test_text_that_is_not_utf8_is_asked_for_in_binary() -> None:
    model = echo("BYTES", (-1,))
    answer = model.predict({"x": np.array([b"\xff"], dtype=object)})
    odd = type(model)("echo", model.signature, lambda _: answer)
    text = refused(odd, "/v2/models/echo/infer", {"inputs": [v2_tensor("x", [1], "BYTES", ["a"])]})
    assert "binary_data" in text


def test_an_fp16_output_is_refused_in_json_before_the_model_runs() -> None:
    def never(_: Any) -> Any:
        raise AssertionError("the model ran")

    model = echo("FP16", (-1,))
    model = type(model)("echo", model.signature, never)
    body = np.array([1.5], np.float16).tobytes()
    head = json.dumps(
        {"inputs": [{"name": "x", "shape": [1], "datatype": "FP16", "parameters": {"binary_data_size": 2}}]}
    ).encode()
    text = refused(model, "/v2/models/echo/infer", head + body, inference_header_content_length=str(len(head)))
    assert "binary_data_output" in text


@pytest.mark.parametrize(
    "body",
    [
        {"parameters": {"sequence_id": 3}},
        {"parameters": {"sequence_start": True}},
        {"outputs": [{"name": "y", "parameters": {"classification": 2}}]},
        {"outputs": [{"name": "y", "parameters": {"shared_memory_region": "r"}}]},
        {"inputs": [{**GOOD, "parameters": {"shared_memory_region": "r"}}]},
    ],
)
def test_what_is_not_offered_is_said_not_ignored(body: dict[str, Any]) -> None:
    assert "not offered" in refused(LINEAR, PATH, {"inputs": [GOOD], **body}, 501)


def test_the_last_of_equal_keys_counts_whatever_the_size() -> None:
    for pad in (0, 3000):
        body = (
            b'{"id":"a","id":"b","inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":[1,2,3]}]}' + b" " * pad
        )
        assert ask(LINEAR, PATH, body)[1]["id"] == "b"
