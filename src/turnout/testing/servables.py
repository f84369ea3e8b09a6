"""The conformance suite for servables: whatever answers one request keeps these promises to every caller.

`check_servable` runs all of `SERVABLE_CHECKS`; a test may also run them one by one. `make_servable` gives an
asynchronous context manager whose value serves one of the models of `turnout.testing.trials`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from time import monotonic
from typing import Any

import numpy as np

from turnout.core.errors import DeadlineExceeded, Failure, Fault, InvalidInput, InvalidOutput, ModelFailed, QueueFull
from turnout.core.messages import InferRequest, InferResponse
from turnout.core.servable import Servable
from turnout.core.tensors import Tensors
from turnout.testing.trials import Act, FixedBatch, Trial, Unbatched, check_trial, request, trial_inputs

MakeServable = Callable[[type[Any]], AbstractAsyncContextManager[Servable]]
Check = Callable[[MakeServable], Awaitable[None]]
PATIENCE = 30.0


async def _infer(servable: Servable, asked: InferRequest) -> InferResponse:
    async with asyncio.timeout(PATIENCE):
        return await servable.infer(asked)


async def _all(servable: Servable, asked: Sequence[InferRequest]) -> list[InferResponse | BaseException]:
    return await asyncio.gather(*(_infer(servable, one) for one in asked), return_exceptions=True)


def _check_all(inputs: Sequence[Tensors], answers: Sequence[InferResponse | BaseException]) -> None:
    for sent, got in zip(inputs, answers, strict=True):
        assert isinstance(got, InferResponse), f"{sent['nonce'][:4]} was not answered: {got!r}"
        check_trial(sent, got.outputs)


async def gives_each_its_own(make: MakeServable) -> None:
    """A thousand callers at once, of different sizes, widths and inputs: nobody gets another's answer."""
    chance = random.Random(1)  # noqa: S311  test data
    inputs, at = [], 1
    for _ in range(1000):
        rows = chance.choice((1, 1, 1, 2, 7))
        inputs.append(trial_inputs(list(range(at, at + rows)), chance.choice((1, 3, 8)), text=chance.random() < 0.3))
        at += rows
    async with make(Trial) as servable:
        _check_all(inputs, await _all(servable, [request(one, monotonic() + PATIENCE) for one in inputs]))


async def splits_and_joins(make: MakeServable) -> None:
    """A request of more rows than any batch holds comes back whole and in order, also among others."""
    async with make(Trial) as servable:
        for rows in (1, 63, 64, 65, 1000):
            inputs = trial_inputs(list(range(rows)), text=True)
            _check_all([inputs], await _all(servable, [request(inputs)]))
        many = [trial_inputs(list(range(i * 500, i * 500 + 500 - i))) for i in range(8)]
        _check_all(many, await _all(servable, [request(one) for one in many]))


async def lets_a_caller_go(make: MakeServable) -> None:
    """Callers that are cancelled before, while and after their batch runs cost nobody else anything."""
    async with make(Trial) as servable:
        slow = asyncio.ensure_future(_infer(servable, request(trial_inputs([Act.SLOW]))))
        await asyncio.sleep(0)
        inputs = [trial_inputs([i]) for i in range(1, 41)]
        tasks = [asyncio.ensure_future(_infer(servable, request(one))) for one in inputs]
        await asyncio.sleep(0.05)
        for task in tasks[::2]:
            task.cancel()
        slow.cancel()
        kept = await asyncio.gather(*tasks[1::2])
        _check_all(inputs[1::2], kept)
        gone = await asyncio.gather(slow, *tasks[::2], return_exceptions=True)
        assert all(isinstance(one, asyncio.CancelledError | InferResponse) for one in gone), gone
        after = trial_inputs([77])
        _check_all([after], await _all(servable, [request(after)]))


async def keeps_deadlines(make: MakeServable) -> None:
    """What is late already is refused without being run, and a short deadline does not hurt the others."""
    async with make(Trial) as servable:
        first = await _infer(servable, request(trial_inputs([1])))
        late = await _all(servable, [request(trial_inputs([2]), monotonic() - 1.0) for _ in range(20)])
        assert all(isinstance(one, DeadlineExceeded | QueueFull) for one in late), late
        last = await _infer(servable, request(trial_inputs([3])))
        assert last.outputs["calls"][0] == first.outputs["calls"][0] + 1, "late work was run"


async def fails_with_types(make: MakeServable) -> None:
    """Whatever the model does, a caller sees a Failure with the right fault, and nothing of the model's own text."""
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
    async with make(Trial) as servable:
        for act, kind in kinds.items():
            (found,) = await _all(servable, [request(trial_inputs([act]))])
            assert isinstance(found, kind), f"{act!r} gave {found!r}"
            assert isinstance(found, Failure)
            assert found.fault is (Fault.CALLER if kind is InvalidInput else Fault.MODEL)
            assert "secret" not in str(found)
        odd = trial_inputs([1, 2])
        odd["x"][0] = [np.nan, np.inf, -0.0]
        _check_all([odd], await _all(servable, [request(odd)]))


async def sets_the_guilty_apart(make: MakeServable) -> None:
    """Of many requests that may have been joined only the guilty fail, one of them or several."""
    async with make(Trial) as servable:
        for guilty in ({7}, {0, 63}, {3, 4, 5, 40}):
            inputs = [trial_inputs([Act.RAISE if i in guilty else i]) for i in range(64)]
            answers = await _all(servable, [request(one) for one in inputs])
            for i, got in enumerate(answers):
                assert isinstance(got, ModelFailed) == (i in guilty), f"request {i} got {got!r}"
            _check_all(
                [one for i, one in enumerate(inputs) if i not in guilty],
                [one for i, one in enumerate(answers) if i not in guilty],
            )


async def fails_long_requests_whole(make: MakeServable) -> None:
    """A request that was split fails once, as one, and its other parts leave nothing behind."""
    async with make(Trial) as servable:
        nonces = list(range(500))
        nonces[333] = Act.RAISE
        neighbour = trial_inputs([9])
        bad, good = await _all(servable, [request(trial_inputs(nonces)), request(neighbour)])
        assert isinstance(bad, ModelFailed)
        _check_all([neighbour], [good])
        _check_all([neighbour], await _all(servable, [request(neighbour)]))


async def keeps_fixed_sizes(make: MakeServable) -> None:
    """A model of a fixed batch size serves any number of rows."""
    async with make(FixedBatch) as servable:
        sizes = (1, 2, 3, 4, 5, 130)
        inputs = [np.arange(rows * 2, dtype=np.float32).reshape(rows, 2) + rows for rows in sizes]
        answers = await _all(servable, [request({"x": x}) for x in inputs])
        for x, got in zip(inputs, answers, strict=True):
            assert isinstance(got, InferResponse), repr(got)
            np.testing.assert_array_equal(got.outputs["y"], x + 1)


async def runs_what_cannot_be_joined(make: MakeServable) -> None:
    """A model without a row axis answers concurrent callers one by one."""
    async with make(Unbatched) as servable:
        sizes = [i % 5 for i in range(50)]
        asked = [request({"x": np.full(size, float(i))}, rows=1) for i, size in enumerate(sizes)]
        for i, got in enumerate(await _all(servable, asked)):
            assert isinstance(got, InferResponse), repr(got)
            assert got.outputs["total"].shape == ()
            assert got.outputs["total"] == i * sizes[i]


SERVABLE_CHECKS: Sequence[Check] = (
    gives_each_its_own,
    splits_and_joins,
    lets_a_caller_go,
    keeps_deadlines,
    fails_with_types,
    sets_the_guilty_apart,
    fails_long_requests_whole,
    keeps_fixed_sizes,
    runs_what_cannot_be_joined,
)


async def check_servable(make: MakeServable) -> None:
    """Holds a servable to its contract; raises AssertionError where it does not keep it."""
    for check in SERVABLE_CHECKS:
        await check(make)
