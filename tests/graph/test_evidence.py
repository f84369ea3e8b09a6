"""Counts of one variant add up over routers and can be told apart in time."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout.core.errors import DeadlineExceeded, InvalidInput, InvalidOutput, ModelFailed
from turnout.graph.evidence import Evidence


@given(st.lists(st.floats(1e-6, 1e3)), st.lists(st.floats(1e-6, 1e3)))
def test_what_two_routers_saw_is_what_one_would_have_seen(here: list[float], there: list[float]) -> None:
    one, other, both = Evidence(), Evidence(), Evidence()
    for found, seen in ((one, here), (other, there), (both, here + there)):
        for seconds in seen:
            found.answered(seconds)
    assert one.plus(other).to_json() == both.to_json()
    assert both.since(one).to_json() == other.to_json()
    assert Evidence.from_json(both.to_json()).to_json() == both.to_json()


def test_a_callers_mistake_is_no_error_of_the_version() -> None:
    found = Evidence()
    for failure in (InvalidInput("odd"), ModelFailed("ValueError"), InvalidOutput("NaN"), DeadlineExceeded("late")):
        found.failed(failure)
    assert (found.requests, found.errors, found.invalid, found.late) == (4, 3, 1, 1)


def test_a_quantile_is_exact_to_a_tenth() -> None:
    found = Evidence()
    assert math.isnan(found.quantile(0.95))
    for milliseconds in range(1, 1001):
        found.answered(milliseconds / 1e3)
    assert found.quantile(0.5) == pytest.approx(0.5, rel=0.11)
    assert found.quantile(0.95) == pytest.approx(0.95, rel=0.11)
