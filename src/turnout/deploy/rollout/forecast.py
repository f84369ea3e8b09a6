"""How long it takes to know: from the very tests that decide, at the pace of the requests that come."""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec

from turnout.deploy.rollout.findings import LEAST_VALUES, alphas, compared
from turnout.deploy.rollout.policy import IncreaseGuard
from turnout.deploy.rollout.state import Phase, RolloutState
from turnout.deploy.rollout.statistics import Information, Sums, Trials, mean_interval, rate_higher

_MOST = 10**9
#: The drop that a rate's judge is asked to find where nobody has said which matters, and the part of one standard
#: deviation for other values.
_POINTS = 0.02
_DEVIATIONS = 0.1
_WHOLE = 100.0


class Forecast(msgspec.Struct, kw_only=True, frozen=True):
    """So many requests to the endpoint, from the beginning of a step, until `what` is known; seconds at today's pace.

    seconds: of the step in all, infinite where nothing comes. pace: requests to the endpoint a second.
    """

    what: str
    requests: int
    seconds: float
    pace: float

    def __str__(self) -> str:
        if not self.pace:
            return f"{self.what} needs about {self.requests} requests, and none come"
        return f"at {pace_text(self.pace)} {self.what} needs {span(self.seconds)}"


def forecasts(state: RolloutState, now: float) -> list[Forecast]:
    """For the samples of this step, for the guard of errors, and for the judge, whichever there are."""
    if state.phase not in {Phase.CANARY, Phase.PROMOTING} or not state.weight:
        return []
    share = state.weight / _WHOLE
    elapsed = max(1.0, now - state.entered)
    total = sum(seen.requests for seen in state.counts.evidence.values())
    pace = total / elapsed
    least = min(share, 1.0 - share) if share < 1.0 else 1.0
    found = [
        _forecast(f"reaching the step's {state.policy.min_samples} samples", state.policy.min_samples / least, pace)
    ]
    guard = state.policy.guard.on().get("errors")
    if isinstance(guard, IncreaseGuard) and share < 1.0:
        drop = 2.0 * guard.max_increase or _POINTS
        requests = until_errors(state, drop, share)
        found.append(_forecast(f"finding {drop * 100:g} points more errors", requests, pace))
    if state.policy.judge is not None and share < 1.0 and (judged := _judge(state, share, total)) is not None:
        found.append(_forecast(judged[0], judged[1], pace))
    return found


def advice(forecast: Forecast, left: float) -> str:
    """What one can do where something takes longer than there is time (`left`, seconds)."""
    return f"{forecast}: continue, extend or replay" if forecast.seconds > left else str(forecast)


def until_errors(state: RolloutState, increase: float, share: float) -> int:
    """Requests to the endpoint until so large an increase of errors is found, on average; share: the new version's."""
    guard = state.policy.guard.on()["errors"]
    limit = guard.max_increase if isinstance(guard, IncreaseGuard) else 0.0
    _, stable = compared(state)
    usual = stable.errors / stable.requests if stable.requests else 0.0
    needed = math.log(1.0 / alphas(state.policy).guard)

    def found(total: int) -> bool:
        ours, theirs = max(1, round(total * share)), max(1, round(total * (1.0 - share)))
        rate = min(1.0, usual + increase)
        canary, reference = Trials(ours, round(rate * ours)), Trials(theirs, round(usual * theirs))
        return rate_higher(canary, reference, limit) >= needed

    return _first(found)


def until_judged(deviation: float, effect: float, alpha: float, share: float, usual_count: int) -> int:
    """Requests to the endpoint until a difference of `effect` is expected to be shown; deviation: of one value."""

    def found(total: int) -> bool:
        ours, theirs = total * share, total * (1.0 - share)
        if min(ours, theirs) < LEAST_VALUES:
            return False
        value = deviation * deviation
        amount = 1.0 / (value / ours + value / theirs)
        return mean_interval(Information(effect, amount, usual_count / (2.0 * value)), alpha).low > 0.0

    return _first(found)


def pace_text(pace: float) -> str:
    """Requests by the unit of time in which there are some."""
    units = (("s", 1.0), ("min", 60.0), ("h", 3600.0), ("day", 86400.0))
    unit, seconds = next((one for one in units if pace * one[1] >= 1.0), units[-1])
    return f"{pace * seconds:.3g} requests/{unit}"


def span(seconds: float) -> str:
    """A duration as a person would say it."""
    if not math.isfinite(seconds):
        return "for ever"
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2.0 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _judge(state: RolloutState, share: float, total: int) -> tuple[str, float] | None:
    judge = state.policy.judge
    if judge is None:
        return None
    every = Sums(0, 0.0, 0.0)
    for name in (state.policy.to, state.stable):
        every = every.plus(state.counts.values(name))
    if every.size < 2:
        return None
    deviation = math.sqrt(every.variance)
    effect = judge.effect or (_POINTS if judge.kind == "rate" else _DEVIATIONS * deviation)
    if not deviation or not effect:
        return None
    usual = max(LEAST_VALUES, 5 * state.policy.min_samples)
    wanted = until_judged(deviation, effect, alphas(state.policy).judge, share, usual)
    said = (
        f"seeing a {effect * 100:g}-point difference"
        if judge.kind == "rate"
        else f"seeing a difference of {effect:.3g}"
    )
    # Not every request has a value.
    return f"{said} of {judge.metric}", wanted * max(1.0, total / every.size)


def _forecast(what: str, requests: float, pace: float) -> Forecast:
    seconds = requests / pace if pace else math.inf
    return Forecast(what=what, requests=math.ceil(requests), seconds=seconds, pace=pace)


def _first(found: Callable[[int], bool]) -> int:
    """The least total for which something is found, to within some percent."""
    high = 8
    while not found(high) and high < _MOST:
        high *= 2
    low = high // 2
    while high - low > max(1, high // 50):
        middle = (low + high) // 2
        if found(middle):
            high = middle
        else:
            low = middle
    return high
