"""What an item is waited for with, driven by a Task and by the doors' own Call, and the wheel of deadlines."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine
from time import monotonic
from typing import Any

import pytest

from turnout.core.errors import Cancelled, DeadlineExceeded, ModelFailed
from turnout.entrypoints.call import Call, Deadlines
from turnout.runtime.reply import Reply


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(10):
            return await coroutine

    return asyncio.run(bounded())


async def waiting(reply: Reply[Any]) -> Any:
    return await reply


def called(coroutine: Coroutine[Any, Any, Any]) -> tuple[Call, list]:
    found: list = []
    call = Call(coroutine, lambda response, problem: found.append((response, problem)))
    call.step()
    return call, found


def test_a_task_waits() -> None:
    async def main() -> None:
        reply: Reply[str] = Reply(asyncio.get_running_loop())
        task = asyncio.ensure_future(waiting(reply))
        await asyncio.sleep(0)
        assert not reply.done()
        reply.set_result("yes")
        assert not task.done(), "a Task goes on with the loop, never inside set_result"
        assert await task == "yes"
        assert await waiting(reply) == "yes"

    run(main())


def test_a_call_goes_on_in_the_same_instant() -> None:
    async def main() -> None:
        reply: Reply[str] = Reply(asyncio.get_running_loop())
        call, found = called(waiting(reply))
        assert not call.over
        reply.set_result("yes")
        assert found == [("yes", None)]
        assert call.over

    run(main())


def test_several_may_wait() -> None:
    async def main() -> None:
        reply: Reply[int] = Reply(asyncio.get_running_loop())
        tasks = [asyncio.ensure_future(waiting(reply)) for _ in range(3)]
        calls = [called(waiting(reply))[1] for _ in range(3)]
        await asyncio.sleep(0)
        reply.set_result(5)
        assert await asyncio.gather(*tasks) == [5, 5, 5]
        assert calls == [[(5, None)]] * 3

    run(main())


def test_it_is_settled_once() -> None:
    async def main() -> None:
        reply: Reply[int] = Reply(asyncio.get_running_loop())
        with pytest.raises(asyncio.InvalidStateError):
            reply.result()
        reply.set_result(1)
        reply.set_result(2)
        reply.set_exception(ModelFailed("late"))
        assert not reply.cancel()
        assert (reply.result(), reply.exception(), reply.cancelled()) == (1, None, False)
        assert await reply == 1

    run(main())


def test_failures_reach_both_kinds_of_waiter() -> None:
    async def main() -> None:
        reply: Reply[int] = Reply(asyncio.get_running_loop())
        task = asyncio.ensure_future(waiting(reply))
        _, found = called(waiting(reply))
        await asyncio.sleep(0)
        problem = ModelFailed("no")
        reply.set_exception(problem)
        assert found == [(None, problem)]
        with pytest.raises(ModelFailed):
            await task
        assert reply.exception() is problem

    run(main())


def test_a_cancelled_task_cancels_what_it_waits_for() -> None:
    async def main() -> None:
        reply: Reply[int] = Reply(asyncio.get_running_loop())
        task = asyncio.ensure_future(waiting(reply))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert reply.cancelled()
        with pytest.raises(asyncio.CancelledError):
            reply.result()
        reply.set_result(1)
        assert reply.cancelled()

    run(main())


def test_a_cancelled_call_ends_with_its_reason_and_never_inside_cancel() -> None:
    async def main() -> None:
        reply: Reply[int] = Reply(asyncio.get_running_loop())
        call, found = called(waiting(reply))
        call.cancel(DeadlineExceeded("too late"))
        assert found == []
        call.cancel(Cancelled("again"))
        reply.set_result(1)
        await asyncio.sleep(0.0)
        await asyncio.sleep(0.0)
        ((response, problem),) = found
        assert response is None
        assert isinstance(problem, DeadlineExceeded)
        call.cancel()
        call.step()
        assert len(found) == 1

    run(main())


def test_a_forgotten_callback_is_not_called() -> None:
    async def main() -> None:
        reply: Reply[int] = Reply(asyncio.get_running_loop())
        seen: list = []

        def first(_: Any) -> None:
            seen.append("first")

        def second(_: Any) -> None:
            seen.append("second")

        for one in (first, second, first):
            reply.add_done_callback(one)
        assert reply.remove_done_callback(first) == 2
        reply.set_result(1)
        assert seen == ["second"]
        reply.add_done_callback(first)
        assert seen == ["second"], "what comes too late is called by the loop"
        await asyncio.sleep(0)
        assert seen == ["second", "first"]

    run(main())


def test_a_callback_runs_in_its_context() -> None:
    word = contextvars.ContextVar("word", default="none")

    async def main() -> None:
        reply: Reply[int] = Reply(asyncio.get_running_loop())
        seen: list = []
        context = contextvars.copy_context()
        context.run(word.set, "mine")
        reply.add_done_callback(lambda _: seen.append(word.get()), context=context)
        reply.set_result(1)
        await asyncio.sleep(0)
        assert seen == ["mine"]

    run(main())


def test_a_call_drives_whatever_asyncio_knows() -> None:
    """sleep(0), plain futures, tasks, nested coroutines, and what raises at once."""

    async def nested(loop: asyncio.AbstractEventLoop) -> int:
        await asyncio.sleep(0)
        future = loop.create_future()
        loop.call_soon(future.set_result, 20)
        return await future + await asyncio.ensure_future(asyncio.sleep(0, 1))

    async def fails() -> None:
        raise ModelFailed("at once")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        call, found = called(nested(loop))
        while not call.over:  # noqa: ASYNC110  what is under test gives no event
            await asyncio.sleep(0)
        assert found == [(21, None)]
        _, failed = called(fails())
        assert isinstance(failed[0][1], ModelFailed)

    run(main())


def test_deadlines_end_calls_in_time_and_leave_others_alone() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        wheel = Deadlines(loop, tick=0.005)
        started = monotonic()
        ended: dict[str, float] = {}
        replies = {name: Reply[int](loop) for name in ("past", "soon", "later", "answered", "far")}
        ends = {"past": -1.0, "soon": 0.03, "later": 0.08, "answered": 0.05, "far": 60.0}
        problems: dict[str, BaseException | None] = {}
        calls = {}
        for name, reply in replies.items():

            def done(_: Any, problem: BaseException | None, name: str = name) -> None:
                ended[name] = monotonic() - started
                problems[name] = problem

            calls[name] = Call(waiting(reply), done)
            calls[name].step()
            assert not calls[name].over
            wheel.add(calls[name], started + ends[name])
        replies["answered"].set_result(1)
        while len(ended) < 4:  # noqa: ASYNC110  what is under test gives no event
            await asyncio.sleep(0.002)
        assert problems.pop("answered") is None
        assert all(isinstance(problem, DeadlineExceeded) for problem in problems.values())
        for name in ("soon", "later"):
            assert ends[name] <= ended[name] < ends[name] + 0.1
        assert ended["past"] < 0.1
        assert not calls["far"].over
        replies["far"].set_result(1)
        assert problems["far"] is None

    run(main())


class Timers:
    """The part of a loop that deadlines need, with the delays that it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[float, Any]] = []
        self.cancelled = 0

    def call_later(self, delay: float, callback: Any) -> Timers:
        self.asked.append((delay, callback))
        return self

    def cancel(self) -> None:
        self.cancelled += 1


def test_deadlines_wake_nobody_before_the_first_can_have_passed() -> None:
    async def main() -> None:
        timers = Timers()
        wheel = Deadlines(timers, tick=0.005)  # type: ignore[arg-type]  # the only part that it needs
        now = monotonic()
        calls = [called(waiting(Reply[int](asyncio.get_running_loop())))[0] for _ in range(5)]
        wheel.add(calls[0], now + 30.0)
        assert [delay for delay, _ in timers.asked] == [0.25], "not for ever, or it would forget nothing"
        wheel.add(calls[1], now + 60.0)
        wheel.add(calls[2], now + 29.0)
        assert len(timers.asked) == 1
        wheel.add(calls[3], now + 0.1)
        assert timers.cancelled == 1
        assert 0.08 < timers.asked[1][0] <= 0.1
        wheel.add(calls[4], now + 0.097)
        assert len(timers.asked) == 2, "to within one tick"
        timers.asked[1][1]()
        assert len(timers.asked) == 3
        for call in calls:
            assert call.watched is not None
            call.watched.pop(call)
            call.cancel()
        timers.asked[2][1]()
        assert len(timers.asked) == 3, "nobody waits"
        wheel.add(calls[0], now - 1.0)
        assert timers.asked[3][0] == 0.005

    run(main())


def test_a_sooner_deadline_after_a_later_one_is_kept() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        wheel = Deadlines(loop)
        started = monotonic()
        far, _ = called(waiting(Reply[int](loop)))
        soon, found = called(waiting(Reply[int](loop)))
        wheel.add(far, started + 10.0)
        await asyncio.sleep(0.01)
        wheel.add(soon, started + 0.05)
        while not found:  # noqa: ASYNC110  what is under test gives no event
            await asyncio.sleep(0.002)
        assert isinstance(found[0][1], DeadlineExceeded)
        assert 0.05 <= monotonic() - started < 0.15
        assert not far.over

    run(main())


def test_a_call_that_cannot_be_told_leaves_the_others_their_deadlines() -> None:
    class Odd(Call):
        def cancel(self, failure: BaseException | None = None) -> None:
            raise ValueError("cannot be told")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        wheel = Deadlines(loop)
        now = monotonic()
        reply = Reply[int](loop)
        odd = Odd(waiting(reply), lambda *_: None)
        odd.step()
        wheel.add(odd, now + 0.01)
        calls = [called(waiting(Reply[int](loop))) for _ in range(2)]
        for place, (call, _) in enumerate(calls):
            wheel.add(call, now + 0.01 + 0.02 * place)
        while not all(found for _, found in calls):  # noqa: ASYNC110  what is under test gives no event
            await asyncio.sleep(0.002)
        assert all(isinstance(found[0][1], DeadlineExceeded) for _, found in calls)
        reply.set_result(1)
        assert odd.over

    run(main())
