"""Changes that are seldom made: a name that becomes something else, what was removed and comes back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.endpoints.models import write_model
from tests.endpoints.open_loop import OpenLoop
from turnout.core.errors import LoadFailed
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
