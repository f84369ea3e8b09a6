"""Members that fail, hang, or are late: what is answered then, what is not, and that nothing is left running."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from tests.graph.callers import Said
from tests.graph.parts import Part, asked, ensemble, hangs, times, two, until
from tests.graph.steps import driven, run
from turnout.core.errors import (
    Code,
    DeadlineExceeded,
    Failure,
    Fault,
    InvalidInput,
    ModelFailed,
    NotReady,
    QueueFull,
    RateLimited,
    WorkerDied,
)
from turnout.core.messages import InferRequest, InferResponse, Journey
from turnout.entrypoints.call import Call
from turnout.graph.cache import Cache, CachePolicy

HARD = two(steps={"a": {"use": "f"}, "b": {"use": "g"}})
CHAIN = {
    "steps": {"a": {"use": "f"}, "b": {"use": "g", "inputs": {"x": "a.y"}}},
    "outputs": {"y": "b.y"},
}


@pytest.mark.parametrize("said", [HARD, CHAIN], ids=["side by side", "chain"])
@pytest.mark.parametrize(
    "problem",
    [
        ModelFailed("it raised"), QueueFull("full", retry_after=2.0), WorkerDied("gone"), NotReady("not yet"),
        RateLimited("too many"), DeadlineExceeded("late"),
    ],
    ids=lambda problem: type(problem).__name__,
)  # fmt: skip
def test_a_failure_keeps_its_kind_and_says_the_step(said: dict[str, Any], problem: Failure) -> None:
    async def main() -> None:
        tree = ensemble(said, {"f": times(1.0), "g": times(1.0, fails=problem)})
        for _ in range(2):  # the same failure may be told to several callers
            with pytest.raises(type(problem)) as found:
                await driven(tree, asked([1.0]))
            assert str(found.value) == f"step 'b': {problem.message}"
            assert (found.value.code, found.value.fault) == (problem.code, problem.fault)
            assert found.value.retry_after == problem.retry_after

    run(main)


def test_what_is_no_failure_becomes_one_and_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        with pytest.raises(ModelFailed) as found:
            await driven(ensemble(HARD, {"f": times(1.0), "g": times(1.0, fails=ValueError("secret"))}), asked([1.0]))
        assert "secret" not in str(found.value)
        assert "step 'b' failed (ValueError)" in str(found.value)

    run(main)
    assert "secret" in caplog.text


def test_a_callers_mistake_stays_one_even_in_a_soft_step() -> None:
    async def main() -> None:
        parts = {"f": times(1.0), "g": times(1.0, fails=InvalidInput("odd", field="x", expected="1", got="2"))}
        with pytest.raises(InvalidInput, match=r"^x: step 'b': odd; expected 1; got 2$") as found:
            await driven(ensemble(two(), parts), asked([1.0]))
        assert (found.value.code, found.value.fault) == (Code.INVALID_ARGUMENT, Fault.CALLER)

    run(main)


def test_a_soft_member_may_fail_and_what_needs_it_goes_with_it() -> None:
    said = {
        "steps": {
            "a": {"use": "f"}, "b": {"use": "g", "soft": True}, "c": {"use": "h", "inputs": {"x": "b.y"}, "weight": 3},
        },
        "outputs": {"y": {"combine": "weighted_mean", "of": ["a.y", "c.y"]}},
    }  # fmt: skip

    async def main() -> None:
        parts = {"f": times(1.0), "g": times(1.0), "h": times(5.0)}
        tree = ensemble(said, parts)
        journey = Journey()
        response = await driven(tree, asked([2.0], journey=journey))
        assert (response.outputs["y"], journey.degraded) == ([8.0], "")
        parts["g"].fails = ModelFailed("it raised")
        journey = Journey(explain=True)
        response = await driven(tree, asked([2.0], journey=journey))
        assert (response.outputs["y"], journey.degraded) == ([2.0], "partial")
        assert response.parameters == {"steps": "a=f@1", "missing": "b, c"}
        assert journey.steps is not None
        traces = [(trace.node, trace.name, trace.outcome) for trace in journey.steps]
        assert traces[-1] == ("ensemble", "both", "partial")
        assert ("step", "b", "ModelFailed") in traces
        assert journey.steps[-1].detail == "without b: ModelFailed; without c: ModelFailed"
        assert len(parts["h"].given) == 1
        parts["f"].fails = QueueFull("full")
        with pytest.raises(QueueFull, match=r"step 'a': full"):
            await driven(tree, asked([2.0]))

    run(main)


def test_the_last_hope_of_an_output_ends_the_wait() -> None:
    """Nobody waits for others where an output cannot come any more."""
    said = {
        "steps": {"a": {"use": "f"}, "b": {"use": "g", "soft": True}},
        "outputs": {"y": "a.y", "z": "b.y"},
    }

    async def main() -> None:
        parts = {"f": hangs(), "g": times(1.0, 0.01, ModelFailed("it raised"))}
        with pytest.raises(ModelFailed, match="step 'b'"):
            await driven(ensemble(said, parts), asked([1.0]))
        await until(lambda: parts["f"].cancelled)

    run(main)


def test_a_hard_failure_ends_the_others() -> None:
    async def main() -> None:
        parts = {"f": times(1.0, 0.01, ModelFailed("it raised")), "g": hangs()}
        with pytest.raises(ModelFailed, match=r"step 'a'"):
            await driven(ensemble(HARD, parts), asked([1.0]))
        await until(lambda: parts["g"].cancelled)

    run(main)


def test_two_that_fail_at_once_are_one_failure(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        with pytest.raises(ModelFailed):
            await driven(ensemble(HARD, {name: times(1.0, fails=ModelFailed("it")) for name in "fg"}), asked([1.0]))

    run(main)
    assert not caplog.records, "no task's failure is left unseen"


@pytest.mark.parametrize("deadline", [0.2, 5.0])
def test_a_member_that_hangs_does_not_keep_a_partial_answer(deadline: float) -> None:
    async def main() -> None:
        parts = {"f": times(1.0, 0.01), "g": hangs()}
        said = two(partial=True, steps={"a": {"use": "f"}, "b": {"use": "g", "deadline": 0.3}})
        journey = Journey()
        begun = time.monotonic()
        response = await driven(ensemble(said, parts), asked([2.0], begun + deadline, journey))
        assert time.monotonic() - begun < deadline
        assert (response.outputs["y"], journey.degraded) == ([2.0], "partial")
        assert response.parameters["missing"] == "b"
        assert parts["g"].given[0].context.deadline < begun + deadline, "it is told how long it has"
        await until(lambda: parts["g"].cancelled)

    run(main)


def test_nobody_there_in_time_is_no_answer() -> None:
    async def main() -> None:
        tree = ensemble(two(partial=True), {"f": hangs(), "g": hangs()})
        with pytest.raises(DeadlineExceeded, match="step 'a'"):
            await tree.infer(asked([2.0], time.monotonic() + 0.05))
        with pytest.raises(DeadlineExceeded):
            await tree.infer(asked([2.0], time.monotonic() - 1.0))

    run(main)


def test_a_hard_failure_is_no_matter_of_time() -> None:
    async def main() -> None:
        parts = {"f": times(1.0), "g": times(1.0, fails=ModelFailed("it raised"))}
        with pytest.raises(ModelFailed):
            await driven(ensemble(HARD | {"partial": True}, parts), asked([1.0], time.monotonic() + 5))
        parts["g"].fails = QueueFull("it would be late", too_late=True)
        response = await driven(ensemble(HARD | {"partial": True}, parts), asked([1.0], time.monotonic() + 5))
        assert response.parameters["missing"] == "b"

    run(main)


def test_who_wants_all_or_nothing_gets_the_failure() -> None:
    async def main() -> None:
        tree = ensemble(two(), {"f": times(1.0), "g": times(1.0, fails=ModelFailed("it raised"))})
        with pytest.raises(ModelFailed, match="step 'b'"):
            await driven(tree, asked([1.0], parameters={"fail_on_degraded": True}))
        request = asked([1.0])
        said = Said({"x-fail-on-degraded": "true"}, {}, {})
        with pytest.raises(ModelFailed, match="step 'b'"):
            await driven(tree, request._replace(context=request.context._replace(attributes=said)))

    run(main)


def test_an_answer_made_of_a_degraded_one_is_degraded_and_not_kept() -> None:
    async def main() -> None:
        part = times(1.0)
        tree = ensemble({"steps": {"a": {"use": "f"}}, "outputs": {"y": "a.y"}}, {"f": part})
        cache = Cache(tree, CachePolicy(), digest="d")
        part.degraded = "timeout"
        for _ in range(2):
            journey = Journey()
            await driven(cache, asked([1.0], journey=journey))
            assert journey.degraded == "timeout"
        assert len(part.given) == 2
        part.degraded = ""
        for _ in range(2):
            await driven(cache, asked([1.0]))
        assert len(part.given) == 3

    run(main)


@pytest.mark.parametrize("said", [HARD, CHAIN], ids=["side by side", "chain"])
def test_a_cancelled_caller_leaves_nothing_behind(said: dict[str, Any]) -> None:
    async def main() -> None:
        parts = {"f": hangs(), "g": hangs()}
        tree = ensemble(said, parts)
        told: list[BaseException | None] = []
        call = Call(tree.infer(asked([1.0])), lambda _, problem: told.append(problem))
        call.step()
        await asyncio.sleep(0)
        call.cancel()
        await until(lambda: told)
        await until(lambda: parts["f"].cancelled)
        task = asyncio.ensure_future(tree.infer(asked([1.0])))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main)


def test_a_step_is_tried_again_where_that_may_help() -> None:
    class Heals(Part):
        async def infer(self, request: InferRequest) -> InferResponse:
            self.fails = QueueFull("full") if len(self.given) < 2 else None
            return await super().infer(request)

    async def main() -> None:
        for retries, answers in ((1, False), (2, True)):
            part = Heals(lambda inputs: {"y": inputs["x"] * 2})
            tree = ensemble(
                {"steps": {"a": {"use": "f", "retries": retries}}, "outputs": {"y": "a.y"}}, {"f": part}
            )  # fmt: skip
            if answers:
                assert (await driven(tree, asked([1.0]))).outputs["y"] == [2.0]
            else:
                with pytest.raises(QueueFull):
                    await driven(tree, asked([1.0]))
        part = times(1.0, fails=InvalidInput("odd"))
        with pytest.raises(InvalidInput):
            await driven(ensemble({"steps": {"a": {"use": "f", "retries": 5}}, "outputs": {"y": "a.y"}}, {"f": part}),
                         asked([1.0]))  # fmt: skip
        assert len(part.given) == 1

    run(main)
