"""What a rollout does and why, for people: in words, numbers and a line of bars; and the same as JSON for programs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from turnout.deploy.rollout.findings import findings
from turnout.deploy.rollout.forecast import advice, forecasts, span
from turnout.deploy.rollout.state import RUNNING, WATCHED, Decision, Finding, Observed, Phase, RolloutState
from turnout.deploy.rollout.transitions import next_weight

_BARS = {False: "_.:-=+*#%@", True: "▁▂▃▄▅▆▇█"}
_NAMES = {"errors": "errors", "invalid": "invalid answers", "fallback": "fallbacks", "disagreement": "disagreement"}
_VERDICTS = {"breached": "BREACHED", "fine": "fine", "proved": "proved", "waiting": "not known yet"}


def status(decision: Decision, observed: Observed, now: float, *, unicode: bool = True, width: int = 48) -> str:
    """The whole state as text, some lines long. width: of the line of bars, in characters."""
    state = decision.state
    to, stable = state.policy.to, state.stable
    lines = [f"{to}, compared with {stable}: {headline(state)}", f"  {decision.words}"]
    if len(state.moves) > 1:
        lines.append(f"  weight  {bars(state, now, width=width, unicode=unicode)}  {state.weight:g} %")
    if state.phase in WATCHED:
        found = findings(state, sticky=observed.sticky, now=now, full=True)
        lines += [f"  {line}" for line in _table([_row(one, state) for one in found])]
        if observed.sticky and state.policy.mismatch_alpha:
            lines.append("  shares: not tested, as requests of one sticky unit come together")
    lines += [f"  {line}" for line in _ahead(state, now)]
    return "\n".join(lines)


def status_json(decision: Decision, observed: Observed, now: float) -> dict[str, Any]:
    """The same as plain JSON values; None for what is not known."""
    state = decision.state
    found = findings(state, sticky=observed.sticky, now=now, full=True) if state.phase in WATCHED else []
    due = forecasts(state, now)
    return {
        "to": state.policy.to,
        "from": state.stable,
        "phase": state.phase.value,
        "step": state.step,
        "steps": list(state.policy.weights),
        "weight": state.weight,
        "next_weight": next_weight(state) if state.phase in WATCHED else None,
        "words": decision.words,
        "reason": state.reason,
        "seconds_left": _left(state, now),
        "findings": [_finite(msgspec.to_builtins(one)) for one in found],
        "forecasts": [_finite(msgspec.to_builtins(one)) | {"words": str(one)} for one in due],
        "moves": [msgspec.to_builtins(one) for one in state.moves],
    }


def headline(state: RolloutState) -> str:
    """Where it is, in a few words."""
    where = f"at {state.weight:g} %"
    if state.phase is Phase.CANARY:
        return f"canary {where}, step {state.step + 1} of {len(state.policy.weights)}"
    said = {
        Phase.PENDING: "pending",
        Phase.SHADOW: "shadow: compared, and not shown to callers",
        Phase.PROMOTING: "promoting: it has all traffic and is watched",
        Phase.STABLE: "stable: it has all traffic",
        Phase.PAUSED: f"paused {where}",
        Phase.INCONCLUSIVE: f"inconclusive {where}",
        Phase.ROLLED_BACK: "rolled back",
    }
    return said[state.phase]


def bars(state: RolloutState, now: float, *, width: int = 48, unicode: bool = True) -> str:
    """The new version's weight from the beginning until now, a character for each part of that time."""
    if not state.moves:
        return ""
    marks, begun = _BARS[unicode], state.moves[0].at
    length = max(now - begun, 1e-9)
    drawn, place, weight = "", 0, 0.0
    for column in range(width):
        until = begun + length * (column + 1) / width
        while place < len(state.moves) and state.moves[place].at <= until:
            weight = state.moves[place].weight
            place += 1
        drawn += marks[min(len(marks) - 1, math.ceil(weight / 100.0 * (len(marks) - 1)))]
    return drawn


def _row(found: Finding, state: RolloutState) -> tuple[str, ...]:
    name = _NAMES.get(found.name, found.name)
    if found.name == "judge" and state.policy.judge is not None:
        name = state.policy.judge.metric
    if found.name == "mismatch":
        name = "share of requests"
    return (
        name,
        _value(found, found.estimate),
        f"[{_value(found, found.low)}, {_value(found, found.high)}]" if found.low is not None or found.high else "",
        _limit(found),
        _VERDICTS[found.verdict],
        f"{found.canary} and {found.stable} {'pairs' if found.name == 'disagreement' else 'seen'}",
    )


def _limit(found: Finding) -> str:
    if found.name == "judge":
        return f"wanted above {found.limit or 0.0:g}"
    return f"{'due' if found.name == 'mismatch' else 'limit'} {_value(found, found.limit)}"


def _value(found: Finding, value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "?"
    if found.name.startswith("latency"):
        return f"{value:.2f}x"
    if found.name == "judge":
        return f"{value:+.4g}"
    if found.name in {"mismatch", "disagreement"}:
        return f"{value:.2%}"
    return f"{value * 100:+.2f} points"


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    if not rows:
        return []
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _ahead(state: RolloutState, now: float) -> list[str]:
    """What has to come before it goes on, how long that takes, and what is next."""
    if state.phase is Phase.INCONCLUSIVE or (state.phase is Phase.PAUSED and state.by != "stuck"):
        return ["next: resume, promote or abort, as a person says"]
    if state.phase not in RUNNING:
        return []
    weight = next_weight(state)
    then = f"{weight:g} %" if weight is not None else "the end: it is the stable version"
    left = _left(state, now)
    lines = [f"next: {then}; this step takes {span(left or 0.0)} more at least" if left else f"next: {then}"]
    room = state.policy.max_seconds - (now - state.began)
    lines += [advice(one, room) for one in forecasts(state, now)]
    return lines


def _left(state: RolloutState, now: float) -> float | None:
    """Seconds that a step takes at least from now on."""
    if state.phase not in {Phase.CANARY, Phase.PROMOTING}:
        return None
    return max(0.0, state.policy.min_seconds - (now - state.entered), state.policy.interval - (now - state.moved))


def _finite(said: dict[str, Any]) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in said.items()
    }
