"""What is tried again, and that retries are never the load."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.graph.steps import Answers, asking, driven, failing, run
from tests.runtime.places import PLACES
from tests.runtime.test_batching import passes
from tests.runtime.test_outlier import fail, served
from turnout.core.errors import CircuitOpen, InvalidInput, InvalidOutput, ModelFailed, RateLimited, WorkerDied
from turnout.core.messages import Journey
from turnout.core.tensors import Tensors
from turnout.graph.retry import Retry, RetryBudget, RetryPolicy
from turnout.runtime.batch_policy import BatchPolicy
from turnout.runtime.batching import Batching
from turnout.testing.trials import Trial, check_trial, request, trial_inputs

DIED = WorkerDied("gone")


def test_a_failure_that_may_pass_is_tried_again_and_seen_in_the_explanation() -> None:
    async def main() -> None:
        child = Answers(DIED, None)
        retry = Retry(child, name="v8")
        journey = Journey(explain=True)
        assert (await driven(retry, asking(journey=journey))).version == "1"
        assert len(child.requests) == 2
        assert journey.steps is not None
        assert [(step.node, step.name, step.outcome, step.detail) for step in journey.steps] == [
            ("retry", "v8", "answered", "after WorkerDied")
        ]
        assert (retry.memory.active, retry.memory.retrying, retry.memory.retries) == (0, 0, 1)

    run(main)


@pytest.mark.parametrize(
    "final",
    [InvalidInput("yours"), RateLimited("slower"), ModelFailed("poison"), CircuitOpen("open"), ValueError("bug")],
)
def test_what_would_fail_again_is_not_tried_again(final: Exception) -> None:
    async def main() -> None:
        child = Answers(final)
        with pytest.raises(type(final)):
            await driven(Retry(child, RetryPolicy(attempts=3)), asking())
        assert len(child.requests) == 1

    run(main)


def test_failures_of_the_model_are_tried_again_where_that_is_asked() -> None:
    async def main() -> None:
        child = Answers(InvalidOutput("bent"), None)
        assert (await driven(Retry(child, RetryPolicy(model_failures=True)), asking())).version == "1"
        caller = Answers(InvalidInput("yours"))
        await failing(Retry(caller, RetryPolicy(model_failures=True)), asking())
        assert len(caller.requests) == 1

    run(main)


def test_the_last_failure_is_raised_after_all_attempts() -> None:
    async def main() -> None:
        last = WorkerDied("the third")
        child = Answers(DIED, DIED, last)
        assert await failing(Retry(child, RetryPolicy(attempts=3)), asking()) is last
        assert len(child.requests) == 3

    run(main)


def test_no_retry_begins_after_the_deadline() -> None:
    async def main() -> None:
        child = Answers(DIED)
        retry = Retry(child, RetryPolicy(attempts=5, backoff=10.0), random=lambda: 0.0)
        assert await failing(retry, asking(within=1.0)) is DIED
        assert len(child.requests) == 1
        patient = Answers(DIED, None)
        assert await driven(Retry(patient, RetryPolicy(backoff=0.01)), asking(within=5.0))

    run(main)


def test_total_failure_is_amplified_by_a_tenth_at_most() -> None:
    """R4, with many at once and one after the other, and before anything was ever answered."""

    async def main() -> None:
        for before in (0, 1000):
            child = Answers(*[None] * before, DIED)
            retry = Retry(child, RetryPolicy(attempts=5))
            for _ in range(before):
                await driven(retry, asking())
            child.requests.clear()
            for _ in range(20):
                await asyncio.gather(*(failing(retry, asking()) for _ in range(10)))
            assert 200 < len(child.requests) <= 1.1 * 200, f"{len(child.requests)} tries of 200 requests"
            assert retry.memory.refused

    run(main)


def test_only_a_share_of_those_on_their_way_are_retries() -> None:
    policy, budget = RetryPolicy(budget=0.2, minimum=3), RetryBudget()
    budget.saved, budget.active = RetryBudget.KEPT, 100
    budget.retrying = 19
    assert budget.may_retry(policy)
    budget.retrying = 20
    assert not budget.may_retry(policy)
    budget.active, budget.retrying = 1, 2
    assert budget.may_retry(policy), "three at least"


def test_answers_earn_what_was_spent() -> None:
    policy, budget = RetryPolicy(), RetryBudget()
    while budget.may_retry(policy):
        budget.spend()
        budget.retrying -= 1
    for _ in range(6):
        budget.earn(policy)
    assert budget.may_retry(policy)
    for _ in range(1000):
        budget.earn(policy)
    assert budget.saved == RetryBudget.KEPT


def test_a_caller_that_leaves_gives_its_place_back() -> None:
    async def main() -> None:
        retry = Retry(Answers(DIED, asyncio.Event()))
        task = asyncio.ensure_future(retry.infer(asking()))
        await asyncio.sleep(0)
        assert (retry.memory.active, retry.memory.retrying) == (1, 1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert (retry.memory.active, retry.memory.retrying) == (0, 0)

    run(main)


class Broken(Trial):
    """One replica of four that fails with every row."""

    def predict(self, inputs: Tensors) -> Tensors:
        raise ValueError("this replica is broken")


def test_with_retries_nobody_sees_that_one_replica_of_four_is_broken() -> None:
    """R5: its failures are tried on another replica, until it is left out."""

    async def main() -> None:
        batching = Batching("trial", "1", Trial.signature, BatchPolicy(max_rows=1))
        for number in range(4):
            kind = Broken if number == 1 else Trial
            batching.add_place(await PLACES["thread-memory"](kind, batching.done, batching.lost))
        retry = Retry(batching, RetryPolicy(attempts=3, model_failures=True))
        try:
            for start in range(1, 400, 8):
                sent = [trial_inputs([start + number]) for number in range(8)]
                for inputs, answer in zip(
                    sent, await asyncio.gather(*(retry.infer(request(one)) for one in sent)), strict=True
                ):
                    check_trial(inputs, answer.outputs)
            assert retry.memory.retries, "the control: it was broken"
            assert retry.memory.refused == 0
        finally:
            for place in batching.places.copy():
                place.close()

    run(main)


def test_a_retry_waits_for_a_busy_replica_of_which_nothing_is_known_while_others_use_the_one_that_failed() -> None:
    """Right after a start no replica has answered yet, and who fails at once would be the first to be free."""

    async def main() -> None:
        batching, (good, bad) = served(2)
        retry = Retry(batching, RetryPolicy(attempts=3, model_failures=True))
        first, second = [asyncio.ensure_future(retry.infer(request(trial_inputs([nonce])))) for nonce in (1, 2)]
        await passes()
        assert [good.nonces(), bad.nonces()] == [[[1]], [[2]]]
        fail(bad, ModelFailed("no"))
        await passes()
        assert not bad.batches, "it is free and not known to be bad, but it has failed this one"
        third = asyncio.ensure_future(retry.infer(request(trial_inputs([3]))))
        await passes()
        assert bad.nonces() == [[3]], "it has failed nobody else"
        good.answer()
        await passes()
        assert good.nonces() == [[2]]
        good.answer()
        bad.answer()
        for nonce, task in enumerate((first, second, third), 1):
            check_trial(trial_inputs([nonce]), (await task).outputs)

    run(main)


def test_a_retry_goes_back_where_nobody_else_is_left() -> None:
    async def main() -> None:
        batching, places = served(3)
        retry = Retry(batching, RetryPolicy(attempts=5, minimum=5, model_failures=True))
        task = asyncio.ensure_future(retry.infer(request(trial_inputs([1]))))
        came = []
        for _ in range(4):
            await passes()
            came.append(next(place for place in places if place.batches))
            fail(came[-1], ModelFailed("no"))
            if len(came) == 1:
                batching.remove_place(next(place for place in places if place is not came[0]))
        await passes()
        came.append(next(place for place in places if place.batches))
        came[-1].answer()
        check_trial(trial_inputs([1]), (await task).outputs)
        assert len(set(came[:2])) == 2, "each is asked before one is asked again"
        assert len(set(came)) == 2

    run(main)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"attempts": 0}, "attempts"),
        ({"backoff": -1.0}, "backoff"),
        ({"budget": 2.0}, "budget"),
        ({"minimum": -1}, "minimum"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        RetryPolicy(**settings)
    assert caught.value.field == field
