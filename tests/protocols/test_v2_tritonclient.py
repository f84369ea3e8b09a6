"""Bytes written and read by tritonclient, a client of another project: any type, shape and form, there and back."""

from __future__ import annotations

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput, InferResult

from tests.protocols.models import echo, raw_ask
from turnout.core.tensors import DTYPES, Array
from turnout.testing.protocols import whole

KINDS = ("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64")
SHAPES = hnp.array_shapes(min_dims=1, max_dims=3, max_side=40)


@st.composite
def tensors(draw: st.DrawFn) -> tuple[str, Array]:
    if draw(st.integers(0, 5)) == 0:
        words = draw(st.lists(st.text(st.characters(exclude_categories=("Cs",)), max_size=5), min_size=1, max_size=6))
        return "BYTES", np.array([word.encode() for word in words], dtype=object)
    datatype = draw(st.sampled_from(KINDS))
    return datatype, draw(hnp.arrays(DTYPES[datatype], draw(SHAPES)))


@given(tensors(), st.booleans(), st.booleans(), st.booleans())
def test_a_tensor_comes_back_as_it_went(case: tuple[str, Array], blob_in: bool, blob_out: bool, named: bool) -> None:
    datatype, array = case
    blob_in = blob_in or datatype == "FP16"
    blob_out = blob_out or datatype == "FP16"
    given_input = InferInput("x", list(array.shape), datatype)
    given_input.set_data_from_numpy(array, binary_data=blob_in)
    outputs = [InferRequestedOutput("y", binary_data=blob_out)] if named else None
    body, length = InferenceServerClient.generate_request_body([given_input], outputs, request_id="r1")
    headers = {} if length is None else {"inference_header_content_length": str(length)}
    model = echo(datatype, (-1,) * array.ndim)
    response = raw_ask(model, "/v2/models/echo/infer", body, **headers)
    assert response.status == 200, whole(response)[:500]
    answered = dict(response.headers).get("Inference-Header-Content-Length")
    result = InferResult.from_response_body(whole(response), False, None if answered is None else int(answered))
    assert result.get_response()["id"] == "r1"
    got = result.as_numpy("y")
    if datatype == "BYTES":
        got = np.array([v if isinstance(v, bytes) else v.encode() for v in got.ravel()], dtype=object)
    assert got.shape == array.shape
    assert np.array_equal(got, array, equal_nan=array.dtype.kind == "f")


@given(hnp.arrays(np.float32, st.tuples(st.integers(1, 50), st.integers(1, 20))))
def test_json_and_binary_answers_are_the_same(array: Array) -> None:
    answers = []
    for blob in (False, True):
        given_input = InferInput("x", list(array.shape), "FP32")
        given_input.set_data_from_numpy(array, binary_data=blob)
        body, length = InferenceServerClient.generate_request_body(
            [given_input], [InferRequestedOutput("y", binary_data=blob)]
        )
        headers = {} if length is None else {"inference_header_content_length": str(length)}
        response = raw_ask(echo("FP32"), "/v2/models/echo/infer", body, **headers)
        answered = dict(response.headers).get("Inference-Header-Content-Length")
        result = InferResult.from_response_body(whole(response), False, answered and int(answered))
        answers.append(result.as_numpy("y"))
    assert np.array_equal(answers[0], array, equal_nan=True)
    assert np.array_equal(answers[1], array, equal_nan=True)


def test_the_simplest_call_asks_for_binary_outputs_and_gets_them() -> None:
    given_input = InferInput("x", [1, 2], "FP32")
    given_input.set_data_from_numpy(np.ones((1, 2), np.float32))
    body, length = InferenceServerClient.generate_request_body([given_input])
    response = raw_ask(echo("FP32"), "/v2/models/echo/infer", body, inference_header_content_length=str(length))
    assert response.content_type == "application/octet-stream"
    head = json.loads(whole(response)[: int(dict(response.headers)["Inference-Header-Content-Length"])])
    assert head["outputs"][0]["parameters"] == {"binary_data_size": 8}
