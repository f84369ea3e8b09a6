"""Trying again: with growing pauses that no two callers share, and only where it may help."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from turnout.core.errors import SourceFailed
from turnout.deploy.sources.source import SourceMoved, SourceSettings

MAX_WAIT = 30.0
Result = TypeVar("Result")


def pause_before(attempt: int, settings: SourceSettings, at_least: float | None = None) -> float:
    """Seconds to wait before attempt 1, 2, ...: doubled each time, then anything from half to one and a half of it."""
    wait: float = min(settings.retry_wait * 2.0 ** (attempt - 1), MAX_WAIT)
    return max(wait * random.uniform(0.5, 1.5), min(at_least or 0.0, MAX_WAIT))  # noqa: S311  no secret


def retrying(
    attempt_once: Callable[[], Result],
    settings: SourceSettings,
    *,
    position: Callable[[], int] = lambda: 0,
    tell: Callable[[str], None] = lambda _: None,
) -> Result:
    """What `attempt_once` returns, tried `settings.attempts` times in a row without progress.

    position: how many bytes there are so far; where that has grown, the attempts are counted anew, so that a large
    artifact over a bad line arrives in the end. tell: is told of each failure. Raises the last SourceFailed, or the
    first that is not retryable, or for which one has to resolve again.
    """
    attempt, best = 0, position()
    while True:
        try:
            return attempt_once()
        except SourceFailed as failure:
            if not failure.retryable or isinstance(failure, SourceMoved):
                raise
            attempt = 0 if position() > best else attempt
            best = max(best, position())
            attempt += 1
            if attempt >= settings.attempts:
                raise
            wait = pause_before(attempt, settings, failure.retry_after)
            tell(f"{failure.message}; trying again in {wait:.1f} s")
            time.sleep(wait)
