"""One try of one servable that can be given up at a moment: without a task, and without a timer of its own.

Whoever drives an `infer` coroutine resumes it when the future it waits for is done. `within` stands between the two and
notes that future, so cancelling it ends the try. The times of all tries are in one dictionary with one timer.
"""

from __future__ import annotations

import asyncio
import logging
import math
import types
from collections.abc import Callable, Coroutine, Generator
from time import monotonic
from typing import Any, TypeVar

from turnout.core.errors import DeadlineExceeded

logger = logging.getLogger("turnout")
#: Timers of some loops are a millisecond coarse and may be early: less than this is not worth a timer.
_TICK = 0.001
_OVER = -math.inf
_Task = asyncio.Task

#: What is to happen first when a try's time has come: gives the time (monotonic seconds) at which it is given up.
Early = Callable[[], float]
Infer = Coroutine[Any, Any, Any]
T = TypeVar("T")


class Times:
    """When tries are to be given up. Nearly all end long before, so nothing is sorted, and the timer is set seldom."""

    __slots__ = ("_handle", "entries", "soonest")

    def __init__(self) -> None:
        #: By coroutine, in a list because that is made quickest: the time, what is waited for, what happens first.
        self.entries: dict[Infer, list[Any]] = {}
        self.soonest = math.inf
        self._handle: asyncio.TimerHandle | None = None

    def arm(self, until: float) -> None:
        """Sets the timer for a time that is sooner than all others (monotonic seconds)."""
        if self._handle is not None:
            self._handle.cancel()
        self.soonest = until
        self._handle = asyncio.get_running_loop().call_later(max(_TICK, until - monotonic()), self._turn)

    def _turn(self) -> None:
        now = monotonic()
        self._handle = None
        self.soonest = math.inf
        for entry in [entry for entry in self.entries.values() if entry[0] <= now]:
            if entry[2] is not None:
                early, entry[2] = entry[2], None
                entry[0] = early()
                if entry[0] > now:
                    continue
            entry[0] = _OVER
            if entry[1] is not None:
                entry[1].cancel()
        soonest = min([entry[0] for entry in self.entries.values() if entry[0] > _OVER], default=math.inf)
        if soonest < math.inf:
            self.arm(soonest)


@types.coroutine
def within(
    coroutine: Coroutine[Any, Any, T], until: float, times: Times, early: Early | None = None
) -> Generator[Any, None, T]:
    """What the coroutine returns by then (monotonic seconds). Raises DeadlineExceeded otherwise, and cancels it."""
    try:
        waiting = coroutine.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]  # what the coroutine returns
    entries = times.entries
    entry = entries[coroutine] = [until, None, early]
    if until < times.soonest:
        times.arm(until)
    try:
        while True:
            beside = None
            if isinstance(waiting, _Task):
                waiting = beside = _beside(waiting)
            entry[1] = waiting
            try:
                yield waiting
            except GeneratorExit:
                coroutine.close()
                raise
            except BaseException as problem:  # noqa: BLE001  given on to whom it is meant for
                waiting = coroutine.throw(problem)
            else:
                if entry[0] == _OVER or (beside is not None and beside.cancelled()):
                    waiting = coroutine.throw(asyncio.CancelledError())
                else:
                    waiting = coroutine.send(None)
            if entry[0] == _OVER:  # it goes on after all: let it, but not at the price of who waits
                _leave(coroutine, waiting)
                raise asyncio.CancelledError
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]  # as above
    except asyncio.CancelledError:
        if entry[0] == _OVER:
            raise DeadlineExceeded("the time for this step was over before its answer was there") from None
        raise
    finally:
        del entries[coroutine]


def _beside(task: asyncio.Task[Any]) -> asyncio.Future[None]:
    """A future that is done with the task, and cancels it without waiting for what the task does then."""
    beside: asyncio.Future[None] = task.get_loop().create_future()
    beside._asyncio_future_blocking = True  # noqa: SLF001  it is waited for in the task's place

    def ended(_: object) -> None:
        if not beside.done():
            beside.set_result(None)

    def left(_: object) -> None:
        if beside.cancelled():
            task.cancel()

    task.add_done_callback(ended)
    beside.add_done_callback(left)
    return beside


def _leave(coroutine: Infer, waiting: Any) -> None:
    """Drives a coroutine that has not ended when it was cancelled to its end, for nobody."""
    loop = asyncio.get_running_loop()

    def step(_: object = None) -> None:
        try:
            found = coroutine.send(None)
        except (StopIteration, asyncio.CancelledError, DeadlineExceeded):
            return
        except Exception:
            logger.exception("what went on after it was given up has failed")
            return
        follow(found)

    def follow(found: Any) -> None:
        if found is None:
            loop.call_soon(step)
        else:
            found._asyncio_future_blocking = False  # noqa: SLF001  what asyncio's own Task does
            found.add_done_callback(step)

    follow(waiting)
