"""One `infer` coroutine, driven from a protocol's callback, with its deadline.

An asyncio Task costs 2 to 4 microseconds a request and starts a loop pass late. A `Call` steps the
coroutine at once and again whenever the future it waits for is done. Inside a driven coroutine there is no
current task, so a node that needs `asyncio.timeout` or a task group runs that part in a task of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any

from turnout.core.errors import Cancelled, DeadlineExceeded
from turnout.core.messages import InferResponse

Done = Callable[[InferResponse | None, BaseException | None], None]


class Call:
    """Runs `coroutine` to its end and then calls `done` once, with the response or the exception."""

    __slots__ = ("_bucket", "_coroutine", "_done", "_failure", "_waiting", "finished")

    def __init__(self, coroutine: Coroutine[Any, Any, InferResponse], done: Done) -> None:
        self._coroutine = coroutine
        self._done = done
        self._waiting: Any = None
        self._failure: BaseException | None = None
        self._bucket: dict[Call, None] | None = None
        self.finished = False

    def step(self, _future: Any = None) -> None:
        """Goes on until the coroutine waits or ends. The first call starts it."""
        if self.finished:
            return
        try:
            waiting = self._coroutine.send(None)
        except StopIteration as stop:
            self._finish(stop.value, None)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as problem:  # noqa: BLE001  CancelledError too: it ends the request, not the server
            self._finish(None, self._failure if self._failure is not None else problem)
        else:
            self._waiting = waiting
            if waiting is None:  # a bare yield: asyncio.sleep(0)
                asyncio.get_running_loop().call_soon(self.step)
            else:
                waiting._asyncio_future_blocking = False  # noqa: SLF001  what asyncio's own Task does
                waiting.add_done_callback(self.step)

    def cancel(self, failure: BaseException | None = None) -> None:
        """Ends the call: what it waits for is cancelled, and `done` gets `failure` (Cancelled by default)."""
        if self.finished or self._failure is not None:
            return
        self._failure = failure or Cancelled("the caller went away")
        if self._waiting is not None:
            self._waiting.cancel()

    def _finish(self, response: InferResponse | None, problem: BaseException | None) -> None:
        self.finished = True
        if self._bucket is not None:
            self._bucket.pop(self, None)
            self._bucket = None
        self._done(response, problem)


class Deadlines:
    """Ends calls whose deadline has passed, to within one tick (seconds): a wheel with O(1) add and remove."""

    def __init__(self, loop: asyncio.AbstractEventLoop, tick: float = 0.005) -> None:
        self._loop = loop
        self._rate = 1.0 / tick
        self._tick = tick
        self._buckets: dict[int, dict[Call, None]] = {}
        self._armed = False

    def add(self, call: Call, deadline: float) -> None:
        """Watches a call that has not finished. `deadline` is on the monotonic clock and finite."""
        number = int(deadline * self._rate) + 1
        bucket = self._buckets.get(number)
        if bucket is None:
            bucket = self._buckets[number] = {}
            if not self._armed:
                self._armed = True
                self._loop.call_later(self._tick, self._turn)
        bucket[call] = None
        call._bucket = bucket  # noqa: SLF001  the wheel and the call are one mechanism in one file

    def _turn(self) -> None:
        now = int(monotonic() * self._rate)
        for number in [n for n in self._buckets if n <= now]:
            for call in list(self._buckets.pop(number)):
                call.cancel(DeadlineExceeded("the deadline passed before the answer was there"))
        self._armed = bool(self._buckets)
        if self._armed:
            self._loop.call_later(self._tick, self._turn)
