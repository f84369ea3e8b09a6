"""The replicas of a loaded version become more and fewer while requests come in: none fails, and none is lost."""

from __future__ import annotations

import json
import math
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.endpoints.models import write_model
from tests.endpoints.open_loop import OpenLoop
from turnout.core.errors import Failure, InvalidInput
from turnout.entrypoints.remote import ask_here
from turnout.testing.server import Server, serving

SPEC = """\
server: {{access_log: "off", routers: {routers}}}
endpoints:
  fraud:
    versions:
      v1: {{model: v1.py, replicas: {replicas}}}
      v2: {{model: v2.py, replicas: {replicas}}}
    traffic: {{v1: 100}}
    rollout: {rollout}
"""


def write(folder: Path, replicas: int, routers: int = 1, **rollout: Any) -> Path:
    write_model(folder / "v1.py", 2.0)
    write_model(folder / "v2.py", 2.0)
    path = folder / "turnout.yaml"
    said = json.dumps({"to": "v2", **rollout})
    path.write_text(SPEC.format(replicas=replicas, routers=routers, rollout=said))
    return path


def ask(server: Server, do: str, **said: Any) -> Any:
    return ask_here(server.port, {"do": do, "author": "test", **said})


def replicas(server: Server, version: str) -> int:
    """How many of its workers are ready."""
    models = ask(server, "status")["models"]
    found = [one for model in models for one in model["versions"] if one["version"] == version]
    return sum(worker["state"] == "READY" for one in found for worker in one["workers"])


def wait_until(act: Any, patience: float = 30.0) -> None:
    until = time.monotonic() + patience
    while not act():
        assert time.monotonic() < until, "it did not come to that"
        time.sleep(0.02)


SLOW = """
import time

import numpy as np

example = {"x": np.array([1.0])}


def predict(inputs):
    time.sleep(0.02)
    return {"score": inputs["x"] * 2.0}
"""


@pytest.mark.slow
def test_nothing_is_lost_while_replicas_come_and_go(tmp_path: Path) -> None:
    """Each replica always has something inside, also at the moment in which it is to go."""
    path = write(tmp_path, replicas=1, routers=2)
    (tmp_path / "v1.py").write_text(SLOW)
    with serving("--spec", str(path)) as server, OpenLoop(server, "fraud", 200.0) as load:
        load.wait_for(100)
        for count in (3, 1, 2, 1, 3, 1):
            answer = ask(server, "scale", endpoint="fraud", version="v1", replicas=count)
            assert answer["replicas"] == count
            assert replicas(server, "v1") == count
            load.wait_for(len(load.seen) + 60)
        load.wait_for(1000)
        events = ask(server, "events", after=0, wait=0)["events"]
    numbers = [one.number for one in load.seen]
    assert len(numbers) == len(set(numbers)) == max(numbers), "a request was lost"
    failed = [one for one in load.seen if one.status != 200]
    assert not failed, f"{len(failed)} of {len(load.seen)} failed: {failed[0]}"
    assert all(math.isclose(one.value, one.number * 2.0) for one in load.seen)
    assert [one["kind"] for one in events].count("scale") == 6


def test_a_count_that_is_not_possible_is_refused(tmp_path: Path) -> None:
    with serving("--spec", str(write(tmp_path, replicas=1))) as server:
        for said in (
            {"version": "v1", "replicas": 0},
            {"version": "v1", "replicas": True},
            {"version": "v9", "replicas": 2},
            {"version": "", "replicas": 2},
        ):
            with pytest.raises(InvalidInput):
                ask(server, "scale", endpoint="fraud", **said)
        with pytest.raises(Failure):
            ask(server, "scale", endpoint="nothing", version="v1", replicas=2)
        assert replicas(server, "v1") == 1


def test_a_count_outlives_the_controller_that_was_told_it(tmp_path: Path) -> None:
    with serving("--spec", str(write(tmp_path, replicas=2))) as server, OpenLoop(server, "fraud", 100.0) as load:
        for count in (3, 1):
            ask(server, "scale", endpoint="fraud", version="v1", replicas=count)
            before = server.controller
            os.kill(before, signal.SIGKILL)
            server.wait_until(lambda: server.controller not in (0, before), 20.0, "another controller")  # noqa: B023  waited for here
            wait_until(lambda: _status(server) is not None)
            wait_until(lambda: replicas(server, "v1") == count)  # noqa: B023  as above
            load.wait_for(len(load.seen) + 50)
            assert replicas(server, "v1") == count
    assert load.seen
    assert all(one.status == 200 for one in load.seen)


def test_a_controller_that_dies_while_replicas_leave_loses_nothing(tmp_path: Path) -> None:
    with serving("--spec", str(write(tmp_path, replicas=3))) as server, OpenLoop(server, "fraud", 200.0) as load:
        load.wait_for(50)
        telling = threading.Thread(target=_try_scale, args=(server, 1))
        telling.start()
        time.sleep(0.01)
        before = server.controller
        os.kill(before, signal.SIGKILL)
        telling.join(30.0)
        server.wait_until(lambda: server.controller not in (0, before), 20.0, "another controller")
        wait_until(lambda: _status(server) is not None)
        wait_until(lambda: replicas(server, "v1") in {1, 3})
        load.wait_for(len(load.seen) + 100)
    assert all(one.status == 200 for one in load.seen)


@pytest.mark.slow
def test_the_canary_grows_before_its_weight_does(tmp_path: Path) -> None:
    rollout = {"steps": [10, 50, 100], "min_seconds": 0.5, "min_samples": 20, "interval": 0.5}
    path = write(tmp_path, replicas=3, **rollout, guard={"latency": "off"})
    short: list[tuple[float, int]] = []
    with serving("--spec", str(path)) as server, OpenLoop(server, "fraud", 100.0) as load:
        assert replicas(server, "v2") == 3
        ask(server, "rollout", endpoint="fraud", act="start")
        until = time.monotonic() + 90.0
        while ask(server, "rollout", endpoint="fraud", act="status")["phase"] != "stable":
            assert time.monotonic() < until, ask(server, "rollout", endpoint="fraud", act="status")["text"]
            weight = ask(server, "endpoint", endpoint="fraud")["traffic"].get("v2", 0.0)
            ready = replicas(server, "v2")
            needed = math.ceil(3 * weight / 100) if weight else 0
            if ready < needed:
                short.append((weight, ready))
            if 0.0 < weight < 100.0:
                assert replicas(server, "v1") == 3, "the way back is whole while it may be needed"
            time.sleep(0.02)
        wait_until(lambda: (replicas(server, "v1"), replicas(server, "v2")) == (1, 3))
        events = [one["text"] for one in ask(server, "events", after=0, wait=0)["events"] if one["kind"] == "scale"]
        ask(server, "traffic", endpoint="fraud", weights={"v1": 100, "v2": 0})  # by hand: each has all of its own again
        wait_until(lambda: (replicas(server, "v1"), replicas(server, "v2")) == (3, 3))
    assert not short, f"a weight was in force without its replicas: {short}"
    assert all(one.status == 200 for one in load.seen)
    assert [text.partition(" replicas")[0] for text in events][:3] == ["fraud@v2: 1", "fraud@v2: 2", "fraud@v2: 3"]


def test_what_a_person_has_said_is_not_followed_away(tmp_path: Path) -> None:
    with serving("--spec", str(write(tmp_path, replicas=2, steps=[10, 100]))) as server:
        ask(server, "scale", endpoint="fraud", version="v2", replicas=2)
        ask(server, "rollout", endpoint="fraud", act="start")
        wait_until(lambda: ask(server, "endpoint", endpoint="fraud")["traffic"]["v2"] == 10.0)
        assert replicas(server, "v2") == 2
        ask(server, "scale", endpoint="fraud", version="v2")
        wait_until(lambda: replicas(server, "v2") == 1)


def test_replicas_that_shall_not_follow_stay(tmp_path: Path) -> None:
    with serving("--spec", str(write(tmp_path, replicas=2, steps=[10, 100], replicas_follow=False))) as server:
        ask(server, "rollout", endpoint="fraud", act="start")
        wait_until(lambda: ask(server, "endpoint", endpoint="fraud")["traffic"]["v2"] == 10.0)
        ask(server, "rollout", endpoint="fraud", act="promote")
        wait_until(lambda: ask(server, "endpoint", endpoint="fraud")["traffic"]["v2"] == 100.0)
        time.sleep(0.5)
        assert (replicas(server, "v1"), replicas(server, "v2")) == (2, 2)


def _status(server: Server) -> Any:
    try:
        return ask(server, "status")
    except Failure:
        return None


def _try_scale(server: Server, count: int) -> None:
    try:
        ask(server, "scale", endpoint="fraud", version="v1", replicas=count)
    except Failure:
        return  # whoever was asked is dead
