"""When a circuit opens, how long it stays so, and what does not count: with a clock that is turned by hand."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.graph.steps import Answers, Clock, asking, driven, failing, run
from turnout.core.errors import CircuitOpen, DeadlineExceeded, InvalidInput, ModelFailed, NotReady, QueueFull
from turnout.core.messages import Journey
from turnout.graph.circuit_breaker import Circuit, CircuitBreaker, CircuitBreakerPolicy

BROKEN = ModelFailed("broken")


def policy(**settings: Any) -> CircuitBreakerPolicy:
    return CircuitBreakerPolicy(**settings)


def fail(circuit: Circuit, settings: CircuitBreakerPolicy, now: float, times: int = 1) -> None:
    for _ in range(times):
        circuit.failed(settings, now, probe=False)


def test_it_opens_after_failures_in_a_row_and_not_sooner() -> None:
    circuit, settings = Circuit(), policy(failures=3, ratio=0)
    fail(circuit, settings, 0.0, 2)
    circuit.succeeded(settings, 0.0, probe=False)
    fail(circuit, settings, 0.0, 2)
    assert circuit.state == "closed"
    fail(circuit, settings, 0.0)
    assert (circuit.state, circuit.opened) == ("open", 1)


def test_it_opens_at_a_share_of_failures_but_not_of_few_requests() -> None:
    settings = policy(failures=100, ratio=0.5, minimum=20)
    circuit = Circuit()
    for _ in range(9):
        fail(circuit, settings, 0.0)
        circuit.succeeded(settings, 0.0, probe=False)
    fail(circuit, settings, 0.0)
    assert circuit.state == "closed", "19 requests"
    fail(circuit, settings, 0.0)
    assert circuit.state == "open"


def test_failures_of_long_ago_do_not_count() -> None:
    settings = policy(failures=100, ratio=0.5, minimum=20, window=10.0)
    circuit = Circuit()
    fail(circuit, settings, 0.0, 19)
    for tenth in range(1, 12):
        circuit.succeeded(settings, float(tenth), probe=False)
    fail(circuit, settings, 12.5)
    assert circuit.state == "closed"
    assert circuit.seen < 20
    fresh = Circuit()
    fail(fresh, settings, 0.0, 19)
    fail(fresh, settings, 8.0)
    assert fresh.state == "open", "within the window they do"


def test_it_is_open_for_ever_longer_until_a_probe_succeeds() -> None:
    settings = policy(failures=1, open_seconds=1.0, max_open_seconds=3.0)
    circuit = Circuit()
    fail(circuit, settings, 0.0)
    now, waits = 0.0, []
    for _ in range(4):
        waits.append(circuit.until - now)
        assert not circuit.admit(settings, circuit.until - 0.01)
        now = circuit.until
        assert circuit.admit(settings, now)
        assert not circuit.admit(settings, now), "one probe at a time"
        circuit.failed(settings, now, probe=True)
        assert circuit.state == "open"
    assert waits == [1.0, 2.0, 3.0, 3.0]
    now = circuit.until
    assert circuit.admit(settings, now)
    circuit.succeeded(settings, now, probe=True)
    assert circuit.state == "closed"
    fail(circuit, settings, now)
    assert circuit.until - now == 1.0, "it begins anew"


def test_several_probes_have_to_succeed_where_that_is_asked() -> None:
    settings = policy(failures=1, probes=2, successes=3)
    circuit = Circuit()
    fail(circuit, settings, 0.0)
    assert [circuit.admit(settings, 1.0) for _ in range(3)] == [True, True, False]
    circuit.succeeded(settings, 1.0, probe=True)
    circuit.succeeded(settings, 1.0, probe=True)
    assert circuit.state == "half-open"
    assert circuit.admit(settings, 1.0)
    circuit.succeeded(settings, 1.0, probe=True)
    assert circuit.state == "closed"


def test_a_probe_that_never_ends_does_not_keep_it_half_open() -> None:
    settings = policy(failures=1, open_seconds=1.0)
    circuit = Circuit()
    fail(circuit, settings, 0.0)
    assert circuit.admit(settings, 1.0)
    assert not circuit.admit(settings, 1.9)
    assert circuit.admit(settings, 2.0)


def test_a_request_from_before_changes_nothing_while_it_is_open() -> None:
    settings = policy(failures=1)
    circuit = Circuit()
    fail(circuit, settings, 0.0)
    fail(circuit, settings, 0.5)
    circuit.succeeded(settings, 0.5, probe=False)
    assert (circuit.state, circuit.until, circuit.opened) == ("open", 1.0, 1)


@pytest.mark.parametrize("harmless", [InvalidInput("yours"), QueueFull("full"), NotReady("none")])
def test_what_says_nothing_of_the_version_does_not_count(harmless: Exception) -> None:
    async def main() -> None:
        breaker = CircuitBreaker(Answers(harmless), policy(failures=2))
        for _ in range(10):
            assert await failing(breaker, asking()) is harmless
        assert breaker.memory.state == "closed"
        counting = CircuitBreaker(Answers(BROKEN), policy(failures=2))
        for _ in range(2):
            await failing(counting, asking())
        assert counting.memory.state == "open", "the control"

    run(main)


def test_open_it_refuses_without_asking_and_says_when_to_come_back() -> None:
    async def main() -> None:
        clock, child = Clock(), Answers(BROKEN, BROKEN, None)
        breaker = CircuitBreaker(child, policy(failures=2, open_seconds=4.0), clock=clock, name="v8")
        for _ in range(2):
            assert await failing(breaker, asking()) is BROKEN
        journey = Journey(explain=True)
        clock.now += 1.0
        refused = await failing(breaker, asking(journey=journey))
        assert isinstance(refused, CircuitOpen)
        assert refused.retry_after == pytest.approx(3.0)
        assert isinstance(breaker.refuse_now(), CircuitOpen)
        assert journey.steps is not None
        assert [(step.node, step.name, step.outcome) for step in journey.steps] == [
            ("circuit_breaker", "v8", "CircuitOpen")
        ]
        assert len(child.requests) == 2
        clock.now += 3.0
        assert breaker.refuse_now() is None
        assert (await driven(breaker, asking())).version == "1"
        assert breaker.memory.state == "closed"

    run(main)


def test_slow_answers_count_if_the_policy_says_so() -> None:
    async def main() -> None:
        clock = Clock()

        def slowly(request: Any) -> Any:
            clock.now += 0.2
            return Answers().answer()

        for slow, state in ((0.1, "open"), (None, "closed")):
            breaker = CircuitBreaker(Answers(slowly), policy(failures=3, slow=slow), clock=clock)
            for _ in range(3):
                await driven(breaker, asking())
            assert breaker.memory.state == state

    run(main)


def test_who_is_given_up_at_the_deadline_counts_and_who_leaves_does_not() -> None:
    async def main() -> None:
        breaker = CircuitBreaker(Answers(asyncio.Event()), policy(failures=2))
        for _ in range(2):
            assert isinstance(await failing(breaker, asking(within=0.02)), DeadlineExceeded)
        assert breaker.memory.state == "open"
        other = CircuitBreaker(Answers(asyncio.Event()), policy(failures=2))
        for _ in range(3):
            task = asyncio.ensure_future(other.infer(asking(within=60.0)))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert other.memory.state == "closed"

    run(main)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"failures": 0}, "failures"),
        ({"ratio": 1.5}, "ratio"),
        ({"window": 0.0}, "window"),
        ({"slow": -1.0}, "slow"),
        ({"open_seconds": 9.0, "max_open_seconds": 2.0}, "max_open_seconds"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        CircuitBreakerPolicy(**settings)
    assert caught.value.field == field
