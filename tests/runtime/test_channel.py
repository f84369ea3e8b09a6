"""What is particular to one way between router and worker; what holds for both is tested with the places."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import uvloop

from turnout.core.messages import Context
from turnout.runtime import frames
from turnout.runtime.batch import Batch, Item
from turnout.runtime.channel import open_far, open_near
from turnout.runtime.predict import Outcome
from turnout.runtime.replica import Place, Replica
from turnout.runtime.wire import pair
from turnout.testing.trials import Trial, trial_inputs


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_the_end_of_a_worker_that_had_more_to_read_is_noticed(run: Callable[..., object]) -> None:
    """What was sent ahead makes its end an error, of which libuv tells only once: together with its last outcome."""

    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        ours, theirs = pair()
        near = open_near(ours, 2, memory=False)
        far = open_far(theirs)
        for number in (1, 2):
            near.send(frames.encode(number, 0.0, (1,), (9.0,), [frames.piece(0, np.zeros((1, 4)))]))
        taken = frames.decode(next(iter(far.take())))
        far.answer(frames.encode(taken.number, 0.1, (0,), (), [frames.piece(0, np.ones((1, 2)))]))
        ended = loop.create_future()
        outcomes: list[int] = []

        def collect() -> None:
            try:
                outcomes.extend(frames.decode(buffer).number for buffer in near.collect())
            except EOFError:
                for wake in near.wakes():
                    loop.remove_reader(wake)
                ended.set_result(None)

        for wake in near.wakes():
            loop.add_reader(wake, collect)
        far.close()
        await asyncio.wait_for(ended, 5)
        near.close()
        return outcomes

    assert run(main()) == [1]


@pytest.mark.parametrize(
    ("failures", "details"),
    [
        ({"0": {"type": "ModelFailed", "message": 5}}, []),
        ({"0": {"type": "InvalidInput", "reason": "r", "field": ["f"], "expected": "", "got": ""}}, []),
        ({}, [None]),
        ({}, 5),
    ],
)
def test_a_worker_whose_notes_hold_no_text_is_given_up(failures: object, details: object) -> None:
    assert asyncio.run(told_by({"failures": failures, "details": details})) == "lost"


def test_text_of_a_worker_that_cannot_be_sent_on_is_made_such() -> None:
    note = {"failures": {"0": {"type": "ModelFailed", "message": "odd \udcff"}}, "details": ["\ud800"]}
    outcome = asyncio.run(told_by(note))
    assert isinstance(outcome, Outcome)
    assert [str(problem) for problem in outcome.failures] == ["odd ?"]
    assert outcome.details == ["?"]


async def told_by(note: object) -> Outcome | str:
    """What comes of a batch of one whose worker answers with this note."""
    loop = asyncio.get_running_loop()
    ours, theirs = pair()
    ended: asyncio.Future[Outcome | str] = loop.create_future()

    def done(_place: Place, _batch: Batch, outcome: Outcome) -> None:
        ended.set_result(outcome)

    def lost(_place: Place, _batches: Sequence[Batch]) -> None:
        ended.set_result("lost")

    replica = Replica("m@1#0", Trial.signature, ours, done, lost, memory=False)
    far = open_far(theirs)
    item = Item(loop, trial_inputs([1]), 1, 8, Context(), 0.0, ())
    replica.run(Batch([item], 0.0))
    far.answer(frames.encode(1, 0.1, (0,), (), [], note))
    found = await asyncio.wait_for(ended, 5)
    if found != "lost":
        replica.close()
    far.close()
    return found


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_worker_that_answers_what_nobody_asked_is_given_up(run: Callable[..., object]) -> None:
    async def main() -> int:
        ours, theirs = pair()
        lost: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def on_lost(_place: Place, batches: Sequence[Batch]) -> None:
            lost.set_result(len(batches))

        def done(_place: Place, _batch: Batch, _outcome: Outcome) -> None:
            raise AssertionError("nothing was asked")

        Replica("m@1#0", Trial.signature, ours, done, on_lost, memory=False)
        far = open_far(theirs)
        far.answer(frames.encode(1, 0.1, (0,), (), [frames.piece(0, np.ones((1, 2)))]))
        found = await asyncio.wait_for(lost, 5)
        far.close()
        return found

    assert run(main()) == 0
