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

    __slots__ = ("_asyncio_future_blocking", "_callbacks", "_loop", "_problem", "_result", "_state")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._state = 0  # 0 pending, 1 result, 2 exception, 3 cancelled
        self._result: Any = None
        self._problem: BaseException | None = None
        self._callbacks: list[tuple[Callable[[Any], object], Context | None]] | None = None
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
        elif self._callbacks is None:
            self._callbacks = [(callback, context)]
        else:
            self._callbacks.append((callback, context))

    def remove_done_callback(self, callback: Callable[[Any], object]) -> int:
        """Forgets a callback; returns how many there were."""
        before = self._callbacks or []
        self._callbacks = [pair for pair in before if pair[0] != callback]
        return len(before) - len(self._callbacks)

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
        callbacks, self._callbacks = self._callbacks, None
        for callback, context in callbacks or ():
            self._loop.call_soon(callback, self, context=context)
        return True

    def _wake(self) -> None:
        callbacks, self._callbacks = self._callbacks, None
        for callback, context in callbacks or ():
            if context is None:
                callback(self)
            else:
                self._loop.call_soon(callback, self, context=context)
