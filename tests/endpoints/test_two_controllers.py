"""Two servers on one PostgreSQL: what is changed at one is in force at both, and one of them carries rollouts on."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.endpoints.models import write_faulty, write_model
from tests.endpoints.open_loop import OpenLoop
from tests.store.postgres import Postgres, installed
from turnout.core.errors import Conflict, Failure
from turnout.entrypoints.remote import ask_here
from turnout.testing.server import Server, serving

SPEC = """\
server: {{access_log: "off", store: "{store}"}}
endpoints:
  fraud:
    versions:
      v1: {{model: v1.py}}
      v2: {{model: v2.py}}
    traffic: {{v1: 100}}
    fallback: [v1]
    rollout: {{to: v2, steps: [50, 100], min_seconds: 60}}
"""


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    if installed() is None:
        pytest.skip("there is no PostgreSQL wheel for this system")
    server = Postgres("fsync=off")
    yield server
    server.close()


def ask(server: Server, do: str, **said: Any) -> Any:
    return ask_here(server.port, {"do": do, "author": "test", **said})


def wait_for(act: Any, patience: float = 15.0) -> None:
    until = time.monotonic() + patience
    while not act():
        assert time.monotonic() < until, "it did not come to that"
        time.sleep(0.02)


@pytest.mark.slow
def test_what_is_changed_at_one_is_in_force_at_both(tmp_path: Path, postgres: Postgres) -> None:
    write_model(tmp_path / "v1.py", 2.0)
    trigger = write_faulty(tmp_path / "v2.py", 3.0, "raise")
    path = tmp_path / "turnout.yaml"
    path.write_text(SPEC.format(store=postgres.new_database()))

    def value(server: Server) -> float:
        answer = server.request("POST", "/predict/fraud", {"x": [1.0]})
        assert answer.status == 200
        return float(answer.json()["predictions"][0]["score"])

    with serving("--spec", str(path)) as one, serving("--spec", str(path)) as two:
        assert ask(one, "history")["current"] == ask(two, "history")["current"] == 1
        ask(one, "traffic", endpoint="fraud", weights={"v1": 0, "v2": 100})
        wait_for(lambda: value(two) == 3.0)
        ask(two, "undo")
        wait_for(lambda: value(one) == 2.0)

        found: list[object] = []

        def change(server: Server, weights: dict[str, float]) -> None:
            try:
                found.append(ask(server, "traffic", endpoint="fraud", weights=weights, base=1)["revision"])
            except Failure as failure:
                found.append(failure)

        both = [
            threading.Thread(target=change, args=(server, {"v1": share, "v2": 100 - share}))
            for server, share in ((one, 30), (two, 60))
        ]
        for thread in both:
            thread.start()
        for thread in both:
            thread.join()
        refused = [one for one in found if isinstance(one, Failure)]
        assert len(refused) == 1, found
        assert isinstance(refused[0], Conflict)
        assert "test" in str(refused[0]) or "revision" in str(refused[0])
        wait_for(lambda: ask(one, "history")["current"] == ask(two, "history")["current"] > 1)
        ask(one, "undo")
        wait_for(lambda: ask(two, "history")["current"] == 1)

        leader = lead(one, two)
        other = two if leader is one else one
        with OpenLoop(one, "fraud", 60.0) as here, OpenLoop(two, "fraud", 60.0) as there:
            wait_for(lambda: ask(leader, "rollout", endpoint="fraud", act="status")["phase"] == "canary")
            here.wait_for(100)
            trigger.touch()
            wait_for(lambda: ask(leader, "rollout", endpoint="fraud", act="status")["phase"] == "rolled_back", 30.0)
            wait_for(lambda: ask(other, "rollout", endpoint="fraud", act="status")["phase"] == "rolled_back")
            wait_for(lambda: ask(other, "history")["current"] == ask(leader, "history")["current"])
        assert all(seen.status == 200 for seen in (*here.seen, *there.seen))
        leader.process.kill()
        trigger.unlink()
        wait_for(lambda: _starts(other))


def lead(one: Server, two: Server) -> Server:
    """Which of the two takes the word to start a rollout: the other one refuses."""
    until = time.monotonic() + 20.0
    while True:
        for server in (one, two):
            if _starts(server):
                return server
        assert time.monotonic() < until, "nobody leads"
        time.sleep(0.1)


def _starts(server: Server) -> bool:
    try:
        ask(server, "rollout", endpoint="fraud", act="start")
    except Failure:
        return False
    return True
