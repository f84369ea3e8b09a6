"""The figures that are promised of rollouts, simulated: how rarely they do wrong, how soon they see what is wrong."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace

from tools.simulate_rollouts import (
    ENDS,
    Draw,
    Run,
    Version,
    World,
    alike,
    at_share,
    bad_answers,
    clicks,
    judged,
    revenue,
    times,
)
from turnout.deploy.rollout.policy import JudgePolicy, RolloutPolicy
from turnout.deploy.rollout.state import Phase

ALPHA = 0.05


_MEAN = JudgePolicy(metric="revenue"), revenue
_RATE = JudgePolicy(metric="clicks", kind="rate"), clicks(0.05)
#: A thousand runs of each in eighths; CI takes all of the mean's and a quarter of the rate's, which take as long.
ALIKE = [
    pytest.param(
        *judged, first, id=f"{name}-{first}", marks=pytest.mark.simulated if first in usual else pytest.mark.soak
    )
    for name, judged, usual in (("mean", _MEAN, range(0, 1000, 125)), ("rate", _RATE, (0, 500)))
    for first in range(0, 1000, 125)
]


@pytest.mark.parametrize(("judge", "values", "first"), ALIKE)
def test_versions_that_are_alike_are_neither_sent_back_nor_promoted(
    judge: JudgePolicy, values: Draw, first: int
) -> None:
    ends = alike(range(first, first + 125), judge, values)
    assert ends.pop("inconclusive") >= (1.0 - ALPHA) * 125
    assert ends.get("paused", 0) <= 5


@pytest.mark.simulated
def test_without_a_judge_versions_that_are_alike_go_all_the_way() -> None:
    ends = alike(range(250), None, None)
    assert ends["stable"] >= (1.0 - ALPHA) * 250


@pytest.mark.parametrize("errors", [1.0, 0.5])
def test_an_erring_canary_at_5_percent_is_out_within_20_bad_answers(errors: float) -> None:
    assert max(bad_answers(5.0, errors, 30)) <= 20


@pytest.mark.simulated
@pytest.mark.parametrize(("share", "spread"), [(5.0, 0.1), (5.0, 0.25), (10.0, 0.25), (25.0, 0.5)])
def test_half_more_latency_is_found_within_30_seconds_at_50_requests_a_second(share: float, spread: float) -> None:
    found = times(share, Version(latency=0.015, spread=spread), 50.0, 40, 120.0)
    assert np.quantile(found, 0.9) <= 30.0


@pytest.mark.simulated
def test_a_better_version_is_promoted_by_its_judge_and_a_worse_one_sent_back() -> None:
    better, worse = judged(0.04, 30), judged(-0.04, 30)
    assert better.get("stable", 0) >= 27
    assert worse.get("rolled_back", 0) >= 25
    assert not better.get("rolled_back", 0)
    assert not worse.get("stable", 0)


@pytest.mark.simulated
def test_trouble_that_both_versions_have_is_not_held_against_one() -> None:
    """Errors of both go from none to a third and back, as when what both need is down; the canary has 10 %."""
    ends = []
    for seed in range(100):
        versions = {"v7": Version(), "v8": Version()}
        run = Run(at_share(10.0), World(versions, 50.0, seed))
        for second in range(240):
            down = 60 <= second < 120
            for version in versions.values():
                version.errors, version.latency = (0.33, 0.050) if down else (0.0, 0.010)
            run.tick()
        ends.append(run.state.phase)
    assert ends.count(Phase.CANARY) >= (1.0 - ALPHA) * 100


@pytest.mark.simulated
def test_a_split_that_loses_requests_is_noticed_and_one_that_does_not_is_not() -> None:
    policy = RolloutPolicy(to="v8", steps=(50.0, 100.0), min_seconds=1e9, max_seconds=1e10)
    lost = kept = 0
    for seed in range(60):
        for bias in (0.8, 1.0):
            run = Run(policy, World({"v7": Version(), "v8": Version()}, 50.0, seed, bias={"v8": bias}))
            ended = run.until(ENDS, 120.0)
            lost += ended is Phase.PAUSED and bias < 1.0
            kept += ended is Phase.CANARY and bias == 1.0
    assert lost >= 55
    assert kept == 60


def test_a_slow_canary_is_not_taken_for_one_that_loses_requests() -> None:
    """What is under way is missing in its counts: the first 5 s of a version that takes 5 s look like a loss of all."""
    policy = RolloutPolicy(to="v8", steps=(50.0, 100.0), min_seconds=1e9, max_seconds=1e10)
    run = Run(replace(policy), World({"v7": Version(), "v8": Version()}, 200.0, bias={"v8": 1e-9}))
    for _ in range(20):
        run.tick()
    assert run.state.phase is Phase.CANARY
    run.until(ENDS, 120.0)
    assert run.state.phase is Phase.PAUSED, "but not for ever"
