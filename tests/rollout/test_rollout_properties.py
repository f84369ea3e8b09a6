"""Whatever happens to a rollout: it promotes by evidence only, its weights are percents, and it can be resumed."""

from __future__ import annotations

import json
from typing import Any, get_args

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tools.simulate_rollouts import START, Version, World
from turnout.deploy.rollout.commands import Command, answered, command, new_rollout
from turnout.deploy.rollout.machine import decide
from turnout.deploy.rollout.policy import GatesPolicy, JudgePolicy, RolloutPolicy, ShadowFirst, WebhookPolicy
from turnout.deploy.rollout.state import WATCHED, Decision, Pairs, Phase, RolloutState, state_from_json
from turnout.deploy.rollout.words import status, status_json

policies = st.builds(
    RolloutPolicy,
    to=st.just("v8"),
    steps=st.sampled_from([(1.0, 5.0, 25.0, 50.0, 100.0), (100.0,), (10.0, 50.0), (0.01, 33.33, 99.99)]),
    min_samples=st.integers(0, 50),
    min_seconds=st.floats(0.0, 30.0),
    interval=st.floats(0.0, 10.0),
    max_seconds=st.floats(10.0, 1000.0),
    slow_start=st.sampled_from([0.0, 5.0]),
    shadow=st.sampled_from([None, ShadowFirst(pairs=5)]),
    judge=st.sampled_from([None, JudgePolicy(metric="clicks", kind="rate", margin=0.5)]),
    gates=st.sampled_from(
        [GatesPolicy(), GatesPolicy(manual=(100.0,), webhooks=(WebhookPolicy(url="https://h/", when="pre_step"),))]
    ),
)
readiness = st.sampled_from(["ready", "ready", "ready", "loading", "failed", "missing"])
events = st.lists(
    st.one_of(
        st.tuples(st.just("look"), st.floats(0.0, 20.0), st.booleans()),
        st.tuples(st.just("look"), st.floats(0.0, 20.0), st.just(True)),
        st.tuples(st.just("say"), st.sampled_from(get_args(Command))),
        st.tuples(st.just("version"), st.sampled_from(["v7", "v8"]), readiness),
        st.tuples(st.just("age"), st.sampled_from([0.0, 100.0])),
        st.tuples(st.just("restart")),
        st.tuples(st.just("crash")),
        st.tuples(st.just("pairs"), st.integers(0, 5)),
        st.tuples(st.just("yes"), st.booleans()),
    ),
    max_size=40,
)
traffics = st.sampled_from([{"v7": 100.0, "v8": 0.0}, {"v6": 33.33, "v7": 56.67, "v8": 10.0}])


class Story:
    """Carries events out, and holds every decision against what must always be so."""

    def __init__(self, policy: RolloutPolicy, traffic: dict[str, float], seed: int) -> None:
        self.world = World(
            {name: Version(values=lambda r, n: 1.0 * (r.random(n) < 0.5)) for name in traffic}, 30.0, seed
        )
        self.world.weights = dict(traffic)
        self.state = new_rollout(policy, traffic)
        self.now = START
        self.calls: list[Any] = []

    def take(self, decision: Decision, *, by_person: bool = False) -> None:
        before, after = self.state, decision.state
        assert abs(sum(after.wanted.values()) - 100.0) < 1e-6
        assert all(share >= 0.0 for share in after.wanted.values()), after.wanted
        if decision.refused:
            assert after is before
        if after.weight > before.weight and not by_person:
            assert before.phase is not Phase.PAUSED
            assert before.phase is not Phase.INCONCLUSIVE
            assert self.world.age <= after.policy.stale_seconds or before.phase is Phase.PENDING or ramps(before, after)
            if after.step > before.step >= 0:
                clean = before.clean.plus(decision.state.seen, before.seen)
                assert after.step == before.step + 1, "no step is left out"
                assert clean.of("v8").requests >= before.policy.min_samples
                assert self.world.readiness["v8"] == self.world.readiness["v7"] == "ready"
        if after.phase is Phase.STABLE and not by_person:
            assert before.phase in {Phase.PROMOTING, Phase.STABLE}
        if after.phase is Phase.ROLLED_BACK:
            assert after.wanted["v8"] == 0.0
        if before.phase is not after.phase:
            json.dumps(status_json(decision, self.world.observed(), self.now), allow_nan=False)
            assert status(decision, self.world.observed(), self.now, unicode=False).isascii()
        self.state = after
        self.calls = [*self.calls, *decision.calls][-5:]
        if decision.weights is not None:
            self.world.weights = dict(decision.weights)

    def do(self, event: tuple[Any, ...]) -> None:
        kind = event[0]
        if kind == "look":
            self.now += event[1]
            if event[2]:
                self.world.serve(max(0.01, event[1]))
            observed = self.world.observed()
            decision = decide(self.state, observed, self.now)
            assert told(decide(self.state, observed, self.now)) == told(decision), "the same is decided from the same"
            self.take(decision)
        elif kind == "say":
            self.take(command(self.state, event[1], self.world.observed(), self.now), by_person=True)
        elif kind == "version":
            self.world.readiness[event[1]] = event[2]
        elif kind == "age":
            self.world.age = event[1]
        elif kind == "restart":
            self.world.evidence = World(self.world.versions, 1.0).evidence
        elif kind == "crash":
            self.state = state_from_json(json.loads(json.dumps(self.state.to_json())))
        elif kind == "pairs":
            pairs = self.world.pairs
            self.world.pairs = Pairs(pairs.count + event[1], pairs.differ, pairs.failed)
        elif self.calls:
            self.take(answered(self.state, self.calls.pop(), ok=event[1], words="", now=self.now))


def told(decision: Decision) -> tuple[Any, ...]:
    return json.dumps(decision.state.to_json()), decision.weights, decision.words, decision.calls, decision.changed


def ramps(before: RolloutState, after: RolloutState) -> bool:
    return before.step == after.step and after.weight <= after.target


@settings(max_examples=60)
@given(policies, traffics, events, st.integers(0, 1000))
def test_whatever_happens_what_must_hold_holds(
    policy: RolloutPolicy, traffic: dict[str, float], events: list[tuple[Any, ...]], seed: int
) -> None:
    story = Story(policy, traffic, seed)
    story.do(("say", "start"))
    for event in events:
        story.do(event)


@settings(max_examples=30)
@given(policies, st.lists(st.floats(0.1, 20.0), min_size=5, max_size=40), st.data())
def test_a_controller_that_dies_between_two_looks_changes_nothing(
    policy: RolloutPolicy, looks: list[float], data: st.DataObject
) -> None:
    """Only what is marked as changed is stored; the rest is found again in counts that only grow."""
    story = Story(policy, {"v7": 100.0, "v8": 0.0}, 1)
    story.do(("say", "start"))
    dies = data.draw(st.integers(0, len(looks) - 1))
    stored = story.state
    for place, seconds in enumerate(looks):
        story.world.serve(seconds)
        story.now += seconds
        observed = story.world.observed()
        decision = decide(story.state, observed, story.now)
        if place == dies:
            # What came since the last word to the store is in the counts of this look as well.
            anew = decide(state_from_json(json.loads(json.dumps(stored.to_json()))), observed, story.now)
            assert anew.state.counts.of("v8").to_json() == decision.state.counts.of("v8").to_json()
            assert (anew.state.phase in WATCHED) == (decision.state.phase in WATCHED)
            # Whether requests came just now is not known after a while, so the next look may have to go on.
            again = decide(anew.state, observed, story.now) if anew.state.step < decision.state.step else anew
            assert again.state.step <= decision.state.step
            assert again.state.weight <= decision.state.weight
        if decision.changed:
            stored = decision.state
        story.take(decision)


def test_steps_never_shrink_below_what_a_version_has() -> None:
    policy = RolloutPolicy(to="v8", min_samples=1, min_seconds=0.0, interval=0.0)
    story = Story(policy, {"v6": 33.33, "v7": 56.67, "v8": 10.0}, 3)
    story.do(("say", "start"))
    for _ in range(30):
        story.do(("look", 5.0, True))
    weights = [move.weight for move in story.state.moves]
    assert weights[:3] == [10.0, 25.0, 50.0]
    assert story.state.phase is Phase.STABLE
    assert replace(story.state, weight=25.0).wanted == {"v6": 27.77, "v7": 47.23, "v8": 25.0}
