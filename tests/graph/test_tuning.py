"""Thresholds from labelled rows: against trying all of them by hand, and intervals against what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turnout.core.errors import InvalidInput
from turnout.graph.tuning import Labelled, Wish, evaluate, paired, tune, wilson


def steps_of(confidences: list[float], cheap: list[bool], dear: list[bool]) -> list[Labelled]:
    return [
        Labelled("small", np.array(confidences), np.array(cheap), 1.0),
        Labelled("large", np.full(len(dear), np.inf), np.array(dear), 10.0),
    ]


ROWS = st.lists(
    st.tuples(st.one_of(st.sampled_from((0.5, 0.75, 1.0)), st.floats(0.5, 1.0)), st.booleans(), st.booleans()),
    min_size=20,
    max_size=40,
)


@settings(max_examples=100, deadline=None)
@given(ROWS, st.sampled_from((0.0, 0.05, 0.2)), st.booleans())
def test_the_cheapest_that_is_good_enough_is_found(
    rows: list[tuple[float, bool, bool]], tolerance: float, bounded: bool
) -> None:
    confidences, cheap, dear = map(list, zip(*rows, strict=True))
    steps = steps_of(confidences, cheap, dear)
    top = 1.0 if bounded else math.inf
    found = tune(steps, Wish(tolerance), top)
    # Every number of rows that can go on: those below each confidence, and all where a threshold may be above them.
    thresholds = sorted(set(confidences))
    points = [evaluate(steps, (threshold,)) for threshold in thresholds]
    if not bounded or max(confidences) < 1.0:
        points.append(evaluate(steps, (math.inf,)))
    best = max(point.accuracy for point in points)
    wanted = min(point.seconds for point in points if point.accuracy >= best - tolerance - 1e-12)
    assert found.best.accuracy == best
    assert found.chosen.seconds == pytest.approx(wanted)
    assert evaluate(steps, found.chosen.thresholds) == found.chosen
    assert {point.asked for point in points} == {point.asked for point in found.curve}
    assert all(evaluate(steps, point.thresholds) == point for point in found.curve)
    assert all(point.thresholds[0] <= top for point in found.curve)
    assert found.loss[0] == pytest.approx(best - found.chosen.accuracy)


def simulated(rows: int, seed: int = 1) -> list[Labelled]:
    """A cheap model that knows how sure it is, and a dear one that is nearly always right."""
    chance = np.random.default_rng(seed)
    sure = chance.uniform(0.5, 1.0, rows)
    return [
        Labelled("small", sure, chance.random(rows) < sure, 1e-4),
        Labelled("large", np.full(rows, np.inf), chance.random(rows) < 0.98, 1e-2),
    ]


def test_a_target_is_reached_and_no_more() -> None:
    steps = simulated(4000)
    found = tune(steps, Wish(target=0.9))
    assert 0.9 <= found.chosen.accuracy < 0.905
    assert found.chosen.seconds < found.best.seconds
    assert abs(found.held_out[0] - found.chosen.accuracy) < 0.02
    certain = tune(steps, Wish(target=0.9, sure=True))
    assert certain.chosen.low >= 0.9 > found.chosen.low
    assert certain.chosen.seconds > found.chosen.seconds
    with pytest.raises(
        InvalidInput, match=r"target: no threshold is as right as that; expected at most 0\.9\d+; got 1"
    ):
        tune(steps, Wish(target=1.0))


def test_certainty_costs_and_may_need_more_rows() -> None:
    steps = simulated(4000)
    plain, sure = tune(steps, Wish(0.02)), tune(steps, Wish(0.02, sure=True))
    assert plain.loss[2] > 0.02 >= sure.loss[2]
    assert sure.chosen.seconds > plain.chosen.seconds
    with pytest.raises(InvalidInput, match=r"with certainty; expected 0\.0\d+ or more with 100 rows; got 0\.005"):
        tune(simulated(100), Wish(0.005, sure=True))
    with pytest.raises(InvalidInput, match="20 or more; got 19"):
        tune(simulated(19), Wish())


def test_three_steps_have_two_thresholds() -> None:
    chance = np.random.default_rng(2)
    small, large = simulated(500)
    sure = chance.uniform(0.5, 1.0, 500)
    middle = Labelled("middle", sure, chance.random(500) < np.sqrt(sure), 1e-3)
    found = tune([small, middle, large], Wish(0.02))
    assert found.best.accuracy - found.chosen.accuracy == pytest.approx(found.loss[0])
    assert found.loss[0] <= 0.02
    assert evaluate([small, middle, large], found.chosen.thresholds) == found.chosen
    assert found.chosen.seconds < found.alone[2].seconds
    assert len(found.chosen.thresholds) == 2
    assert found.curve == tuple(sorted(found.curve, key=lambda point: point.seconds))


def test_what_is_never_sure_always_goes_on() -> None:
    small, large = simulated(100)
    odd = small._replace(confidence=np.where(np.arange(100) < 50, -np.inf, small.confidence))
    assert min(point.escalated for point in tune([odd, large], Wish()).curve) == 0.5
    with pytest.raises(InvalidInput, match="no threshold makes a difference"):
        tune([odd._replace(confidence=np.full(100, -np.inf)), large], Wish())


def test_intervals_hold_what_they_promise() -> None:
    """Of 4,000 simulated samples about 95 of 100 intervals hold the truth; the least that passes is 93.5."""
    chance = np.random.default_rng(3)
    rows = 300
    shares = chance.binomial(rows, 0.97, 4000)
    held = [low <= 0.97 <= high for low, high in (wilson(right, rows) for right in shares)]
    assert np.mean(held) >= 0.935
    both = chance.multinomial(rows, (0.03, 0.01, 0.96), 4000)
    held = [low <= 0.02 <= high for _, low, high in (paired(int(up), int(down), rows) for up, down, _ in both)]
    assert np.mean(held) >= 0.935
    assert wilson(20, 20)[0] == pytest.approx(0.8389, abs=1e-4)
    assert paired(0, 0, 100)[0] == 0.0
