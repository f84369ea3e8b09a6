"""How a rollout gets from one phase or step into another: what is forgotten, what is kept, what is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from msgspec.structs import replace

from turnout.deploy.rollout.findings import period
from turnout.deploy.rollout.state import Call, Counts, Decision, Finding, Move, Phase, RolloutState
from turnout.graph.evidence import Evidence

_MOST_MOVES = 200
_WHOLE = 100.0


def enter_step(state: RolloutState, step: int, now: float, reason: str) -> RolloutState:
    """Into a step, which begins with no evidence of its own. The last one is the promotion."""
    promoting = state.policy.weights[step] >= _WHOLE
    found = replace(
        fresh(replace(_closed(state), step=step, back_to=None, by=""), now),
        phase=Phase.PROMOTING if promoting else Phase.CANARY,
        before=state.weight,
        entered=now,
        reason=reason,
        passed=(),
        asked={},
        reference=_reference(state),
    )
    ramped = found.policy.slow_start > 0.0 and found.target > found.weight
    return moved(found, found.weight if ramped else found.target, now)


def enter_shadow(state: RolloutState, now: float) -> RolloutState:
    """Into the phase in which requests are only copied to the new version."""
    found = replace(fresh(state, now), phase=Phase.SHADOW, entered=now, reason="answers are compared first")
    return moved(found, found.target, now)


def roll_back(state: RolloutState, now: float, reason: str) -> RolloutState:
    """No traffic for the new version, and its percents to whom they belonged before."""
    return moved(replace(state, phase=Phase.ROLLED_BACK, back_to=None, by="", reason=reason, entered=now), 0.0, now)


def promoted(state: RolloutState, now: float, reason: str) -> RolloutState:
    """All traffic for the new version, and nothing more to decide."""
    found = replace(state, phase=Phase.STABLE, step=len(state.policy.weights) - 1, back_to=None, by="")
    return moved(replace(found, reason=reason, entered=now), _WHOLE, now)


def interrupted(
    state: RolloutState, now: float, reason: str, by: Literal["person", "gate", "mismatch", "stuck"]
) -> RolloutState:
    """A pause: weights stay, guards go on."""
    return replace(state, phase=Phase.PAUSED, back_to=state.phase, by=by, stopped=now, reason=reason)


def resumed(state: RolloutState, now: float) -> RolloutState:
    """On with what was interrupted; its time has stood still. After a mismatch the step is counted anew."""
    asleep = max(0.0, now - state.stopped)
    found = replace(
        state,
        phase=state.back_to or Phase.CANARY,
        back_to=None,
        by="",
        began=now if state.phase is Phase.INCONCLUSIVE else state.began + asleep,
        entered=state.entered + asleep,
        forced=state.forced + asleep if state.forced else 0.0,
        reason="it was resumed",
        rose=dict.fromkeys(state.rose, now),
    )
    return fresh(found, now) if state.by == "mismatch" else found


def fresh(state: RolloutState, now: float) -> RolloutState:
    """The counts of the step begin anew."""
    alive = dict.fromkeys((state.policy.to, state.stable), now)
    return replace(state, counts=Counts(), settled=None, forced=0.0, rose=alive)


def moved(state: RolloutState, weight: float, now: float) -> RolloutState:
    """With another weight, which is not in force yet."""
    moves = (*state.moves, Move(now, weight, state.phase))[-_MOST_MOVES:]
    return replace(state, weight=weight, moved=now, applied=False, moves=moves)


def decided(
    before: RolloutState, state: RolloutState, words: str, found: Sequence[Finding], calls: Sequence[Call] = ()
) -> Decision:
    """The decision that leads from one state to the next; who wants to be told of a change is."""
    changed = (before.phase, before.step, before.weight, before.by, before.passed, before.reason, before.applied) != (
        state.phase, state.step, state.weight, state.by, state.passed, state.reason, state.applied
    )  # fmt: skip
    if (before.phase, before.step) != (state.phase, state.step):
        told = (hook for hook in state.policy.gates.webhooks if hook.when == "event")
        calls = (*calls, *(Call(url=one.url, when="event", timeout=one.timeout, body=said(state)) for one in told))
    shadow = state.policy.shadow
    return Decision(
        state=state,
        shadow=shadow.percent if shadow is not None and state.phase is Phase.SHADOW else 0.0,
        words=words,
        findings=tuple(found),
        calls=tuple(calls),
        changed=changed,
    )


def said(state: RolloutState) -> dict[str, Any]:
    """What a webhook is sent."""
    return {
        "to": state.policy.to,
        "from": state.stable,
        "phase": state.phase.value,
        "step": state.step,
        "weight": state.weight,
        "next_weight": next_weight(state),
        "reason": state.reason,
    }


def next_step(state: RolloutState) -> int:
    """The place of the step after this one; the first is that which the version is in by its weight already."""
    if state.step >= 0:
        return state.step + 1
    had = state.traffic.get(state.policy.to, 0.0)
    return max([0, *(place for place, weight in enumerate(state.policy.weights[:-1]) if weight <= had)])


def next_weight(state: RolloutState) -> float | None:
    """Percent of the step after this one; None where there is none."""
    weights, step = state.policy.weights, next_step(state)
    return weights[step] if step < len(weights) else None


def _closed(state: RolloutState) -> RolloutState:
    """The judge's values of a step that ends are kept."""
    last = period(state)
    return replace(state, judged=(*state.judged, last)) if last[0].size and last[1].size else state


def _reference(state: RolloutState) -> Evidence:
    """What the stable version shows now: in this step, or ever where there was none."""
    step: tuple[Counts, ...] = () if state.phase is Phase.PENDING else (state.clean, state.counts)
    for counts in (*step, state.seen):
        if (found := counts.of(state.stable)).requests:
            return found
    return Evidence()
