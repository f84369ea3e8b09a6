"""The pure decisions: what is cut, what it will cost, who is overdue."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout.core.errors import InvalidInput
from turnout.core.messages import Context
from turnout.runtime.batch import Batch, Cost, Item, cut, is_hung, is_overdue
from turnout.runtime.batch_policy import BatchPolicy
from turnout.runtime.waiting import Waiting


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


def item(loop: asyncio.AbstractEventLoop, rows: int = 1, deadline: float = math.inf, key: tuple = (), at: float = 0.0):
    return Item(loop, {"x": np.zeros(rows)}, rows, rows * 8, Context(deadline=deadline), at, key)


specs = st.lists(st.tuples(st.integers(1, 5), st.sampled_from(["", "late", "gone", "again"])), max_size=20)


@given(specs, st.integers(1, 8))
def test_a_cut_takes_from_the_front_and_loses_nobody(made: list, limit: int) -> None:
    loop = asyncio.new_event_loop()
    items = [item(loop, rows, 5.0 if kind == "late" else 20.0) for rows, kind in made]
    for one, (_, kind) in zip(items, made, strict=True):
        if kind == "gone":
            one.cancel()
        one.attempts = kind == "again"
    queue = deque(items)
    taken, late, dropped = cut(queue, 10.0, limit, Cost())
    loop.close()
    kinds = dict(zip(map(id, items), made, strict=True))
    assert {kinds[id(one)][1] for one in late} <= {"late"}
    assert {kinds[id(one)][1] for one in dropped} <= {"gone"}
    assert {kinds[id(one)][1] for one in taken} <= {"", "again"}
    assert sum(one.rows for one in taken) <= limit or len(taken) == 1
    if any(one.attempts for one in taken):
        assert len(taken) == 1, "a suspect runs alone"
    order = {id(one): number for number, one in enumerate(items)}
    assert sorted([*taken, *late, *dropped, *queue], key=lambda one: order[id(one)]) == items
    assert [order[id(one)] for one in taken] == sorted(order[id(one)] for one in taken)
    assert not queue or taken, "it stops only when something runs"


@given(
    st.integers(1, 5),
    st.integers(1, 5),
    st.floats(9.0, 12.0),
    st.floats(0.0, 1.0),
    st.sampled_from(["", "gone", "again"]),
)
def test_one_that_waits_alone_is_taken_as_any_cut_would(
    rows: int, limit: int, deadline: float, fixed: float, kind: str
) -> None:
    loop, cost, waiting = asyncio.new_event_loop(), Cost(), Waiting()
    cost.fixed = fixed
    one = item(loop, rows, deadline)
    waiting.add(one)
    one.attempts = kind == "again"
    if kind == "gone":
        one.cancel()
        waiting.forget(one)
    expected = cut(deque([one]), 10.0, limit, cost)
    assert waiting.take(waiting._queues[()], 10.0, limit, cost) == expected
    loop.close()
    assert (waiting.rows, waiting.nbytes, len(waiting), one.waiting) == (0, 0, 0, False)


@given(st.lists(st.tuples(st.integers(1, 5), st.floats(0.0, 2.0)), min_size=2, max_size=20), st.floats(0, 0.2))
def test_a_batch_ends_before_the_first_deadline_in_it(made: list, per_row: float) -> None:
    """By what is known of the model, nobody is late because of those who run with it."""
    loop = asyncio.new_event_loop()
    cost = Cost()
    cost.fixed, cost.per_row = 0.1, per_row
    queue = deque(item(loop, rows, 10.0 + left) for rows, left in made)
    taken, late, dropped = cut(queue, 10.0, 8, cost)
    loop.close()
    if len(taken) > 1:
        assert 10.0 + cost.predict(sum(one.rows for one in taken)) <= min(one.deadline for one in taken)
    assert not dropped
    assert all(one.deadline < 10.0 + cost.predict(one.rows) or one.deadline <= 10.0 for one in late)
    assert len(taken) + len(late) + len(queue) == len(made)


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(0, 2), st.sampled_from("aft")), max_size=30), st.integers(1, 6)
)
def test_what_waits_is_counted_to_the_row(steps: list, limit: int) -> None:
    """Whatever is added, forgotten, taken and put back, the counts are those of what still waits."""
    loop = asyncio.new_event_loop()
    waiting, known = Waiting(), []
    for number, (rows, key, step) in enumerate(steps):
        if step == "a":
            known.append(item(loop, rows, key=(key,), at=float(number)))
            waiting.add(known[-1])
        elif step == "f" and known:
            known[0].cancel()
            waiting.forget(known.pop(0))
        elif (queue := waiting.oldest()) is not None:
            taken = waiting.take(queue, 0.0, limit, Cost()).taken
            if rows == 1:
                waiting.put_back(taken)
                waiting.put_back(taken)  # a place that hung and then died gives its items back twice
            else:
                known = [one for one in known if one not in taken]
        assert waiting.rows == sum(one.rows for one in known)
        assert waiting.nbytes == sum(one.nbytes for one in known)
        assert [one.key for one in known] == sorted([one.key for one in known], key=lambda _: 0)
    assert sorted(map(id, [one for one in waiting.drain() if not one.done()])) == sorted(map(id, known))
    assert (waiting.rows, waiting.nbytes, len(waiting)) == (0, 0, 0)
    loop.close()


def test_the_oldest_queue_goes_first(loop: asyncio.AbstractEventLoop) -> None:
    waiting = Waiting()
    for at, key in ((1.0, "b"), (2.0, "a"), (3.0, "b")):
        waiting.add(item(loop, key=(key,), at=at))
    order = []
    while (queue := waiting.oldest()) is not None:
        order.append([one.enqueued for one in waiting.take(queue, 0.0, 10, Cost()).taken])
    assert order == [[1.0, 3.0], [2.0]]


@given(st.floats(0, 0.01), st.floats(0, 0.001), st.lists(st.integers(1, 256), min_size=20, max_size=80))
def test_cost_finds_the_line(fixed: float, per_row: float, sizes: list[int]) -> None:
    cost = Cost()
    for rows in sizes:
        cost.observe(rows, fixed + per_row * rows)
    for rows in sizes:
        assert cost.predict(rows) == pytest.approx(fixed + per_row * rows, rel=1e-3, abs=1e-6)


@given(st.lists(st.tuples(st.integers(1, 10_000), st.floats(0, 1e4)), max_size=60))
def test_cost_is_never_negative_or_less_for_more(observed: list[tuple[int, float]]) -> None:
    cost = Cost()
    for rows, seconds in observed:
        cost.observe(rows, seconds)
        assert 0.0 <= cost.predict(1) <= cost.predict(100) < math.inf
        assert 1 <= cost.rows_within(0.1, 256) <= 256


def test_one_absurd_batch_is_not_believed() -> None:
    cost = Cost()
    for _ in range(50):
        cost.observe(10, 0.001)
    cost.observe(10, 60.0)
    assert cost.predict(10) < 0.002


def test_cost_learns_that_a_model_became_slow_and_fast_again() -> None:
    cost = Cost()
    for seconds in (0.001, 0.05, 0.001):
        for _ in range(500):
            cost.observe(10, seconds)
        assert cost.predict(10) == pytest.approx(seconds, rel=0.1)


@given(st.floats(0, 1), st.floats(1e-6, 0.1), st.floats(0.001, 1), st.integers(1, 1000))
def test_rows_within_fit(fixed: float, per_row: float, seconds: float, most: int) -> None:
    cost = Cost()
    cost.fixed, cost.per_row = fixed, per_row
    rows = cost.rows_within(seconds, most)
    assert 1 <= rows <= most
    assert rows == 1 or cost.predict(rows) <= seconds * (1 + 1e-9)
    if rows < most:
        assert cost.predict(rows + 2) > seconds


def test_overdue_and_hung() -> None:
    assert not is_overdue(0.2, 0.001), "a quarter of a second is nothing to worry about"
    assert is_overdue(0.3, 0.001)
    assert not is_overdue(0.9, 0.1)
    assert is_overdue(1.1, 0.1)
    assert not is_hung(1.9, 0.1, 60.0)
    assert is_hung(2.1, 0.1, 60.0)
    assert not is_hung(5.9, 3.0, 60.0)
    assert is_hung(6.1, 3.0, 60.0), "twice the deadline"
    assert is_hung(61.0, math.inf, 60.0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, 0) for name in ("max_rows", "queue_rows", "queue_bytes", "max_seconds")),
        *(("max_wait", value) for value in (-0.1, math.inf, math.nan)),
        ("max_seconds", math.nan),
    ],
)
def test_a_policy_that_cannot_be(name: str, value: float) -> None:
    with pytest.raises(InvalidInput) as caught:
        BatchPolicy(**{name: value})
    assert caught.value.field == name


def test_a_batch_knows_its_items(loop: asyncio.AbstractEventLoop) -> None:
    batch = Batch([item(loop, 2, 3.0), item(loop, 5, 4.0)], 1.0)
    assert (list(batch.rows()), list(batch.deadlines()), batch.total_rows) == ([2, 5], [3.0, 4.0], 7)
