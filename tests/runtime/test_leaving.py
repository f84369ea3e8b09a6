"""A place that is to go gets nothing more, answers what it has, and is let go of then; the last one stays."""

from __future__ import annotations

import asyncio
from time import monotonic

from tests.runtime.test_batching import ask, passes, run
from tests.runtime.test_outlier import full_round, served
from turnout.core.errors import WorkerDied
from turnout.testing.trials import check_trial, trial_inputs


def test_what_is_inside_is_answered_and_nothing_more_comes() -> None:
    async def main() -> None:
        batching, places = served(2)
        first = ask(batching, 1)
        await passes()
        leaving = next(place for place in places if place.batches)
        stays = next(place for place in places if place is not leaving)
        assert not batching.retire_place(leaving), "a request is inside"
        others = [ask(batching, nonce) for nonce in (2, 3, 4)]
        for _ in others:
            await passes()
            assert len(leaving.batches) == 1
            stays.answer()
        leaving.answer()
        for nonce, task in enumerate([first, *others], 1):
            check_trial(trial_inputs([nonce]), (await task).outputs)
        assert batching.retire_place(leaving)
        assert batching.places == batching.replicas.open == [stays]
        assert not batching.replicas.leaving

    run(main)


def test_the_last_one_stays_and_one_that_is_needed_again_comes_back() -> None:
    async def main() -> None:
        batching, places = served(2)
        task = ask(batching, 1)
        await passes()
        leaving = next(place for place in places if place.batches)
        stays = next(place for place in places if place is not leaving)
        assert not batching.retire_place(leaving)
        assert not batching.retire_place(stays), "nobody else would take requests"
        stays.die()
        assert batching.replicas.open == [leaving], "better than nobody"
        assert not batching.retire_place(leaving)
        leaving.answer()
        check_trial(trial_inputs([1]), (await task).outputs)
        leaving.die()
        assert batching.places == batching.replicas.open == []

    run(main)


def test_one_that_dies_on_its_way_out_costs_nobody_an_answer() -> None:
    async def main() -> None:
        batching, places = served(2)
        task = ask(batching, 1)
        await passes()
        leaving = next(place for place in places if place.batches)
        stays = next(place for place in places if place is not leaving)
        assert not batching.retire_place(leaving)
        leaving.die()
        await passes()
        stays.answer()
        found = (await asyncio.gather(task, return_exceptions=True))[0]
        assert not isinstance(found, WorkerDied)
        assert batching.places == [stays]

    run(main)


def test_one_that_was_left_out_as_an_outlier_is_neither_probed_nor_taken_in_again() -> None:
    async def main() -> None:
        batching, places = served(3)
        bad = places[0]
        for _ in range(30):
            await full_round(batching, places, bad)
            if bad not in batching.replicas.open:
                break
        assert bad not in batching.replicas.open
        assert batching.retire_place(bad) or bad in batching.replicas.leaving
        batching.replicas.wake(monotonic() + 100.0)
        assert bad not in batching.replicas.due
        assert bad not in batching.replicas.open

    run(main)
