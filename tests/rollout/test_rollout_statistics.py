"""The tests of a rollout are what they say: martingales, intervals that cover, and limits that are kept."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout.deploy.rollout.statistics import (
    Sums,
    Trials,
    difference_interval,
    log_likelihood,
    log_mixture,
    mean_above,
    mean_difference,
    mean_interval,
    mismatch,
    quantile_slower,
    rate_above,
    rate_below,
    rate_higher,
    rate_interval,
    rate_lower,
)

Draw = Callable[[np.random.Generator, int], np.ndarray]
counts = (
    st.integers(0, 300).flatmap(lambda size: st.tuples(st.just(size), st.integers(0, size))).map(lambda t: Trials(*t))
)


def test_the_mixture_is_a_distribution_over_sequences() -> None:
    for size in (1, 2, 5, 8):
        whole = sum(math.comb(size, hits) * math.exp(log_mixture(Trials(size, hits))) for hits in range(size + 1))
        assert whole == pytest.approx(1.0)


@pytest.mark.parametrize("rates", [(0.3, 0.3), (0.05, 0.04), (0.5, 0.9), (0.01, 0.01)])
def test_evidence_against_what_holds_is_1_at_most_on_average(rates: tuple[float, float]) -> None:
    """Over all outcomes of some requests to both, exactly: what makes a limit of 1/alpha keep alpha."""
    canary, stable = rates
    expected = 0.0
    for ours, theirs in product(range(13), range(9)):
        chance = math.comb(12, ours) * math.exp(log_likelihood(Trials(12, ours), canary))
        chance *= math.comb(8, theirs) * math.exp(log_likelihood(Trials(8, theirs), stable))
        expected += chance * math.exp(rate_higher(Trials(12, ours), Trials(8, theirs), max(0.0, canary - stable)))
    assert expected <= 1.0


@given(counts, counts, st.floats(-0.9, 0.9))
def test_the_pair_that_explains_the_counts_best_is_found(canary: Trials, stable: Trials, margin: float) -> None:
    found = rate_higher(canary, stable, margin)
    if found == -math.inf:
        assert not canary.size or not stable.size or canary.rate - stable.rate <= margin
        return
    grid = np.linspace(max(0.0, -margin), min(1.0, 1.0 - margin), 400).tolist()
    best = max(log_likelihood(canary, min(1.0, rate + margin)) + log_likelihood(stable, rate) for rate in grid)
    assert found <= log_mixture(canary) + log_mixture(stable) - best + 1e-6


@given(counts, counts)
def test_an_interval_holds_its_estimate_and_ends_where_the_tests_do(canary: Trials, stable: Trials) -> None:
    found = difference_interval(canary, stable, 0.05)
    if math.isnan(found.estimate):
        return
    assert -1.0 <= found.low <= found.estimate <= found.high <= 1.0
    need = math.log(20.0)
    assert rate_higher(canary, stable, found.low + 1e-6) < need + 1e-3
    assert rate_lower(canary, stable, found.high - 1e-6) < need + 1e-3
    single = rate_interval(canary, 0.05)
    assert 0.0 <= single.low <= canary.rate <= single.high <= 1.0


@given(counts, st.floats(0.01, 0.99))
def test_above_and_below_mirror_each_other(trials: Trials, limit: float) -> None:
    turned = Trials(trials.size, trials.size - trials.hits)
    assert rate_above(trials, limit) == pytest.approx(rate_below(turned, 1.0 - limit), rel=1e-6, abs=1e-6)


def test_an_interval_covers_the_truth_at_all_times_together() -> None:
    """Looked at after each of 300 requests; a plain interval would be wrong in about half of the runs."""
    random, wrong, naive, runs = np.random.default_rng(7), 0, 0, 300
    for _ in range(runs):
        hits = np.cumsum(random.random(300) < 0.2).tolist()
        trials = [Trials(size, seen) for size, seen in enumerate(hits, 1)]
        wrong += any(rate_above(one, 0.2) >= math.log(20) for one in trials)
        naive += any(
            one.size >= 30 and one.rate - 0.2 > 1.645 * math.sqrt(0.16 / one.size) for one in trials
        )  # fmt: skip
    assert wrong / runs <= 0.05
    assert naive / runs > 0.15, "positive control: looking again and again is what makes a plain test wrong"


def histogram(buckets: np.ndarray) -> list[int]:
    return np.bincount(np.clip(buckets, 0, 142), minlength=144).tolist()


@pytest.mark.parametrize("share", [0.5, 0.95])
@pytest.mark.parametrize("spread", [0.5, 3.0, 8.0])
def test_a_slower_quantile_is_found_and_one_within_the_limit_is_not(share: float, spread: float) -> None:
    random, need = np.random.default_rng(1), math.log(1000.0)
    wrong = right = 0
    for _ in range(60):
        stable = np.floor(60 + spread * random.standard_normal(4000)).astype(int)
        within = np.floor(62 + spread * random.standard_normal(4000)).astype(int)
        slower = np.floor(66 + spread * random.standard_normal(4000)).astype(int)
        wrong += quantile_slower(histogram(within), histogram(stable), share, 2, need) >= need
        right += quantile_slower(histogram(slower), histogram(stable), share, 2, need) >= need
    assert wrong == 0
    assert right >= 55


def cached(random: np.random.Generator, count: int) -> np.ndarray:
    """Half of the answers come from a cache, thirty times as fast."""
    return np.where(random.random(count) < 0.5, 0.002, 0.060) * np.exp(0.1 * random.standard_normal(count))


def stalled(random: np.random.Generator, count: int) -> np.ndarray:
    """One answer in fifty waits for something that takes a hundred times as long."""
    return np.where(random.random(count) < 0.02, 1.0, 0.010) * np.exp(0.25 * random.standard_normal(count))


def usual(random: np.random.Generator, count: int) -> np.ndarray:
    return 0.010 * np.exp(0.5 * random.standard_normal(count))


def sums(values: np.ndarray) -> Sums:
    return Sums(len(values), float(values.sum()), float((values**2).sum()))


@pytest.mark.parametrize(("draw", "found"), [(usual, 60), (cached, 40), (stalled, 60)])
@pytest.mark.parametrize("share", [0.05, 0.5])
def test_a_mean_at_its_limit_is_within_it_and_one_beyond_is_found(draw: Draw, found: int, share: float) -> None:
    """Looked at forty times, at latencies that are anything but normal: a test that is wrong in the limit only."""
    wrong = right = 0
    for seed in range(60):
        for factor in (1.2, 2.4):
            random = np.random.default_rng(seed)
            canary = stable = Sums(0, 0.0, 0.0)
            shown = False
            for _ in range(40):
                ours = int(random.binomial(50, share))
                canary = canary.plus(sums(np.log(factor * draw(random, ours))))
                stable = stable.plus(sums(np.log(draw(random, 50 - ours))))
                known = mean_difference([(canary, stable)], 30, 100)
                shown |= known is not None and mean_above(known, math.log(1.2), 0.05) >= math.log(20.0)
            wrong += shown and factor == 1.2
            right += shown and factor == 2.4
    assert wrong <= 0.05 * 60
    assert right >= (found if share == 0.5 else 0.4 * found)


def test_latencies_of_nobody_say_nothing() -> None:
    nobody, some = [0] * 144, histogram(np.full(1000, 60))
    for canary, stable in ((nobody, some), (some, nobody), (nobody, nobody)):
        assert quantile_slower(canary, stable, 0.95, 2, 5.0) == -math.inf
    assert quantile_slower(some, some, 0.95, 0, 5.0) < 0.0
    assert quantile_slower(some, some, 0.95, -3, 5.0) > 5.0, "that it is not three buckets faster can be shown"


def test_shares_that_are_kept_raise_no_alarm_and_others_do() -> None:
    random, alarms, need = np.random.default_rng(3), 0, math.log(1 / 0.05)
    for _ in range(300):
        drawn = np.cumsum(random.random(2000) < 0.05).tolist()
        alarms += any(
            mismatch({"a": size - hits, "b": hits}, {"a": 95.0, "b": 5.0}) >= need
            for size, hits in list(enumerate(drawn, 1))[::20]
        )
    assert alarms / 300 <= 0.05
    assert mismatch({"a": 9700.0, "b": 300.0}, {"a": 95.0, "b": 5.0}) > math.log(1 / 0.001)
    assert mismatch({"a": 5.0}, {"a": 100.0}) == -math.inf


def test_a_trend_over_time_is_no_difference_between_versions() -> None:
    """First 1 % at a low level, then 50 % at a high one: taken together the canary looks better by far."""
    random = np.random.default_rng(5)
    periods = [
        (sums(random.normal(0.0, 1.0, 200)), sums(random.normal(0.0, 1.0, 20_000))),
        (sums(random.normal(5.0, 1.0, 10_000)), sums(random.normal(5.0, 1.0, 10_000))),
    ]
    pooled = [(periods[0][0].plus(periods[1][0]), periods[0][1].plus(periods[1][1]))]
    apart, together = (mean_difference(one, 100, 1000) for one in (periods, pooled))
    assert apart is not None
    assert together is not None
    assert mean_interval(apart, 0.05).low < 0.0 < mean_interval(apart, 0.05).high
    assert mean_interval(together, 0.05).low > 2.0, "positive control"


def test_few_values_and_values_that_do_not_vary_say_nothing() -> None:
    few, same = sums(np.arange(50.0)), sums(np.ones(500))
    assert mean_difference([(few, few)], 100, 1000) is None
    assert mean_difference([(same, same)], 100, 1000) is None
    assert mean_difference([], 100, 1000) is None
    none = sums(np.zeros(500))
    known = mean_difference([(none, none)], 100, 1000, rate=True)
    assert known is not None
    assert mean_interval(known, 0.05).low < 0.0 < mean_interval(known, 0.05).high
