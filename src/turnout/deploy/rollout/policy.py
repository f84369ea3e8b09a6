"""What a rollout is asked to do: its steps, what would end it, and what has to be shown before it goes on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from turnout.core.errors import InvalidInput

Off = Literal["off"]


def _check(fine: bool, field: str, expected: str, got: Any) -> None:
    if not fine:
        raise InvalidInput("not possible", field=field, expected=expected, got=repr(got))


class IncreaseGuard(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """max_increase: by how much the new version's share of such answers may be above the stable one's, as 0.01."""

    max_increase: float = 0.01

    def __post_init__(self) -> None:
        """Raises InvalidInput."""
        _check(0.0 <= self.max_increase < 1.0, "max_increase", "a share from 0 to below 1, as 0.01", self.max_increase)


class LatencyGuard(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """max_ratio: how many times the stable version's quantile, and mean, the new one's may be. quantile: one, or each
    of several. mean: whether the geometric mean is guarded too, in which each request counts by how many times slower
    it is. min_difference: seconds that it has to be slower by, for a fraction of a millisecond is the machine's.

    A version that is slower throughout is found by the mean long before enough has been seen of the slowest (0.95).
    """

    quantile: float | tuple[float, ...] = (0.5, 0.95)
    mean: bool = True
    max_ratio: float = 1.2
    min_difference: float = 0.001

    def __post_init__(self) -> None:
        """Raises InvalidInput."""
        fine = bool(self.quantiles) and all(0.0 < one < 1.0 for one in self.quantiles)
        _check(fine, "quantile", "between 0 and 1, as 0.95, or a list of such", self.quantile)
        fine = 0.0 <= self.min_difference < math.inf
        _check(fine, "min_difference", "0 or more seconds, as 0.001", self.min_difference)
        _check(1.0 <= self.max_ratio < math.inf, "max_ratio", "at least 1, as 1.2", self.max_ratio)

    @property
    def quantiles(self) -> tuple[float, ...]:
        """Each that is guarded."""
        return self.quantile if isinstance(self.quantile, tuple) else (self.quantile,)


class DisagreementGuard(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """max: the share of compared answers that may differ from the stable version's, as 0.02."""

    max: float = 0.02

    def __post_init__(self) -> None:
        """Raises InvalidInput."""
        _check(0.0 <= self.max < 1.0, "max", "a share from 0 to below 1, as 0.02", self.max)


class GuardPolicy(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What ends a rollout at once. Each can be `off`.

    errors: requests that the version failed. latency: quantiles of what it answered. invalid: answers that break
    their contract. fallback: requests that somebody else answered in the end. disagreement: answers of the shadow
    that differ from the stable version's; off unless asked for, as a new version is there to answer differently.
    """

    errors: IncreaseGuard | Off | bool = IncreaseGuard()
    latency: LatencyGuard | Off | bool = LatencyGuard()
    invalid: IncreaseGuard | Off | bool = IncreaseGuard()
    fallback: IncreaseGuard | Off | bool = IncreaseGuard()
    disagreement: DisagreementGuard | Off | bool = "off"

    def on(self) -> Mapping[str, IncreaseGuard | LatencyGuard | DisagreementGuard]:
        """Those that are not off, by name."""
        usual = {**_USUAL}
        said = {name: getattr(self, name) for name in usual}
        chosen = {name: usual[name] if one is True else one for name, one in said.items()}
        return {name: one for name, one in chosen.items() if not isinstance(one, (str, bool))}


_USUAL: Mapping[str, IncreaseGuard | LatencyGuard | DisagreementGuard] = {
    "errors": IncreaseGuard(),
    "latency": LatencyGuard(),
    "invalid": IncreaseGuard(),
    "fallback": IncreaseGuard(),
    "disagreement": DisagreementGuard(),
}


class JudgePolicy(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The measure by which the new version has to prove itself before it gets all traffic.

    metric: the name under which values are reported. better: which values are. kind: `mean` of any numbers, `rate`
    of zeros and ones. margin: by how much the new version may be worse and still be promoted, in the metric's unit;
    with 0 it has to be better. effect: the difference that one hopes to see, in the metric's unit; it is only used to
    say how long that takes.
    """

    metric: str
    better: Literal["higher", "lower"] = "higher"
    kind: Literal["mean", "rate"] = "mean"
    margin: float = 0.0
    effect: float | None = None

    def __post_init__(self) -> None:
        """Raises InvalidInput."""
        _check(bool(self.metric.strip()), "metric", "the name of a metric, as conversion", self.metric)
        _check(0.0 <= self.margin < math.inf, "margin", "0 or more, in the metric's unit", self.margin)
        fine = self.effect is None or 0.0 < self.effect < math.inf
        _check(fine, "effect", "above 0, in the metric's unit", self.effect)


class ShadowFirst(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Before the first step: percent of requests that are also sent to the new version, until `pairs` are compared."""

    percent: float = 100.0
    pairs: int = 500

    def __post_init__(self) -> None:
        """Raises InvalidInput."""
        _check(0.0 < self.percent <= 100.0, "percent", "above 0, at most 100", self.percent)
        _check(self.pairs >= 1, "pairs", "at least 1", self.pairs)


class WebhookPolicy(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """An address that is asked or told by a POST with the state as JSON.

    when: `pre_step` and `pre_promote` are asked, and the rollout waits until the answer is 2xx; `rollback` is asked
    again and again, and a 2xx means to roll back; `event` is told. timeout: seconds for the answer.
    """

    url: str
    when: Literal["pre_step", "pre_promote", "rollback", "event"] = "event"
    timeout: float = 5.0

    def __post_init__(self) -> None:
        """Raises InvalidInput."""
        try:
            parts = urlsplit(self.url)
            fine = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        except ValueError:
            fine = False
        _check(fine, "url", "an address of the form https://HOST/PATH", self.url)
        _check(0.0 < self.timeout <= 60.0, "timeout", "above 0, at most 60 seconds", self.timeout)


class GatesPolicy(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """manual: the percents before which a person has to say `resume`. webhooks: what else is asked or told."""

    manual: tuple[float, ...] = ()
    webhooks: tuple[WebhookPolicy, ...] = ()


class RolloutPolicy(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True, rename={"from_": "from"}):
    """A rollout. Durations in seconds, weights in percent.

    to: the version that is rolled out. from: the one it is compared with, and that gets the traffic back; default
    the one with most of it. steps: weights of the new version, rising. min_samples, min_seconds: what a step takes at
    least, in requests that each of the two has answered, and in time. interval: the least time between two steps.
    alpha: the chance to do wrong where both versions are alike, for all guards, steps and the judge together.
    max_seconds: what the whole takes at most, pauses apart. stale_seconds: the age from which on nothing is concluded
    from data. shadow: see ShadowFirst. mismatch_alpha: the chance of a false alarm that requests do not arrive in their
    shares; 0 for no such alarm. rollback_window: a version that was stable at most so many revisions ago gets all
    traffic without steps. slow_start: time over which the weight grows to that of its step. replicas_follow: whether
    the new version has only the replicas that its weight needs, grown before the weight is; when the rollout is over,
    so has every version.
    """

    to: str
    from_: str = ""
    steps: tuple[float, ...] = (1.0, 5.0, 25.0, 50.0, 100.0)
    min_samples: int = 200
    min_seconds: float = 600.0
    interval: float = 30.0
    alpha: float = 0.05
    max_seconds: float = 604_800.0
    stale_seconds: float = 10.0
    mismatch_alpha: float = 0.001
    rollback_window: int = 3
    slow_start: float = 0.0
    replicas_follow: bool = True
    shadow: ShadowFirst | None = None
    guard: GuardPolicy = GuardPolicy()
    judge: JudgePolicy | None = None
    gates: GatesPolicy = GatesPolicy()

    def __post_init__(self) -> None:
        """Raises InvalidInput."""
        _check(bool(self.to.strip()), "to", "the name of a version", self.to)
        if self.from_ == self.to:
            raise InvalidInput("a version cannot be compared with itself", field="from", got=repr(self.from_))
        rising = all(low < high for low, high in zip(self.steps, self.steps[1:], strict=False))
        fine = bool(self.steps) and rising and all(_is_weight(step) for step in self.steps)
        _check(fine, "steps", "rising percents above 0, at most 100, in hundredths, as [1, 5, 25, 100]", self.steps)
        for name in ("min_samples", "rollback_window"):
            _check(getattr(self, name) >= 0, name, "0 or more", getattr(self, name))
        for name in ("min_seconds", "interval", "slow_start"):
            _check(0.0 <= getattr(self, name) < math.inf, name, "0 seconds or more", getattr(self, name))
        for name in ("max_seconds", "stale_seconds"):
            _check(0.0 < getattr(self, name) < math.inf, name, "above 0 seconds", getattr(self, name))
        _check(0.0 < self.alpha <= 0.5, "alpha", "above 0, at most 0.5, as 0.05", self.alpha)
        _check(0.0 <= self.mismatch_alpha <= 0.5, "mismatch_alpha", "0 (off) to 0.5", self.mismatch_alpha)
        for percent in self.gates.manual:
            _check(percent in self.weights, "gates.manual", f"some of the steps {list(self.weights)}", percent)

    @property
    def weights(self) -> tuple[float, ...]:
        """The weights of the steps, the last of them 100."""
        return self.steps if self.steps[-1] == 100.0 else (*self.steps, 100.0)


def stable_version(policy: RolloutPolicy, traffic: Mapping[str, float]) -> str:
    """The version that the new one is compared with. Raises InvalidInput where the traffic knows none, or not `to`."""
    for field, name in (("to", policy.to), ("from", policy.from_ or policy.to)):
        if name not in traffic:
            known = ", ".join(sorted(traffic))
            raise InvalidInput("no such version", field=f"rollout.{field}", expected=known, got=repr(name))
    if policy.from_:
        return policy.from_
    others = {name: weight for name, weight in traffic.items() if name != policy.to}
    if not others:
        raise InvalidInput("there is no other version to compare with", field="rollout.to", got=repr(policy.to))
    return max(others, key=lambda name: (others[name], name))


def _is_weight(percent: float) -> bool:
    return 0.0 < percent <= 100.0 and math.isclose(percent, round(percent, 2), abs_tol=1e-9)
