"""Shadows are seen by nobody: not when they hang, raise, are slow or are too many; and what both answered is kept."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import numpy as np
import pytest

from tests.graph.callers import Named, Raises, asked
from tests.runtime.places import PLACES, batched
from turnout.core.errors import InvalidInput, ModelFailed, QueueFull
from turnout.core.messages import InferRequest, InferResponse
from turnout.core.servable import Servable
from turnout.entrypoints.call import Call
from turnout.graph.allocation import allocate
from turnout.graph.evidence import Evidence
from turnout.graph.shadow import Shadow, ShadowPolicy, ShadowState
from turnout.graph.shadow_record import ShadowRecord
from turnout.graph.split import Split
from turnout.graph.tree import tree
from turnout.testing.servables import SERVABLE_CHECKS, Check
from turnout.testing.trials import Act, Trial, check_trial, request, trial_inputs


class Gate:
    """Answers when it is let, and knows who is inside and what it was asked."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.open = asyncio.Event()
        self.asked: list[InferRequest] = []
        self.cancelled = 0

    async def infer(self, request: InferRequest) -> InferResponse:
        self.asked.append(request)
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return await Named(self.name).infer(request)


class Deaf(Gate):
    """Does not end when it is cancelled."""

    async def infer(self, request: InferRequest) -> InferResponse:
        while not self.open.is_set():
            try:
                await super().infer(request)
            except asyncio.CancelledError:
                continue
        return await Named(self.name).infer(request)


def shadow_of(primary: Servable, shadow: Servable, state: ShadowState, **policy: Any) -> Shadow:
    return Shadow(primary, {"v8": (shadow, ShadowPolicy(**policy))}, state)


async def settled(condition: Callable[[], bool], pause: float = 0.0) -> None:
    """Lets the loop run until something holds."""
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(pause)
    raise AssertionError("it never held")


async def all_gone(state: ShadowState, pause: float = 0.0) -> None:
    """Until what was begun has ended and is compared."""
    for _ in range(3):
        await asyncio.sleep(0)
    await settled(lambda: not any(state.tasks.values()), pause)
    await asyncio.sleep(0)
    assert all(size == 0 for size in state.held_bytes.values())


def test_both_answers_make_a_pair_under_the_prediction_s_id() -> None:
    async def run() -> None:
        state = ShadowState()
        node = shadow_of(Named("v7"), Other("v8"), state)
        answer = await node.infer(asked(id="p-1", inputs={"x": np.array([[1.0], [2.0]])}))
        assert answer.version == "v7"
        await all_gone(state)
        pairs = state.record.pairs["v7", "v8"]
        assert (pairs.requests, pairs.rows, pairs.agreed) == (1, 2, 0)
        assert [row["id"] for row in pairs.worst.to_json()] == ["p-1", "p-1"]
        assert state.record.counts["v8"].to_json() | {"drawn": 1, "sent": 1, "answered": 1} == (
            state.record.counts["v8"].to_json()
        )

    asyncio.run(run())


class Other(Named):
    """Answers something else."""

    async def infer(self, request: InferRequest) -> InferResponse:
        answer = await super().infer(request)
        return answer._replace(outputs={"y": answer.outputs["y"] + 1})


def test_the_primary_goes_first_and_answers_while_the_shadow_is_still_at_it() -> None:
    async def run() -> None:
        state = ShadowState()
        order: list[str] = []

        class Noted(Named):
            async def infer(self, request: InferRequest) -> InferResponse:
                order.append(self.name)
                return await super().infer(request)

        gate = Gate("v8")
        node = Shadow(Noted("v7"), {"v8": (gate, ShadowPolicy())}, state)
        assert (await node.infer(asked())).version == "v7"
        assert order == ["v7"]
        assert gate.asked == [], "not even begun"
        await settled(lambda: bool(gate.asked))
        assert not state.record.pairs
        gate.open.set()
        await all_gone(state)
        assert state.record.pairs["v7", "v8"].requests == 1

    asyncio.run(run())


def test_a_shadow_that_is_first_waits_for_the_primary() -> None:
    async def run() -> None:
        state = ShadowState()
        gate = Gate("v7")
        shadow = Named("v8")
        task = asyncio.ensure_future(shadow_of(gate, shadow, state).infer(asked()))
        await settled(lambda: shadow.requests == 1)
        assert not state.record.pairs
        gate.open.set()
        await task
        await settled(lambda: bool(state.record.pairs))
        assert state.record.pairs["v7", "v8"].requests == 1

    asyncio.run(run())


def test_a_shadow_gets_the_same_arrays_and_a_journey_and_deadline_of_its_own() -> None:
    async def run() -> None:
        gate = Gate("v8")
        state = ShadowState()
        request = asked(header={"x-a": "b"}, deadline=1e12, id="p")
        await shadow_of(Named("v7"), gate, state, deadline=5.0).infer(request)
        await settled(lambda: bool(gate.asked))
        (got,) = gate.asked
        assert got.inputs is request.inputs
        assert got.context.journey is None
        assert got.context.deadline < 1e12
        state.close()
        await all_gone(state)
        assert gate.cancelled == 1

    asyncio.run(run())


@pytest.mark.parametrize(
    "problem", [QueueFull("full"), ZeroDivisionError("a bug"), SystemExit(3), asyncio.CancelledError()]
)
def test_what_a_shadow_raises_is_counted_and_seen_by_nobody(problem: BaseException) -> None:
    async def run() -> None:
        state = ShadowState()
        node = shadow_of(Named("v7"), Raises(problem), state)
        for _ in range(3):
            assert (await node.infer(asked())).version == "v7"
        await all_gone(state)
        await settled(lambda: sum(state.record.pairs["v7", "v8"].failed["shadow"].values()) == 3)
        assert state.record.counts["v8"].failed == 3

    asyncio.run(run())
    gc.collect()  # a task whose exception nobody took would complain here


def test_a_servable_that_cannot_even_be_called_is_seen_by_nobody() -> None:
    class Broken:
        def infer(self, request: InferRequest) -> Any:
            raise RuntimeError("no coroutine at all")

    async def run() -> None:
        state = ShadowState()
        assert (await shadow_of(Named("v7"), Broken(), state).infer(asked())).version == "v7"
        await all_gone(state)
        assert state.record.counts["v8"].failed == 1

    asyncio.run(run())


def test_a_shadow_that_hangs_is_ended_by_its_own_deadline() -> None:
    async def run() -> None:
        state = ShadowState()
        gate = Gate("v8")
        node = shadow_of(Named("v7"), gate, state, deadline=0.02)
        assert (await node.infer(asked())).version == "v7"
        await settled(lambda: bool(state.record.pairs), 0.01)
        assert gate.cancelled == 1
        assert state.record.counts["v8"].late == 1
        assert state.record.pairs["v7", "v8"].failed["shadow"] == {"DeadlineExceeded": 1}
        await all_gone(state)

    asyncio.run(run())


@pytest.mark.parametrize("kind", [Gate, Deaf])
def test_more_than_it_can_bear_is_dropped_and_counted_and_the_primary_answers_all(kind: type[Gate]) -> None:
    async def run() -> None:
        state = ShadowState()
        gate = kind("v8")
        node = shadow_of(Named("v7"), gate, state, max_in_flight=3, deadline=60.0)
        for _ in range(50):
            assert (await node.infer(asked())).version == "v7"
        counts = state.record.count("v8")
        await settled(lambda: counts.drawn == 50)
        assert (counts.sent, counts.busy) == (3, 47)
        gate.open.set()
        await all_gone(state)

    asyncio.run(run())


def test_bytes_in_flight_are_bounded_but_one_request_always_fits() -> None:
    async def run() -> None:
        state = ShadowState()
        gate = Gate("v8")
        node = shadow_of(Named("v7"), gate, state, max_bytes=1000)
        for _ in range(4):
            await node.infer(asked(inputs={"x": np.zeros((1, 1000))}))
        await settled(lambda: state.record.count("v8").drawn == 4)
        assert (state.record.count("v8").sent, state.record.count("v8").busy) == (1, 3)
        gate.open.set()
        await all_gone(state)

    asyncio.run(run())


def test_shares_of_requests() -> None:
    async def run() -> None:
        state = ShadowState(seed=5)
        shadow = Named("v8")
        node = shadow_of(Named("v7"), shadow, state, percent=10, max_in_flight=10_000)
        for _ in range(2000):
            await node.infer(asked())
        await all_gone(state)
        assert abs(shadow.requests - 200) < 4 * (2000 * 0.1 * 0.9) ** 0.5
        none = shadow_of(Named("v7"), shadow, ShadowState(), percent=0)
        before = shadow.requests
        await none.infer(asked())
        await asyncio.sleep(0)
        assert shadow.requests == before

    asyncio.run(run())


def split(share: float) -> Split:
    evidence = {name: Evidence() for name in ("v7", "v8")}
    return Split("fraud", {"v7": Named("v7"), "v8": Named("v8")}, allocate({"v7": 100 - share, "v8": share}), evidence)


def test_who_names_a_version_is_not_mirrored() -> None:
    async def run() -> None:
        state = ShadowState()
        shadow = Named("v8")
        node = shadow_of(split(0), shadow, state)
        await node.infer(asked(header={"x-route-to": "v7"}))
        request = asked()
        assert request.context.journey is not None
        request.context.journey.direct, request.context.journey.variant = True, "v7"
        await node.infer(request)
        await asyncio.sleep(0)
        await all_gone(state)
        assert shadow.requests == 0
        await node.infer(asked())
        await settled(lambda: shadow.requests == 1)
        await all_gone(state)

    asyncio.run(run())


def test_a_version_is_not_its_own_shadow() -> None:
    async def run() -> None:
        state = ShadowState()
        shadow = Named("v8")
        node = shadow_of(split(100), shadow, state)
        await node.infer(asked())
        await settled(lambda: state.record.count("v8").drawn == 1)
        assert shadow.requests == 0
        assert state.record.count("v8").skipped == 1

    asyncio.run(run())


@pytest.mark.parametrize(
    ("problem", "failed", "skipped"),
    [
        (QueueFull("full"), {"QueueFull": 1}, 0),
        (ValueError("a bug"), {"ModelFailed": 1}, 0),
        (InvalidInput("his"), {}, 1),
    ],
)
def test_what_the_primary_raises_is_raised_and_counted_if_it_is_no_caller_s_mistake(
    problem: Exception, failed: dict[str, int], skipped: int
) -> None:
    async def run() -> None:
        state = ShadowState()
        evidence = {"v7": Evidence()}
        primary = Split("fraud", {"v7": Raises(problem)}, allocate({"v7": 100}), evidence)
        node = shadow_of(primary, Named("v8"), state)
        with pytest.raises(type(problem)):
            await node.infer(asked())
        await settled(lambda: state.record.count("v8").drawn == 1)
        await all_gone(state)
        assert state.record.count("v8").skipped == skipped
        found = [pairs.failed["primary"] for pairs in state.record.pairs.values()]
        assert found == ([failed] if failed else [])

    asyncio.run(run())


def test_a_caller_who_goes_away_takes_his_pair_with_him() -> None:
    async def run() -> None:
        state = ShadowState()
        primary, shadow = Gate("v7"), Gate("v8")
        task = asyncio.ensure_future(shadow_of(primary, shadow, state).infer(asked()))
        await settled(lambda: bool(shadow.asked))
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert shadow.cancelled == 0, "its work is its own"
        shadow.open.set()
        await all_gone(state)
        assert not state.record.pairs
        assert state.record.count("v8").left == 1

    asyncio.run(run())


def test_it_needs_no_task_of_the_caller() -> None:
    async def run() -> None:
        state = ShadowState()
        ended: list[Any] = []
        node = shadow_of(Named("v7"), Named("v8"), state)
        call = Call(node.infer(asked()), lambda *what: ended.append(what))
        call.step()
        ((answer, problem),) = ended
        assert answer.version == "v7"
        assert problem is None
        await settled(lambda: bool(state.record.pairs))
        await all_gone(state)

    asyncio.run(run())


def test_what_cannot_be_compared_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    class Odd(Named):
        async def infer(self, request: InferRequest) -> InferResponse:
            return InferResponse({"y": "no array"}, "fraud", "v8")  # type: ignore[dict-item]  # that is what it is about

    async def run() -> None:
        state = ShadowState()
        node = shadow_of(Named("v7"), Odd("v8"), state)
        for _ in range(3):
            assert (await node.infer(asked())).version == "v7"
        await all_gone(state)

    asyncio.run(run())
    assert [record.message for record in caplog.records] == ["answers of v7 and of its shadow v8 cannot be compared"], (
        "once, not for each request"
    )


def test_positive_control_a_shadow_that_were_awaited_would_be_noticed() -> None:
    """The checks above can fail: a node that waits for its shadow fails them."""

    class Waits(Shadow):
        async def infer(self, request: InferRequest) -> InferResponse:
            answer = await super().infer(request)
            await self._shadows[0].servable.infer(request)
            return answer

    async def run() -> None:
        node = Waits(Named("v7"), {"v8": (Raises(ModelFailed("bad")), ShadowPolicy())}, ShadowState())
        with pytest.raises(ModelFailed):
            await node.infer(asked())
        state = ShadowState()
        node = Waits(Named("v7"), {"v8": (Gate("v8"), ShadowPolicy())}, state)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await node.infer(asked())
        state.close()
        await all_gone(state)

    asyncio.run(run())


def test_what_is_remembered_outlives_the_node() -> None:
    async def run() -> None:
        state = ShadowState()
        gate = Gate("v8")
        await shadow_of(Named("v7"), gate, state).infer(asked())
        await settled(lambda: bool(gate.asked))
        again = shadow_of(Named("v7"), gate, state, max_in_flight=1)
        await again.infer(asked())
        await settled(lambda: state.record.count("v8").busy == 1)
        gate.open.set()
        await all_gone(state)
        assert state.record.pairs["v7", "v8"].requests == 1

    asyncio.run(run())


def test_records_add_up_and_survive_json() -> None:
    async def one(seed: int) -> ShadowRecord:
        state = ShadowState(seed)
        node = shadow_of(Named("v7"), Other("v8") if seed else Raises(QueueFull("full")), state)
        for i in range(5):
            await node.infer(asked(id=f"{seed}-{i}"))
        await all_gone(state)
        await settled(lambda: bool(state.record.pairs))
        return state.record

    first, second = (asyncio.run(one(seed)) for seed in (0, 1))
    both = first.plus(second)
    assert both.counts["v8"].drawn == 10
    assert both.pairs["v7", "v8"].requests == 5
    assert both.pairs["v7", "v8"].failed["shadow"] == {"QueueFull": 5}
    said = msgspec.json.decode(msgspec.json.encode(both.to_json()))
    assert ShadowRecord.from_json(said).to_json() == both.to_json()
    assert first.counts["v8"].drawn == 5, "adding changes neither"
    both.forget("v8")
    assert both.to_json() == {"shadows": {}, "pairs": []}


@pytest.mark.parametrize(
    "said",
    [
        {"percent": 101},
        {"percent": -1},
        {"max_in_flight": 0},
        {"max_bytes": 0},
        {"deadline": 0},
        {"deadline": float("inf")},
        {"compare": {"tolerance": -1}},
        {"compare": {"segment": {}}},
        {"compare": {"segment": {"header": "a", "column": "b"}}},
    ],
)
def test_policies_that_make_no_sense_are_refused(said: object) -> None:
    with pytest.raises(InvalidInput):
        msgspec.convert(said, ShadowPolicy)


def test_it_is_one_line_of_a_tree() -> None:
    node = Shadow(Named("v7"), {"v8": (Named("v8"), ShadowPolicy(percent=12.5))}, ShadowState())
    assert list(tree(node)) == ["Shadow(v8=12.5%)", "  primary: Named(v7)", "  shadow v8: Named(v8)"]


@asynccontextmanager
async def shadow_over_batching(model: type[Any]) -> AsyncIterator[Servable]:
    async with batched([PLACES["thread-memory"]])(model) as primary, batched([PLACES["thread-memory"]])(model) as other:
        state = ShadowState()
        yield shadow_of(primary, other, state)
        await all_gone(state, 0.01)


@asynccontextmanager
async def shadow_that_fails(model: type[Any]) -> AsyncIterator[Servable]:
    async with batched([PLACES["thread-memory"]])(model) as primary:
        state = ShadowState()
        yield Shadow(
            primary,
            {"bad": (Raises(ZeroDivisionError()), ShadowPolicy()), "hung": (Gate("hung"), ShadowPolicy(deadline=0.05))},
            state,
        )
        state.close()
        await all_gone(state, 0.01)


@pytest.mark.parametrize("check", SERVABLE_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("make", [shadow_over_batching, shadow_that_fails])
def test_it_is_a_servable(make: Any, check: Check) -> None:
    asyncio.run(check(make))


class Provoked:
    """Asks a real worker for what it should not do."""

    def __init__(self, servable: Servable, act: Act) -> None:
        self._servable = servable
        self._act = act

    async def infer(self, request: InferRequest) -> InferResponse:
        nonce = np.full_like(request.inputs["nonce"], self._act)
        return await self._servable.infer(request._replace(inputs={**request.inputs, "nonce": nonce}))


@pytest.mark.parametrize("act", [Act.RAISE, Act.SLOW, Act.FEWER_ROWS, Act.DIE])
def test_a_shadow_in_a_process_of_its_own_that_fails_costs_no_answer(act: Act) -> None:
    async def run() -> ShadowState:
        make, other = batched([PLACES["thread-memory"]]), batched([PLACES["process-memory"]])
        async with make(Trial) as primary, other(Trial) as shadow:
            state = ShadowState()
            node = shadow_of(primary, Provoked(shadow, act), state, max_in_flight=8, deadline=20.0)
            for at in range(1, 401, 20):
                inputs = [trial_inputs([number]) for number in range(at, at + 20)]
                answers = await asyncio.gather(*(node.infer(request(one)) for one in inputs))
                for sent, got in zip(inputs, answers, strict=True):
                    check_trial(sent, got.outputs)
            state.close()
            await all_gone(state, 0.01)
        return state

    state = asyncio.run(run())
    counts = state.record.counts["v8"]
    assert counts.drawn == 400
    assert counts.busy > 0
    assert counts.failed > 0 or act is Act.SLOW
    if act is Act.SLOW:
        assert counts.sent < 20 * 8, "as many as there would be if each of the 20 rounds waited for its eight"
