"""Columns by name, where one of them is called what the model's input is called."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from turnout.core.errors import InvalidInput
from turnout.core.signature import Signature, TensorSpec
from turnout.entrypoints.rows import to_tensors
from turnout.protocols.rest import REST_PROTOCOLS
from turnout.protocols.tabular import from_csv
from turnout.testing.protocols import FakeModel, FakeServing, call, whole

SIGNATURE = Signature(
    (TensorSpec("x", "FP64", (-1, 2), ("x", "y")),), (TensorSpec("sum", "FP64", (-1,)),), lenient=True
)


def answers(path: str, body: Any) -> Any:
    """The parsed answer of the protocols to a POST."""
    model = FakeModel("m", SIGNATURE, lambda inputs: {"sum": inputs["x"].sum(axis=1)})
    response = call(REST_PROTOCOLS, FakeServing((model,)), "POST", path, json.dumps(body).encode())
    assert response.status == 200, whole(response)
    return json.loads(whole(response))


@pytest.mark.parametrize(
    "body", [{"x": 1, "y": 2}, {"x": [1], "y": [2]}, [{"x": 1, "y": 2}], [[1, 2]], {"x": [[1, 2]]}]
)
def test_plain_goes_by_columns_when_all_are_there(body: Any) -> None:
    assert answers("/predict/m", body)["predictions"] == [{"sum": 3.0}]


@pytest.mark.parametrize("inputs", [{"x": [1], "y": [2]}, {"x": [[1, 2]]}])
def test_mlflow_and_v1_do_so_too(inputs: Any) -> None:
    assert answers("/invocations", {"inputs": inputs})["predictions"] == [3.0]
    assert answers("/v1/models/m:predict", {"inputs": inputs})["outputs"] == [3.0]


def test_rows_of_a_file_do_so_too() -> None:
    found = to_tensors({"x": np.array([1.0]), "y": np.array([2.0])}, SIGNATURE)
    assert found["x"].tolist() == [[1.0, 2.0]]
    with pytest.raises(InvalidInput):
        SIGNATURE.validate(to_tensors({"x": np.array([1.0]), "z": np.array([2.0])}, SIGNATURE))


def test_a_first_line_of_values_is_no_header() -> None:
    unnamed = Signature((TensorSpec("x", "FP64", (-1, 2)),), SIGNATURE.outputs, lenient=True)
    for signature in (SIGNATURE, unnamed):
        with pytest.raises(InvalidInput, match="first line holds values"):
            from_csv(signature, b"5.1,3.5\n4.9,3.0\n")
    assert from_csv(unnamed, b"0,1\n4.9,3.0\n")["x"].tolist() == [[4.9, 3.0]]
    assert from_csv(SIGNATURE, b"y,x\n1,2\n")["x"].tolist() == [[2.0, 1.0]]
