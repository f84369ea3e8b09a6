"""A new version gets its share, and what it does there decides: nobody sees that it was bad."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.endpoints.models import write_faulty, write_model
from tests.endpoints.open_loop import OpenLoop
from turnout.entrypoints.remote import ask_here
from turnout.testing.server import Server, serving

SPEC = """\
server: {{access_log: "off"}}
endpoints:
  fraud:
    versions:
      v1: {{model: v1.py, replicas: 2}}
      v2: {{model: v2.py, replicas: 2}}
    traffic: {{v1: 100}}
    outputs: {{finite: true}}
    fallback: [v1]
    rollout: {rollout}
"""


def write(folder: Path, rollout: dict[str, Any]) -> Path:
    path = folder / "turnout.yaml"
    path.write_text(SPEC.format(rollout=json.dumps(rollout)))
    return path


def phase(server: Server) -> str:
    return str(ask_here(server.port, {"do": "rollout", "endpoint": "fraud", "act": "status"})["phase"])


def wait_for(server: Server, wanted: str, patience: float) -> float:
    """Seconds until the rollout is in a phase."""
    began = time.monotonic()
    while phase(server) != wanted:
        assert time.monotonic() - began < patience, ask_here(
            server.port, {"do": "rollout", "endpoint": "fraud", "act": "status"}
        )["text"]
        time.sleep(0.02)
    return time.monotonic() - began


def start(server: Server, **said: Any) -> None:
    ask_here(server.port, {"do": "rollout", "endpoint": "fraud", "act": "start", "author": "test", **said})


def test_a_canary_that_fails_is_out_before_anybody_sees_it(tmp_path: Path) -> None:
    write_model(tmp_path / "v1.py", 2.0)
    trigger = write_faulty(tmp_path / "v2.py", 3.0, "raise")
    rollout = {"to": "v2", "steps": [5, 100], "min_seconds": 60, "min_samples": 200}
    with serving("--spec", str(write(tmp_path, rollout))) as server, OpenLoop(server, "fraud", 200.0) as load:
        load.wait_for(100)
        start(server)
        wait_for(server, "canary", 10.0)
        load.wait_for(len(load.seen) + 200)
        assert any(one.served_by == "fraud@v2" for one in load.seen)
        trigger.touch()
        took = wait_for(server, "rolled_back", 20.0)
        said = ask_here(server.port, {"do": "rollout", "endpoint": "fraud", "act": "status"})
        time.sleep(0.1)
        settled = time.monotonic()
        load.wait_for(len(load.seen) + 100)
        history = ask_here(server.port, {"do": "history"})["revisions"]
    bad = [one for one in load.seen if one.degraded]
    print(f"rolled back {took:.2f} s and {len(bad)} bad answers after it began to fail: {said['words']}")
    assert all(one.status == 200 for one in load.seen), "nobody sees an error"
    assert all(one.served_by == "fraud@v1" for one in bad)
    assert len(bad) <= 20
    assert not [one for one in load.seen if one.sent > settled and one.variant == "v2"]
    assert "errors" in said["words"]
    assert history[0]["author"] == "rollout"


_SLOW = """
import time

import numpy as np

example = {{"x": np.array([1.0])}}
random = np.random.default_rng({seed})


def predict(inputs):
    time.sleep({seconds} * np.exp(0.25 * random.standard_normal()))
    return {{"score": inputs["x"]}}
"""


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_canary_that_takes_half_more_time_is_out_within_30_seconds(tmp_path: Path) -> None:
    """At 50 requests a second and a share of 5 %: with 75 answers of it in that time."""
    for seed, (name, seconds) in enumerate({"v1": 0.010, "v2": 0.015}.items()):
        (tmp_path / f"{name}.py").write_text(_SLOW.format(seed=seed, seconds=seconds))
    rollout = {"to": "v2", "steps": [5, 100], "min_seconds": 120, "min_samples": 200}
    with serving("--spec", str(write(tmp_path, rollout))) as server, OpenLoop(server, "fraud", 50.0) as load:
        load.wait_for(100)
        start(server)
        wait_for(server, "canary", 10.0)
        assert ask_here(server.port, {"do": "endpoint", "endpoint": "fraud"})["rollout"] == {
            "to": "v2", "from": "v1", "phase": "canary", "weight": 5.0,
        }  # fmt: skip
        took = wait_for(server, "rolled_back", 60.0)
        said = ask_here(server.port, {"do": "rollout", "endpoint": "fraud", "act": "status"})["words"]
    print(f"rolled back after {took:.1f} s: {said}")
    assert "latency" in said
    assert took <= 30.0


@pytest.mark.slow
def test_two_equal_versions_change_places_by_evidence(tmp_path: Path) -> None:
    """An A/A rollout with short steps: every step waits for its samples, and in the end all traffic has moved."""
    write_model(tmp_path / "v1.py", 2.0)
    write_model(tmp_path / "v2.py", 2.0)
    rollout = {"to": "v2", "steps": [20, 50, 100], "min_seconds": 1, "min_samples": 50, "interval": 0.5}
    rollout["guard"] = {"latency": "off"}  # two processes on two cores are not alike enough to be told apart in seconds
    with serving("--spec", str(write(tmp_path, rollout))) as server, OpenLoop(server, "fraud", 200.0) as load:
        load.wait_for(100)
        start(server)
        took = wait_for(server, "stable", 60.0)
        load.wait_for(len(load.seen) + 100)
        weights = [one["weight"] for one in ask_here(
            server.port, {"do": "rollout", "endpoint": "fraud", "act": "status"}
        )["moves"]]  # fmt: skip
    print(f"promoted after {took:.1f} s, weights {weights}")
    assert all(one.status == 200 and not one.degraded for one in load.seen)
    assert load.seen[-1].variant == "v2"
    assert weights == sorted(weights)


@pytest.mark.slow
def test_without_requests_nothing_is_promoted_and_a_killed_controller_changes_nothing(tmp_path: Path) -> None:
    write_model(tmp_path / "v1.py", 2.0)
    write_model(tmp_path / "v2.py", 2.0)
    rollout = {"to": "v2", "steps": [50, 100], "min_seconds": 0, "min_samples": 10, "interval": 0.2}
    with serving("--spec", str(write(tmp_path, rollout))) as server:
        start(server)
        wait_for(server, "canary", 10.0)
        time.sleep(2.0)
        assert phase(server) == "canary", "no data: hold"
        revision = ask_here(server.port, {"do": "history"})["current"]
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
        controller = next(pid for pid in children if "serve" in Path(f"/proc/{pid}/cmdline").read_text())
        os.kill(int(controller), signal.SIGKILL)
        until = time.monotonic() + 20.0
        while True:
            try:
                found = phase(server)
                break
            except Exception:  # the next controller is on its way
                assert time.monotonic() < until
                time.sleep(0.05)
        assert found == "canary"
        assert ask_here(server.port, {"do": "history"})["current"] == revision
        assert server.request("POST", "/predict/fraud", {"x": [1.0]}).json()["predictions"] == [{"score": 2.0}]
