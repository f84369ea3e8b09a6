"""The binary tensor extension: blobs in, blobs out, raw requests, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from tests.protocols.models import LINEAR, MIXED, TYPES, echo, raw_ask, refused, v2_tensor
from turnout.core.tensors import DTYPES, Array, pack, unpack
from turnout.protocols.http import HttpResponse
from turnout.testing.protocols import whole

PATH = "/v2/models/echo/infer"


def blob_input(name: str, array: Array, datatype: str, size: Any = None) -> dict[str, Any]:
    length = len(pack(array)) if size is None else size
    return {"name": name, "shape": list(array.shape), "datatype": datatype, "parameters": {"binary_data_size": length}}


def message(head: dict[str, Any], *blobs: bytes) -> tuple[bytes, dict[str, str]]:
    text = json.dumps(head).encode()
    return text + b"".join(blobs), {"inference_header_content_length": str(len(text))}


def read(response: HttpResponse) -> tuple[dict[str, Any], dict[str, Array]]:
    """The JSON part and the outputs, as the extension says they stand."""
    body = whole(response)
    headers = dict(response.headers)
    length = int(headers.get("Inference-Header-Content-Length", len(body)))
    head = json.loads(body[:length])
    at, found = length, {}
    for output in head["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            flat = [v.encode() if isinstance(v, str) else v for v in output["data"]]
            found[output["name"]] = np.array(flat, DTYPES[output["datatype"]]).reshape(output["shape"])
        else:
            found[output["name"]] = unpack(output["datatype"], output["shape"], body[at : at + size])
            at += size
    assert at == len(body)
    assert (response.content_type == "application/octet-stream") == (
        at > length or "parameters" in str(head["outputs"])
    )
    return head, found


def sample(datatype: str) -> Array:
    if datatype == "BYTES":
        return np.array([[b"a", b""], [b"\xff\x00", "\u00e9".encode()]], dtype=object)
    return np.array([[0, 1], [1, 0]], DTYPES[datatype])


@pytest.mark.parametrize("datatype", [*TYPES, "FP16"])
def test_every_type_goes_there_and_back(datatype: str) -> None:
    array = sample(datatype)
    head = {"inputs": [blob_input("x", array, datatype)], "parameters": {"binary_data_output": True}, "id": "7"}
    body, headers = message(head, bytes(pack(array)))
    answer, outputs = read(raw_ask(echo(datatype), PATH, body, **headers))
    assert answer["id"] == "7"
    assert np.array_equal(outputs["y"], array)


def test_json_and_binary_inputs_and_outputs_mix() -> None:
    number, word = np.array([0.5, 1.5]), np.array([b"a", b"b"], dtype=object)
    head = {
        "inputs": [
            blob_input("number", number, "FP64"),
            v2_tensor("count", [2, 1], "INT32", [3, 4]),
            blob_input("word", word, "BYTES"),
        ],
        "outputs": [{"name": "shout", "parameters": {"binary_data": True}}, {"name": "total"}],
    }
    body, headers = message(head, number.tobytes(), bytes(pack(word)))
    answer, outputs = read(raw_ask(MIXED, "/v2/models/mixed/infer", body, **headers))
    assert outputs["total"].tolist() == [3.5, 5.5]
    assert outputs["shout"].tolist() == [b"A", b"B"]
    assert "data" in next(output for output in answer["outputs"] if output["name"] == "total")


def test_an_output_says_otherwise_than_the_request() -> None:
    array = sample("FP32")
    head = {
        "inputs": [blob_input("x", array, "FP32")],
        "outputs": [{"name": "y", "parameters": {"binary_data": False}}],
        "parameters": {"binary_data_output": True},
    }
    body, headers = message(head, array.tobytes())
    response = raw_ask(echo("FP32"), PATH, body, **headers)
    assert response.content_type == "application/json"
    assert json.loads(whole(response))["outputs"][0]["data"] == [0.0, 1.0, 1.0, 0.0]


def test_a_large_blob_is_not_copied() -> None:
    from tests.protocols.models import request
    from turnout.core.messages import Context
    from turnout.protocols.v2_rest import V2Infer

    array = np.zeros((1000, 100), np.float32)
    body, headers = message({"inputs": [blob_input("x", array, "FP32")]}, array.tobytes())
    decoded = V2Infer().decode(request(body, **headers), echo("FP32"), Context())
    assert np.shares_memory(decoded.inputs["x"], np.frombuffer(body, np.uint8))


def test_a_raw_request_is_nothing_but_values() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    response = raw_ask(LINEAR, "/v2/models/linear/infer", array.tobytes(), inference_header_content_length="0")
    _, outputs = read(response)
    assert outputs["y"].tolist() == [[3.0, 0.0], [12.0, 3.0]]
    _, outputs = read(raw_ask(echo("BYTES", (-1,)), PATH, b"just text", inference_header_content_length="0"))
    assert outputs["y"].tolist() == [b"just text"]


@pytest.mark.parametrize(
    ("model", "body", "part"),
    [
        (LINEAR, b"12345", "a multiple of 12 bytes"),
        (LINEAR, b"", "at least one row"),
        (MIXED, b"1234", "a model with one input"),
        (echo("BYTES", (-1, 2)), b"1234", "one BYTES element"),
        (echo("FP32", (-1, -1), batched=False), b"1234", "2 free axes"),
    ],
)
def test_a_raw_request_that_cannot_be(model: Any, body: bytes, part: str) -> None:
    assert part in refused(model, f"/v2/models/{model.name}/infer", body, inference_header_content_length="0")


@pytest.mark.parametrize("header", ["-1", "abc", "1e3", "", " 5", "99999", "9" * 40, "\u0663"])
def test_a_header_that_cannot_be(header: str) -> None:
    text = refused(echo("FP32"), PATH, b'{"inputs":[]}', inference_header_content_length=header)
    assert "Inference-Header-Content-Length" in text


FOUR = np.zeros((1, 4), np.float32)


@pytest.mark.parametrize(
    ("inputs", "blobs", "parts"),
    [
        ([blob_input("x", FOUR, "FP32")], b"", ["inputs[0]", "ends within", "16 bytes", "got 0"]),
        ([blob_input("x", FOUR, "FP32")], b"0" * 17, ["1 bytes are left"]),
        ([blob_input("x", FOUR, "FP32", 12)], b"0" * 12, ["inputs[0]", "16 bytes for FP32 [1, 4]", "got 12"]),
        ([blob_input("x", FOUR, "FP32", -1)], b"", ["binary_data_size", "got -1"]),
        ([blob_input("x", FOUR, "FP32", "16")], b"0" * 16, ["binary_data_size", 'got "16"']),
        ([blob_input("x", FOUR, "FP32", 16.0)], b"0" * 16, ["binary_data_size"]),
        ([blob_input("x", FOUR, "FP32", True)], b"0" * 16, ["binary_data_size", "got true"]),
        ([{**blob_input("x", FOUR, "FP32"), "data": [1]}], b"0" * 16, ["both data and binary_data_size"]),
        ([{**blob_input("x", FOUR, "FP99")}], b"0" * 16, ["inputs[0].datatype", "unknown data type"]),
        ([{**blob_input("x", FOUR, "FP32", 4), "shape": [1] * 70}], b"0" * 4, ["no tensor"]),
        ([{**blob_input("x", FOUR, "FP32", 0), "shape": [0, 2**62, 2**62]}], b"", ["no tensor"]),
        ([{**blob_input("x", FOUR, "BYTES", 0), "shape": [0, 2**62, 2**62]}], b"", ["no tensor"]),
        ([{**blob_input("x", FOUR, "FP32"), "shape": [2**62, 2**62]}], b"0" * 16, ["does not fit"]),
    ],
)
def test_a_blob_that_cannot_be(inputs: list[dict[str, Any]], blobs: bytes, parts: list[str]) -> None:
    body, headers = message({"inputs": inputs}, blobs)
    text = refused(echo("FP32"), PATH, body, **headers)
    for part in parts:
        assert part in text


@pytest.mark.parametrize(
    ("blob", "part"),
    [(b"\x01\x00", "cut off"), (b"\x05\x00\x00\x00ab", "5 bytes and 2 are left"), (b"\x00" * 8, "2 BYTES elements")],
)
def test_a_malformed_bytes_blob(blob: bytes, part: str) -> None:
    head = {"name": "x", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(blob)}}
    body, headers = message({"inputs": [head]}, blob)
    assert part in refused(echo("BYTES", (-1,)), PATH, body, **headers)


def test_a_bool_byte_is_zero_or_one() -> None:
    head = {"name": "x", "shape": [1], "datatype": "BOOL", "parameters": {"binary_data_size": 1}}
    body, headers = message({"inputs": [head]}, b"\x02")
    assert "neither 0 nor 1" in refused(echo("BOOL", (-1,)), PATH, body, **headers)


def test_binary_data_needs_its_header() -> None:
    text = refused(echo("FP32"), PATH, {"inputs": [blob_input("x", FOUR, "FP32")]})
    assert "Inference-Header-Content-Length" in text
