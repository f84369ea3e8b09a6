"""What the counts show of each guard, of the judge, and of the shares: numbers and verdicts, no decision."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from operator import mul
from typing import NamedTuple

import msgspec

from turnout.deploy.rollout.policy import DisagreementGuard, IncreaseGuard, LatencyGuard, RolloutPolicy
from turnout.deploy.rollout.state import Counts, Finding, Phase, RolloutState
from turnout.deploy.rollout.statistics import (
    Sums,
    Trials,
    difference_interval,
    mean_above,
    mean_difference,
    mean_interval,
    mismatch,
    quantile_slower,
    rate_above,
    rate_higher,
    rate_interval,
)
from turnout.graph.evidence import BOUNDS, STEP, Evidence

#: Values on both sides before a period says anything of a difference of means.
LEAST_VALUES = 100
_GROWTH = math.log(STEP)
_WIDEST = 300
#: Logarithms are no money: their mean is about normal much sooner than those of a judge.
_LEAST_LATENCIES = 30
_USUAL_LATENCIES = 100
_MIDDLES = (*(math.log(bound) - 0.5 * _GROWTH for bound in BOUNDS), math.log(BOUNDS[-1]) + 0.5 * _GROWTH)
_SQUARES = tuple(middle * middle for middle in _MIDDLES)
#: Seconds that a request may take before its not having been answered yet says something of the shares.
_SLOWEST = 30.0
_QUICKEST = 0.05
_WHOLE = 100.0


class Alphas(NamedTuple):
    """The error rates that each test has of the whole."""

    guard: float
    judge: float
    mismatch: float


def alphas(policy: RolloutPolicy) -> Alphas:
    """Equal parts for each guard in each step; half of all for the judge, if there is one."""
    periods = len(policy.weights) + (policy.shadow is not None)
    guards = policy.alpha * (0.5 if policy.judge else 1.0)
    return Alphas(
        guards / (max(1, len(policy.guard.on())) * periods), policy.alpha * 0.5, policy.mismatch_alpha / periods
    )


def findings(state: RolloutState, *, sticky: bool = False, now: float = math.inf, full: bool = False) -> list[Finding]:
    """Of every guard, the judge and the shares. full: with intervals, which a decision does not need.

    now: seconds since the epoch, for how long requests may have been under way.
    """
    clean = state.clean
    found = list(_guards(state, clean, full=full))
    if state.policy.judge is not None and (judged := _judge(state, clean)) is not None:
        found.append(judged)
    if state.policy.mismatch_alpha and not sticky and state.phase is Phase.CANARY:
        found.append(_shares(state, clean, now))
    return found


def breach(found: list[Finding]) -> Finding | None:
    """The first that is a reason to go back; the shares are none."""
    return next((one for one in found if one.verdict == "breached" and one.name != "mismatch"), None)


def compared(state: RolloutState) -> tuple[Evidence, Evidence]:
    """What the new and the stable version showed in this step; without a share, the stable one as it was before."""
    counts = state.counts
    stable = counts.of(state.stable)
    if state.target >= _WHOLE and state.reference is not None:
        stable = state.reference
    return counts.of(state.policy.to), stable


def _guards(state: RolloutState, clean: Counts, *, full: bool) -> Iterator[Finding]:
    alpha = alphas(state.policy).guard
    canary, stable = compared(state)
    pairs = state.counts.pairs
    for name, guard in state.policy.guard.on().items():
        if isinstance(guard, LatencyGuard):
            parts = len(guard.quantiles) + guard.mean
            for quantile in guard.quantiles:
                yield _latency(state, clean, guard, quantile, alpha / parts, full=full)
            if guard.mean:
                yield _mean_latency(*_answered(state, clean), guard, alpha / parts, full=full)
        elif isinstance(guard, DisagreementGuard):
            yield _disagreement(guard, Trials(pairs.count, min(pairs.count, max(0, pairs.differ))), alpha, full=full)
        else:
            tried = Trials(canary.requests, _hits(canary, name))
            if state.phase is Phase.SHADOW:
                failed = pairs.failed if name == "errors" else 0
                tried = Trials(pairs.count + pairs.failed, failed)
            yield _increase(name, guard, tried, Trials(stable.requests, _hits(stable, name)), alpha, full=full)


def _hits(evidence: Evidence, guard: str) -> int:
    return evidence.degraded if guard == "fallback" else evidence.invalid if guard == "invalid" else evidence.errors


def _increase(name: str, guard: IncreaseGuard, canary: Trials, stable: Trials, alpha: float, *, full: bool) -> Finding:
    needed = math.log(1.0 / alpha)
    found = rate_higher(canary, stable, guard.max_increase)
    known = difference_interval(canary, stable, alpha) if full and canary.size and stable.size else None
    return Finding(
        name=name,
        verdict="breached" if found >= needed else "fine" if canary.size and stable.size else "waiting",
        limit=guard.max_increase,
        estimate=canary.rate - stable.rate if canary.size and stable.size else None,
        low=known.low if known else None,
        high=known.high if known else None,
        evidence=max(0.0, found),
        needed=needed,
        canary=canary.size,
        stable=stable.size,
    )


def _disagreement(guard: DisagreementGuard, pairs: Trials, alpha: float, *, full: bool) -> Finding:
    needed = math.log(1.0 / alpha)
    found = rate_above(pairs, guard.max)
    known = rate_interval(pairs, alpha) if full and pairs.size else None
    return Finding(
        name="disagreement",
        verdict="breached" if found >= needed else "fine" if pairs.size else "waiting",
        limit=guard.max,
        estimate=pairs.rate if pairs.size else None,
        low=known.low if known else None,
        high=known.high if known else None,
        evidence=max(0.0, found),
        needed=needed,
        canary=pairs.size,
        stable=pairs.size,
    )


def _latency(
    state: RolloutState, clean: Counts, guard: LatencyGuard, quantile: float, alpha: float, *, full: bool
) -> Finding:
    needed = math.log(1.0 / alpha)
    canary, stable = _answered(state, clean)
    slow, usual = canary.latency, stable.latency
    both = sum(slow) and sum(usual)
    steps = math.ceil(math.log(guard.max_ratio) / _GROWTH - 1e-6)
    found = quantile_slower(slow, usual, quantile, steps, needed) if both else -math.inf
    if both and canary.quantile(quantile) - stable.quantile(quantile) < guard.min_difference:
        found = min(found, 0.0)  # slower by so many times, and by nothing that anybody would notice
    low, high = _ratios(slow, usual, quantile, needed) if full and both else (None, None)
    return Finding(
        name=f"latency p{quantile * 100:g}",
        verdict="breached" if found >= needed else "fine" if both else "waiting",
        limit=guard.max_ratio,
        estimate=canary.quantile(quantile) / stable.quantile(quantile) if both else None,
        low=low,
        high=high,
        evidence=max(0.0, found),
        needed=needed,
        canary=sum(slow),
        stable=sum(usual),
    )


def _mean_latency(canary: Evidence, stable: Evidence, guard: LatencyGuard, alpha: float, *, full: bool) -> Finding:
    """The geometric mean: the mean of logarithms, which a few very slow requests do not hide or make up."""
    needed = math.log(1.0 / alpha)
    slow, usual = _logarithms(canary), _logarithms(stable)
    finding = Finding(
        name="latency mean", verdict="fine" if slow.size and usual.size else "waiting", limit=guard.max_ratio,
        needed=needed, canary=slow.size, stable=usual.size,
    )  # fmt: skip
    known = mean_difference([(slow, usual)], _LEAST_LATENCIES, _USUAL_LATENCIES)
    if known is None:  # too few, or all of them in one bucket: then the quantiles know as much
        return finding
    # What is known of a latency is its bucket, so two means that are equal may seem to be a bucket apart.
    found = mean_above(known, math.log(guard.max_ratio) + _GROWTH, alpha)
    if math.exp(slow.mean) - math.exp(usual.mean) < guard.min_difference:
        found = min(found, 0.0)
    within = mean_interval(known, alpha) if full else None
    return msgspec.structs.replace(
        finding,
        verdict="breached" if found >= needed else "fine",
        estimate=math.exp(known.estimate),
        low=math.exp(within.low) if within else None,
        high=math.exp(within.high) if within else None,
        evidence=max(0.0, found),
    )


def _answered(state: RolloutState, clean: Counts) -> tuple[Evidence, Evidence]:
    """As `compared`, of the requests that count for latency."""
    stable = clean.of(state.stable)
    if state.target >= _WHOLE and state.reference is not None:
        stable = state.reference
    return clean.of(state.policy.to), stable


def _logarithms(evidence: Evidence) -> Sums:
    """The logarithms of the latencies (seconds), each as the middle of its bucket."""
    counts = evidence.latency
    return Sums(sum(counts), sum(map(mul, counts, _MIDDLES)), sum(map(mul, counts, _SQUARES)))


def _ratios(slow: list[int], usual: list[int], share: float, needed: float) -> tuple[float | None, float | None]:
    """Between what the ratio of the quantiles lies; None where an end is not known."""
    low = _most(lambda steps: quantile_slower(slow, usual, share, steps, needed) >= needed)
    high = _most(lambda steps: quantile_slower(usual, slow, share, steps, needed) >= needed)
    return (
        None if low is None else math.exp(_GROWTH * low),
        None if high is None else math.exp(-_GROWTH * high),
    )


def _judge(state: RolloutState, clean: Counts) -> Finding | None:
    judge = state.policy.judge
    if judge is None:
        return None
    alpha = alphas(state.policy).judge
    periods = [*state.judged, (clean.values(state.policy.to), clean.values(state.stable))]
    canary = sum(one.size for one, _ in periods)
    stable = sum(one.size for _, one in periods)
    usual = max(LEAST_VALUES, 5 * state.policy.min_samples)
    known = mean_difference(periods, LEAST_VALUES, usual, rate=judge.kind == "rate")
    if known is None:
        return Finding(name="judge", verdict="waiting", limit=-judge.margin, canary=canary, stable=stable)
    within = mean_interval(known, alpha)
    better = within if judge.better == "higher" else within.turned()
    proved, worse = better.low > -judge.margin, better.high < -judge.margin
    return Finding(
        name="judge",
        verdict="proved" if proved else "breached" if worse else "waiting",
        limit=-judge.margin,
        estimate=better.estimate,
        low=better.low,
        high=better.high,
        canary=canary,
        stable=stable,
    )


def period(state: RolloutState) -> tuple[Sums, Sums]:
    """The judge's values of this step, for when it is over."""
    clean = state.clean
    return clean.values(state.policy.to), clean.values(state.stable)


def _shares(state: RolloutState, clean: Counts, now: float) -> Finding:
    """Whether requests arrive in their shares. One that is under way does not count against its version."""
    wanted = {name: share for name, share in state.wanted.items() if share > 0.0}
    seen = {name: clean.of(name) for name in wanted}
    counts = {name: float(one.requests) for name, one in seen.items()}
    total, whole = sum(counts.values()), sum(wanted.values())
    needed = math.log(1.0 / alphas(state.policy).mismatch)
    seconds = max(1.0, now - state.forced) if math.isfinite(now) else 1.0
    sent = max(count * whole / wanted[name] for name, count in counts.items())
    for name, share in wanted.items():
        due = sent * share / whole
        slowest = seen[name].quantile(0.99) if sum(seen[name].latency) else _SLOWEST
        under_way = due / seconds * min(_SLOWEST, seconds, max(_QUICKEST, slowest))
        counts[name] += max(0.0, min(under_way, due - counts[name]))
    found = mismatch(counts, wanted)
    to = state.policy.to
    return Finding(
        name="mismatch",
        verdict="breached" if found >= needed else "fine" if total else "waiting",
        limit=wanted.get(to, 0.0) / whole,
        estimate=seen[to].requests / total if total and to in seen else None,
        evidence=max(0.0, found),
        needed=needed,
        canary=seen[to].requests if to in seen else 0,
        stable=int(total) - (seen[to].requests if to in seen else 0),
    )


def _most(shown: Callable[[int], bool]) -> int | None:
    """The highest number of steps for which something is shown that gets harder with each; None where none is."""
    low, high = -_WIDEST, _WIDEST
    if not shown(low):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        if shown(middle):
            low = middle
        else:
            high = middle
    return low
