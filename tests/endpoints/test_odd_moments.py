"""Changes that are seldom made: a name that becomes something else, what was removed and comes back."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.endpoints.models import write_model
from tests.endpoints.open_loop import OpenLoop
from turnout.core.errors import InvalidInput, LoadFailed, ModelNotFound, NotReady
from turnout.entrypoints.remote import ask_here
from turnout.testing.server import Server, serving

MODEL = "server: {{access_log: 'off'}}\nmodels: [{{name: fraud, artifact: {0}}}]\n"
ENDPOINT = "server: {{access_log: 'off'}}\nendpoints: {{fraud: {{versions: {{v1: {{model: {0}}}}}}}}}\n"
OTHER = "endpoints: {other: {versions: {v1: {model: two.py}}}}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, factor in (("two", 2.0), ("three", 3.0), ("five", 5.0)):
        write_model(tmp_path / f"{name}.py", factor)
    (tmp_path / "bad.py").write_text("raise RuntimeError('no')\n")
    (tmp_path / "turnout.yaml").write_text(MODEL.format("two.py"))
    return tmp_path


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    with serving("--spec", str(folder / "turnout.yaml")) as found:
        yield found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("misfits")
    good = write_model(path / "two.py", 2.0).read_text()
    write_model(path / "three.py", 3.0)
    (path / "other_input.py").write_text(good.replace('"x"', '"y"'))
    (path / "other_output.py").write_text(good.replace('"score"', '"other"'))
    (path / "turnout.yaml").write_text(ENDPOINT.format("two.py"))
    return path


@pytest.fixture(scope="module")
def running(place: Path) -> Iterator[Server]:
    with serving("--spec", str(place / "turnout.yaml")) as found:
        yield found


def test_a_version_that_is_named_answers_whatever_is_cached_of_another(running: Server, place: Path) -> None:
    document = (
        "endpoints: {fraud: {versions: {v1: {model: two.py}, v2: {model: three.py}}, traffic: {v1: 100}, "
        "rules: [{when: {header: {x-cohort: beta}}, to: v2}], cache: {ttl: 600}}}\n"
    )
    apply(running, place, document)
    for headers, version in (({}, "v1"), ({"x-route-to": "v2"}, "v2"), ({"x-cohort": "beta"}, "v2"), ({}, "v1")):
        answer = running.request("POST", "/predict/fraud", {"x": [1.0]}, headers)
        assert (answer.status, answer.headers["x-variant"]) == (200, version)
    assert running.request("POST", "/predict/fraud", {"x": [1.0]}, {"x-route-to": "none"}).status == 404
    ask_here(running.port, {"do": "undo"})


def apply(server: Server, folder: Path, document: str) -> Any:
    return ask_here(server.port, {"do": "apply_document", "document": document, "path": str(folder / "turnout.yaml")})


def factor(server: Server) -> float:
    answer = server.request("POST", "/predict/fraud", {"x": [1.0]})
    assert answer.status == 200, answer.body
    return float(answer.json()["predictions"][0]["score"])


def test_a_name_becomes_an_endpoint_and_a_model_again_and_every_request_is_answered(
    server: Server, folder: Path
) -> None:
    with OpenLoop(server, "fraud", 100.0, units=["a"]) as load:
        with pytest.raises(LoadFailed):
            apply(server, folder, ENDPOINT.format("bad.py"))
        assert factor(server) == 2.0
        apply(server, folder, ENDPOINT.format("three.py"))
        assert factor(server) == 3.0
        apply(server, folder, MODEL.format("five.py"))
        server.wait_until(lambda: factor(server) == 5.0, what="the model")
        ask_here(server.port, {"do": "undo"})
        assert factor(server) == 3.0
        load.wait_for(100)
    assert not [one for one in load.seen if one.status != 200]


def test_an_endpoint_that_was_removed_is_there_as_soon_as_that_is_undone(server: Server, folder: Path) -> None:
    apply(server, folder, ENDPOINT.format("three.py"))
    apply(server, folder, OTHER)
    assert server.request("POST", "/predict/fraud", {"x": [1.0]}).status == 404
    ask_here(server.port, {"do": "undo"})
    assert factor(server) == 3.0


@pytest.mark.parametrize(
    ("version", "more", "words"),
    [
        ("other_input.py", "", r"versions\.v2: .* no input 'y'"),
        ("other_output.py", "", r"versions\.v2: .* no output 'score'"),
        ("three.py", ", fallback: [{default: {skore: 0.0}}]", "no output 'skore'"),
        ("three.py", ", sticky: {column: nope}", "no input column 'nope'"),
        ("three.py", ", rules: [{when: {input: {nope: 1}}, to: v2}]", "no input column 'nope'"),
        ("three.py", ", outputs: {nope: {min: 0}}", r"outputs\.nope"),
    ],
)
def test_what_could_not_answer_is_refused_before_anybody_asks(
    running: Server, place: Path, version: str, more: str, words: str
) -> None:
    document = (
        f"endpoints: {{fraud: {{versions: {{v1: {{model: two.py}}, v2: {{model: {version}}}}}, "
        f"traffic: {{v1: 50, v2: 50}}{more}}}}}\n"
    )
    with pytest.raises(InvalidInput, match=words):
        apply(running, place, document)
    assert factor(running) == 2.0


def kill_the_controller(server: Server) -> None:
    before = server.controller
    os.kill(before, signal.SIGKILL)

    def answers() -> bool:
        try:
            return server.controller not in (0, before) and bool(ask_here(server.port, {"do": "history"})["current"])
        except NotReady:
            return False

    server.wait_until(answers, what="another controller")


def test_a_server_of_models_that_got_endpoints_knows_them_after_its_controller_was_killed(
    server: Server, folder: Path
) -> None:
    """Nor does it lose what was loaded by hand."""
    apply(server, folder, ENDPOINT.format("three.py"))
    ask_here(server.port, {"do": "load", "model": "other", "artifact": str(folder / "five.py")})
    kill_the_controller(server)
    assert ask_here(server.port, {"do": "endpoint", "endpoint": "fraud"})["traffic"] == {"v1": 100.0}
    assert factor(server) == 3.0
    assert server.request("POST", "/predict/other", {"x": [1.0]}).status == 200


def test_a_rollout_goes_on_where_what_was_to_end_it_does_not_load(server: Server, folder: Path) -> None:
    """It is carried on, too, in a server that had no endpoint when it was started."""
    two = (
        "endpoints: {{fraud: {{versions: {{v1: {{model: two.py}}, v2: {{model: {}}}}}, traffic: {{v1: {}, v2: {}}}, "
        "rollout: {{to: v2, steps: [10, 100], min_seconds: 3600}}}}}}\n"
    )

    def rollout(act: str) -> Any:
        return ask_here(server.port, {"do": "rollout", "endpoint": "fraud", "act": act})

    apply(server, folder, two.format("three.py", 100, 0))
    rollout("start")
    server.wait_until(
        lambda: ask_here(server.port, {"do": "endpoint", "endpoint": "fraud"})["traffic"]["v2"] == 10, what="a step"
    )
    with pytest.raises(LoadFailed):
        apply(server, folder, two.format("bad.py", 50, 50))
    assert rollout("status")["phase"] == "canary"
    apply(server, folder, two.format("three.py", 50, 50))
    with pytest.raises(ModelNotFound):
        rollout("status")
    assert ask_here(server.port, {"do": "endpoint", "endpoint": "fraud"})["traffic"] == {"v1": 50.0, "v2": 50.0}


def test_a_router_that_is_started_again_serves_what_is_there_while_another_version_is_not(tmp_path: Path) -> None:
    good = write_model(tmp_path / "v1.py", 2.0).read_text()
    gate = tmp_path / "open"
    gate.touch()
    wait = f"import pathlib, time\nwhile not pathlib.Path({str(gate)!r}).exists():\n    time.sleep(0.05)\n"
    (tmp_path / "v2.py").write_text(wait + good)
    versions = "{v1: {model: v1.py}, v2: {model: v2.py}}"
    (tmp_path / "turnout.yaml").write_text(
        f"endpoints: {{fraud: {{versions: {versions}, traffic: {{v1: 90, v2: 10}}}}}}\n"
    )
    with serving("--spec", str(tmp_path / "turnout.yaml")) as server:
        gate.unlink()
        for process in (*server.workers(), *server.routers()):
            os.kill(process, signal.SIGKILL)

        def answers() -> bool:
            try:
                return server.request("POST", "/predict/fraud", {"x": [1.0]}, {"x-route-to": "v1"}).status == 200
            except OSError:
                return False

        server.wait_until(answers, what="v1")
        gate.touch()
        changed = ask_here(server.port, {"do": "traffic", "endpoint": "fraud", "weights": {"v1": 50, "v2": 50}})
        assert changed["revision"] == 2
        assert "Traceback" not in server.log
