"""How many replicas each version shall have while a rollout is under way, and after it."""

from __future__ import annotations

import msgspec
import pytest

from turnout.deploy.rollout.commands import new_rollout
from turnout.deploy.rollout.policy import RolloutPolicy, ShadowFirst
from turnout.deploy.rollout.replicas import replicas_by_version
from turnout.deploy.rollout.state import Phase, RolloutState

SAID = {"v1": 4, "v2": 6}
BEFORE = {"v1": 100.0, "v2": 0.0}
POLICY = RolloutPolicy(to="v2", steps=(1.0, 25.0, 50.0))


def state(phase: Phase, step: int, weight: float, **said: object) -> RolloutState:
    begun = new_rollout(POLICY, BEFORE)
    return msgspec.structs.replace(begun, phase=phase, step=step, weight=weight, began=1.0, **said)


def test_without_a_rollout_each_has_what_it_is_said_to_have() -> None:
    assert replicas_by_version(None, SAID, BEFORE, {}) == SAID
    assert replicas_by_version(new_rollout(POLICY, BEFORE), SAID, BEFORE, {}) == SAID, "it waits for start"


def test_one_that_says_so_follows_nothing() -> None:
    policy = msgspec.structs.replace(POLICY, replicas_follow=False)
    found = msgspec.structs.replace(state(Phase.CANARY, 0, 1.0), policy=policy)
    assert replicas_by_version(found, SAID, BEFORE, {}) == SAID


@pytest.mark.parametrize(
    ("step", "weight", "count"), [(0, 1.0, 1), (1, 25.0, 2), (1, 1.0, 2), (2, 50.0, 3), (3, 100.0, 6)]
)
def test_the_new_version_has_what_its_step_needs_and_the_others_keep_theirs(
    step: int, weight: float, count: int
) -> None:
    found = replicas_by_version(state(Phase.CANARY, step, weight), SAID, {"v1": 100.0 - weight, "v2": weight}, {})
    assert found == {"v1": 4, "v2": count}


def test_a_step_that_is_not_in_force_yet_counts_already_and_one_that_still_is_does_too() -> None:
    assert replicas_by_version(state(Phase.CANARY, 2, 50.0, applied=False), SAID, BEFORE, {})["v2"] == 3
    back = state(Phase.ROLLED_BACK, 2, 0.0, applied=False)
    assert replicas_by_version(back, SAID, {"v1": 50.0, "v2": 50.0}, {}) == {"v1": 4, "v2": 3}


def test_afterwards_each_has_what_its_share_needs_and_none_has_nothing() -> None:
    stable = state(Phase.STABLE, 3, 100.0)
    assert replicas_by_version(stable, SAID, {"v1": 0.0, "v2": 100.0}, {}) == {"v1": 1, "v2": 6}
    assert replicas_by_version(state(Phase.ROLLED_BACK, 1, 0.0), SAID, BEFORE, {}) == {"v1": 4, "v2": 1}


def test_once_somebody_else_changes_the_traffic_each_has_all_of_its_own() -> None:
    stable = state(Phase.STABLE, 3, 100.0)
    assert replicas_by_version(stable, SAID, {"v1": 50.0, "v2": 50.0}, {}) == SAID
    assert replicas_by_version(stable, SAID, BEFORE, {}) == SAID


def test_a_shadow_and_other_ways_count_as_requests_do() -> None:
    assert replicas_by_version(state(Phase.CANARY, 0, 1.0), SAID, BEFORE, {"v2": 50.0})["v2"] == 3
    policy = msgspec.structs.replace(POLICY, shadow=ShadowFirst(percent=100.0))
    shadowed = msgspec.structs.replace(state(Phase.SHADOW, -1, 0.0), policy=policy)
    assert replicas_by_version(shadowed, SAID, BEFORE, {})["v2"] == 6


def test_it_never_falls_below_one_or_above_what_is_said_whatever_the_weight() -> None:
    last = 0
    for hundredth in range(0, 10001, 7):
        weight = hundredth / 100
        traffic = {"v1": 100.0 - weight, "v2": weight}
        found = replicas_by_version(state(Phase.CANARY, 0, weight), SAID, traffic, {})
        assert 1 <= found["v2"] <= 6
        assert found["v2"] >= weight / 100 * 6 - 1e-9, "enough for its share"
        assert found["v2"] >= last, "never fewer for more"
        last = found["v2"]
