"""Always-valid sequential tests: one may look after every request, and the error rate is kept for the whole of time.

Every test here gives an e-process: a number that begins at 1, and that as long as the hypothesis holds has an
expectation of at most 1 whenever one stops. By Ville's inequality it ever reaches 1/alpha with a probability of at
most alpha, whenever, however often and for whatever reason one looks. All functions return its natural logarithm;
a hypothesis is rejected when that is at least `log(1 / alpha)`.

Sources:
- H. Robbins, Statistical methods related to the law of the iterated logarithm. Ann. Math. Stat. 41 (1970): mixtures.
- S. R. Howard, A. Ramdas, J. McAuliffe, J. Sekhon, Time-uniform, nonparametric, nonasymptotic confidence sequences.
  Ann. Stat. 49 (2021): the beta-binomial and the normal mixture as boundaries.
- A. Ramdas, P. Gruenwald, V. Vovk, G. Shafer, Game-theoretic statistics and safe anytime-valid inference. Stat. Sci. 38
  (2023): the least of a composite hypothesis' martingales is an e-process for it.
- S. R. Howard, A. Ramdas, Sequential estimation of quantiles with applications to A/B testing and best-arm
  identification. Bernoulli 28 (2022): quantiles by counting what lies above a value.
- M. Lindon, A. Malek, Anytime-valid inference for multinomial count data. NeurIPS 2022: sample ratio mismatch.
- R. Johari, P. Koomen, L. Pekelis, D. Walsh, Always valid inference: continuous monitoring of A/B tests. Oper. Res. 70
  (2022), and I. Waudby-Smith, D. Arbour, R. Sinha, E. Kennedy, A. Ramdas, Time-uniform central limit theory and
  asymptotic confidence sequences. Ann. Stat. 52 (2024): differences of means with estimated variances.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from math import lgamma, log
from typing import NamedTuple

_HALVINGS = 48
_LOG_PI = log(math.pi)
_LEAST = 1e-12


class Trials(NamedTuple):
    """So many requests, of which so many had the property that is counted (an error, say)."""

    size: int
    hits: int

    @property
    def rate(self) -> float:
        """The share of hits; NaN without any trial."""
        return self.hits / self.size if self.size else math.nan


def log_mixture(trials: Trials) -> float:
    """The log likelihood of a sequence of trials, its rate mixed over Beta(1/2, 1/2), in which every rate has a part.

    Divided by the likelihood under the true rate this is a martingale that begins at 1 (Robbins 1970).
    """
    size, hits = trials
    return lgamma(hits + 0.5) + lgamma(size - hits + 0.5) - lgamma(size + 1.0) - _LOG_PI


def log_likelihood(trials: Trials, rate: float) -> float:
    """Of a sequence of trials under one rate; minus infinity where it cannot be."""
    misses = trials.size - trials.hits
    found = 0.0
    if trials.hits:
        if rate <= 0.0:
            return -math.inf
        found += trials.hits * log(rate)
    if misses:
        if rate >= 1.0:
            return -math.inf
        found += misses * log(1.0 - rate)
    return found


def rate_above(trials: Trials, limit: float) -> float:
    """The log evidence that the rate is above a limit."""
    if not trials.size or trials.rate <= limit:
        return -math.inf
    return log_mixture(trials) - log_likelihood(trials, limit)


def rate_below(trials: Trials, limit: float) -> float:
    """The log evidence that the rate is below a limit."""
    return rate_above(Trials(trials.size, trials.size - trials.hits), 1.0 - limit)


def rate_higher(canary: Trials, stable: Trials, margin: float) -> float:
    """The log evidence that the canary's rate is above the stable version's plus a margin.

    Both rates are unknown: the pair that explains the counts best among all with `canary <= stable + margin` counts.
    """
    if not canary.size or not stable.size or canary.rate - stable.rate <= margin:
        return -math.inf
    low, high = max(0.0, -margin), min(1.0, 1.0 - margin)
    if low >= high:
        return -math.inf

    def slope(rate: float) -> float:
        return _slope(canary, rate + margin) + _slope(stable, rate)

    rate = _root(slope, low, high)
    best = log_likelihood(canary, min(1.0, max(0.0, rate + margin))) + log_likelihood(stable, rate)
    return log_mixture(canary) + log_mixture(stable) - best


def rate_lower(canary: Trials, stable: Trials, margin: float) -> float:
    """The log evidence that the canary's rate is below the stable version's plus a margin: that a limit is kept."""
    return rate_higher(
        Trials(canary.size, canary.size - canary.hits), Trials(stable.size, stable.size - stable.hits), -margin
    )


class Interval(NamedTuple):
    """What a quantity is, and between what it lies at the stated error rate, at all times together."""

    estimate: float
    low: float
    high: float

    def turned(self) -> Interval:
        """Of the quantity with the other sign."""
        return Interval(-self.estimate, -self.high, -self.low)


def difference_interval(canary: Trials, stable: Trials, alpha: float) -> Interval:
    """The difference of two rates; each end is wrong with a probability of at most `alpha`."""
    if not canary.size or not stable.size:
        return Interval(math.nan, -1.0, 1.0)
    need, estimate = log(1.0 / alpha), canary.rate - stable.rate
    low = _root(lambda margin: rate_higher(canary, stable, margin) - need, -1.0, estimate)
    high = _root(lambda margin: need - rate_lower(canary, stable, margin), estimate, 1.0)
    return Interval(estimate, low, high)


def rate_interval(trials: Trials, alpha: float) -> Interval:
    """One rate; each end is wrong with a probability of at most `alpha`."""
    if not trials.size:
        return Interval(math.nan, 0.0, 1.0)
    need = log(1.0 / alpha)
    low = _root(lambda limit: rate_above(trials, limit) - need, 0.0, trials.rate)
    high = _root(lambda limit: need - rate_below(trials, limit), trials.rate, 1.0)
    return Interval(trials.rate, low, high)


def quantile_slower(canary: Sequence[int], stable: Sequence[int], share: float, steps: int, need: float) -> float:
    """The log evidence that the canary's quantile is more than `steps` buckets above the stable version's.

    canary, stable: how many requests fell into each bucket, in order. share: of the quantile, as 0.95. need: where
    that cannot be reached, any number below it is returned early.

    Wherever the stable version's quantile really lies, in bucket b say, at most `1 - share` of its requests are above
    that bucket and at least that many are in it or above, and as long as the limit is kept at most `1 - share` of the
    canary's are above bucket b + steps. So the evidence against that b is a product of two e-processes, and the least
    over all b is one against the limit, of whatever form the distributions are. What is known of a latency is its
    bucket, so the limit that is really tested lies between `steps` and `steps + 1` buckets.
    """
    slow, usual = _above(canary), _above(stable)
    total, reference, tail = sum(canary), sum(stable), 1.0 - share
    if not total or not reference:
        return -math.inf

    def against(bucket: int) -> float:
        limit = bucket + steps
        beyond = total if limit < 0 else slow[limit] if limit < len(slow) else 0
        theirs = rate_above(Trials(total, beyond), tail)
        over = rate_above(Trials(reference, usual[bucket]), tail)
        under = rate_below(Trials(reference, usual[bucket - 1] if bucket else reference), tail)
        # A part of each stake is kept back, so that evidence from one version alone is not lost by the other's.
        return _log_mean((theirs, 0.0)) + _log_mean((over, under, 0.0))

    # Where the quantile seems to be is where the evidence is mostly least.
    likely = bisect_left(usual, True, key=lambda above: above <= tail * reference)
    if (first := against(likely)) < need:
        return first
    return min(against(bucket) for bucket in range(len(usual)))


def mean_above(known: Information, limit: float, alpha: float) -> float:
    """The log evidence that a difference of means is above a limit; the mixture is the one that `mean_interval` uses.

    alpha: of the test, at which the mixture needs the least. Asymptotic, as the interval is.
    """
    if known.estimate <= limit:
        return -math.inf
    mixed = mixing(known.usual, alpha)
    score = (known.estimate - limit) * known.amount
    return 0.5 * (log(mixed / (known.amount + mixed)) + score * score / (known.amount + mixed))


def mismatch(counts: Mapping[str, float], shares: Mapping[str, float]) -> float:
    """The log evidence that requests do not arrive in the shares in which they are said to be sent.

    shares: above 0, of any sum. The alternative is a Dirichlet mixture around them (Lindon and Malek 2022).
    """
    whole = sum(shares.values())
    known = {name: share / whole for name, share in shares.items() if share > 0.0}
    if len(known) < 2:
        return -math.inf
    scale = 1.0 / min(known.values())
    total = sum(counts.get(name, 0.0) for name in known)
    found = lgamma(scale) - lgamma(scale + total)
    for name, share in known.items():
        count = counts.get(name, 0.0)
        found += lgamma(scale * share + count) - lgamma(scale * share) - count * log(share)
    return found


class Sums(NamedTuple):
    """Values of one variant: how many, their sum and the sum of their squares."""

    size: int
    total: float
    squares: float

    @property
    def mean(self) -> float:
        """NaN without any value."""
        return self.total / self.size if self.size else math.nan

    @property
    def variance(self) -> float:
        """Of one value; NaN without two."""
        if self.size < 2:
            return math.nan
        return max(0.0, (self.squares - self.total * self.total / self.size) / (self.size - 1))

    def plus(self, other: Sums) -> Sums:
        """Both together."""
        return Sums(self.size + other.size, self.total + other.total, self.squares + other.squares)

    def minus(self, other: Sums) -> Sums:
        """What came after an earlier state of the same sums."""
        return Sums(self.size - other.size, self.total - other.total, self.squares - other.squares)


class Information(NamedTuple):
    """What is known of a difference of means: its estimate, and the inverse of that estimate's variance.

    usual: the information that `usual_count` values a variant would be.
    """

    estimate: float
    amount: float
    usual: float


def mean_difference(
    periods: Sequence[tuple[Sums, Sums]], least: int, usual_count: int, *, rate: bool = False
) -> Information | None:
    """Canary minus stable, from periods in each of which requests were shared out in one way; None: little is known.

    Each period with at least `least` values on both sides counts by its information, so that neither a trend over
    time nor a change of the shares looks like a difference (a stratified estimate). The score, estimate times
    information, goes on like a Brownian motion in the time that information is (Jennison and Turnbull 1997).
    rate: values are zeros and ones, whose variance is taken from both versions together, and never as 0.
    """
    score = amount = spread = weight = 0.0
    for canary, stable in periods:
        if min(canary.size, stable.size) < max(2, least):
            continue
        # The larger for both: few values of a skewed kind have a small variance just when their mean is low.
        value = max(canary.variance, stable.variance)
        if rate:
            share = (canary.total + stable.total + 1.0) / (canary.size + stable.size + 2.0)
            value = max(0.0, share * (1.0 - share))
        variance = value / canary.size + value / stable.size
        if not variance > 0.0:
            continue
        score += (canary.mean - stable.mean) / variance
        amount += 1.0 / variance
        spread += 2.0 * value * canary.size
        weight += canary.size
    return Information(score / amount, amount, usual_count * weight / spread) if amount else None


def mean_interval(known: Information, alpha: float) -> Interval:
    """The difference of means; it lies outside, ever, with a probability of about `alpha`, both sides together.

    The normal mixture boundary, narrowest where there is the usual information. It is asymptotic: exact for normal
    values, and for others from some hundred values on (Waudby-Smith et al. 2024), which is why few values give none.
    """
    mixed = mixing(known.usual, alpha)
    half = math.sqrt((known.amount + mixed) * log((known.amount + mixed) / (mixed * alpha * alpha))) / known.amount
    return Interval(known.estimate, known.estimate - half, known.estimate + half)


def mixing(usual: float, alpha: float) -> float:
    """The mixture's parameter for a boundary that is narrowest at this information (Howard et al. 2021)."""
    logs = -2.0 * log(alpha)
    return usual / (logs + log(logs + 1.0))


def _slope(trials: Trials, rate: float) -> float:
    rate = min(1.0 - _LEAST, max(_LEAST, rate))
    return trials.hits / rate - (trials.size - trials.hits) / (1.0 - rate)


def _root(falling: Callable[[float], float], low: float, high: float) -> float:
    """Where a falling function crosses 0; an end where it does not."""
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        if falling(middle) > 0.0:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


def _above(counts: Sequence[int]) -> list[int]:
    """For each bucket how many are in later ones."""
    return list(accumulate(counts[:0:-1], initial=0))[::-1]


def _log_mean(logs: Sequence[float]) -> float:
    highest = max(logs)
    return highest + log(sum(math.exp(one - highest) for one in logs) / len(logs))
