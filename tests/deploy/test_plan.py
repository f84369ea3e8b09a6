"""The plan converges, and while versions replace each other somebody always answers."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout.core.errors import InvalidInput
from turnout.deploy.plan import (
    Guide,
    Have,
    Keep,
    Load,
    Manner,
    Phase,
    Return,
    Routing,
    Unload,
    Wanted,
    guided,
    plan,
    route,
)
from turnout.deploy.policy import VersionPolicy

AVAILABLE, SPARING = Manner(), Manner("resources")


class World:
    """Does what a plan says, step by step, in any order, with loads that may fail."""

    def __init__(self, seed: int, manner: Manner) -> None:
        self.random = random.Random(seed)
        self.manner = manner
        self.have: dict[str, Have] = {}
        self.routing = Routing()
        self.count = 0
        self.wanted: list[Wanted] = []
        self.labels: dict[str, str] = {}

    def decide(self) -> list[object]:
        actions = plan(self.wanted, list(self.have.values()), self.manner)
        for action in actions:
            match action:
                case Load(wanted):
                    self.count += 1
                    uid = f"{wanted.version}~{self.count}"
                    self.have[uid] = Have(uid, wanted.version, wanted.key, Phase.PREPARING)
                case Unload(uid):
                    self.move(uid, Phase.DRAINING)
                case Keep(uid):
                    self.move(uid, Phase.KEPT)
                case Return(uid):
                    self.move(uid, Phase.READY)
        self.routing = route(self.wanted, list(self.have.values()), self.labels, self.routing)
        return list(actions)

    def move(self, uid: str, phase: Phase) -> None:
        old = self.have[uid]
        self.have[uid] = Have(uid, old.version, old.key, phase)

    def step(self, *, may_fail: bool = False) -> bool:
        moving = [h for h in self.have.values() if h.phase in {Phase.PREPARING, Phase.LOADING, Phase.DRAINING}]
        if not moving:
            return False
        one = self.random.choice(moving)
        if one.phase is Phase.DRAINING:
            del self.have[one.uid]
        elif may_fail and self.random.random() < 0.2:
            self.move(one.uid, Phase.FAILED)
        else:
            self.move(one.uid, Phase.LOADING if one.phase is Phase.PREPARING else Phase.READY)
        return True

    @property
    def answering(self) -> bool:
        phase = self.have[self.routing.default].phase if self.routing.default in self.have else None
        return phase is Phase.READY


one_wanted = st.builds(Wanted, st.sampled_from("123456"), st.sampled_from("xy"))
goals = st.lists(st.lists(one_wanted, max_size=3, unique_by=lambda w: w.version), min_size=1, max_size=6)


@given(goals, st.integers(0, 10**6), st.integers(0, 2), st.sampled_from(["availability", "resources"]), st.booleans())
def test_it_converges_and_never_leaves_nobody_to_answer(
    goals: list[list[Wanted]], seed: int, keep: int, swap: str, may_fail: bool
) -> None:
    world = World(seed, Manner(swap, keep))
    answered = False
    for goal in goals:
        world.wanted = goal
        world.decide()
        answered = answered and bool(goal)
        for _ in range(world.random.randrange(12) if goal is not goals[-1] else 500):
            if not world.step(may_fail=may_fail):
                break
            world.decide()
            if swap == "availability" and goal and answered:
                assert world.answering, "availability: once something answers, something always does"
            answered = world.answering and bool(goal)
    assert not world.step(), "it comes to rest"
    assert world.decide() == [], "and then wants nothing more"
    goal = goals[-1]
    ready = {(h.version, h.key) for h in world.have.values() if h.phase is Phase.READY}
    failed = {(h.version, h.key) for h in world.have.values() if h.phase is Phase.FAILED}
    wanted = {(w.version, w.key) for w in goal}
    assert wanted <= ready | failed
    if not failed:
        assert ready == wanted
        assert set(world.routing.versions) == {w.version for w in goal}
        kept = [h for h in world.have.values() if h.phase is Phase.KEPT]
        assert len(kept) <= keep


def ready(*versions: str, key: str = "x") -> list[Have]:
    return [Have(f"m@{version}", version, key, Phase.READY) for version in versions]


def test_availability_loads_before_it_unloads_and_resources_the_other_way_round() -> None:
    wanted = [Wanted("2", "x")]
    assert plan(wanted, ready("1"), AVAILABLE) == [Load(wanted[0])]
    assert plan(wanted, ready("1", "2"), AVAILABLE) == [Unload("m@1")]
    assert plan(wanted, ready("1"), SPARING) == [Unload("m@1")]
    draining = [Have("m@1", "1", "x", Phase.DRAINING)]
    assert plan(wanted, draining, SPARING) == [], "it waits until the memory is free"
    assert plan(wanted, [], SPARING) == [Load(wanted[0])]


def test_what_cannot_be_loaded_leaves_the_old_version_where_it_is() -> None:
    broken = Have("m@2", "2", "x", Phase.FAILED)
    have = [*ready("1"), broken]
    wanted = [Wanted("2", "x")]
    assert plan(wanted, have, AVAILABLE) == []
    assert route(wanted, have, {}, Routing("m@1")).default == "m@1"


def test_a_kept_version_comes_back_at_once() -> None:
    kept = Have("m@1", "1", "x", Phase.KEPT)
    assert plan([Wanted("2", "x")], ready("1", "2"), Manner(keep=1)) == [Keep("m@1")]
    assert plan([Wanted("1", "x")], [kept, *ready("2")], Manner(keep=1)) == [Return("m@1"), Keep("m@2")]
    assert plan([Wanted("3", "x")], [kept, *ready("2", "3")], Manner(keep=1)) == [Keep("m@2"), Unload("m@1")]


def test_the_default_moves_when_all_are_ready_and_a_label_when_its_version_is() -> None:
    wanted = [Wanted("2", "x"), Wanted("3", "x")]
    now = route([Wanted("1", "x")], ready("1"), {"stable": "1"}, Routing())
    assert (now.default, dict(now.labels)) == ("m@1", {"stable": "m@1"})
    half = route(wanted, ready("1", "2"), {"stable": "3", "canary": "2"}, now)
    assert (half.default, set(half.versions)) == ("m@1", {"1", "2"})
    assert dict(half.labels) == {"stable": "m@1", "canary": "m@2"}
    whole = route(wanted, ready("1", "2", "3"), {"stable": "3", "canary": "2"}, half)
    assert (whole.default, whole.labels["stable"]) == ("m@3", "m@3")


def test_of_two_contents_of_one_version_callers_see_the_wanted_one() -> None:
    old, new = Have("m@1", "1", "x", Phase.READY), Have("m@1~2", "1", "y", Phase.READY)
    found = route([Wanted("1", "y")], [old, new], {}, Routing("m@1", {"1": "m@1"}))
    assert (found.default, dict(found.versions)) == ("m@1~2", {"1": "m@1~2"})


@pytest.mark.parametrize(
    ("said", "chosen"),
    [
        ("latest", ["10"]), ("latest:2", ["9", "10"]), ({"latest": 2}, ["9", "10"]), ("all", ["rc", "2", "9", "10"]),
        ("specific:9,2", ["2", "9"]), ([2, 77], ["2"]), (9, ["9"]), ({"specific": ["rc"]}, ["rc"]),
    ],
)  # fmt: skip
def test_a_policy_chooses_by_age(said: object, chosen: list[str]) -> None:
    assert VersionPolicy.parse(said).choose(["10", "9", "rc", "2"]) == chosen


@pytest.mark.parametrize(
    "said", ["", "latest:0", "latest:x", "newest", "specific:", {"latest": 1, "all": 2}, True, "all:3"]
)
def test_what_is_no_policy_is_refused(said: object) -> None:
    with pytest.raises(InvalidInput, match=r"expected latest:2, all, or specific:1,3"):
        VersionPolicy.parse(said)


@given(st.sampled_from(["latest:3", "all", "specific:1,2"]))
def test_a_policy_is_read_as_it_is_written(said: str) -> None:
    assert str(VersionPolicy.parse(said)) == said


def test_a_guide_is_in_force_only_while_all_that_it_needs_is_there() -> None:
    both = Routing("u1", {"v1": "u1", "v2": "u2"})
    old, new = Guide({}, 1, None, ("v1",)), Guide({}, 2, None, ("v1", "v2"))
    assert guided(both, new, old).guide is new
    assert guided(Routing("u1", {"v1": "u1"}), new, old).guide is old
    leaving = Routing("u2", {"v2": "u2"})  # an endpoint that goes, of whose versions one has gone already
    assert guided(leaving, old, old) == leaving
