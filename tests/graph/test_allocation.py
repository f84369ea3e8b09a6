"""Buckets: shares are exact, who grows loses nobody, and no unit moves that need not."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout.core.errors import InvalidInput
from turnout.graph.allocation import BUCKETS, Allocation, allocate, bucket_counts

NAMES = ["v1", "v2", "v3", "v4", "v5"]


@st.composite
def weights(draw: st.DrawFn) -> dict[str, float]:
    """Percent in steps of 0.01 for any number of versions, 0 among them."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
    cuts = sorted(draw(st.lists(st.integers(0, BUCKETS), min_size=len(names) - 1, max_size=len(names) - 1)))
    counts = [b - a for a, b in zip([0, *cuts], [*cuts, BUCKETS], strict=True)]
    return {name: count / 100 for name, count in zip(names, counts, strict=True)}


def owners(allocation: Allocation) -> list[str]:
    found = [""] * BUCKETS
    for name, ranges in allocation.ranges.items():
        for start, stop in ranges:
            for place in range(start, stop):
                assert not found[place], "a bucket has two owners"
                found[place] = name
    assert all(found), "a bucket has no owner"
    return found


@given(st.lists(weights(), min_size=1, max_size=6))
def test_any_sequence_of_changes_moves_as_little_as_possible(steps: list[dict[str, float]]) -> None:
    allocation, before = None, None
    for wanted in steps:
        allocation = allocate(wanted, allocation)
        now = owners(allocation)
        counts = bucket_counts(wanted)
        assert {name: now.count(name) for name in wanted} == counts, "shares are exact"
        if before is not None:
            had = {name: before.count(name) for name in set(before)}
            moved = sum(a != b for a, b in zip(before, now, strict=True))
            assert moved == sum(max(0, count - counts.get(name, 0)) for name, count in had.items())
            for name, count in counts.items():
                if count >= had.get(name, 0):
                    kept = [place for place, owner in enumerate(before) if owner == name]
                    assert all(now[place] == name for place in kept), "who does not shrink loses nobody"
        before = now


@given(weights(), weights())
def test_an_allocation_is_a_function_of_what_it_is_computed_from(
    one: dict[str, float], other: dict[str, float]
) -> None:
    first = allocate(one)
    assert first == allocate(dict(reversed(one.items())))
    then = allocate(other, first)
    assert then == allocate(
        dict(reversed(other.items())), Allocation.from_json(json.loads(json.dumps(first.to_json())))
    )
    assert allocate(other, then) == then
    assert Allocation.from_json(then.to_json()) == then


@given(weights(), weights())
def test_there_and_back_again_is_where_it_was(one: dict[str, float], other: dict[str, float]) -> None:
    """With two versions: after growing and shrinking the first ones are the first ones again."""
    small, large = sorted([one.get("v1", 0.0), other.get("v1", 0.0)])
    first = allocate({"v0": 100 - small, "v1": small})
    again = allocate({"v0": 100 - small, "v1": small}, allocate({"v0": 100 - large, "v1": large}, first))
    assert owners(again) == owners(first)


def test_widening_step_by_step_keeps_the_first_ones() -> None:
    allocation = allocate({"v7": 100, "v8": 0})
    seen: set[int] = set()
    for share in (1, 5, 10, 20, 25, 50, 100):
        allocation = allocate({"v7": 100 - share, "v8": share}, allocation)
        now = {place for place, owner in enumerate(owners(allocation)) if owner == "v8"}
        assert seen <= now
        assert len(now) == share * 100
        seen = now


def test_look_up_agrees_with_the_ranges() -> None:
    chance = random.Random(3)
    allocation = None
    for _ in range(20):
        cut = chance.randint(0, BUCKETS)
        allocation = allocate({"a": cut / 100, "b": (BUCKETS - cut) / 100}, allocation)
    assert allocation is not None
    assert [allocation.find(place) for place in range(BUCKETS)] == owners(allocation)
    assert allocation.percent("a") + allocation.percent("b") == 100
    assert allocation.percent("c") == 0


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"v1": 90, "v2": 5}, "traffic"),
        ({"v1": 90, "v2": 20}, "traffic"),
        ({}, "traffic"),
        ({"v1": 110, "v2": -10}, "traffic.v1"),
        ({"v1": 100, "v2": -0.01}, "traffic.v2"),
        ({"v1": 99.999, "v2": 0.001}, "traffic.v1"),
        ({"v1": float("nan")}, "traffic.v1"),
        ({"v1": float("inf")}, "traffic.v1"),
    ],
)
def test_what_are_no_shares_is_refused(said: dict[str, float], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        allocate(said)
    assert refused.value.field == field
    assert refused.value.expected


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"v1": [[0, 9999]]},
        {"v1": [[0, 10000]], "v2": [[5, 6]]},
        {"v1": [[0, 5000], [5001, 10000]]},
        {"v1": [[0, 10001]]},
        {"v1": [[0, 0], [0, 10000]]},
        {"v1": "all"},
        {"v1": [[0]]},
        [],
    ],
)
def test_what_is_no_allocation_is_refused(said: object) -> None:
    with pytest.raises(InvalidInput):
        Allocation.from_json(said)  # type: ignore[arg-type]
