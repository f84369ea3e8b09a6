"""Every answer through the HTTP door says who gave it, and nothing that a name holds can break a head."""

from __future__ import annotations

import re

import pytest
from running import Reply, Running, get, post

from turnout.core.errors import Code
from turnout.graph.endpoint import parse_prediction_id
from turnout.protocols.http import HttpRequest

SAID = ("x-served-by", "x-variant", "x-revision", "x-degraded")


def said(reply: Reply) -> list[str | None]:
    return [reply.headers.get(name) for name in SAID]


def test_an_answer_says_who_gave_it(running: Running) -> None:
    reply = running.ask(post("/predict/guided", {"x": [1]}))
    assert (reply.status, reply.json) == (200, {"y": [2.0]})
    assert said(reply) == ["guided@1", "1", "4", None]
    found = parse_prediction_id(reply.headers["x-prediction-id"])
    assert (found.revision, found.variant) == (4, 0)
    (record,) = running.observer.records
    assert (record.version, record.variant, record.degraded) == ("1", "1", "")
    assert record.prediction_id == reply.headers["x-prediction-id"]


def test_ids_differ_on_one_connection(running: Running) -> None:
    with running.connect() as client:
        client.send(post("/predict/guided", {}) * 20)
        assert len({client.reply().headers["x-prediction-id"] for _ in range(20)}) == 20


def test_a_degraded_answer_says_why(running: Running) -> None:
    reply = running.ask(post("/predict/guided", {"degraded": "timeout"}))
    assert (reply.status, said(reply)) == (200, ["guided@1", "2", "4", "timeout"])
    (record,) = running.observer.records
    assert (record.version, record.variant, record.degraded) == ("1", "2", "timeout")


def test_a_failure_says_whose_it_is(running: Running) -> None:
    reply = running.ask(post("/predict/guided", {"fails": True}))
    assert (reply.status, said(reply)) == (503, ["guided@1", "1", "4", None])
    assert reply.headers["retry-after"] == "1"
    assert parse_prediction_id(reply.headers["x-prediction-id"]).variant == 0
    (record,) = running.observer.records
    assert (record.code, record.version, record.variant) == (Code.UNAVAILABLE, "1", "1")


def test_fields_stand_beside_others(running: Running) -> None:
    kept = running.ask(post("/predict/guided", {}, version="1.0"))  # the long way: a Connection field
    assert said(kept) == ["guided@1", "1", "4", None]
    large = running.ask(post("/predict/guided", {"x": [0.5] * 5000}, headers={"Accept-Encoding": "gzip"}))
    assert (large.headers["content-encoding"], said(large)) == ("gzip", ["guided@1", "1", "4", None])


def test_without_an_endpoint_nothing_is_said(running: Running) -> None:
    for request in (post("/predict/double", {}), get("/"), post("/predict/nothing", {})):
        reply = running.ask(request)
        assert said(reply) == [None] * 4
        assert "x-prediction-id" not in reply.headers


def test_a_name_cannot_break_the_head(running: Running) -> None:
    reply = running.ask(post("/predict/strange", {}))
    assert reply.headers["x-served-by"] == "str%C3%A4nge%0D%0AX-Evil:%201@1"
    assert "x-evil" not in reply.headers
    degraded = running.ask(post("/predict/guided", {"degraded": "a\r\nX-Evil: b\u00e9%"}))
    assert degraded.headers["x-degraded"] == "a%0D%0AX-Evil:%20b%C3%A9%25"
    assert "x-evil" not in degraded.headers


def test_the_door_watches_the_endpoints_deadline(running: Running) -> None:
    reply = running.ask(post("/predict/quick", {"key": "never"}, headers={"X-Request-Deadline-Ms": "20000"}))
    assert (reply.status, said(reply)) == (504, ["quick@1", "1", "0", None])
    assert running.serving.held.cancelled[-1] == "never"


@pytest.mark.parametrize(
    ("path", "headers", "told"),
    [
        ("?explain", {}, True),
        ("?explain=true", {}, True),
        ("?a=b&explain=1", {}, True),
        ("?explain=0", {}, False),
        ("?explained", {}, False),
        ("", {"X-Explain": "true"}, True),
        ("?explain", {"X-Explain": "false"}, False),
        ("", {}, False),
    ],
)
def test_steps_are_told_to_who_asks(running: Running, path: str, headers: dict[str, str], told: bool) -> None:
    reply = running.ask(post(f"/predict/guided{path}", {"fails": True}, headers=headers))
    assert reply.status == 503
    assert ("explain" in reply.json) == told
    if told:
        told_of = reply.json["explain"]
        assert [(step["node"], step["outcome"]) for step in told_of["steps"]] == [("endpoint", "QueueFull")]
        assert told_of["prediction_id"] == reply.headers["x-prediction-id"]
        assert (told_of["served_by"], told_of["variant"], told_of["revision"]) == ("guided@1", "1", 4)


@pytest.mark.parametrize(("path", "headers"), [("?explain=maybe", {}), ("", {"X-Explain": "please"})])
def test_neither_yes_nor_no_is_refused(running: Running, path: str, headers: dict[str, str]) -> None:
    reply = running.ask(post(f"/predict/guided{path}", {}, headers=headers))
    assert reply.status == 400
    assert re.search(r"explain: neither yes nor no; expected true or false; got (maybe|please)", reply.json["failure"])


def http(query: str = "", **headers: str) -> HttpRequest:
    return HttpRequest("POST", "/", query, headers, b"")


@pytest.mark.parametrize(
    ("sent", "value"),
    [
        ("a=1", "1"),
        ("b=2; a=1; a=3", "1"),
        ('a="1"', "1"),
        ('a="', '"'),
        ("a=", ""),
        ("a = 1 ;b=2", "1"),
        ("a=x=y", "x=y"),
        (";;;a=1", "1"),
        ("aa=1; b=a", None),
        ("a", None),
        ("", None),
        ("A=1", None),
        ("a=%20\xff", "%20\xff"),
    ],
)
def test_a_cookie_is_read_as_it_was_sent(sent: str, value: str | None) -> None:
    assert http(cookie=sent).cookie("a") == value


def test_what_nodes_can_know_of_a_request() -> None:
    request = http("a=1&a=2&b=%C3%A9+x&c=&%61d=5&bad=%ff", host="x")
    found = {name: request.argument(name) for name in ("a", "b", "c", "ad", "bad", "none")}
    assert found == {"a": "1", "b": "\u00e9 x", "c": "", "ad": "5", "bad": "\ufffd", "none": None}
    assert (request.header("host"), request.header("x-none")) == ("x", None)
    assert (http().argument("a"), http().cookie("a")) == (None, None)
