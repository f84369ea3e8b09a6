"""MLflow's scoring protocol: every form of input, and errors that its clients know."""

from __future__ import annotations

import datetime as dt
import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.protocols.models import COLUMNS, IRIS, LINEAR, MIXED, ask, raw_ask
from turnout import __version__
from turnout.protocols.rest import REST_PROTOCOLS
from turnout.testing.protocols import FakeModel, FakeServing, call, whole

PATH = "/invocations"
ROW = {"sepal_length": 5.0, "sepal_width": 3.0, "petal_length": 1.5, "petal_width": 0.2}


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": list(COLUMNS), "data": [[5, 3, 1.5, 0.2]]}},
        {"dataframe_split": {"columns": [*reversed(COLUMNS), "more"], "index": [7], "data": [[0.2, 1.5, 3, 5, "x"]]}},
        {"dataframe_split": {"data": [[5, 3, 1.5, 0.2]]}},
        {"dataframe_split": {"columns": [0, 1, 2, 3], "data": [[5, 3, 1.5, 0.2]]}},
        {"dataframe_records": [ROW]},
        {"dataframe_records": [{**ROW, "more": None}], "params": {"a": 1}},
        {"instances": [[5, 3, 1.5, 0.2]]},
        {"instances": [ROW]},
        {"inputs": [[5, 3, 1.5, 0.2]]},
        {"inputs": {"x": [[5, 3, 1.5, 0.2]]}},
        {"inputs": {name: [value] for name, value in ROW.items()}},
    ],
)
def test_every_form_of_a_row_means_the_same(body: Any) -> None:
    assert ask(IRIS, PATH, body) == (200, {"predictions": ["setosa"]})


def test_csv_and_parquet_mean_the_same() -> None:
    text = ",".join(ROW) + "\n" + ",".join(map(str, ROW.values())) + "\n"
    assert ask(IRIS, PATH, text.encode(), content_type="text/csv; charset=UTF-8")[1] == {"predictions": ["setosa"]}
    file = io.BytesIO()
    pq.write_table(pa.table({name: [value] for name, value in ROW.items()}), file)
    kind = "application/vnd.apache.parquet"
    assert ask(IRIS, PATH, file.getvalue(), content_type=kind)[1] == {"predictions": ["setosa"]}
    assert "not a valid Parquet" in ask(IRIS, PATH, b"PAR1 nothing", content_type=kind)[1]["message"]


def test_a_parquet_column_of_another_kind_is_refused() -> None:
    file = io.BytesIO()
    when = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    pq.write_table(pa.table({**{name: [1.0] for name in COLUMNS}, "petal_width": [when]}), file)
    kind = "application/vnd.apache.parquet"
    status, content = ask(IRIS, PATH, file.getvalue(), content_type=kind)
    assert status == 400
    assert "'petal_width'[0]" in content["message"]


def test_several_outputs_are_records_for_tables_and_named_for_tensors() -> None:
    split = {"dataframe_split": {"columns": ["number", "count", "word"], "data": [[0.5, 1, "a"], [1, 2, "b"]]}}
    records = [{"total": 1.5, "shout": "A"}, {"total": 3.0, "shout": "B"}]
    assert ask(MIXED, PATH, split)[1] == {"predictions": records}
    named = {"inputs": {"number": [0.5], "count": [[1]], "word": ["a"]}}
    assert ask(MIXED, PATH, named)[1] == {"predictions": {"total": [1.5], "shout": ["A"]}}
    rows = {"instances": [{"number": 0.5, "count": [1], "word": "a"}]}
    assert ask(MIXED, PATH, rows)[1] == {"predictions": {"total": [1.5], "shout": ["A"]}}
    asked = ask(IRIS, PATH + "?outputs=label,probabilities", {"dataframe_records": [ROW]})[1]["predictions"][0]
    assert set(asked) == {"label", "probabilities"}


def test_a_gap_in_a_float_column_is_nan() -> None:
    model = FakeModel("e", LINEAR.signature, lambda inputs: {"y": inputs["x"][:, :2]})
    answer = whole(raw_ask(model, PATH, {"dataframe_split": {"data": [[None, 1, 2]]}}))
    assert answer == b'{"predictions":[[NaN,1.0]]}'


BAD: list[tuple[Any, str, list[str]]] = [
    (b"{", "BAD_REQUEST", ["Ensure that input is a valid JSON formatted string"]),
    (b"", "BAD_REQUEST", ["Ensure that input is a valid JSON formatted string"]),
    ([1], "BAD_REQUEST", ["The input must be a JSON dictionary with exactly one of the input fields"]),
    ({"instances": [], "inputs": []}, "BAD_REQUEST", ["with exactly one of the input fields"]),
    ({"columns": [], "data": []}, "BAD_REQUEST", ["with exactly one of the input fields", "dataframe_split"]),
    ({"dataframe_split": [1]}, "BAD_REQUEST", ["Dataframe split format must be a dictionary. Got list"]),
    ({"dataframe_records": {}}, "BAD_REQUEST", ["Dataframe records format must be a list of records. Got dictionary."]),
    ({"dataframe_split": {"columns": []}}, "BAD_REQUEST", ["Provided dataframe_split field is not a valid dataframe"]),
    ({"inputs": [[1, 2, 3, 4]], "params": [1]}, "BAD_REQUEST", ["params must be a dictionary"]),
    ({"dataframe_records": []}, "INVALID_PARAMETER_VALUE", ["at least one record"]),
    ({"dataframe_records": [5]}, "INVALID_PARAMETER_VALUE", ["dataframe_records[0]: must be an object"]),
    ({"dataframe_records": [{"sepal_width": 1}]}, "INVALID_PARAMETER_VALUE", ["column 'sepal_length' is missing"]),
    ({"dataframe_records": [ROW, {}]}, "INVALID_PARAMETER_VALUE", ["dataframe_records[1]", "is missing"]),
    ({"dataframe_records": [{**ROW, "petal_width": "3"}]}, "INVALID_PARAMETER_VALUE", ["'petal_width'[0]", 'got "3"']),
    ({"dataframe_split": {"columns": ["a"], "data": [[1, 2]]}}, "INVALID_PARAMETER_VALUE", ["data[0]", "1 values"]),
    ({"dataframe_split": {"columns": ["a", "a"], "data": [[1, 2]]}}, "INVALID_PARAMETER_VALUE", ["stands twice"]),
    (
        {"dataframe_split": {"data": [[1, 2]], "index": [1, 2]}},
        "INVALID_PARAMETER_VALUE",
        ["index", "expected 1", "got 2"],
    ),
    ({"dataframe_split": {"data": [[1, 2]], "colour": 1}}, "INVALID_PARAMETER_VALUE", ["unknown member", "'colour'"]),
    ({"dataframe_split": {"columns": 5, "data": [[1, 2]]}}, "INVALID_PARAMETER_VALUE", ["columns", "a JSON list"]),
    ({"dataframe_split": {"columns": [1.5], "data": [[1]]}}, "INVALID_PARAMETER_VALUE", ["columns", "a JSON string"]),
    ({"instances": [[1, 2]]}, "INVALID_PARAMETER_VALUE", ["wrong shape"]),
    ({"instances": [[1, 2, 3, True]]}, "INVALID_PARAMETER_VALUE", ["instances[0][3]", "got true"]),
]


@pytest.mark.parametrize(("body", "code", "parts"), BAD)
def test_a_bad_request_has_code_and_reason_and_what_works(body: Any, code: str, parts: list[str]) -> None:
    status, content = ask(IRIS, PATH, body)
    assert (status, content["error_code"]) == (400, code)
    for part in parts:
        assert part in content["message"]
    assert ask(IRIS, PATH, json.loads(content["message"].partition("Example that works: ")[2]))[0] == 200


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/json; charset=latin-1", "application/json; format=pandas-split"]
)
def test_another_content_type_is_415(kind: str) -> None:
    status, content = ask(IRIS, PATH, {"instances": [[1, 2, 3, 4]]}, content_type=kind)
    assert (status, content["error_code"]) == (415, "BAD_REQUEST")
    assert ask(IRIS, PATH, {"instances": [[1, 2, 3, 4]]}, content_type="Application/JSON; charset=utf-8")[0] == 200


def test_it_needs_to_be_clear_which_model_is_meant() -> None:
    response = call(REST_PROTOCOLS, FakeServing((IRIS, LINEAR)), "POST", PATH, b"{}")
    content = json.loads(whole(response))
    assert (response.status, content["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")
    assert "iris, linear" in content["message"]


def test_ping_health_and_version() -> None:
    for path in ("/ping", "/health"):
        response = call(REST_PROTOCOLS, FakeServing((IRIS,)), "GET", path)
        assert (response.status, response.body, response.content_type) == (200, b"\n", "application/json")
    assert call(REST_PROTOCOLS, FakeServing(), "GET", "/version").body == __version__.encode()
