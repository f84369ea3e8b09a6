"""What each version gets while a rollout is at some weight: of the traffic, and of the replicas."""

from __future__ import annotations

import math
from collections.abc import Mapping

_WHOLE = 100.0
#: While a weight grows slowly, it grows in so many steps.
_RAMP_STEPS = 10


def traffic_at(weight: float, to: str, stable: str, before: Mapping[str, float]) -> dict[str, float]:
    """Percents by version, 100 in all: `to` has the weight, and the others what they had before in proportion.

    before: the traffic when the rollout began. What rounding to hundredths leaves over is the stable version's; it gets
    all that is left where nobody else had any.
    """
    weight = round(weight, 2)
    left = _WHOLE - weight
    others = {name: share for name, share in before.items() if name != to}
    whole = sum(others.values())
    found = {name: _hundredths(left * share / whole) if whole else 0.0 for name, share in others.items()}
    found[stable] = 0.0
    found[stable] = round(left - math.fsum(found.values()), 2)
    found[to] = weight
    return found


def grown(before: float, weight: float, seconds: float, slow_start: float) -> float:
    """The weight so many seconds after a step began, where it shall take `slow_start` seconds to grow to its own."""
    if slow_start <= 0.0 or seconds >= slow_start or weight <= before:
        return weight
    done = (1 + math.floor(max(0.0, seconds) / slow_start * _RAMP_STEPS)) / _RAMP_STEPS
    return weight if done >= 1.0 else round(before + (weight - before) * done, 2)


def replicas_at(weight: float, total: int) -> tuple[int, int]:
    """Replicas of the new version and of the stable one that their traffic asks for, out of `total` at equal load each.

    Both are rounded up, and the stable version keeps one for the way back, so together they can be up to two more.
    """
    share = min(_WHOLE, max(0.0, weight)) / _WHOLE
    canary = math.ceil(round(total * share, 6))
    stable = math.ceil(round(total * (1.0 - share), 6))
    return (max(1, canary) if weight > 0.0 else 0), max(1, stable)


def _hundredths(percent: float) -> float:
    """Rounded down, but not for what floating point has taken away."""
    return math.floor(percent * 100.0 + 1e-6) / 100.0
