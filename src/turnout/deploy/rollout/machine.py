"""The decision of a rollout: a plain function of what it remembers, what it is shown, and the time.

It never promotes without evidence, and goes back at once for it. What it does not know makes it wait.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from turnout.deploy.rollout.findings import breach, findings
from turnout.deploy.rollout.state import (
    RUNNING,
    WATCHED,
    Call,
    Counts,
    Decision,
    Finding,
    Observed,
    Phase,
    RolloutState,
)
from turnout.deploy.rollout.transitions import (
    decided,
    enter_shadow,
    enter_step,
    interrupted,
    moved,
    next_step,
    next_weight,
    promoted,
    roll_back,
    said,
)
from turnout.deploy.rollout.weights import grown

_WHOLE = 100.0
#: Seconds after the weight is in force before answers count as the step's: those under way were shared out before.
_SETTLING = 1.0
#: A version is quiet after so many seconds, or so many times the usual time between two of its requests.
_QUIET_SECONDS = 3.0
_QUIET_GAPS = 10.0
#: After so many seconds without a look nobody knows when in that time requests came; the next look tells.
_ASLEEP = 30.0
_GONE = {"failed": "cannot run (it fails to load, or keeps crashing)", "missing": "is not there any more"}


def decide(state: RolloutState, observed: Observed, now: float) -> Decision:
    """The next state and what follows from it. now: seconds since the epoch. Pure: no clock, no I/O."""
    seen = _seen(state, observed, now)
    decision = _decide(seen, observed, now)
    grounded = (seen.applied, seen.forced, seen.settled is None) != (state.applied, state.forced, state.settled is None)
    decision = replace(decision, changed=decision.changed or grounded)
    return with_weights(_with_rollback_calls(decision, now), observed)


def with_weights(decision: Decision, observed: Observed) -> Decision:
    """With the weights that have to be set, if some have."""
    state, wanted = decision.state, decision.state.wanted
    if state.applied and (state.phase not in WATCHED or in_force(wanted, observed)):
        return decision
    if observed.weights is not None and in_force(wanted, observed):
        return decision
    return replace(decision, weights=wanted)


def _with_rollback_calls(decision: Decision, now: float) -> Decision:
    """With those who are asked now whether to roll back."""
    state = decision.state
    keys = {f"rollback {hook.url}": hook for hook in state.policy.gates.webhooks if hook.when == "rollback"}
    if state.phase not in WATCHED or not keys:
        return decision
    due = [key for key in keys if now - state.asked.get(key, -math.inf) >= state.policy.interval]
    calls = [Call(url=keys[key].url, when="rollback", timeout=keys[key].timeout, body=said(state)) for key in due]
    asked = replace(state, asked={**state.asked, **dict.fromkeys(due, now)})
    return replace(decision, state=asked, calls=(*decision.calls, *calls))


def in_force(wanted: dict[str, float], observed: Observed) -> bool:
    """Whether all routers are known to have these weights; where nobody says, they are taken to have them."""
    if observed.weights is None:
        return True
    names = {*wanted, *observed.weights}
    return all(abs(wanted.get(name, 0.0) - observed.weights.get(name, 0.0)) < 1e-6 for name in names)


def _decide(state: RolloutState, observed: Observed, now: float) -> Decision:
    if state.phase is Phase.PENDING:
        return _begin(state, observed, now)
    if state.phase not in WATCHED:
        return decided(state, state, state.reason, ())
    found = findings(state, sticky=observed.sticky, now=now)
    if (reason := _why_back(state, observed, found)) is not None:
        return _back(state, observed, now, reason, found)
    if state.phase not in RUNNING:
        return decided(state, state, f"it holds {state.weight:g} %: {state.reason}", found)
    odd = next((one for one in found if one.name == "mismatch" and one.verdict == "breached"), None)
    if odd is not None and state.phase is Phase.CANARY:
        words = (
            f"{state.policy.to} should get {odd.limit:.2%} of the requests, and got {odd.canary} of "
            f"{odd.canary + odd.stable}: something sends them elsewhere, so no comparison can be trusted"
        )
        return decided(state, interrupted(state, now, words, "mismatch"), words, found)
    if now - state.began > state.policy.max_seconds and state.phase is not Phase.PROMOTING:
        words = f"no conclusion within {state.policy.max_seconds:g} s: resume for as long again, promote, or abort"
        over = replace(state, phase=Phase.INCONCLUSIVE, back_to=state.phase, stopped=now, reason=words)
        return decided(state, over, words, found)
    weight = grown(state.before, state.target, now - state.entered, state.policy.slow_start)
    if state.phase is not Phase.SHADOW and weight > state.weight:
        state, before = moved(state, weight, now), state
        return decided(before, state, f"{state.policy.to} grows to {weight:g} %", found)
    return _forward(state, observed, now, found)


def _begin(state: RolloutState, observed: Observed, now: float) -> Decision:
    """Once it was started: as soon as both versions can answer."""
    if not state.began:
        return decided(state, state, state.reason, ())
    to, policy = state.policy.to, state.policy
    if (gone := _GONE.get(observed.versions.get(to, ""))) is not None:
        words = f"{to} {gone}"
        return decided(state, roll_back(state, now, words), words, ())
    for name in (to, state.stable):
        if observed.versions.get(name) != "ready":
            return decided(state, state, f"it waits until {name} is ready", ())
    last = len(policy.weights) - 1
    if observed.last_stable is not None and 0 <= observed.last_stable <= policy.rollback_window:
        words = f"{to} was stable {observed.last_stable} revisions ago: it gets all traffic without steps"
        return decided(state, enter_step(state, last, now, words), words, ())
    if policy.shadow is not None:
        share, pairs = policy.shadow.percent, policy.shadow.pairs
        words = f"{share:g} % of the requests are also sent to {to}, until {pairs} are compared"
        return decided(state, enter_shadow(state, now), words, ())
    return _step(state, next_step(state), now, (), "it was started")


def _step(state: RolloutState, step: int, now: float, found: Sequence[Finding], reason: str) -> Decision:
    entered = enter_step(state, step, now, reason)
    words = f"{reason}: {entered.policy.to} gets {entered.target:g} %"
    return decided(state, entered, words, found)


def _why_back(state: RolloutState, observed: Observed, found: list[Finding]) -> str | None:
    to = state.policy.to
    if (gone := _GONE.get(observed.versions.get(to, ""))) is not None:
        return f"{to} {gone}"
    if (worst := breach(found)) is None:
        return None
    if worst.name == "judge":
        return f"{to} is worse by {state.policy.judge.metric if state.policy.judge else ''}: {numbers(worst)}"
    return f"{to} breaks the guard {worst.name}: {numbers(worst)}"


def numbers(found: Finding) -> str:
    """A finding's figures in brief."""
    text = "nothing yet" if found.estimate is None else f"{found.estimate:+.4g}"
    if found.name.startswith("latency") and found.estimate is not None:
        text = f"{found.estimate:.2f} times the stable version's"
    return f"{text}, limit {found.limit:g}, after {found.canary} requests (stable: {found.stable})"


def _back(state: RolloutState, observed: Observed, now: float, reason: str, found: Sequence[Finding]) -> Decision:
    """To the stable version, if that can answer; nobody is helped by traffic for one that cannot."""
    ready = observed.versions.get(state.stable, "ready")
    if ready == "ready":
        return decided(state, roll_back(state, now, reason), f"rolled back: {reason}", found)
    words = f"{reason}; but {state.stable} is {ready} and cannot take the traffic back"
    if state.phase is Phase.PAUSED:
        return decided(state, replace(state, reason=words), words, found)
    return decided(state, interrupted(state, now, words, "stuck"), words, found)


def _forward(state: RolloutState, observed: Observed, now: float, found: Sequence[Finding]) -> Decision:
    reason = next(_holds(state, observed, now, found), None)
    if reason is not None:
        return decided(state, state, f"it holds {state.weight:g} %: {reason}", found)
    if state.phase is Phase.PROMOTING:
        words = f"{state.policy.to} has proved itself with all of the traffic"
        return decided(state, promoted(state, now, words), words, found)
    step = next_step(state)
    weight = state.policy.weights[step]
    gate = f"manual {weight:g}"
    if weight in state.policy.gates.manual and gate not in state.passed:
        words = f"before {weight:g} % a person has to say resume"
        return decided(state, interrupted(state, now, words, "gate"), words, found)
    if (asked := _ask(state, weight, now)) is not None:
        waiting, calls = asked
        closed = ", ".join(hook.url for hook in gates(state, weight))
        return decided(state, waiting, f"it holds {state.weight:g} %: it waits for {closed}", found, calls)
    return _step(state, step, now, found, f"nothing speaks against {state.weight:g} %")


def gates(state: RolloutState, weight: float) -> list[Call]:
    """The webhooks that still have to say yes before this weight."""
    kinds = {"pre_step", "pre_promote"} if weight >= _WHOLE else {"pre_step"}
    return [
        Call(url=hook.url, when=hook.when, timeout=hook.timeout, body=said(state))
        for hook in state.policy.gates.webhooks
        if hook.when in kinds and f"{hook.when} {hook.url}" not in state.passed
    ]


def _ask(state: RolloutState, weight: float, now: float) -> tuple[RolloutState, list[Call]] | None:
    """Those that are asked now, each at most once in an interval; None where every gate is open."""
    closed = gates(state, weight)
    if not closed:
        return None
    due = [one for one in closed if now - state.asked.get(f"{one.when} {one.url}", -math.inf) >= state.policy.interval]
    return replace(state, asked={**state.asked, **{f"{one.when} {one.url}": now for one in due}}), due


def _holds(state: RolloutState, observed: Observed, now: float, found: Sequence[Finding]) -> Iterator[str]:
    """The reasons not to go on, first that which matters most."""
    policy, to = state.policy, state.policy.to
    compared = [to] if state.target >= _WHOLE else [to, state.stable]
    if observed.age > policy.stale_seconds:
        yield f"nothing was heard of the counts for {observed.age:.0f} s"
    for name in (to, state.stable):
        if (ready := observed.versions.get(name)) != "ready":
            yield f"{name} is {ready or 'not known of'}"
    if state.settled is None:
        yield f"{state.weight:g} % is not in force everywhere yet"
    if state.phase is Phase.SHADOW:
        yield from _shadow_holds(state)
    else:
        clean = state.clean
        for name in compared:
            if (count := clean.of(name).requests) < max(1, policy.min_samples):
                yield f"{name} has answered {count} of {policy.min_samples} requests that this step takes"
            if (silent := now - state.rose.get(name, now)) > _quiet(state, name, now):
                yield f"{name} has had no request for {silent:.0f} s"
    seconds = 0.0 if state.phase is Phase.SHADOW else policy.min_seconds
    if (spent := now - max(state.entered, state.forced)) < seconds:
        yield f"{spent:.0f} of {seconds:g} s that this step takes are over"
    if now - state.moved < policy.interval and state.phase is not Phase.SHADOW:
        yield f"the last move was {now - state.moved:.0f} s ago"
    if policy.judge is not None and (next_weight(state) or 0.0) >= _WHOLE and state.phase is Phase.CANARY:
        judged = next((one for one in found if one.name == "judge"), None)
        if judged is None or judged.verdict != "proved":
            yield f"{policy.judge.metric} does not show yet that {to} is good enough"


def _shadow_holds(state: RolloutState) -> Iterator[str]:
    shadow, pairs = state.policy.shadow, state.counts.pairs
    if shadow is not None and pairs.count < shadow.pairs:
        yield f"{pairs.count} of {shadow.pairs} requests are compared"


def _quiet(state: RolloutState, name: str, now: float) -> float:
    count = state.counts.of(name).requests
    return max(_QUIET_SECONDS, _QUIET_GAPS * max(0.0, now - state.entered) / max(1, count))


def _seen(state: RolloutState, observed: Observed, now: float) -> RolloutState:
    """With what has been counted since the last look, and with the weights in force if they are."""
    shown = Counts(
        evidence={**state.seen.evidence, **observed.evidence},
        judge={**state.seen.judge, **observed.judge},
        pairs=observed.pairs,
    )
    counts = state.counts.plus(shown, state.seen)
    rose = dict(state.rose)
    for name in rose:
        if counts.of(name).requests > state.counts.of(name).requests and now - state.looked <= _ASLEEP:
            rose[name] = now
    found = replace(state, seen=shown, counts=counts, rose=rose, looked=now)
    if not in_force(found.wanted, observed):
        return found
    if not found.applied and (observed.weights is not None or now > found.moved):
        found = replace(found, applied=True)
    if state.phase in RUNNING and found.settled is None and found.weight >= found.target:
        if not found.forced:
            found = replace(found, forced=now)
        elif now - found.forced >= _SETTLING:
            found = replace(found, settled=counts)
    return found
