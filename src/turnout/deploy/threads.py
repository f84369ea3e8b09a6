"""What blocks runs beside the event loop, and never holds up the end of the process."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")


def in_thread(loop: asyncio.AbstractEventLoop, act: Callable[[], _T]) -> asyncio.Future[_T]:
    """Runs `act` in a thread that does not keep the process alive: a fetch must not delay the end of the server."""
    future: asyncio.Future[_T] = loop.create_future()

    def settle(result: _T | None, problem: Exception | None) -> None:
        if not future.done():
            if problem is not None:
                future.set_exception(problem)
            else:
                future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result: _T | None = None
        problem: Exception | None = None
        try:
            result = act()
        except Exception as raised:  # noqa: BLE001  handed to whoever awaits
            problem = raised
        with contextlib.suppress(RuntimeError):  # the loop has ended in the meantime: nobody awaits
            loop.call_soon_threadsafe(settle, result, problem)

    threading.Thread(target=run, daemon=True).start()
    return future
