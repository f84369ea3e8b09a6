"""What a person finds in a browser: the landing, the page, the OpenAPI document; and that its examples work."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from typing import Any

import pytest

from tests.protocols.models import IRIS, LINEAR, MIXED, TYPES, echo
from turnout.core.servable import State
from turnout.core.signature import Signature, TensorSpec
from turnout.protocols import examples
from turnout.protocols.rest import REST_PROTOCOLS
from turnout.testing.protocols import FakeModel, FakeServing, call, match, whole

ODD = FakeModel(
    "</script><script>alert(1)//",
    Signature((TensorSpec("x", "FP32", (-1, 2), ("<b>", "'")),), (TensorSpec("y", "FP32", (-1,)),)),
    lambda inputs: {"y": inputs["x"][:, 0]},
    reason="<i>",
)
IMAGE = FakeModel(
    "image",
    Signature((TensorSpec("pixels", "FP32", (-1, 28, 28)),), (TensorSpec("label", "INT64", (-1,)),)),
    lambda inputs: {"label": inputs["pixels"].reshape(len(inputs["pixels"]), -1).argmax(axis=1)},
)
FIXED = echo("INT8", (2, 3), batched=False, name="fixed")
EVERY = (IRIS, LINEAR, MIXED, IMAGE, FIXED, *(echo(datatype, name=datatype.lower()) for datatype in TYPES))


def get(serving: FakeServing, path: str, **headers: str) -> Any:
    return call(REST_PROTOCOLS, serving, "GET", path, b"", headers)


def test_a_browser_is_led_to_the_page_and_a_client_to_the_truth() -> None:
    serving = FakeServing((IRIS,))
    assert get(serving, "/").body == b'{"status":"alive"}'
    assert get(serving, "/", accept="*/*").body == b'{"status":"alive"}'
    response = get(serving, "/", accept="text/html,application/xhtml+xml,*/*;q=0.8")
    assert (response.status, dict(response.headers)["Location"]) == (307, "/docs")
    assert get(serving, "/favicon.ico").content_type == "image/svg+xml"


def test_the_page_loads_nothing_and_runs_only_its_own_script() -> None:
    response = get(FakeServing((IRIS, ODD)), "/docs")
    page = whole(response).decode()
    policy = dict(response.headers)["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    styles = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert len(scripts) == len(styles) == 1
    for text in scripts + styles:
        assert base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() in policy
    assert not re.search(r"(src|href)=.https?:", page)
    assert "alert(1)" not in page.split("application/json")[0]
    assert "<b>" not in page
    assert "innerHTML" not in page


def test_the_page_holds_every_model_once_with_requests_that_work() -> None:
    serving = FakeServing((replace(IRIS, version="0"), *EVERY))
    page = whole(get(serving, "/docs")).decode()
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])  # type: ignore[index]
    assert [model["name"] for model in data["models"]] == [model.name for model in EVERY]
    assert data["models"][0]["version"] == "1"
    for model in data["models"]:
        for form in model["forms"]:
            headers = {"content-type": form["type"]}
            response = call(REST_PROTOCOLS, serving, "POST", form["path"], form["body"].encode(), headers)
            assert response.status == 200, (model["name"], form, whole(response))


def test_one_model_is_offered_to_mlflow_too() -> None:
    assert b'"MLflow"' in whole(get(FakeServing((IRIS,)), "/docs"))
    assert "/invocations" in json.loads(whole(get(FakeServing((IRIS,)), "/openapi.json")))["paths"]
    assert "/invocations" not in json.loads(whole(get(FakeServing((IRIS, LINEAR)), "/openapi.json")))["paths"]


def test_a_model_that_is_not_ready_says_why() -> None:
    page = whole(get(FakeServing((replace(IRIS, state=State.FAILED, reason="no such file"),)), "/docs")).decode()
    assert "FAILED" in page
    assert "no such file" in page
    assert whole(get(FakeServing(), "/docs")).count(b'"models": []') == 1


def test_every_operation_of_the_document_exists_and_every_example_works() -> None:
    serving = FakeServing((*EVERY, ODD))
    document = json.loads(whole(get(serving, "/openapi.json")))
    assert document["openapi"] == "3.1.0"
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert match(REST_PROTOCOLS, method.upper(), path), path
            for kind, content in operation.get("requestBody", {"content": {}})["content"].items():
                example = content["example"]
                body = example.encode() if isinstance(example, str) else json.dumps(example).encode()
                response = call(REST_PROTOCOLS, serving, "POST", path, body, {"content-type": kind})
                assert response.status == 200, (path, whole(response))


def test_the_document_names_the_fields_that_predictions_have_and_take() -> None:
    document = json.loads(whole(get(FakeServing((IRIS,)), "/openapi.json")))
    predict = document["paths"]["/v2/models/iris/infer"]["post"]
    said = {one["$ref"].rpartition("/")[2] for one in predict["parameters"]}
    assert {"X-Request-Deadline-Ms", "X-Route-To", "X-Fail-On-Degraded", "X-Explain"} == said
    assert said == set(document["components"]["parameters"])
    fields = predict["responses"]["200"]["headers"]
    assert {"X-Served-By", "X-Variant", "X-Revision", "X-Prediction-Id", "X-Degraded"} == set(fields)
    assert set(fields) == set(document["components"]["headers"])


@pytest.mark.parametrize("model", EVERY, ids=lambda model: model.name)
def test_an_error_text_stays_short(model: FakeModel) -> None:
    for form in ("v1", "v2", "mlflow", "plain"):
        assert len(examples.text(model.signature, form)) < 500
