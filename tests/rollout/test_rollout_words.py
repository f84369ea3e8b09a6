"""What a person reads of a rollout."""

from __future__ import annotations

import json

import numpy as np
import pytest
from msgspec.structs import replace

from tools.simulate_rollouts import ENDS, Run, Version, World
from turnout.deploy.rollout.commands import command
from turnout.deploy.rollout.forecast import Forecast, advice, forecasts, span
from turnout.deploy.rollout.policy import JudgePolicy, RolloutPolicy
from turnout.deploy.rollout.state import Phase
from turnout.deploy.rollout.words import bars, status, status_json

QUICK = RolloutPolicy(to="v8", min_seconds=20.0, interval=5.0, min_samples=20)


def clicks(random: np.random.Generator, count: int) -> np.ndarray:
    return (random.random(count) < 0.2).astype(float)


def run(policy: RolloutPolicy = QUICK, rate: float = 100.0, **canary: object) -> Run:
    return Run(policy, World({"v7": Version(values=clicks), "v8": Version(values=clicks, **canary)}, rate))


def text(going: Run, **how: object) -> str:
    return status(going.decision, going.world.observed(), going.now, **how)


def test_the_status_has_each_guard_with_its_numbers_and_what_comes_next() -> None:
    going = run(replace(QUICK, steps=(25.0, 100.0), min_seconds=600.0, judge=JudgePolicy(metric="clicks", kind="rate")))
    for _ in range(60):
        going.tick()
    said = text(going)
    for words in (
        "v8, compared with v7: canary at 25 %, step 1 of 2",
        "of 600 s that this step takes are over",
        "limit +1.00 points",
        "latency p95",
        "limit 1.20x",
        "clicks",
        "next: 100 %; this step takes 9 min more at least",
    ):
        assert words in said
    found = status_json(going.decision, going.world.observed(), going.now)
    assert json.loads(json.dumps(found, allow_nan=False)) == json.loads(json.dumps(found))
    errors = next(one for one in found["findings"] if one["name"] == "errors")
    assert errors["low"] <= errors["estimate"] <= errors["high"] < errors["limit"]
    assert (found["phase"], found["weight"], found["next_weight"]) == ("canary", 25.0, 100.0)


def test_a_breach_is_explained_after_it() -> None:
    going = run(replace(QUICK, steps=(25.0, 100.0)), errors=1.0)
    assert going.until(ENDS, 100.0) is Phase.ROLLED_BACK
    assert "rolled back: v8 breaks the guard errors: +1, limit 0.01, after" in text(going)


def test_little_traffic_is_said_with_what_one_can_do() -> None:
    going = run(replace(QUICK, min_samples=200, max_seconds=86_400.0), rate=0.05)
    for _ in range(1200):
        going.tick()
    assert "requests/min" in text(going)
    assert "continue, extend or replay" in text(going)
    near = Forecast(what="it", requests=100, seconds=147_600.0, pace=0.05)
    assert advice(near, 3600.0) == "at 3 requests/min it needs 41 h: continue, extend or replay"
    assert advice(near, 1e9) == "at 3 requests/min it needs 41 h"
    assert [span(seconds) for seconds in (5.0, 300.0, 9000.0, 1e6, float("inf"))] == [
        "5 s", "5 min", "2 h", "12 days", "for ever"
    ]  # fmt: skip


@pytest.mark.simulated
def test_a_forecast_is_about_what_it_really_takes() -> None:
    """A canary with three points more errors, at one half: the median of the runs lies near the forecast."""
    policy = replace(QUICK, steps=(50.0, 100.0), min_seconds=1e6, max_seconds=1e7)
    taken = []
    for seed in range(15):
        going = Run(policy, World({"v7": Version(), "v8": Version(errors=0.02)}, 20.0, seed))
        going.tick()
        said = next(one for one in forecasts(going.state, going.now + 1.0) if "errors" in one.what)
        going.until(ENDS, 3000.0)
        taken.append(sum(seen.requests for seen in going.world.evidence.values()))
    assert 0.5 < float(np.median(taken)) / said.requests < 2.0


def test_the_bars_grow_with_the_weight_in_either_alphabet() -> None:
    going = run()
    assert going.until(ENDS, 600.0) is Phase.STABLE
    for unicode, marks in ((True, "▁▂▃▄▅▆▇█"), (False, "_.:-=+*#%@")):
        drawn = bars(going.state, going.now, width=40, unicode=unicode)
        heights = [marks.index(mark) for mark in drawn]
        assert len(drawn) == 40
        assert heights == sorted(heights)
        assert heights[-1] == len(marks) - 1
    assert text(going, unicode=False).isascii()


def test_what_waits_for_a_person_says_so() -> None:
    going = run()
    going.tick()
    going.take(command(going.state, "pause", going.world.observed(), going.now))
    assert "next: resume, promote or abort" in text(going)
