"""What people and webhooks say to a rollout: start, pause, resume, promote, abort; each from any state, each pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from msgspec.structs import replace

from turnout.deploy.rollout.machine import with_weights
from turnout.deploy.rollout.policy import RolloutPolicy, stable_version
from turnout.deploy.rollout.state import RUNNING, WATCHED, Call, Counts, Decision, Observed, Phase, RolloutState
from turnout.deploy.rollout.transitions import decided, interrupted, next_weight, promoted, resumed, roll_back

Command = Literal["start", "pause", "resume", "promote", "abort"]
_WHOLE = 100.0


def new_rollout(policy: RolloutPolicy, traffic: Mapping[str, float]) -> RolloutState:
    """A rollout that waits for `start`. traffic: percents by version, with every version of the endpoint.

    Raises InvalidInput where the versions do not fit.
    """
    return RolloutState(policy=policy, stable=stable_version(policy, traffic), traffic=dict(traffic))


def command(state: RolloutState, word: Command, observed: Observed, now: float) -> Decision:
    """The state after a person's word; `refused` where it makes no sense now, with the reason as words."""
    if word == "start":
        found = _start(state, observed, now)
    elif word == "pause":
        found = _pause(state, now)
    elif word == "resume":
        found = _resume(state, now)
    elif word == "promote":
        found = _promote(state, observed, now)
    else:
        found = _abort(state, observed, now)
    return found if found.refused else with_weights(found, observed)


def answered(state: RolloutState, call: Call, *, ok: bool, words: str, now: float) -> Decision:
    """The state after a webhook's answer. ok: it was 2xx. words: what else it said, for people."""
    if call.when == "rollback" and ok and state.phase in WATCHED:
        found = roll_back(state, now, f"{call.url} asked for it: {words}" if words else f"{call.url} asked for it")
        return replace(decided(state, found, found.reason, ()), weights=found.wanted)
    key = f"{call.when} {call.url}"
    asked = call.body.get("next_weight") == next_weight(state) and call.body.get("step") == state.step
    if call.when in {"pre_step", "pre_promote"} and ok and asked and state.phase in WATCHED and key not in state.passed:
        found = replace(state, passed=(*state.passed, key))
        return decided(state, found, f"{call.url} agrees", ())
    return decided(state, state, f"{call.url} {'agrees' if ok else 'does not agree'}: {words}", ())


def _start(state: RolloutState, observed: Observed, now: float) -> Decision:
    to = state.policy.to
    if state.phase in WATCHED or (state.phase is Phase.PENDING and state.began):
        return _refused(state, "it has been started already")
    if state.traffic.get(to, 0.0) >= _WHOLE or (state.phase is Phase.STABLE):
        return _refused(state, f"{to} has all of the traffic already")
    begun = RolloutState(
        policy=state.policy,
        stable=state.stable,
        traffic=state.traffic,
        reason="it was started",
        began=now,
        weight=state.traffic.get(to, 0.0),
        seen=Counts(evidence=observed.evidence, judge=observed.judge, pairs=observed.pairs),
    )
    return decided(state, begun, "it was started", ())


def _pause(state: RolloutState, now: float) -> Decision:
    if state.phase not in RUNNING:
        return _refused(state, f"it is {state.phase.value}: there is nothing to pause")
    found = interrupted(state, now, "a person has paused it", "person")
    return decided(state, found, f"paused at {state.weight:g} %", ())


def _resume(state: RolloutState, now: float) -> Decision:
    if state.phase not in {Phase.PAUSED, Phase.INCONCLUSIVE}:
        return _refused(state, f"it is {state.phase.value}: there is nothing to resume")
    found = resumed(state, now)
    if state.by == "gate" and (weight := next_weight(state)) is not None:
        found = replace(found, passed=(*found.passed, f"manual {weight:g}"))
    return decided(state, found, f"resumed at {state.weight:g} %", ())


def _promote(state: RolloutState, observed: Observed, now: float) -> Decision:
    to = state.policy.to
    if state.phase in {Phase.STABLE, Phase.ROLLED_BACK}:
        return _refused(state, f"it is {state.phase.value}: start it again first")
    if observed.versions.get(to) != "ready":
        return _refused(
            state, f"{to} is {observed.versions.get(to, 'not known of')} and cannot take all of the traffic"
        )
    found = promoted(state, now, "a person has promoted it")
    return decided(state, found, f"promoted: {to} gets all of the traffic", ())


def _abort(state: RolloutState, observed: Observed, now: float) -> Decision:
    if state.phase is Phase.STABLE:
        return _refused(state, "it is over and all traffic has moved; to go back, undo the revision")
    if state.phase is Phase.ROLLED_BACK:
        return _refused(state, "it is rolled back already")
    ready = observed.versions.get(state.stable, "ready")
    if ready != "ready" and state.weight > 0.0:
        return _refused(state, f"{state.stable} is {ready} and cannot take the traffic back")
    return decided(state, roll_back(state, now, "a person has aborted it"), "aborted", ())


def _refused(state: RolloutState, words: str) -> Decision:
    return Decision(state=state, words=words, refused=True)
