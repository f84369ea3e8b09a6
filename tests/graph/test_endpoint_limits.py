"""How much passes: at once, per second, of each caller; and that the list of callers stays short."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.graph.steps import Answers, Clock, asking, driven, failing, run
from turnout.core.errors import InvalidInput, RateLimited
from turnout.graph.limits import Limit, Limits, LimitsMemory, LimitsPolicy, Usage
from turnout.protocols.http import status_of


async def passed(limits: Limits, count: int, **how: Any) -> int:
    """How many of so many requests pass."""
    found = 0
    for _ in range(count):
        try:
            await driven(limits, asking(**how))
            found += 1
        except RateLimited:
            continue
    return found


def test_only_so_many_are_on_their_way_at_once() -> None:
    async def main() -> None:
        gate = asyncio.Event()
        limits = Limits(Answers(gate), LimitsPolicy(concurrency=3))
        tasks = [asyncio.ensure_future(limits.infer(asking())) for _ in range(3)]
        await asyncio.sleep(0)
        refused = await failing(limits, asking())
        assert isinstance(refused, RateLimited)
        assert (status_of(refused), refused.retry_after) == (429, 0.1)
        tasks[0].cancel()
        await asyncio.gather(tasks[0], return_exceptions=True)
        tasks.append(asyncio.ensure_future(limits.infer(asking())))
        await asyncio.sleep(0)
        assert isinstance(await failing(limits, asking()), RateLimited)
        gate.set()
        await asyncio.gather(*tasks[1:])
        assert limits.memory.all.active == 0
        assert limits.memory.refused == 2

    run(main)


def test_a_rate_with_its_burst() -> None:
    async def main() -> None:
        clock = Clock()
        limits = Limits(Answers(), LimitsPolicy(rate=10.0, burst=5.0), clock=clock)
        assert await passed(limits, 20) == 5
        refused = await failing(limits, asking())
        assert refused.retry_after == pytest.approx(0.1)
        clock.now += 0.1
        assert await passed(limits, 20) == 1, "what Retry-After said was true"
        clock.now += 100.0
        assert await passed(limits, 20) == 5
        total = 0
        for _ in range(1000):
            clock.now += 0.01
            total += await passed(limits, 1)
        assert total == pytest.approx(100, abs=1)

    run(main)


def test_rows_can_be_counted_and_one_large_request_waits_for_a_full_bucket() -> None:
    async def main() -> None:
        clock = Clock()
        limits = Limits(Answers(), LimitsPolicy(rate=10.0, burst=10.0, count="rows"), clock=clock)
        assert await driven(limits, asking(*range(25)))
        refused = await failing(limits, asking(1.0))
        assert refused.retry_after == pytest.approx(1.6), "what it took beyond the bucket is owed"
        clock.now += 1.6
        assert await driven(limits, asking(1.0))

    run(main)


def test_each_caller_has_its_own_and_all_together_have_one() -> None:
    async def main() -> None:
        clock = Clock()
        policy = LimitsPolicy(rate=100.0, burst=5.0, per_caller=Limit(rate=1.0, burst=3.0))
        limits = Limits(Answers(), policy, clock=clock)
        assert await passed(limits, 10, caller="a") == 3
        assert "you ask" in (await failing(limits, asking(caller="a"))).message
        assert await passed(limits, 10, caller="b") == 2, "all together"
        assert "all callers" in (await failing(limits, asking(caller="b"))).message
        clock.now += 1.0
        assert await passed(limits, 10, caller="b") == 2, "what was refused for all has cost the caller nothing"

    run(main)


def test_callers_are_told_apart_by_a_header_where_that_is_said() -> None:
    async def main() -> None:
        limits = Limits(Answers(), LimitsPolicy(per_caller=Limit(concurrency=1), header="X-Tenant"))
        gate = asyncio.Event()
        limits._child = Answers(gate)
        first = asyncio.ensure_future(limits.infer(asking(headers={"x-tenant": "a"}, caller="same")))
        await asyncio.sleep(0)
        assert await failing(limits, asking(headers={"x-tenant": "a"}, caller="same"))
        other = asyncio.ensure_future(limits.infer(asking(headers={"x-tenant": "b"}, caller="same")))
        await asyncio.sleep(0)
        gate.set()
        assert await asyncio.gather(first, other)

    run(main)


def test_an_attack_with_many_names_stays_small_and_wins_nothing() -> None:
    async def main() -> None:
        clock = Clock()
        policy = LimitsPolicy(per_caller=Limit(rate=1.0, burst=2.0), callers=50)
        limits = Limits(Answers(), policy, clock=clock)
        assert await passed(limits, 5, caller="known") == 2
        total = sum([await passed(limits, 1, caller=f"made up {i}") for i in range(1000)])
        assert total == 49 + 2, "those beyond the bound share one limit"
        assert len(limits.memory.callers) <= 51
        assert await passed(limits, 5, caller="known") == 0, "who owes something is not forgotten"
        clock.now += 10.0
        assert await passed(limits, 5, caller="new") == 2, "who owes nothing makes room"
        assert len(limits.memory.callers) <= 51

    run(main)


def test_what_was_used_outlives_the_node() -> None:
    async def main() -> None:
        memory, clock = LimitsMemory(), Clock()
        assert await passed(Limits(Answers(), LimitsPolicy(rate=1.0, burst=4.0), memory, clock=clock), 3) == 3
        assert await passed(Limits(Answers(), LimitsPolicy(rate=1.0, burst=3.0), memory, clock=clock), 9) == 1

    run(main)


def test_waiting_as_long_as_is_said_is_enough() -> None:
    for rate, burst, cost in ((3.0, 1.0, 1.0), (0.1, 7.0, 2.0), (1e6, 1.0, 1.0)):
        limit, usage, now = Limit(rate=rate, burst=burst), Usage(), 0.0
        for _ in range(100):
            wait = usage.wait(limit, cost, now)
            now += wait
            assert usage.wait(limit, cost, now) == 0.0
            usage.take(limit, cost)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"concurrency": 0}, "concurrency"),
        ({"rate": 0.0}, "rate"),
        ({"burst": 3.0}, "burst"),
        ({"rate": 1.0, "count": "bytes"}, "count"),
        ({"callers": 0}, "callers"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        LimitsPolicy(**settings)
    assert caught.value.field == field
