"""The conformance suite for places: whatever runs batches keeps these promises, in this process or in another.

`check_place` runs all of `PLACE_CHECKS`; a test may also run them one by one. `make_place` makes a place for one of
the models of `turnout.testing.trials`; it is called inside a running event loop, and its place is closed afterwards.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import Any, Self

import numpy as np

from turnout.core.errors import DeadlineExceeded, Failure, Fault, InvalidInput, InvalidOutput, ModelFailed
from turnout.core.messages import Context
from turnout.core.tensors import Tensors
from turnout.runtime.batch import Batch, Item
from turnout.runtime.predict import Outcome
from turnout.runtime.replica import Done, Lost, Place
from turnout.testing.trials import Act, FixedBatch, Trial, Unbatched, check_trial, trial_inputs

MakePlace = Callable[[type[Any], Done, Lost], Awaitable[Place]]
Check = Callable[[MakePlace], Awaitable[None]]
PATIENCE = 30.0


class Bench:
    """One place with what it reported. Use as `async with Bench(make_place, Trial) as bench`."""

    def __init__(self, make_place: MakePlace, model: type[Any]) -> None:
        self._make_place = make_place
        self._model = model
        self._came = asyncio.Event()
        self.done: list[tuple[Batch, Outcome]] = []
        self.lost: list[Batch] = []
        self.place: Place

    async def __aenter__(self) -> Self:
        self.place = await self._make_place(self._model, self._on_done, self._on_lost)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.place.close()

    def _on_done(self, place: Place, batch: Batch, outcome: Outcome) -> None:
        assert place is self.place, "another place's outcome"
        self.done.append((batch, outcome))
        self._came.set()

    def _on_lost(self, place: Place, batches: Sequence[Batch]) -> None:
        assert place is self.place, "another place's loss"
        self.lost.extend(batches)
        self._came.set()

    def send(self, *items: Tensors, deadlines: Sequence[float] = (), rows: Sequence[int] = ()) -> Batch:
        """Runs a batch of these items and does not wait for it."""
        loop = asyncio.get_running_loop()
        counts = rows or [len(next(iter(inputs.values()))) for inputs in items]
        untils = deadlines or [math.inf] * len(items)
        made = [
            Item(loop, inputs, count, 0, Context(deadline=until), monotonic(), ())
            for inputs, count, until in zip(items, counts, untils, strict=True)
        ]
        batch = Batch(made, monotonic())
        self.place.run(batch)
        return batch

    async def wait(self, count: int) -> None:
        """Until so many outcomes are there."""
        async with asyncio.timeout(PATIENCE):
            while len(self.done) + bool(self.lost) < count:
                self._came.clear()
                await self._came.wait()

    async def run(self, *items: Tensors, **how: Any) -> Outcome:
        """The outcome of one batch of these items."""
        batch = self.send(*items, **how)
        await self.wait(len(self.done) + (not any(one is batch for one, _ in self.done)))
        return next(outcome for one, outcome in self.done if one is batch)


def rows_of(outcome: Outcome, items: Sequence[Tensors]) -> list[Tensors | Failure]:
    """What each item got: its rows of the outputs, or its failure."""
    found: list[Tensors | Failure] = []
    at = 0
    for i, inputs in enumerate(items):
        failure = outcome.failures[i] if outcome.failures else None
        if failure is not None:
            found.append(failure)
            continue
        stop = at + len(inputs["nonce"])
        found.append({name: array[at:stop] for name, array in outcome.outputs.items()})
        at = stop
    assert all(len(array) == at for array in outcome.outputs.values()), "outputs that belong to nobody"
    return found


async def _expect(bench: Bench, items: Sequence[Tensors], bad: dict[int, type[Failure]], **how: Any) -> None:
    outcome = await bench.run(*items, **how)
    for i, (inputs, got) in enumerate(zip(items, rows_of(outcome, items), strict=True)):
        if i in bad:
            assert isinstance(got, bad[i]), f"item {i} got {got!r}, not {bad[i].__name__}"
            assert "secret" not in got.message, "a model's own words reached the caller"
        else:
            assert not isinstance(got, Failure), f"item {i} got {got!r}"
            check_trial(inputs, got)


async def answers(make_place: MakePlace) -> None:
    """Items of several rows come back in their order, with text and without, however wide, and NaN is a number."""
    async with Bench(make_place, Trial) as bench:
        await _expect(bench, [trial_inputs([1])], {})
        await _expect(bench, [trial_inputs([1, 2, 3]), trial_inputs([4]), trial_inputs([5, 6])], {})
        await _expect(bench, [trial_inputs([7, 8], text=True), trial_inputs([9], text=True)], {})
        await _expect(bench, [trial_inputs([1, 2], width=0)], {})
        await _expect(bench, [trial_inputs(list(range(300)), width=2000)], {})
        await _expect(bench, [trial_inputs([10, 11], width=1)], {})
        odd = trial_inputs([1, 2])
        odd["x"][0] = [np.nan, np.inf, -0.0]
        await _expect(bench, [odd], {})


async def counts_what_is_inside(make_place: MakePlace) -> None:
    """`free`, `busy_since` and `inside` say what is inside, and nothing is inside when all is answered."""
    async with Bench(make_place, Trial) as bench:
        place = bench.place
        slots = place.free
        assert slots >= 1
        assert not place.busy_since
        assert not place.inside()
        batches = [bench.send(trial_inputs([i])) for i in range(slots)]
        assert len(place.inside()) + len(bench.done) == slots
        await bench.wait(slots)
        assert [batch for batch, _ in bench.done] == batches, "outcomes in another order"
        assert (place.free, place.busy_since, list(place.inside())) == (slots, 0.0, [])


async def drops_what_is_late(make_place: MakePlace) -> None:
    """An item whose deadline has passed is not run; its neighbours are."""
    async with Bench(make_place, Trial) as bench:
        late = monotonic() - 1.0
        items = [trial_inputs([1]), trial_inputs([Act.RAISE, 2]), trial_inputs([3])]
        await _expect(bench, items, {1: DeadlineExceeded}, deadlines=[math.inf, late, math.inf])
        before = (await bench.run(trial_inputs([1]))).outputs["calls"][0]
        await _expect(bench, items[:2], {0: DeadlineExceeded, 1: DeadlineExceeded}, deadlines=[late, late])
        after = (await bench.run(trial_inputs([1]))).outputs["calls"][0]
        assert after == before + 1, "late work was run"


async def sets_the_guilty_apart(make_place: MakePlace) -> None:
    """Whatever the model does to one item of a batch, only that item fails, with few further calls."""
    kinds = {
        Act.RAISE: ModelFailed,
        Act.REFUSE: InvalidInput,
        Act.EXIT: ModelFailed,
        Act.FEWER_ROWS: InvalidOutput,
        Act.OTHER_TYPE: InvalidOutput,
        Act.OTHER_SHAPE: InvalidOutput,
        Act.NO_OUTPUT: InvalidOutput,
        Act.NO_MAPPING: InvalidOutput,
    }
    async with Bench(make_place, Trial) as bench:
        for act, kind in kinds.items():
            await _expect(bench, [trial_inputs([act])], {0: kind})
            for guilty in ({5}, {0}, {31}, {3, 4}, {0, 31}):
                items = [trial_inputs([act if i in guilty else i]) for i in range(32)]
                before = (await bench.run(trial_inputs([1]))).outputs["calls"][0]
                await _expect(bench, items, dict.fromkeys(guilty, kind))
                after = (await bench.run(trial_inputs([1]))).outputs["calls"][0]
                assert after - before <= 2 + len(guilty) * 2 * math.log2(32), "too many calls to find the guilty"


async def tells_whose_fault(make_place: MakePlace) -> None:
    """What the model calls the caller's mistake arrives as that, with all its parts."""
    async with Bench(make_place, Trial) as bench:
        outcome = await bench.run(trial_inputs([Act.REFUSE]))
        failure = outcome.failures[0]
        assert isinstance(failure, InvalidInput)
        assert failure.fault is Fault.CALLER
        assert (failure.field, failure.got, failure.reason) == ("inputs.nonce", "-2", "this row is refused")


async def keeps_fixed_sizes(make_place: MakePlace) -> None:
    """A model of a fixed batch size gets that size; what was added is taken away again."""
    async with Bench(make_place, FixedBatch) as bench:
        for rows in (1, 3, 4, 5, 9):
            x = np.arange(rows * 2, dtype=np.float32).reshape(rows, 2)
            outcome = await bench.run({"x": x})
            assert not any(outcome.failures)
            np.testing.assert_array_equal(outcome.outputs["y"], x + 1)


async def runs_what_cannot_be_joined(make_place: MakePlace) -> None:
    """A model without a row axis gets each request as it came."""
    async with Bench(make_place, Unbatched) as bench:
        for size in (3, 1, 0):
            outcome = await bench.run({"x": np.full(size, 2.0)}, rows=[1])
            assert outcome.outputs["total"].shape == ()
            assert outcome.outputs["total"] == 2.0 * size


PLACE_CHECKS: Sequence[Check] = (
    answers,
    counts_what_is_inside,
    drops_what_is_late,
    sets_the_guilty_apart,
    tells_whose_fault,
    keeps_fixed_sizes,
    runs_what_cannot_be_joined,
)


async def check_place(make_place: MakePlace) -> None:
    """Holds a place to its contract; raises AssertionError where it does not keep it."""
    for check in PLACE_CHECKS:
        await check(make_place)
