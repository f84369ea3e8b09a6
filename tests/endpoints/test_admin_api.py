"""The admin API over REST, as a script uses it: with the token all that the command line does, without it nothing."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.endpoints.models import write_model
from turnout.deploy.home import home, socket_path
from turnout.entrypoints.admin import ACTS
from turnout.entrypoints.remote import ask_here
from turnout.testing.server import Answer, Server, serving

SPEC = """\
server: {access_log: "off"}
endpoints:
  fraud:
    versions: {v1: {model: v1.py}, v2: {model: v2.py}}
    traffic: {v1: 90, v2: 10}
    sticky: {header: x-account-id}
    shadow: {v2: 100}
    rollout: {to: v2, judge: {metric: conversion}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("admin")
    write_model(path / "v1.py", 2.0)
    write_model(path / "v2.py", 3.0)
    (path / "turnout.yaml").write_text(SPEC)
    return path


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with serving("--spec", str(folder / "turnout.yaml")) as found:
        yield found


def token(server: Server) -> str:
    return str(ask_here(server.port, {"do": "token"})["token"])


def call(server: Server, method: str, path: str, body: Any = None, **headers: str) -> Answer:
    return server.request(method, f"/admin/v1{path}", body, {"authorization": f"Bearer {token(server)}", **headers})


def good(answer: Answer) -> Any:
    assert answer.status == 200, answer.body
    return answer.json()


def test_without_the_token_nothing_is_said_and_nothing_done(server: Server) -> None:
    assert len(token(server)) > 40
    path = home() / "run" / f"{server.port}.token"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for act in ACTS:
        place = act.path.replace("{name}", "fraud")
        body = None if act.method == "GET" else {}
        wrong: Mapping[str, str]
        for wrong in ({}, {"authorization": "Bearer wrong"}, {"authorization": token(server)}):
            answer = server.request(act.method, place, body, wrong)
            assert answer.status == 401, (act.path, wrong, answer.body)
            assert token(server).encode() not in answer.body


def test_it_describes_itself(server: Server) -> None:
    document = server.request("GET", "/admin/v1/openapi.json").json()
    described = {(path, method.upper()) for path, acts in document["paths"].items() for method in acts}
    assert described == {(act.path, act.method) for act in ACTS}


def test_what_is_served_is_changed_and_changed_back(server: Server, folder: Path) -> None:
    before = good(call(server, "GET", "/history"))["current"]
    plan = good(call(server, "POST", "/plan", {"document": SPEC.replace("90, v2: 10", "50, v2: 50")}))
    assert plan["changed"]
    assert good(call(server, "GET", "/history"))["current"] == before, "a plan changes nothing"
    moved = good(call(server, "POST", "/endpoints/fraud/traffic", {"weights": {"v1": 40, "v2": 60}, "reason": "a try"}))
    assert moved["revision"] > before
    assert good(call(server, "GET", "/endpoints/fraud"))["traffic"] == {"v1": 40.0, "v2": 60.0}
    conflict = call(server, "POST", "/endpoints/fraud/traffic", {"weights": {"v1": 1, "v2": 99}, "base": before})
    assert conflict.status in (400, 409), conflict.body
    newest = good(call(server, "GET", "/history?limit=1"))["revisions"][0]
    assert (newest["author"], newest["reason"]) == ("api", "a try")
    assert good(call(server, "POST", "/undo", {}))["revision"] == before

    def told() -> bool:
        events = good(call(server, "GET", "/events?after=0&wait=0"))["events"]
        return {"revision", "undo"} <= {event["kind"] for event in events}

    server.wait_until(told, what="both events")  # they are written down a moment after what they tell of


def test_a_request_is_explained(server: Server) -> None:
    said = {"request": {"headers": {"X-Account-Id": "a-7"}}}
    found = good(call(server, "POST", "/endpoints/fraud/explain", said))
    assert found["version"] in ("v1", "v2")
    assert "bucket" in found["why"]
    answer = server.request("POST", "/predict/fraud", {"x": [1.0]}, {"x-account-id": "a-7"})
    assert answer.headers["x-variant"] == found["version"]


def test_values_count_once_and_only_for_what_is_known(server: Server) -> None:
    answer = server.request("POST", "/predict/fraud", {"x": [1.0]})
    one = {"prediction_id": answer.headers["x-prediction-id"], "value": 1}
    taken = [good(call(server, "POST", "/endpoints/fraud/metrics", {"metric": "conversion", "values": [one]}))
             for _ in range(2)]  # fmt: skip
    assert [found["taken"] for found in taken] == [1, 0]
    for values in ([{"variant": "v9", "value": 1}], [{"prediction_id": "x", "value": 1}], [{"variant": "v1"}], []):
        refused = call(server, "POST", "/endpoints/fraud/metrics", {"metric": "conversion", "values": values})
        assert 400 <= refused.status < 500, refused.body


def test_a_shadow_is_reported_as_json_and_as_a_page(server: Server) -> None:
    for number in range(40):
        assert server.request("POST", "/predict/fraud", {"x": [float(number)]}).status == 200

    def reported() -> bool:
        return bool(good(call(server, "GET", "/endpoints/fraud/shadow-report"))["reports"])

    server.wait_until(reported, what="pairs")
    page = call(server, "GET", "/endpoints/fraud/shadow-report.html")
    assert page.headers["content-type"].startswith("text/html")
    assert b"<h1>" in page.body


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/apply", b"{", 400),
        ("POST", "/apply", {"document": "endpoints: {fraud: {versions: {}}}"}, 400),
        ("POST", "/apply", {"documents": "x"}, 400),
        ("POST", "/apply", {}, 400),
        ("POST", "/endpoints/nothing/traffic", {"weights": {"v1": 100}}, 404),
        ("POST", "/endpoints/fraud/traffic", {"weights": {"v1": 90, "v2": 20}}, 400),
        ("POST", "/endpoints/fraud/traffic", {"weights": {"v9": 100}}, 400),
        ("POST", "/endpoints/fraud/traffic", {"weights": "all"}, 400),
        ("POST", "/endpoints/fraud/traffic", {"weights": None}, 400),
        ("POST", "/endpoints/fraud/traffic", {}, 400),
        ("POST", "/apply", {"document": SPEC, "base": True}, 400),
        ("POST", "/apply", {"document": "# \ud800"}, 400),
        ("POST", "/endpoints/fraud/metrics", {"metric": "m", "values": [{"variant": "v1", "value": 10**400}]}, 400),
        ("POST", "/endpoints/fraud/metrics", {"metric": ["m"], "values": [{"variant": "v1", "value": 1}]}, 400),
        ("POST", "/endpoints/fraud/explain", {"request": []}, 400),
        ("POST", "/endpoints/fraud/rollout", {"act": "fly"}, 400),
        ("POST", "/endpoints/fraud/rollout", {"act": "pause"}, 404),
        ("GET", "/history?limit=x", None, 400),
        ("GET", "/events?after=x", None, 400),
    ],
)
def test_what_is_wrong_is_the_callers_and_changes_nothing(
    server: Server, method: str, path: str, body: Any, status: int
) -> None:
    before = good(call(server, "GET", "/history"))["current"]
    answer = call(server, method, path, body)
    assert answer.status == status, answer.body
    assert answer.json()["error"]
    assert good(call(server, "GET", "/history"))["current"] == before


def test_a_report_is_taken_whole_or_not_at_all(server: Server) -> None:
    def report(*values: object) -> Answer:
        said = {"metric": "whole", "values": [{"variant": "v1", "value": value} for value in values]}
        return call(server, "POST", "/endpoints/fraud/metrics", said)

    refused = [{"variant": "v1", "value": 1}, {"prediction_id": "R1-0-5f1b8c0e9d7a4b3c2d1e0f9a", "value": "x"}]
    assert call(server, "POST", "/endpoints/fraud/metrics", {"metric": "whole", "values": refused}).status == 400
    assert report(1, 2, "x").status == 400
    assert good(report(1, 2))["taken"] == 2


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ({"do": "admin", "token": "\ud800", "question": {}}, "InvalidInput"),
        ({"do": "admin", "token": "é", "question": {}}, "Unauthenticated"),
        ({"do": ["admin"]}, "InvalidInput"),
        ({"do": "plan", "document": "#" * (9 << 20)}, "InvalidInput"),
    ],
)
def test_what_is_no_question_is_answered_all_the_same(server: Server, said: dict[str, Any], kind: str) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(30.0)
        sock.connect(str(socket_path(server.port)))
        sock.sendall(json.dumps(said).encode() + b"\n")
        sock.shutdown(socket.SHUT_WR)
        assert json.loads(sock.makefile("rb").readline())["failed"] == kind
    assert "Traceback" not in server.log


def test_the_command_line_reaches_it_from_anywhere_with_the_token(server: Server, folder: Path) -> None:
    def turnout(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "turnout.entrypoints.cli", *words, "--url", f"http://127.0.0.1:{server.port}"]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **environment}
        )

    found = turnout("history", "--output", "json", TURNOUT_TOKEN=token(server))
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["current"] >= 1
    refused = turnout("undo", TURNOUT_TOKEN="wrong")
    assert (refused.returncode, "token" in refused.stderr) == (1, True)
    plan = turnout("plan", str(folder / "turnout.yaml"), "--exit-code", TURNOUT_TOKEN=token(server))
    assert plan.returncode in (0, 3), plan.stderr
