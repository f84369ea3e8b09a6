"""What a queued item is waited for with: a future that wakes its waiter in the same call.

An asyncio future costs an allocation and a trip round the event loop for every item of a batch. A `Reply`
is awaited like one, by a Task or by the doors' own driver; a waiter that asks for no context is called
back at once when the answer is there, a Task through `call_soon` as asyncio requires.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextvars import Context
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Reply(Generic[T]):
    """Settled once, by `set_result`, `set_exception` or `cancel`; later settlings are ignored."""

    __slots__ = ("_asyncio_future_blocking", "_callback", "_context", "_loop", "_more", "_problem", "_result", "_state")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._state = 0  # 0 pending, 1 result, 2 exception, 3 cancelled
        self._result: Any = None
        self._problem: BaseException | None = None
        # Nearly always there is one waiter, so the first has a place of its own and the others a list.
        self._callback: Callable[[Any], object] | None = None
        self._context: Context | None = None
        self._more: list[tuple[Callable[[Any], object], Context | None]] | None = None
        self._asyncio_future_blocking = False

    def __repr__(self) -> str:
        return f"<Reply {('pending', 'done', 'failed', 'cancelled')[self._state]}>"

    def __await__(self) -> Generator[Any, None, T]:
        if not self._state:
            self._asyncio_future_blocking = True
            yield self
        return self.result()

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The loop the reply belongs to; asyncio's Task asks for it."""
        return self._loop

    def done(self) -> bool:
        """Whether it is settled in any way."""
        return self._state != 0

    def cancelled(self) -> bool:
        """Whether the waiter gave up."""
        return self._state == 3

    def result(self) -> T:
        """The result; raises what it was settled with otherwise."""
        if self._state == 1:
            return self._result  # type: ignore[no-any-return]  # held as Any in a slot
        if self._state == 2 and self._problem is not None:
            raise self._problem
        if self._state == 3:
            raise asyncio.CancelledError
        raise asyncio.InvalidStateError("the reply is not there yet")

    def exception(self) -> BaseException | None:
        """The exception it was settled with, if any."""
        if self._state == 3:
            raise asyncio.CancelledError
        return self._problem

    def add_done_callback(self, callback: Callable[[Any], object], *, context: Context | None = None) -> None:
        """Calls back with this reply when it is settled; soon, if it is already."""
        if self._state:
            self._loop.call_soon(callback, self, context=context)
        elif self._callback is None:
            self._callback = callback
            self._context = context
        else:
            self._more = [*(self._more or ()), (callback, context)]

    def remove_done_callback(self, callback: Callable[[Any], object]) -> int:
        """Forgets a callback; returns how many there were."""
        waiters = self._take_waiters()
        kept = [pair for pair in waiters if pair[0] != callback]
        for known, context in kept:
            self.add_done_callback(known, context=context)
        return len(waiters) - len(kept)

    def set_result(self, result: T) -> None:
        """Settles it and wakes the waiter now."""
        if not self._state:
            self._state = 1
            self._result = result
            self._wake()

    def set_exception(self, problem: BaseException) -> None:
        """Settles it with an exception and wakes the waiter now."""
        if not self._state:
            self._state = 2
            self._problem = problem
            self._wake()

    def cancel(self, msg: object = None) -> bool:
        """Gives up waiting. The waiter is woken by the loop, never inside this call."""
        del msg
        if self._state:
            return False
        self._state = 3
        for callback, context in self._take_waiters():
            self._loop.call_soon(callback, self, context=context)
        return True

    def _take_waiters(self) -> list[tuple[Callable[[Any], object], Context | None]]:
        waiters = [] if self._callback is None else [(self._callback, self._context), *(self._more or ())]
        self._callback = self._more = None
        return waiters

    def _wake(self) -> None:
        callback = self._callback
        if callback is not None and self._context is None and self._more is None:
            self._callback = None
            callback(self)
            return
        for callback, context in self._take_waiters():
            if context is None:
                callback(self)
            else:
                self._loop.call_soon(callback, self, context=context)
