"""The plain form: whatever a person would send, one record per row comes back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.protocols.models import COLUMNS, IRIS, LINEAR, MIXED, ask, echo, raw_ask, refused
from turnout.core.signature import Signature, TensorSpec
from turnout.testing.protocols import FakeModel, whole

ROW = dict(zip(COLUMNS, [5, 3, 1.5, 0.2], strict=True))


@pytest.mark.parametrize(
    "body",
    [
        [5, 3, 1.5, 0.2],
        [[5, 3, 1.5, 0.2]],
        ROW,
        [ROW],
        {**ROW, "more": "x"},
        {name: [value] for name, value in ROW.items()},
        {"x": [5, 3, 1.5, 0.2]},
        {"x": [[5, 3, 1.5, 0.2]]},
    ],
)
def test_every_form_of_a_row_means_the_same(body: Any) -> None:
    status, content = ask(IRIS, "/predict/iris", body)
    assert status == 200
    assert (content["model"], content["version"]) == ("iris", "1")
    (row,) = content["predictions"]
    assert row["label"] == "setosa"
    assert set(row["probabilities"]) == {"setosa", "virginica"}


def test_the_only_model_and_a_version_can_be_asked() -> None:
    assert ask(IRIS, "/predict", [ROW, ROW])[1]["predictions"][1]["label"] == "setosa"
    assert ask(IRIS, "/predict/iris/versions/1", ROW)[0] == 200
    assert ask(IRIS, "/predict/iris?outputs=label", ROW)[1]["predictions"] == [{"label": "setosa"}]


def test_a_model_without_columns_takes_rows_and_records_by_position() -> None:
    for body in ([1, 2, 3], [[1, 2, 3]], {"a": 1, "b": 2, "c": 3}, [{"a": 1, "b": 2, "c": 3}]):
        assert ask(LINEAR, "/predict/linear", body)[1]["predictions"] == [{"y": [6.0, 1.0]}]


def test_several_inputs_come_by_name() -> None:
    one = {"number": 0.5, "count": 1, "word": "a"}
    many = {"number": [0.5], "count": [1], "word": ["a"]}
    for body in (one, [one], many):
        assert ask(MIXED, "/predict/mixed", body)[1]["predictions"] == [{"total": 1.5, "shout": "A"}]
    assert "'number', 'count', 'word'" in refused(MIXED, "/predict/mixed", [1])
    assert "input 'word' is missing" in refused(MIXED, "/predict/mixed", {"number": [1], "count": [1]})


def test_csv_comes_in_and_goes_out() -> None:
    text = ",".join(COLUMNS) + "\n5,3,1.5,0.2\n5,3,4,\n"
    response = raw_ask(IRIS, "/predict/iris", text.encode(), content_type="text/csv", accept="text/csv")
    assert response.content_type.startswith("text/csv")
    lines = whole(response).decode().splitlines()
    assert lines[0] == "label,probabilities.setosa,probabilities.virginica"
    assert [line.split(",")[0] for line in lines[1:]] == ["setosa", "virginica"]


def test_curl_without_a_content_type_works() -> None:
    for kind in ("", "application/x-www-form-urlencoded", "text/plain"):
        assert ask(IRIS, "/predict/iris", ROW, content_type=kind)[0] == 200
    assert "image/png" in refused(IRIS, "/predict/iris", b"\x89PNG", 415, content_type="image/png")


def test_images_and_single_rows_of_them() -> None:
    model = echo("FP32", (-1, 2, 2))
    for body in ([[1, 2], [3, 4]], [[[1, 2], [3, 4]]], [[1, 2, 3, 4]]):
        status, content = ask(model, "/predict/echo", body)
        if body == [[1, 2, 3, 4]]:  # two axes are one image, and this one is none
            assert status == 400
        else:
            assert content["predictions"] == [{"y": [[1.0, 2.0], [3.0, 4.0]]}]


def test_a_model_that_does_not_take_rows() -> None:
    model = echo("FP32", (2,), batched=False)
    assert ask(model, "/predict/echo", [1, 2])[1]["predictions"] == [{"y": 1.0}, {"y": 2.0}]


def test_outputs_that_cannot_be_told_by_row_are_the_models_fault() -> None:
    signature = Signature((TensorSpec("x", "FP32", (-1,)),), (TensorSpec("y", "FP32", ()),))
    model = FakeModel("odd", signature, lambda inputs: {"y": inputs["x"].sum()})
    assert refused(model, "/predict/odd", [1.0], 500)


@pytest.mark.parametrize(
    ("body", "parts"),
    [
        (b"", ["empty"]),
        (b"[1,", ["not valid JSON"]),
        (5, ["body", "must be a list", "got 5"]),
        ([], ["body"]),
        ([1, 2, 3], ["body: wrong shape", "[-1, 4]", "sepal_length"]),
        ([[1, 2, 3, "x"]], ["body[0][3]", "a number"]),
        ([[1, 2, 3, 4], [1]], ["body[1]", "differ in length"]),
        ({"sepal_length": 1}, ["column 'sepal_width' is missing", "got 'sepal_length'"]),
        ({**ROW, "petal_width": "wide"}, ["'petal_width'", 'got "wide"']),
        ({"instances": [[1, 2, 3, 4]]}, ["is missing", "got 'instances'"]),
        ([ROW, 5], ["body[1]", "must be an object"]),
        ({name: [1] * (2 if name == "petal_width" else 1) for name in COLUMNS}, ["differ in length"]),
    ],
)
def test_a_bad_request_is_told_what_is_wrong_and_what_works(body: Any, parts: list[str]) -> None:
    text = refused(IRIS, "/predict/iris", body)
    for part in parts:
        assert part in text
    assert ask(IRIS, "/predict/iris", json.loads(text.partition("Example that works: ")[2]))[0] == 200
