"""One `infer` coroutine, driven from a protocol's callback, with its deadline.

An asyncio Task costs 2 to 4 microseconds a request and starts a loop pass late. A `Driven` steps the
coroutine at once and again whenever the future it waits for is done. Inside a driven coroutine there is no
current task, so a node that needs `asyncio.timeout` or a task group runs that part in a task of its own.
"""

from __future__ import annotations

import asyncio
import logging
import math
from abc import abstractmethod
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any

from turnout.core.errors import Cancelled, DeadlineExceeded
from turnout.core.messages import InferResponse

logger = logging.getLogger("turnout")

Done = Callable[[InferResponse | None, BaseException | None], None]
#: How long nobody looks at the deadlines (seconds), however far away the soonest is.
_LONGEST = 0.25


class Driven:
    """What runs one `infer` coroutine to its end: `begin` starts it, `ended` is called once with what came of it.

    A door's own request object derives from this, so that a request is one object.
    """

    __slots__ = ("_coroutine", "_failure", "_waiting", "over", "watched")

    def __init__(self) -> None:
        self._coroutine: Coroutine[Any, Any, InferResponse] | None = None
        self._waiting: Any = None
        self._failure: BaseException | None = None
        self.watched: dict[Driven, float] | None = None
        self.over = False

    @abstractmethod
    def ended(self, response: InferResponse | None, problem: BaseException | None) -> None:
        """Takes the response, or the exception that there is instead."""

    def begin(self, coroutine: Coroutine[Any, Any, InferResponse]) -> None:
        """Starts the coroutine; it may have ended when this returns."""
        self._coroutine = coroutine
        self.step()

    def step(self, _future: Any = None) -> None:
        """Goes on until the coroutine waits or ends."""
        if self.over:
            return
        try:
            waiting = self._coroutine.send(None)  # type: ignore[union-attr]  # set by begin
        except StopIteration as stop:
            self.over = True
            if self.watched is not None:
                self.watched.pop(self, None)
            self.ended(stop.value, None)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as problem:  # noqa: BLE001  CancelledError too: it ends the request, not the server
            self.over = True
            if self.watched is not None:
                self.watched.pop(self, None)
            self.ended(None, self._failure if self._failure is not None else problem)
        else:
            self._waiting = waiting
            if waiting is None:  # a bare yield: asyncio.sleep(0)
                asyncio.get_running_loop().call_soon(self.step)
            else:
                waiting._asyncio_future_blocking = False  # noqa: SLF001  what asyncio's own Task does
                waiting.add_done_callback(self.step)

    def cancel(self, failure: BaseException | None = None) -> None:
        """Ends it early: what it waits for is cancelled, and `ended` gets `failure` (Cancelled by default)."""
        if self.over or self._failure is not None:
            return
        self._failure = failure or Cancelled("the caller went away")
        if self._waiting is not None:
            self._waiting.cancel()


class Call(Driven):
    """A coroutine and the function that is told what came of it."""

    __slots__ = ("_done",)

    def __init__(self, coroutine: Coroutine[Any, Any, InferResponse], done: Done) -> None:
        super().__init__()
        self._coroutine = coroutine
        self._done = done

    def ended(self, response: InferResponse | None, problem: BaseException | None) -> None:
        """Tells it."""
        self._done(response, problem)


class Deadlines:
    """Ends calls whose deadline has passed, to within one tick (seconds).

    Nearly all calls end long before their deadline, so nothing is sorted: adding and removing is one dictionary
    entry, and the calls are only looked through when the soonest deadline that was ever among them has passed.
    Until then nothing wakes the loop for it: on a core that is shared with a model each wake costs both of them.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, tick: float = 0.005) -> None:
        self._loop = loop
        self._tick = tick
        self._calls: dict[Driven, float] = {}
        self._soonest = math.inf
        self._armed = False
        self._timer: asyncio.TimerHandle | None = None
        self._due = math.inf  # when the timer turns at the latest (monotonic seconds)

    def add(self, call: Driven, deadline: float) -> None:
        """Watches a call that has not finished. `deadline` is on the monotonic clock."""
        self._calls[call] = deadline
        call.watched = self._calls
        if deadline < self._soonest:
            self._soonest = deadline
            if self._armed and deadline + self._tick < self._due and self._timer is not None:
                self._timer.cancel()
                self._armed = False
        if not self._armed:
            self._arm(monotonic())

    def _arm(self, now: float) -> None:
        """Turns when the soonest deadline has passed, but not before the next tick, nor much later than now."""
        self._armed = True
        delay = min(max(self._soonest - now, self._tick), _LONGEST)
        self._due = now + delay
        self._timer = self._loop.call_later(delay, self._turn)

    def _turn(self) -> None:
        now = monotonic()
        if now >= self._soonest:
            late = [call for call, deadline in self._calls.items() if deadline <= now]
            for call in late:
                self._calls.pop(call, None)
                try:
                    call.cancel(DeadlineExceeded("the deadline passed before the answer was there"))
                except Exception:  # its own trouble: the others have deadlines too
                    logger.exception("a call could not be told that it is too late")
            self._soonest = min(self._calls.values(), default=math.inf)
        if self._calls:
            self._arm(now)
        else:
            self._armed = False
