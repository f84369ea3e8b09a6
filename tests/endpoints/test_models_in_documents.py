"""Models by themselves in a document: loaded before they are used, and refused where they do not load."""

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

SPEC = """\
server: {access_log: "off"}
models:
  - {name: fraud, artifact: v1.py}
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    write_model(tmp_path / "v1.py", 2.0)
    write_model(tmp_path / "v2.py", 3.0)
    (tmp_path / "bad.py").write_text("raise ValueError('broken')\n")
    (tmp_path / "turnout.yaml").write_text(SPEC)
    with serving("--spec", str(tmp_path / "turnout.yaml")) as found:
        yield found


def apply(server: Server, folder: Path, document: str) -> Any:
    return ask_here(server.port, {"do": "apply_document", "document": document, "path": str(folder / "turnout.yaml")})


def factor(server: Server, name: str = "fraud") -> float:
    answer = server.request("POST", f"/predict/{name}", {"x": [1.0]})
    assert answer.status == 200, answer.body
    return float(answer.json()["predictions"][0]["score"])


def workers(server: Server) -> int:
    (model,) = ask_here(server.port, {"do": "status"})["models"]
    return sum(worker["state"] == "READY" for version in model["versions"] for worker in version["workers"])


def test_a_model_is_replaced_when_its_successor_is_there(server: Server, tmp_path: Path) -> None:
    with OpenLoop(server, "fraud", 100.0) as load:
        load.wait_for(50)
        apply(server, tmp_path, SPEC.replace("v1.py", "v2.py"))
        acknowledged = load.seen[-1].number
        load.wait_for(acknowledged + 100)
        ask_here(server.port, {"do": "undo"})
        assert factor(server) == 2.0
    assert all(one.status == 200 for one in load.seen)
    assert {one.value / one.number for one in load.seen} == {2.0, 3.0}


def test_one_that_does_not_load_leaves_everything_as_it_is(server: Server, tmp_path: Path) -> None:
    before = ask_here(server.port, {"do": "history"})["current"]
    with pytest.raises(LoadFailed, match=r"models\.fraud"):
        apply(server, tmp_path, SPEC.replace("v1.py", "bad.py"))
    with pytest.raises(LoadFailed, match=r"models\.other"):
        apply(server, tmp_path, f"{SPEC}  - {{name: other, artifact: bad.py}}\n")
    assert factor(server) == 2.0
    assert ask_here(server.port, {"do": "history"})["current"] == before
    assert server.is_ready()
    apply(server, tmp_path, f"{SPEC}  - {{name: other, artifact: v2.py}}\n")
    assert (factor(server), factor(server, "other")) == (2.0, 3.0)


def test_how_a_model_runs_is_changed_too(server: Server, tmp_path: Path) -> None:
    assert workers(server) == 1
    apply(server, tmp_path, SPEC.replace("v1.py}", "v1.py, replicas: 3}"))
    server.wait_until(lambda: workers(server) == 3, what="three workers")
    assert factor(server) == 2.0
