"""What a rollout does with what it is shown, told as scenes of one endpoint with two versions."""

from __future__ import annotations

import json

import pytest
from msgspec.structs import replace

from tools.simulate_rollouts import ENDS, START, Run, Version, World
from turnout.core.errors import InvalidInput
from turnout.deploy.rollout.commands import answered, command, new_rollout
from turnout.deploy.rollout.machine import decide
from turnout.deploy.rollout.policy import GatesPolicy, RolloutPolicy, ShadowFirst, WebhookPolicy
from turnout.deploy.rollout.state import Observed, Pairs, Phase, state_from_json

QUICK = RolloutPolicy(to="v8", min_seconds=20.0, interval=5.0, min_samples=20)


def run(policy: RolloutPolicy = QUICK, canary: Version | None = None, rate: float = 100.0, **world: object) -> Run:
    return Run(policy, World({"v7": Version(), "v8": canary or Version()}, rate, **world))


def test_a_good_version_goes_through_every_step_to_all_of_the_traffic() -> None:
    going = run()
    assert going.until(ENDS, 600.0) is Phase.STABLE
    assert [move.weight for move in going.state.moves] == [1.0, 5.0, 25.0, 50.0, 100.0, 100.0]
    assert going.world.weights == {"v7": 0.0, "v8": 100.0}
    assert going.decision.weights is None


def test_a_version_that_fails_every_request_is_out_within_20_bad_answers() -> None:
    going = run(replace(QUICK, steps=(5.0, 100.0)), Version(errors=1.0))
    assert going.until(ENDS, 600.0) is Phase.ROLLED_BACK
    assert going.world.evidence["v8"].errors <= 20
    assert going.world.weights == {"v7": 100.0, "v8": 0.0}
    assert "breaks the guard errors" in going.state.reason


@pytest.mark.parametrize(
    ("canary", "guard"),
    [
        (Version(latency=0.015), "latency mean"),
        (Version(invalid=0.2), "errors"),
        (Version(fallback=0.2), "fallback"),
    ],
)
def test_each_guard_sends_a_bad_version_back(canary: Version, guard: str) -> None:
    going = run(replace(QUICK, steps=(25.0, 100.0), min_seconds=300.0), canary)
    assert going.until(ENDS, 600.0) is Phase.ROLLED_BACK
    assert guard in going.state.reason


def test_without_data_it_holds_and_never_promotes() -> None:
    going = run()
    for _ in range(2000):
        going.tick(traffic=False)
    assert (going.state.phase, going.state.weight) == (Phase.CANARY, 1.0)
    assert "0 of 20 requests" in going.decision.words


def test_when_traffic_stops_midway_it_holds() -> None:
    going = run()
    while going.state.weight < 25.0:
        going.tick()
    for _ in range(15):  # enough samples, not enough time
        going.tick()
    for _ in range(2000):
        going.tick(traffic=False)
    assert (going.state.phase, going.state.weight) == (Phase.CANARY, 25.0)
    assert "no request for" in going.decision.words
    assert going.until(ENDS, 600.0) is Phase.STABLE


def test_stale_data_holds() -> None:
    going = run()
    for _ in range(5):
        going.tick()
    going.world.age = 60.0
    for _ in range(500):
        going.tick()
    assert going.state.weight == 1.0
    assert "nothing was heard" in going.decision.words


def test_without_a_conclusion_it_says_so_and_resume_goes_on() -> None:
    going = run(replace(QUICK, max_seconds=100.0), rate=0.01)
    assert going.until(ENDS, 600.0) is Phase.INCONCLUSIVE
    going.take(command(going.state, "resume", going.world.observed(), going.now))
    assert going.state.phase is Phase.CANARY
    going.world.rate = 100.0
    assert going.until(ENDS - {Phase.INCONCLUSIVE}, 1000.0) is Phase.INCONCLUSIVE or going.state.phase is Phase.STABLE


@pytest.mark.parametrize("gone", ["failed", "missing"])
def test_a_version_that_is_gone_is_rolled_back(gone: str) -> None:
    going = run()
    going.tick()
    going.world.readiness["v8"] = gone
    going.tick()
    assert going.state.phase is Phase.ROLLED_BACK


def test_nothing_goes_back_to_a_version_that_cannot_answer_until_it_can() -> None:
    going = run(replace(QUICK, steps=(50.0, 100.0)), Version(errors=1.0))
    going.tick(traffic=False)
    going.world.readiness["v7"] = "failed"
    for _ in range(5):
        going.tick()
    assert (going.state.phase, going.state.weight) == (Phase.PAUSED, 50.0)
    assert "cannot take the traffic back" in going.state.reason
    going.world.readiness["v7"] = "ready"
    going.tick()
    assert going.state.phase is Phase.ROLLED_BACK


def test_it_waits_until_both_can_answer() -> None:
    going = run(readiness={"v7": "ready", "v8": "loading"})
    going.tick()
    assert (going.state.phase, going.world.weights["v8"]) == (Phase.PENDING, 0.0)
    going.world.readiness["v8"] = "ready"
    going.tick()
    assert going.state.phase is Phase.CANARY


def test_a_pause_keeps_the_weight_and_its_time_does_not_count() -> None:
    going = run()
    for _ in range(10):
        going.tick()
    going.take(command(going.state, "pause", going.world.observed(), going.now))
    for _ in range(100):
        going.tick()
    assert (going.state.phase, going.state.weight) == (Phase.PAUSED, 1.0)
    going.take(command(going.state, "resume", going.world.observed(), going.now))
    going.tick()
    assert going.now - going.state.entered < 20.0
    assert going.until(ENDS, 600.0) is Phase.STABLE


def test_a_guard_sends_back_even_while_it_is_paused() -> None:
    going = run(replace(QUICK, steps=(25.0, 100.0)), Version(errors=0.5))
    going.tick(traffic=False)
    going.take(command(going.state, "pause", going.world.observed(), going.now))
    for _ in range(5):
        going.tick()
    assert going.state.phase is Phase.ROLLED_BACK


def test_requests_that_do_not_arrive_in_their_shares_pause_it() -> None:
    going = run(replace(QUICK, steps=(50.0, 100.0), min_seconds=600.0), bias={"v8": 0.7})
    assert going.until(ENDS, 600.0) is Phase.PAUSED
    assert "something sends them elsewhere" in going.state.reason


def test_a_manual_gate_waits_for_a_person() -> None:
    going = run(replace(QUICK, gates=GatesPolicy(manual=(25.0,))))
    assert going.until(ENDS, 600.0) is Phase.PAUSED
    assert (going.state.weight, going.state.by) == (5.0, "gate")
    going.take(command(going.state, "resume", going.world.observed(), going.now))
    assert going.until(ENDS, 600.0) is Phase.STABLE


def test_a_webhook_is_asked_at_most_once_in_an_interval_and_its_yes_opens_the_gate() -> None:
    hooks = (
        WebhookPolicy(url="https://ci.example/ok", when="pre_promote"),
        WebhookPolicy(url="https://ci.example/tell"),
    )
    going = run(replace(QUICK, steps=(50.0, 100.0), gates=GatesPolicy(webhooks=hooks)))
    asked, told = [], []
    for _ in range(40):
        going.tick()
        asked += [(going.now, call) for call in going.decision.calls if call.when == "pre_promote"]
        told += [call.body["phase"] for call in going.decision.calls if call.when == "event"]
    assert going.state.phase is Phase.CANARY
    assert [asked[1][0] - asked[0][0], told] == [5.0, ["canary"]]
    call = asked[-1][1]
    assert call.body["next_weight"] == 100.0
    going.take(answered(going.state, call, ok=False, words="not today", now=going.now))
    going.tick()
    assert going.state.phase is Phase.CANARY
    going.take(answered(going.state, call, ok=True, words="", now=going.now))
    going.tick()
    assert going.state.phase is Phase.PROMOTING


def test_a_webhook_may_ask_for_the_way_back() -> None:
    hook = WebhookPolicy(url="https://ci.example/bad", when="rollback")
    going = run(replace(QUICK, gates=GatesPolicy(webhooks=(hook,))))
    going.tick()
    (call,) = going.decision.calls
    going.take(answered(going.state, call, ok=True, words="pager", now=going.now))
    assert (going.state.phase, going.world.weights["v8"]) == (Phase.ROLLED_BACK, 0.0)


def test_answers_are_compared_before_anybody_sees_them() -> None:
    going = run(replace(QUICK, shadow=ShadowFirst(percent=20.0, pairs=100)))
    going.tick()
    going.tick()
    assert (going.state.phase, going.decision.shadow, going.world.weights["v8"]) == (Phase.SHADOW, 20.0, 0.0)
    for count in range(0, 100, 20):
        going.world.pairs = Pairs(count, 0, 0)
        going.tick()
    assert going.state.phase is Phase.SHADOW
    going.world.pairs = Pairs(100, 1, 0)
    going.tick()
    assert going.state.phase is Phase.CANARY
    assert going.decision.shadow == 0.0


def test_a_shadow_that_fails_is_never_shown_to_users() -> None:
    going = run(replace(QUICK, shadow=ShadowFirst()))
    for count in range(10):
        going.world.pairs = Pairs(0, 0, count)
        going.tick()
    assert going.state.phase is Phase.ROLLED_BACK
    assert max(move.weight for move in going.state.moves) == 0.0


def test_counts_that_begin_anew_are_not_counted_twice() -> None:
    going = run(replace(QUICK, steps=(50.0, 100.0), min_seconds=1e6))
    for _ in range(10):
        going.tick()
    before = going.state.counts.of("v8").requests
    fresh = World(going.world.versions, 100.0, seed=5, weights=going.world.weights)
    fresh.serve(1.0)
    anew = decide(going.state, fresh.observed(), going.now + 1.0).state
    assert anew.counts.of("v8").requests == before
    first = fresh.evidence["v8"].requests
    fresh.serve(1.0)
    more = decide(anew, fresh.observed(), going.now + 2.0).state
    assert more.counts.of("v8").requests == before + fresh.evidence["v8"].requests - first


def test_a_version_that_was_stable_a_moment_ago_needs_no_steps() -> None:
    going = run()
    observed = replace(going.world.observed(), last_stable=2)
    assert decide(going.state, observed, going.now + 1.0).state.weight == 100.0
    observed = replace(going.world.observed(), last_stable=4)
    assert decide(going.state, observed, going.now + 1.0).state.weight == 1.0


def test_a_cold_version_grows_into_its_step() -> None:
    going = run(replace(QUICK, steps=(50.0, 100.0), slow_start=10.0))
    weights = []
    for _ in range(15):
        going.tick()
        weights.append(going.world.weights["v8"])
    assert weights == sorted(weights)
    assert len(set(weights)) > 5
    assert weights[-1] == 50.0
    assert going.until(ENDS, 600.0) is Phase.STABLE


def test_weights_that_are_not_in_force_are_said_again_and_nothing_moves() -> None:
    going = run()
    going.tick()
    lost = replace(going.world.observed(), weights={"v7": 100.0, "v8": 0.0})
    decision = decide(going.state, lost, going.now + 100.0)
    assert decision.weights == {"v7": 99.0, "v8": 1.0}
    assert decision.state.weight == 1.0


def test_a_state_that_was_stored_goes_on_with_the_same_decision() -> None:
    going = run()
    for _ in range(60):
        going.tick()
    stored = json.loads(json.dumps(going.state.to_json()))
    observed = going.world.observed()
    here = decide(going.state, observed, going.now + 1.0)
    there = decide(state_from_json(stored), observed, going.now + 1.0)
    assert json.dumps(there.state.to_json()) == json.dumps(here.state.to_json())
    assert (there.weights, there.words) == (here.weights, here.words)


def test_a_controller_that_comes_back_after_traffic_has_stopped_still_holds() -> None:
    going = run(replace(QUICK, steps=(50.0, 100.0), min_seconds=100.0))
    stored = going.state
    for tick in range(160):
        going.tick(traffic=tick < 60)
        stored = going.decision.state if going.decision.changed else stored
    assert going.state.phase is Phase.CANARY
    anew = stored
    for later in range(1, 60):
        anew = decide(anew, going.world.observed(), going.now + later).state
    assert anew.counts.of("v8").requests == going.state.counts.of("v8").requests
    assert anew.phase is Phase.CANARY


def test_versions_have_to_fit() -> None:
    with pytest.raises(InvalidInput, match=r"rollout\.to: no such version; expected v7, v9"):
        new_rollout(QUICK, {"v7": 100.0, "v9": 0.0})
    with pytest.raises(InvalidInput, match="no other version"):
        new_rollout(QUICK, {"v8": 100.0})
    assert new_rollout(QUICK, {"v6": 10.0, "v7": 90.0, "v8": 0.0}).stable == "v7"


def test_it_waits_for_start_and_commands_that_make_no_sense_change_nothing() -> None:
    waiting = new_rollout(QUICK, {"v7": 100.0, "v8": 0.0})
    ready = Observed(versions={"v7": "ready", "v8": "ready"})
    assert decide(waiting, ready, START).state.phase is Phase.PENDING
    for word in ("pause", "resume"):
        refused = command(waiting, word, ready, START)
        assert refused.refused
        assert refused.state == waiting
    assert command(waiting, "promote", Observed(), START).refused, "nobody knows whether it can answer"
    assert command(waiting, "promote", ready, START).weights == {"v7": 0.0, "v8": 100.0}
    assert command(waiting, "abort", ready, START).state.phase is Phase.ROLLED_BACK
