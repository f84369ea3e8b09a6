"""Tasks that run side by side for one request: who has started them leaves none behind."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, TypeVar

from turnout.core.errors import ModelFailed

T = TypeVar("T")


def ended_with(task: asyncio.Task[T]) -> T | BaseException:
    """What a task that has ended gave, or what it failed with."""
    if task.cancelled():
        return ModelFailed("it was broken off from within")
    problem = task.exception()
    return task.result() if problem is None else problem


def leave(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancels what still runs, and looks at what has failed meanwhile, so that nobody is told that nobody did."""
    for task in tasks:
        if not task.done():
            task.cancel()
        elif not task.cancelled():
            task.exception()
