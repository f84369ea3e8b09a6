"""Who answers, when, and why; within the deadline whatever the first step does. Driven as the doors drive it."""

from __future__ import annotations

import asyncio
import math
from time import monotonic
from typing import Any

import pytest

from tests.graph.steps import SIGNATURE, Answers, Clock, asking, driven, failing, run
from turnout.core.errors import (
    CircuitOpen,
    DeadlineExceeded,
    InvalidInput,
    InvalidOutput,
    ModelFailed,
    NotReady,
    QueueFull,
    WorkerDied,
)
from turnout.core.messages import InferRequest, InferResponse, Journey
from turnout.graph.circuit_breaker import CircuitBreaker, CircuitBreakerPolicy
from turnout.graph.constant import Constant
from turnout.graph.fallback import Fallback, FallbackMemory, slice_of
from turnout.graph.fallback_policy import FallbackPolicy
from turnout.graph.last_good import LastGood, LastGoodKey, LastGoodPolicy

DEFAULT = Constant({"score": 0.0, "label": "unknown"}, SIGNATURE)


def chain(*steps: Any, memory: FallbackMemory | None = None, clock: Any = monotonic, **policy: Any) -> Fallback:
    named = {f"v{number}" if isinstance(one, Answers) else "default": one for number, one in enumerate(steps)}
    return Fallback(named, FallbackPolicy(**policy), memory, clock=clock)


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        (ModelFailed("no"), "error"),
        (WorkerDied("gone"), "error"),
        (ValueError("a bug"), "error"),
        (InvalidOutput("nan"), "invalid_output"),
        (CircuitOpen("open"), "circuit_open"),
        (DeadlineExceeded("late"), "timeout"),
        (QueueFull("full"), "overloaded"),
        (QueueFull("long", too_late=True), "predicted_timeout"),
        (NotReady("none"), "not_ready"),
    ],
)
def test_each_failure_has_its_reason_and_the_next_step_answers(problem: Exception, reason: str) -> None:
    async def main() -> None:
        for how in ({}, {"within": 5.0}):
            journey = Journey(explain=True)
            node = chain(Answers(problem), Answers(version="2"), DEFAULT)
            response = await driven(node, asking(journey=journey, **how))
            assert (response.version, journey.degraded) == ("2", reason)
            assert journey.steps is not None
            assert [(step.name, step.outcome) for step in journey.steps] == [
                ("v0", type(problem).__name__),
                ("v1", "answered"),
            ]
            assert journey.steps[0].detail == reason
            assert node.memory.answers == {("v1", reason): 1}
            only = chain(Answers(problem), DEFAULT, on=tuple({"error", "timeout"} - {reason}))
            with pytest.raises(type(problem)):
                await driven(only, asking(**how))

    run(main)


def test_the_healthy_path_says_nothing() -> None:
    async def main() -> None:
        second = Answers()
        node = chain(Answers(), second, DEFAULT)
        journey = Journey(explain=True)
        for how in ({}, {"within": 5.0}):
            assert (await driven(node, asking(journey=journey, **how))).version == "1"
        assert (journey.degraded, journey.steps, second.requests, dict(node.memory.answers)) == ("", [], [], {})

    run(main)


@pytest.mark.parametrize("mistake", [InvalidInput("yours")])
def test_a_caller_s_mistake_is_never_covered_up(mistake: Exception) -> None:
    async def main() -> None:
        second = Answers()
        assert await failing(chain(Answers(mistake), second, DEFAULT), asking(within=1.0)) is mistake
        assert not second.requests
        found = await failing(chain(Answers(WorkerDied("gone")), Answers(mistake), DEFAULT), asking(within=1.0))
        assert found is mistake, "also if another step finds it"

    run(main)


def test_where_nobody_answers_it_is_the_first_failure() -> None:
    async def main() -> None:
        first = ModelFailed("the first")
        journey = Journey(explain=True)
        node = chain(Answers(first), Answers(WorkerDied("the second")))
        assert await failing(node, asking(journey=journey)) is first
        assert journey.degraded == ""
        assert journey.steps is not None
        assert len(journey.steps) == 2
        assert node.memory.answers == {("", "error"): 1}

    run(main)


class Stubborn:
    """Never returns, and takes being cancelled for a reason to go on."""

    def __init__(self, how: str) -> None:
        self.how = how
        self.ended = asyncio.Event()

    async def infer(self, request: InferRequest) -> InferResponse:
        gate = asyncio.Event()
        if self.how == "task":
            inner = asyncio.ensure_future(self._swallow(gate))
            try:
                await inner
            finally:
                self.ended.set()
        elif self.how == "swallows":
            await self._swallow(gate)
            self.ended.set()
        elif self.how == "yields":
            while True:  # noqa: ASYNC110  that is what it is about
                await asyncio.sleep(0)
        await gate.wait()
        raise AssertionError("unreachable")

    async def _swallow(self, gate: asyncio.Event) -> None:
        try:
            await gate.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0.3)


@pytest.mark.parametrize("how", ["waits", "yields", "swallows", "task"])
@pytest.mark.parametrize("door", ["driven", "task"])
def test_a_step_that_never_returns_makes_nobody_late(how: str, door: str) -> None:
    async def main() -> None:
        stubborn = Stubborn(how)
        node = Fallback({"v0": stubborn, "default": DEFAULT})
        for _ in range(3):
            journey = Journey()
            request = asking(within=0.1, journey=journey)
            response = await (driven(node, request) if door == "driven" else node.infer(request))
            assert monotonic() < request.context.deadline + 1.0, "it would never have returned"
            assert (response.version, journey.degraded) == ("default", "timeout")
        if how in ("swallows", "task"):
            await asyncio.wait_for(stubborn.ended.wait(), 5)
            await asyncio.sleep(0.4)
        assert not node._times.entries

    run(main)


def test_whom_the_caller_leaves_is_cancelled_and_nobody_stands_in() -> None:
    async def main() -> None:
        for hedge in (None, 0.5):
            first, second = Answers(asyncio.Event()), Answers()
            node = chain(first, second, hedge=hedge)
            task = asyncio.ensure_future(node.infer(asking(within=60.0)))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (first.cancelled, len(second.requests), node._times.entries) == (1, 0, {})

    run(main)


def test_a_deadline_that_has_passed_is_not_worth_a_model() -> None:
    async def main() -> None:
        first, second = Answers(), Answers()
        found = await failing(chain(first, second), asking(within=-1.0))
        assert isinstance(found, DeadlineExceeded)
        assert not first.requests + second.requests
        journey = Journey()
        response = await chain(first, DEFAULT).infer(asking(within=-1.0, journey=journey))
        assert (response.version, journey.degraded) == ("default", "timeout"), "a constant answers even then"

    run(main)


def test_every_step_gets_its_slice() -> None:
    async def main() -> None:
        clock = Clock()
        clock.now = monotonic()
        memory = FallbackMemory()
        first, second = Answers(WorkerDied("gone")), Answers(version="2")
        node = chain(first, second, DEFAULT, memory=memory, clock=clock)
        for _ in range(20):
            memory.observed["v1"].answered(0.2)
        node._reserve()
        request = asking(within=1.0)
        await driven(node, request)
        left = request.context.deadline - clock.now
        assert first.requests[0].context.deadline - clock.now == pytest.approx(0.9 * left - 0.2)
        assert second.requests[0].context.deadline - clock.now == pytest.approx(0.9 * left)
        alone = Answers()
        await driven(chain(alone, clock=clock), request)
        assert alone.requests[0].context.deadline == pytest.approx(request.context.deadline), "there is nobody else"

    run(main)


@pytest.mark.parametrize(
    ("left", "reserved", "keep", "expected"),
    [(1.0, 0.0, 0.9, 0.9), (1.0, 0.2, 0.9, 0.7), (1.0, 9.0, 0.9, 0.4), (1.0, math.inf, 1.0, 0.5), (0.0, 1.0, 0.9, 0.0)],
)
def test_slices(left: float, reserved: float, keep: float, expected: float) -> None:
    assert slice_of(left, reserved, keep) == pytest.approx(expected)


def test_a_bound_of_its_own_holds_without_a_deadline_too() -> None:
    async def main() -> None:
        for within in (math.inf, 60.0):
            journey = Journey()
            node = chain(Answers(asyncio.Event()), DEFAULT, timeout=0.03)
            assert (await driven(node, asking(within=within, journey=journey))).version == "default"
            assert journey.degraded == "timeout"

    run(main)


def test_a_foreseeable_miss_is_not_waited_for_but_tried_now_and_then() -> None:
    async def main() -> None:
        clock = Clock()
        clock.now = monotonic()
        first = Answers()
        node = chain(first, DEFAULT, clock=clock)
        for _ in range(32):
            node.memory.observed["v0"].answered(0.5)
        reasons = []
        for _ in range(10):
            journey = Journey()
            await driven(node, asking(within=0.2, journey=journey))
            reasons.append(journey.degraded)
        assert reasons == ["", *["predicted_timeout"] * 9], "one probe"
        clock.now += 1.1
        journey = Journey()
        await driven(node, asking(within=3.0, journey=journey))
        assert journey.degraded == "", "there is time enough"

    run(main)


def test_after_a_row_of_misses_one_answer_is_another_state() -> None:
    async def main() -> None:
        clock = Clock()
        clock.now = monotonic()
        node = chain(Answers(), DEFAULT, clock=clock)
        seen = node.memory.observed["v0"]
        for _ in range(128):
            seen.missed()
        journeys = [Journey() for _ in range(4)]
        for journey in journeys:
            await driven(node, asking(within=0.2, journey=journey))
        assert [one.degraded for one in journeys] == ["", "", "", ""], "the probe came, and so the next ones are tried"
        assert seen.misses == 0

    run(main)


def test_who_wants_no_degraded_answer_gets_the_failure() -> None:
    async def main() -> None:
        node = chain(Answers(WorkerDied("gone")), DEFAULT)
        for how in (
            {"headers": {"x-fail-on-degraded": "true"}},
            {"parameters": {"fail_on_degraded": True}},
            {"parameters": {"fail_on_degraded": "true"}},
        ):
            assert isinstance(await failing(node, asking(**how)), WorkerDied)
        for how in ({"headers": {"x-fail-on-degraded": "false"}}, {"parameters": {"fail_on_degraded": False}}):
            assert await driven(node, asking(**how))

    run(main)


@pytest.mark.parametrize("settings", [{}, {"hedge": 0.5}])
def test_who_has_named_a_version_gets_its_failure_and_no_other_s_answer(settings: dict[str, Any]) -> None:
    async def main() -> None:
        node = chain(Answers(WorkerDied("gone")), DEFAULT, **settings)
        named = Journey()
        named.variant, named.direct = "v8", True
        for how in ({"journey": named}, {"headers": {"x-route-to": "v8"}}):
            assert isinstance(await failing(node, asking(**how)), WorkerDied)
        assert await driven(node, asking(journey=Journey()))

    run(main)


def test_what_a_named_version_has_answered_is_nobody_s_last_good_answer() -> None:
    async def main() -> None:
        last = LastGood(LastGoodPolicy(key=LastGoodKey(header="x-account-id")))
        node = Fallback({"v8": Answers(None, WorkerDied("gone"), score=0.7), "last_good": last, "default": DEFAULT})
        named = Journey()
        named.variant, named.direct = "v8", True
        headers = {"x-account-id": "a"}
        assert await driven(node, asking(headers=headers, journey=named))
        assert (await driven(node, asking(headers=headers, journey=Journey()))).version == "default"

    run(main)


def test_the_last_good_answer_stands_in_for_its_key() -> None:
    async def main() -> None:
        last = LastGood(LastGoodPolicy(key=LastGoodKey(header="x-account-id")))
        node = Fallback({"v8": Answers(None, WorkerDied("gone"), score=0.7), "last_good": last, "default": DEFAULT})
        a, b = ({"x-account-id": one} for one in "ab")
        assert await driven(node, asking(headers=a))
        journey = Journey()
        response = await driven(node, asking(headers=a, journey=journey))
        assert response.outputs["score"][0] == pytest.approx(0.7)
        assert (response.version, journey.degraded) == ("1", "error")
        assert (await driven(node, asking(headers=b))).version == "default"
        assert node.memory.answers == {("last_good", "error"): 1, ("default", "error"): 1}

    run(main)


def test_a_breaker_inside_counts_what_the_slice_cut_off() -> None:
    async def main() -> None:
        breaker = CircuitBreaker(Answers(asyncio.Event()), CircuitBreakerPolicy(failures=2, open_seconds=30.0))
        node = Fallback({"v0": breaker, "default": DEFAULT})
        reasons = []
        for _ in range(4):
            journey = Journey()
            await driven(node, asking(within=0.05, journey=journey))
            reasons.append(journey.degraded)
        assert reasons == ["timeout", "timeout", "circuit_open", "circuit_open"]

    run(main)


# -- hedging ----------------------------------------------------------------------------------------------------------


def hedging(first: Any, second: Any, *rest: Any) -> Fallback:
    """Half of the first step's answers take 10 ms, the others far too long."""
    node = chain(first, second, *rest, hedge=0.5)
    for number in range(64):
        node.memory.observed["v0"].answered(0.01 if number % 2 else 100.0)
        node.memory.observed["v1"].answered(0.001)
    return node


def test_the_next_step_starts_beside_when_a_miss_becomes_likely_and_answers_if_it_comes() -> None:
    async def main() -> None:
        first, second = Answers(asyncio.Event()), Answers(version="2")
        node = hedging(first, second, DEFAULT)
        journey = Journey(explain=True)
        request = asking(within=0.3, journey=journey)
        response = await driven(node, request)
        assert monotonic() < request.context.deadline + 1.0
        assert (response.version, journey.degraded, first.cancelled) == ("2", "timeout", 1)
        assert second.requests[0].context.journey is None, "it ran beside"
        assert journey.steps is not None
        assert [(step.name, step.outcome) for step in journey.steps] == [("v0", "DeadlineExceeded"), ("v1", "answered")]
        assert (node.memory.hedges, node.memory.hedged) == (1, 1)

    run(main)


def test_the_first_step_s_own_answer_still_counts_and_the_other_is_cancelled() -> None:
    async def main() -> None:
        first, second = Answers(0.06), Answers(asyncio.Event())
        node = hedging(first, second)
        journey = Journey()
        response = await driven(node, asking(within=2.0, journey=journey))
        assert (response.version, journey.degraded) == ("1", "")
        await asyncio.sleep(0)
        assert (len(second.requests), second.cancelled, node.memory.hedges, node.memory.hedged) == (1, 1, 1, 0)

    run(main)


def test_a_failure_is_covered_by_what_runs_already() -> None:
    async def main() -> None:
        class Breaks:
            async def infer(self, request: InferRequest) -> InferResponse:
                await asyncio.sleep(0.05)
                raise ModelFailed("no")

        second = Answers(0.05, version="2")
        node = Fallback({"v0": Breaks(), "v1": second}, FallbackPolicy(hedge=0.5))
        for _ in range(64):
            node.memory.observed["v0"].answered(100.0)
        node._reserve()
        node.memory.observed["v0"].probed = -math.inf
        journey = Journey()
        response = await driven(node, asking(within=2.0, journey=journey))
        assert (response.version, journey.degraded, len(second.requests)) == ("2", "error", 1)

    run(main)


def test_a_quick_first_step_gets_no_company() -> None:
    async def main() -> None:
        second = Answers()
        node = chain(Answers(), second, hedge=0.5)
        for _ in range(100):
            await driven(node, asking(within=1.0))
        assert (len(second.requests), node.memory.hedges) == (0, 0)

    run(main)


# -- drills -----------------------------------------------------------------------------------------------------------


def test_drills_prove_that_the_others_answer_and_nobody_notices() -> None:
    async def main() -> None:
        second = Answers(version="2")
        node = chain(Answers(), second, DEFAULT, drill=10.0)
        journeys = [Journey(explain=True) for _ in range(100)]
        for journey in journeys:
            assert (await driven(node, asking(within=30.0, journey=journey))).version == "1"
            await asyncio.sleep(0)
        await asyncio.gather(*node.memory.drilling)
        assert node.memory.drills == {"v1": 10}
        assert len(second.requests) == 10
        assert not any(one.degraded or one.steps for one in journeys)
        assert node.memory.observed["v1"].count == 10, "and how long they take is known"
        assert not node.memory.answers
        broken = chain(Answers(), Answers(WorkerDied("gone")), drill=100.0)
        await driven(broken, asking(within=30.0))
        await asyncio.gather(*broken.memory.drilling)
        assert broken.memory.drills == {"": 1}

    run(main)


def test_drills_are_few_at_once() -> None:
    async def main() -> None:
        gate = asyncio.Event()
        second = Answers(gate)
        node = chain(Answers(), second, drill=100.0)
        for _ in range(50):
            await driven(node, asking(within=30.0))
            await asyncio.sleep(0)
        assert len(second.requests) == 4
        gate.set()
        await asyncio.gather(*node.memory.drilling)

    run(main)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"on": ("bad_weather",)}, "on"),
        ({"margin": 1.0}, "margin"),
        ({"hedge": 0.0}, "hedge"),
        ({"drill": 101.0}, "drill"),
        ({"timeout": 0.0}, "timeout"),
        ({"predict": 0.1}, "predict"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        FallbackPolicy(**settings)
    assert caught.value.field == field
