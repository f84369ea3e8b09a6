"""Faults in real workers: whatever the first step does, all are answered in time, and the reason is the right one."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from time import monotonic
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.graph.faulty import Faulty, How
from tests.graph.steps import driven
from tests.runtime.places import PLACES, batched
from turnout.core.errors import Failure
from turnout.core.messages import Context, InferRequest, InferResponse, Journey
from turnout.graph.circuit_breaker import CircuitBreaker, CircuitBreakerPolicy
from turnout.graph.constant import Constant
from turnout.graph.fallback import Fallback
from turnout.graph.outputs import OutputCheck, OutputRange, OutputsPolicy
from turnout.graph.retry import Retry
from turnout.runtime.batch_policy import BatchPolicy
from turnout.runtime.batching import Batching

#: Of a request (seconds), where the fault is time; a slow answer takes 100 ms. Of others it is far away.
SHORT, LONG = 0.09, 3.0
#: How far after it an answer may be on a machine that does other things too.
GRACE = 1.0
OUTPUTS = OutputsPolicy(each={"score": OutputRange(min=0, max=1)})
BREAKER = CircuitBreakerPolicy(failures=5, ratio=0.0, open_seconds=0.2)


class Tree(NamedTuple):
    """A champion in workers, an older version in one that is well, and a constant."""

    node: Fallback
    champion: Batching


@asynccontextmanager
async def tree(workers: int, older: bool) -> AsyncIterator[Tree]:
    async with AsyncExitStack() as stack:
        champion = await stack.enter_async_context(
            batched([PLACES["process-memory"]] * workers, BatchPolicy(max_rows=4))(Faulty)
        )
        stack.callback(kill, champion.places.copy())
        arm = CircuitBreaker(Retry(OutputCheck(champion, OUTPUTS, Faulty.signature)), BREAKER)
        steps: dict[str, Any] = {"v8": arm}
        if older:
            steps["v7"] = await stack.enter_async_context(batched([PLACES["thread-memory"]])(Faulty))
        steps["default"] = Constant({"score": 0.0, "calls": 0}, Faulty.signature)
        yield Tree(Fallback(steps), champion)


def kill(places: list[Any]) -> None:
    """One that hangs would be waited for when it is closed."""
    for place in places:
        if place.process is not None:
            place.process.kill()


class Got(NamedTuple):
    response: InferResponse
    degraded: str
    late: float


async def ask(tree: Tree, how: How, within: float) -> Got:
    journey = Journey()
    deadline = monotonic() + within
    x = np.array([[5.0, float(how)]])
    request = InferRequest("m", {"x": x}, 1, Context("r", deadline, "v2", "", None, journey))
    response = await driven(tree.node, request)
    return Got(response, journey.degraded, monotonic() - deadline)


async def healthy(tree: Tree) -> None:
    """Warm: every step has answered, and what is usual is known."""
    for _ in range(20):
        got = await ask(tree, How.WELL, 5.0)
        assert (got.degraded, float(got.response.outputs["score"][0])) == ("", 0.5)


#: What the first requests that meet the fault are told, and what those after them may be told too.
REASONS = {
    How.CRASH: ({"error", "not_ready"}, {"not_ready", "circuit_open"}),
    How.HANG: ({"timeout"}, {"timeout", "predicted_timeout", "circuit_open"}),
    How.SLOW: ({"timeout"}, {"timeout", "predicted_timeout", "circuit_open"}),
    How.NAN: ({"invalid_output"}, {"circuit_open"}),
    How.SHAPE: ({"invalid_output"}, {"circuit_open"}),
    How.OUT_OF_MEMORY: ({"error"}, {"circuit_open"}),
}


@pytest.mark.parametrize("how", REASONS, ids=lambda how: how.name.lower())
def test_everybody_is_answered_in_time_with_the_right_reason(how: How) -> None:
    first, later = REASONS[how]

    async def main() -> None:
        async with tree(2 if how is How.CRASH else 1, older=False) as planted:
            await healthy(planted)
            within = SHORT if how in (How.HANG, How.SLOW) else LONG
            got = [await ask(planted, how, within) for _ in range(12)]
            got += await asyncio.gather(*(ask(planted, how, within) for _ in range(24)))
            assert max(one.late for one in got) < GRACE
            if within == LONG:  # a busy machine may foresee a miss from the start
                assert got[0].degraded in first, Counter(one.degraded for one in got)
            assert {one.degraded for one in got} <= first | later, Counter(one.degraded for one in got)
            assert "circuit_open" in {one.degraded for one in got} or how is How.CRASH
            assert {one.response.version for one in got} == {"default"}
            assert {float(one.response.outputs["score"][0]) for one in got} == {0.0}

    asyncio.run(main())


def test_the_older_version_answers_for_a_champion_that_is_broken() -> None:
    """The fault is in the champion alone; who stands in gives the real score."""

    async def main() -> None:
        async with tree(1, older=True) as planted:
            await healthy(planted)
            for place in planted.champion.places:
                place.process.kill()  # type: ignore[attr-defined]  # a test's place knows its process
            got = [await ask(planted, How.WELL, 2.0) for _ in range(30)]
            assert {one.degraded for one in got} <= {"error", "not_ready", "circuit_open", "timeout"}
            assert {float(one.response.outputs["score"][0]) for one in got} == {0.5}
            assert planted.node.memory.answers["v7", "not_ready"] > 20

    asyncio.run(main())


def test_without_a_fallback_the_same_faults_are_failures() -> None:
    """The control: what the tests above inject is real."""

    async def main() -> None:
        async with tree(1, older=False) as planted:
            for how in (How.NAN, How.SHAPE, How.OUT_OF_MEMORY, How.SLOW):
                x = np.array([[5.0, float(how)]])
                arm = OutputCheck(planted.champion, OUTPUTS, Faulty.signature)
                asked = InferRequest("m", {"x": x}, 1, Context("r", monotonic() + SHORT))
                with pytest.raises(Failure):
                    await driven(arm, asked)

    asyncio.run(main())
