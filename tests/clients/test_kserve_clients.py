"""KServe's InferenceRESTClient (v1 and v2) and InferenceGRPCClient, unchanged, in an environment of their own."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import numpy as np
import pytest

from tests.clients.environments import ROOT, run_client
from tests.clients.running import Server

pytestmark = pytest.mark.clients

PACKAGES = ("kserve==0.21.0",)


@pytest.fixture(scope="module")
def found(server: Server) -> dict[str, Any]:
    """What the clients saw, for the rows that `rows` gives."""
    with urllib.request.urlopen(f"http://{server.http}/v2/models/iris", timeout=10) as answer:
        name = json.load(answer)["inputs"][0]["name"]
    rows = server.models.rows[48:52].tolist()
    result = run_client("kserve", PACKAGES, "kserve_client.py", server.http, server.grpc, name, json.dumps(rows))
    assert isinstance(result, dict)
    return result


def assert_own(server: Server, answer: dict[str, Any]) -> None:
    rows = server.models.rows[48:52]
    assert answer["model"] == "iris"
    assert answer["id"] == "my-id"
    assert answer["label"] == server.models.iris.predict(rows).tolist()
    np.testing.assert_allclose(answer["probabilities"], server.models.iris.predict_proba(rows), atol=1e-5)


def test_grpc(server: Server, found: dict[str, Any]) -> None:
    over_grpc = found["grpc"]
    assert [over_grpc[key] for key in ("live", "ready", "model_ready", "unknown_ready", "same")] == [
        True, True, True, False, True,
    ]  # fmt: skip
    assert_own(server, over_grpc["binary_true"])
    assert_own(server, over_grpc["binary_false"])
    code, text = over_grpc["unknown"]
    assert code == "NOT_FOUND"
    assert "nobody" in text


def test_rest_v2(server: Server, found: dict[str, Any]) -> None:
    rest = found["rest"]
    assert [rest[key] for key in ("live", "ready", "model_ready")] == [True, True, True]
    assert_own(server, rest["v2_binary_true"])
    assert_own(server, rest["v2_binary_false"])
    status, text = rest["v2_unknown"]
    assert status == 404
    assert "nobody" in text


def test_rest_v1(server: Server, found: dict[str, Any]) -> None:
    rest = found["rest"]
    assert rest["v1_live"] is True
    assert rest["v1_model_ready"] is True
    predictions = rest["v1"]["predictions"]
    rows = server.models.rows[48:52]
    assert [one["label"] for one in predictions] == server.models.iris.predict(rows).tolist()
    np.testing.assert_allclose(
        [one["probabilities"] for one in predictions], server.models.iris.predict_proba(rows), atol=1e-5
    )
    assert rest["v1_wrong"][0] == 400


@pytest.mark.parametrize("order", [("kserve", "turnout"), ("turnout", "kserve")])
def test_kserve_loads_in_the_same_process(order: tuple[str, str]) -> None:
    assert run_client("kserve", PACKAGES, "both_in_one_process.py", str(ROOT / "src"), *order) == "fine"
