"""What is equal, how long an answer is kept, who waits for whom, and what is never kept."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from tests.graph.steps import Answers, Clock, asking, driven, failing, run
from turnout.core.errors import DeadlineExceeded, InvalidInput, ModelFailed, WorkerDied
from turnout.core.messages import Context, InferRequest, InferResponse, Journey
from turnout.graph.cache import Cache, CacheMemory, CachePolicy


def cache(child: Any, clock: Clock | None = None, memory: CacheMemory | None = None, **settings: Any) -> Cache:
    return Cache(child, CachePolicy(**settings), memory, digest="sha256:1", name="v1", clock=clock or Clock())


def outcomes(journey: Journey) -> list[tuple[str, str]]:
    assert journey.steps is not None
    return [(step.node, step.outcome) for step in journey.steps]


def test_the_second_of_two_equal_requests_is_a_hit_until_it_is_too_old() -> None:
    async def main() -> None:
        clock, child = Clock(), Answers()
        node = cache(child, clock, ttl=10.0)
        first, second = Journey(explain=True), Journey(explain=True)
        a = await driven(node, asking(1.0, journey=first))
        clock.now += 9.9
        b = await driven(node, asking(1.0, journey=second))
        assert len(child.requests) == 1
        assert b.outputs["score"].tolist() == a.outputs["score"].tolist()
        assert (outcomes(first), outcomes(second)) == ([("cache", "miss")], [("cache", "hit")])
        clock.now += 0.2
        await driven(node, asking(1.0))
        assert len(child.requests) == 2
        assert (node.memory.hits, node.memory.misses) == (1, 2)

    run(main)


def variants() -> dict[str, InferRequest]:
    """Requests of which no two are equal."""
    x = np.array([[1.0, 2.0]], dtype=np.float32)
    context = Context()
    text = np.array([b"ab", b"c"], dtype=object)
    return {
        "one": InferRequest("m", {"x": x}, 1, context),
        "other value": InferRequest("m", {"x": x + 1}, 1, context),
        "minus zero": InferRequest("m", {"x": x * np.float32(-0.0)}, 1, context),
        "zero": InferRequest("m", {"x": x * np.float32(0)}, 1, context),
        "other type": InferRequest("m", {"x": x.view(np.int32)}, 1, context),
        "other shape": InferRequest("m", {"x": x.reshape(2, 1)}, 1, context),
        "other name": InferRequest("m", {"y": x}, 1, context),
        "one more": InferRequest("m", {"x": x, "y": x}, 1, context),
        "outputs": InferRequest("m", {"x": x}, 1, context, outputs=("score",)),
        "text": InferRequest("m", {"x": text}, 2, context),
        "text cut elsewhere": InferRequest("m", {"x": np.array([b"a", b"bc"], dtype=object)}, 2, context),
        "large": InferRequest("m", {"x": np.zeros((1, 1000))}, 1, context),
        "large and other": InferRequest("m", {"x": np.ones((1, 1000))}, 1, context),
    }


def test_different_requests_have_different_keys() -> None:
    node = cache(Answers())
    keys = {name: node.key(request) for name, request in variants().items()}
    assert len(set(keys.values())) == len(keys)
    again = {name: node.key(request) for name, request in variants().items()}
    assert again == keys
    other = Cache(Answers(), CachePolicy(), digest="sha256:2")
    assert other.key(variants()["one"]) != keys["one"], "another version"


def test_order_and_layout_make_no_difference() -> None:
    node = cache(Answers())
    x, y = np.arange(6.0).reshape(2, 3), np.ones(2)
    a = InferRequest("m", {"x": x, "y": y}, 2, Context())
    b = InferRequest("m", {"y": y.astype(">f8"), "x": np.asfortranarray(x)}, 2, Context())
    assert node.key(a) == node.key(b)


def test_headers_count_where_the_policy_says_so() -> None:
    node = cache(Answers(), vary=("Accept-Language",))
    de, en = (asking(headers={"accept-language": one}) for one in ("de", "en"))
    assert node.key(de) != node.key(en)
    assert cache(Answers()).key(de) == cache(Answers()).key(en)


def test_what_is_handed_out_cannot_be_changed_and_is_a_copy() -> None:
    async def main() -> None:
        batch = np.arange(1000.0)
        node = cache(Answers(lambda request: InferResponse({"score": batch[3:4]}, "m", "1")))
        for _ in range(2):
            found = (await driven(node, asking())).outputs["score"]
            with pytest.raises(ValueError, match="read-only"):
                found[0] = 7.0
        batch[3] = 99.0
        assert (await driven(node, asking())).outputs["score"].tolist() == [3.0]

    run(main)


def test_many_equal_requests_at_once_are_one_call() -> None:
    async def main() -> None:
        gate = asyncio.Event()
        child = Answers(gate)
        node = cache(child)
        tasks = [asyncio.ensure_future(node.infer(asking(1.0))) for _ in range(50)]
        await asyncio.sleep(0)
        gate.set()
        answers = await asyncio.gather(*tasks)
        assert len(child.requests) == 1
        assert len({id(answer) for answer in answers}) == 1
        assert node.memory.joined == 49
        assert not node.memory.flights

    run(main)


def test_a_leader_that_leaves_takes_nobody_along() -> None:
    async def main() -> None:
        gate = asyncio.Event()
        child = Answers(gate)
        node = cache(child)
        tasks = [asyncio.ensure_future(node.infer(asking(1.0))) for _ in range(10)]
        await asyncio.sleep(0)
        for task in (tasks[0], tasks[5]):
            task.cancel()
        await asyncio.gather(tasks[0], tasks[5], return_exceptions=True)
        await asyncio.sleep(0)
        gate.set()
        answers = await asyncio.gather(*[task for task in tasks if not task.cancelled()])
        assert len(answers) == 8
        assert len(child.requests) == 2, "one other took the lead"

    run(main)


def test_a_leader_s_deadline_is_his_own_and_a_failure_is_everybody_s() -> None:
    async def main() -> None:
        gate = asyncio.Event()
        child = Answers(DeadlineExceeded("late"), None)

        class Slow:
            async def infer(self, request: InferRequest) -> InferResponse:
                await gate.wait()
                return await child.infer(request)

        node = Cache(Slow(), CachePolicy(), digest="sha256:1")
        tasks = [asyncio.ensure_future(node.infer(asking(1.0, within=within))) for within in (0.5, 60.0, 60.0)]
        await asyncio.sleep(0)
        gate.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(found[0], DeadlineExceeded)
        assert [type(one) for one in found[1:]] == [InferResponse, InferResponse]
        broken = cache(Answers(ModelFailed("no")))
        both = await asyncio.gather(*(broken.infer(asking()) for _ in range(2)), return_exceptions=True)
        assert [type(one) for one in both] == [ModelFailed, ModelFailed]

    run(main)


def test_failures_and_degraded_answers_are_never_kept() -> None:
    async def main() -> None:
        child = Answers(WorkerDied("gone"), None)
        node = cache(child)
        assert await failing(node, asking())
        assert await driven(node, asking())
        assert len(child.requests) == 2

        def degraded(request: InferRequest) -> InferResponse:
            assert request.context.journey is not None
            request.context.journey.degraded = "timeout"
            return Answers().answer()

        other = Answers(degraded)
        node = cache(other)
        for journey in (Journey(), None):
            await driven(node, asking(journey=journey))
        assert len(other.requests) == 2
        assert not node.memory.entries

    run(main)


def test_followers_of_a_degraded_answer_know_it() -> None:
    async def main() -> None:
        gate = asyncio.Event()

        class Degraded:
            async def infer(self, request: InferRequest) -> InferResponse:
                await gate.wait()
                assert request.context.journey is not None
                request.context.journey.degraded = "error"
                request.context.journey.variant = "v8"
                return Answers().answer()

        node = cache(Degraded())
        journeys = [Journey(), Journey()]
        tasks = [asyncio.ensure_future(node.infer(asking(journey=one))) for one in journeys]
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(*tasks)
        assert [(one.degraded, one.variant) for one in journeys] == [("error", "v8")] * 2

    run(main)


def test_a_stale_answer_is_given_while_one_new_one_is_fetched() -> None:
    async def main() -> None:
        clock, gate = Clock(), asyncio.Event()
        child = Answers(None, gate)
        node = cache(child, clock, ttl=10.0, stale=20.0)
        await driven(node, asking())
        clock.now += 15.0
        child.score = 0.9
        for _ in range(5):
            journey = Journey(explain=True)
            answer = await driven(node, asking(journey=journey))
            assert answer.outputs["score"][0] == 0.5
            assert journey.steps is not None
            assert journey.steps[0].outcome == "hit"
            assert journey.steps[0].detail == "stale for 5.000 s"
            await asyncio.sleep(0)
        assert len(child.requests) == 2, "one refresh"
        assert child.requests[1].context.journey is not journey
        gate.set()
        await asyncio.gather(*node.memory.refreshing)
        assert (await driven(node, asking())).outputs["score"][0] == pytest.approx(0.9)
        assert node.memory.stale == 5
        clock.now += 31.0
        await driven(node, asking())
        assert len(child.requests) == 3, "too old even for that"

    run(main)


def test_a_refresh_that_fails_keeps_the_stale_answer() -> None:
    async def main() -> None:
        clock, child = Clock(), Answers(None, ModelFailed("no"))
        node = cache(child, clock, ttl=1.0, stale=100.0)
        await driven(node, asking())
        clock.now += 2.0
        for _ in range(3):
            assert await driven(node, asking())
            await asyncio.gather(*node.memory.refreshing)
        assert len(child.requests) == 4, "each tries again"

    run(main)


def test_its_size_is_bounded_and_who_was_not_asked_for_longest_goes() -> None:
    async def main() -> None:
        child = Answers()
        node = cache(child, max_bytes=20_000)
        for value in range(100):
            await driven(node, asking(float(value)))
            await driven(node, asking(0.0))
        memory = node.memory
        assert memory.nbytes <= 20_000
        assert memory.nbytes == sum(entry.nbytes for entry in memory.entries.values())
        assert 5 < len(memory.entries) < 40
        before = len(child.requests)
        await driven(node, asking(0.0))
        await driven(node, asking(99.0))
        assert len(child.requests) == before
        await driven(node, asking(1.0))
        assert len(child.requests) == before + 1

    run(main)


def test_what_is_too_large_is_not_kept() -> None:
    async def main() -> None:
        child = Answers(lambda request: InferResponse({"score": np.zeros(10_000)}, "m", "1"))
        node = cache(child, max_bytes=5000)
        for _ in range(2):
            await driven(node, asking())
        assert (len(node.memory.entries), node.memory.nbytes) == (0, 0)

    run(main)


def test_a_request_to_a_version_by_name_is_not_answered_for_all() -> None:
    async def main() -> None:
        child = Answers()
        node = cache(child)
        await driven(node, asking())
        journey = Journey()
        journey.direct = True
        await driven(node, asking(journey=journey))
        assert len(child.requests) == 2

    run(main)


@pytest.mark.parametrize(
    ("settings", "field"), [({"ttl": 0.0}, "ttl"), ({"stale": -1.0}, "stale"), ({"max_bytes": 5}, "max_bytes")]
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        CachePolicy(**settings)
    assert caught.value.field == field
