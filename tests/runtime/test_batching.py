"""The bounds of a queue, and what becomes of items when places hang and die; with places that answer when told."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Sequence
from time import monotonic
from typing import Any

import pytest

from turnout.core.errors import DeadlineExceeded, ModelFailed, NotReady, QueueFull, WorkerDied
from turnout.core.messages import InferResponse
from turnout.core.tensors import join_rows
from turnout.entrypoints.call import Call
from turnout.runtime.batch import Batch
from turnout.runtime.batch_policy import BatchPolicy
from turnout.runtime.batching import Batching
from turnout.runtime.predict import Outcome, predict_batch
from turnout.testing.trials import Trial, check_trial, request, trial_inputs


class Held:
    """A place that keeps its batches until it is told to answer or to die."""

    def __init__(self, batching: Batching, slots: int = 2) -> None:
        self.name = "held"
        self.free = slots
        self.busy_since = 0.0
        self.batches: list[Batch] = []
        self._batching = batching
        self._model = Trial()
        batching.add_place(self)

    def inside(self) -> Sequence[Batch]:
        return tuple(self.batches)

    def run(self, batch: Batch) -> None:
        self.free -= 1
        self.batches.append(batch)
        self.busy_since = self.busy_since or monotonic()

    def answer(self, seconds: float = 0.001) -> None:
        batch = self.batches.pop(0)
        self.free += 1
        self.busy_since = monotonic() if self.batches else 0.0
        inputs = join_rows([item.inputs for item in batch.items])
        outcome = predict_batch(self._model, inputs, batch.rows(), [math.inf] * len(batch.items))
        self._batching.done(self, batch, outcome._replace(seconds=seconds))

    def die(self) -> None:
        batches, self.batches = self.batches, []
        self.free = 0
        self._batching.lost(self, batches)

    def close(self) -> None:
        """Nothing to give back."""

    def nonces(self) -> list[list[int]]:
        return [[int(item.inputs["nonce"][0]) for item in batch.items] for batch in self.batches]


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await main()

    asyncio.run(bounded())


def batching(**policy: Any) -> Batching:
    return Batching("m", "1", Trial.signature, BatchPolicy(**policy))


def ask(servable: Batching, *nonces: int, within: float = math.inf) -> asyncio.Task[InferResponse]:
    inputs = trial_inputs(list(nonces))
    return asyncio.ensure_future(servable.infer(request(inputs, monotonic() + within)))


async def passes(count: int = 4) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def caught(task: asyncio.Task[InferResponse]) -> BaseException:
    (found,) = await asyncio.gather(task, return_exceptions=True)
    assert isinstance(found, BaseException), found
    return found


def test_without_a_place_nothing_is_taken() -> None:
    async def main() -> None:
        problem = await caught(ask(batching(), 1))
        assert isinstance(problem, NotReady)
        assert problem.retry_after is not None

    run(main)


def test_a_lone_request_goes_at_once_and_what_waits_goes_together() -> None:
    async def main() -> None:
        servable = batching()
        place = Held(servable)
        first = ask(servable, 1)
        await passes()
        assert place.nonces() == [[1]]
        others = [ask(servable, n) for n in range(2, 7)]
        await passes()
        assert place.nonces() == [[1]], "a second batch is not sent ahead while it could still grow"
        place.answer()
        await passes()
        assert place.nonces() == [[2, 3, 4, 5, 6]]
        place.answer()
        for nonce, task in enumerate([first, *others], 1):
            check_trial(trial_inputs([nonce]), (await task).outputs)
        assert (servable.waiting.rows, servable.waiting.nbytes) == (0, 0)

    run(main)


@pytest.mark.parametrize("bound", [{"queue_rows": 10}, {"queue_bytes": 10 * (8 + 3 * 4)}])
def test_a_full_queue_refuses_and_says_when(bound: dict[str, int]) -> None:
    async def main() -> None:
        servable = batching(**bound)
        place = Held(servable)
        tasks = [ask(servable, 0)]
        await passes()
        tasks += [ask(servable, n, within=math.inf) for n in range(1, 11)]
        await passes()
        refused = await caught(ask(servable, 11))
        assert isinstance(refused, QueueFull)
        assert refused.retryable
        assert refused.retry_after is not None
        assert 0.0 <= refused.retry_after < 60.0
        place.answer()
        place.answer()
        assert len(await asyncio.gather(*tasks)) == 11

    run(main)


def test_a_wait_that_is_too_long_is_refused_at_once() -> None:
    async def main() -> None:
        servable = batching(max_rows=4)
        place = Held(servable, slots=1)
        for _ in range(20):
            task = ask(servable, 1, 2, 3, 4)
            await passes()
            place.answer(seconds=0.4)
            await task
        held = [ask(servable, n) for n in range(8)]
        await passes()
        refused = await caught(ask(servable, 9, within=0.5))
        assert isinstance(refused, QueueFull)
        assert refused.retry_after == pytest.approx(0.8, rel=0.5)
        patient = ask(servable, 10, within=30.0)
        await passes()
        assert not patient.done()
        while place.batches:
            place.answer(seconds=0.4)
            await passes()
        assert len(await asyncio.gather(*held, patient)) == 9

    run(main)


def test_an_idle_place_is_no_reason_to_refuse() -> None:
    """Two requests in one pass of the loop, long after the last batch, or before the first."""

    async def main() -> None:
        servable = batching()
        place = Held(servable)
        for _ in range(2):
            tasks = [ask(servable, n, within=5.0) for n in range(1, 5)]
            await passes()
            assert place.nonces() == [[1, 2, 3, 4]]
            place.answer()
            await asyncio.gather(*tasks)
            servable._next_free -= 600.0  # ten minutes later
            servable._ends = {one: end - 600.0 for one, end in servable._ends.items()}

    run(main)


def test_what_was_once_slow_is_not_expected_for_ever() -> None:
    async def main() -> None:
        servable = batching(max_rows=2)
        place = Held(servable)
        tasks = [ask(servable, 1, 2) for _ in range(300)]
        await passes()
        for number in range(296):
            place.answer(seconds=0.2 if number < 40 else 0.0001)
            await passes(1)
        refused = servable.refuse_now(monotonic() + 0.5)
        assert refused is None, refused
        while place.batches:
            place.answer()
            await passes(1)
        await asyncio.gather(*tasks)

    run(main)


def test_late_items_are_not_run() -> None:
    async def main() -> None:
        servable = batching()
        place = Held(servable)
        first = ask(servable, 1)
        await passes()
        late = ask(servable, 2, within=0.01)
        good = ask(servable, 3)
        await asyncio.sleep(0.02)
        place.answer()
        await passes()
        assert place.nonces() == [[3]]
        place.answer()
        assert isinstance(await caught(late), DeadlineExceeded)
        await asyncio.gather(first, good)

    run(main)


def test_a_dead_place_costs_one_more_try_alone() -> None:
    async def main() -> None:
        servable = batching(max_rows=4)
        doomed = Held(servable)
        tasks = [ask(servable, n) for n in range(1, 5)]
        await passes()
        assert doomed.nonces() == [[1, 2, 3, 4]]
        other = Held(servable)
        doomed.die()
        await passes()
        seen = []
        while other.batches:
            seen += other.nonces()[:1]
            other.answer()
            await passes()
        assert seen == [[1], [2], [3], [4]], "each suspect alone and in its order"
        assert len(await asyncio.gather(*tasks)) == 4
        assert servable.waiting.rows == 0

    run(main)


def test_what_was_sent_ahead_is_under_no_suspicion() -> None:
    async def main() -> None:
        servable = batching(max_rows=2)
        first, second = Held(servable), Held(servable)
        tasks = [ask(servable, n) for n in range(1, 9)]
        await passes()
        assert first.nonces() + second.nonces() == [[1, 2], [5, 6], [3, 4], [7, 8]] or len(first.batches) == 2
        running, ahead = (list(batch.items) for batch in first.batches)
        first.die()
        assert [item.attempts for item in (*running, *ahead)] == [1, 1, 0, 0]
        second.die()
        for item in ahead:
            assert isinstance(item.exception(), WorkerDied), "there is no place left"
        await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(task.exception(), WorkerDied) for task in tasks)

    run(main)


def test_twice_in_a_dead_worker_is_enough() -> None:
    async def main() -> None:
        servable = batching()
        places = [Held(servable) for _ in range(4)]
        task = ask(servable, 1)
        deaths = 0
        while not task.done():
            await passes()
            busy = [place for place in places if place.batches]
            if busy:
                busy[0].die()
                deaths += 1
        assert deaths == 2
        assert isinstance(await caught(task), WorkerDied)

    run(main)


def test_the_last_place_takes_what_waits_with_it() -> None:
    async def main() -> None:
        servable = batching()
        place = Held(servable)
        tasks = [ask(servable, 1)]
        await passes()
        tasks.append(ask(servable, 2))
        await passes()
        place.die()
        for task in tasks:
            problem = await caught(task)
            assert isinstance(problem, WorkerDied)
            assert problem.retry_after is not None
        assert servable.waiting.rows == 0

    run(main)


def test_a_place_that_hangs_is_gone_round_and_given_up() -> None:
    async def main() -> None:
        servable = batching()
        hung, other = Held(servable), Held(servable)
        tasks = [ask(servable, 1, within=0.9)]
        await passes()
        now = monotonic()
        assert servable.watch(now + 0.1) == []
        assert not other.batches
        assert servable.watch(now + 0.5) == []
        await passes()
        assert other.nonces() == [[1]]
        assert servable.refuse_now(monotonic() + 1.0) is None, "nobody waits for the place that hangs"
        tasks.append(ask(servable, 2, within=0.9))
        await passes()
        other.answer()
        await passes()
        assert other.nonces() == [[2]]
        other.answer()
        assert servable.watch(now + 1.9) == []
        assert servable.watch(now + 2.1) == [hung]
        hung.die()
        assert len(await asyncio.gather(*tasks)) == 2
        assert servable.waiting.rows == 0
        assert not other.batches

    run(main)


def test_a_place_that_hangs_and_dies_gives_its_items_back_once() -> None:
    async def main() -> None:
        servable = batching(max_rows=1)
        hung, other = Held(servable, 1), Held(servable, 1)
        tasks = [ask(servable, n) for n in (1, 2)]
        await passes()
        servable.watch(monotonic() + 0.5)  # both are overdue; one is suspected, its item waits for the other
        hung, other = (hung, other) if hung in servable.replicas.suspects else (other, hung)
        await passes()
        assert servable.waiting.rows == 1
        hung.die()
        assert servable.waiting.rows == 1
        assert len(servable.waiting) == 1
        other.answer()
        await passes()
        other.answer()
        await asyncio.gather(*tasks)
        assert (servable.waiting.rows, len(servable.waiting)) == (0, 0)

    run(main)


def test_a_stopped_place_that_goes_on_is_trusted_again() -> None:
    async def main() -> None:
        servable = batching()
        slow, other = Held(servable), Held(servable)
        task = ask(servable, 1)
        await passes()
        servable.watch(monotonic() + 0.5)
        await passes()
        slow.answer()
        check_trial(trial_inputs([1]), (await task).outputs)
        other.answer()
        again = ask(servable, 2)
        await passes()
        assert slow.nonces() == [[2]]
        slow.answer()
        await again

    run(main)


def test_a_cancelled_long_request_leaves_nothing() -> None:
    async def main() -> None:
        servable = batching(max_rows=2)
        place = Held(servable)
        long = ask(servable, *range(20))
        await passes()
        long.cancel()
        await passes()
        assert servable.waiting.rows == 0
        while place.batches:
            place.answer()
            await passes()
        assert len(servable.waiting) == 0

    run(main)


def test_many_forgotten_items_do_not_pile_up() -> None:
    async def main() -> None:
        servable = batching()
        place = Held(servable, 1)
        first = ask(servable, 0)
        await passes()
        for _ in range(3):
            tasks = [ask(servable, n) for n in range(1000)]
            await passes()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert servable.waiting.rows == 0
        assert len(servable.waiting) < 2000
        place.answer()
        await first

    run(main)


def test_max_wait_waits_for_more_and_no_longer() -> None:
    async def main() -> None:
        servable = batching(max_wait=0.05, max_rows=3)
        place = Held(servable)
        started = monotonic()
        first = ask(servable, 1)
        await passes()
        assert not place.batches
        while not place.batches:  # noqa: ASYNC110  what is under test gives no event
            await asyncio.sleep(0.002)
        assert 0.045 < monotonic() - started < 0.5
        place.answer()
        tasks = [ask(servable, n) for n in (1, 2, 3)]
        await passes()
        assert place.nonces() == [[1, 2, 3]], "a full batch does not wait"
        place.answer()
        await asyncio.gather(first, *tasks)

    run(main)


def test_shapes_that_do_not_fit_run_apart() -> None:
    async def main() -> None:
        servable = batching()
        place = Held(servable, 1)
        first = ask(servable, 0)
        await passes()
        sent = [
            trial_inputs([n], width, text=text)
            for n, (width, text) in enumerate([(2, False), (3, False), (2, True)], 1)
        ]
        tasks = [asyncio.ensure_future(servable.infer(request(one))) for one in (*sent, *sent)]
        await passes()
        sizes = []
        while place.batches:
            sizes.append(len(place.batches[0].items))
            place.answer()
            await passes()
        assert sizes == [1, 2, 2, 2]
        for inputs, task in zip((*sent, *sent), tasks, strict=True):
            check_trial(inputs, (await task).outputs)
        await first

    run(main)


def test_what_another_place_answered_is_no_reason_for_patience() -> None:
    """Somebody patient was in the batch that hangs; once answered, the place has nothing left to wait for."""

    async def main() -> None:
        servable = batching()
        hung = Held(servable)
        tasks = [ask(servable, 1, within=0.9), ask(servable, 2, within=30.0)]
        await passes()
        other = Held(servable)
        now = monotonic()
        servable.watch(now + 0.5)
        await passes()
        assert hung not in servable.watch(now + 2.1)
        while other.batches:
            other.answer()
            await passes()
        assert servable.watch(now + 2.1) == [hung]
        await asyncio.gather(*tasks)
        hung.die()

    run(main)


def test_callers_who_leave_do_not_make_a_slow_place_a_hung_one() -> None:
    async def main() -> None:
        servable = batching()
        slow = Held(servable)
        task = ask(servable, 1, within=30.0)
        await passes()
        task.cancel()
        await passes()
        assert servable.watch(monotonic() + 5.0) == []
        slow.answer()

    run(main)


def test_an_item_that_hangs_places_takes_two_of_them_at_most() -> None:
    async def main() -> None:
        servable = batching()
        places = [Held(servable) for _ in range(4)]
        tasks = [ask(servable, 1, within=30.0), ask(servable, 2, within=30.0)]
        now = monotonic()
        for step in range(6):  # nobody answers, and everybody is overdue again and again
            await passes()
            servable.watch(now + step + 0.5)
        await passes()
        held = [nonces for place in places for nonces in place.nonces()]
        assert held.count([1]) <= 1, "alone, once"
        assert held.count([2]) <= 1
        assert [1, 2] in held
        free = [place for place in places if not place.batches]
        assert free, "one place is left for everybody else"
        more = ask(servable, 3)
        await passes()
        assert [place.nonces() for place in free if place.batches] == [[[3]]]
        for place in places:
            while place.batches:
                place.answer()
        await asyncio.gather(*tasks, more)
        assert servable.waiting.rows == 0

    run(main)


def test_a_hedged_item_is_not_lost_with_the_place_that_hung() -> None:
    """It runs elsewhere when its first place is killed at last: nobody needs to try again, and nobody is refused."""

    async def main() -> None:
        servable = batching()
        hung = Held(servable)
        task = ask(servable, 1)
        await passes()
        other = Held(servable)
        servable.watch(monotonic() + 0.5)
        await passes()
        assert other.nonces() == [[1]]
        hung.die()
        await passes()
        assert not task.done()
        assert len(servable.waiting) == 0
        other.answer()
        check_trial(trial_inputs([1]), (await task).outputs)

    run(main)


@pytest.mark.parametrize("end", ["dies", "fails", "is late"])
def test_a_waiter_that_raises_costs_nobody_else_what_is_theirs(end: str, caplog: pytest.LogCaptureFixture) -> None:
    def cannot_write(*_: Any) -> None:
        raise ValueError("cannot be written")

    async def main() -> None:
        served = batching()
        place = Held(served, slots=1)
        first = ask(served, 1)
        await passes()
        within = 0.02 if end == "is late" else math.inf
        odd = Call(served.infer(request(trial_inputs([2]), monotonic() + within)), cannot_write)
        odd.step()
        other = ask(served, 3, within=within)
        await passes()
        if end == "dies":
            place.die()
        elif end == "is late":
            await asyncio.sleep(0.03)
            place.answer()
        else:
            place.answer()
            await passes()
            batch = place.batches.pop()
            place.free = 1
            served.done(place, batch, Outcome({}, [ModelFailed("no"), ModelFailed("no")], 0.001))
        expected = {"dies": WorkerDied, "fails": ModelFailed, "is late": DeadlineExceeded}[end]
        assert isinstance(await caught(other), expected)
        assert odd.over
        await asyncio.gather(first, return_exceptions=True)

    run(main)
    assert "a failure could not be delivered" in caplog.text
