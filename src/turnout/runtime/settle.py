"""The outcome of a batch becomes the answers of those that it was made of."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from turnout.core.errors import ModelFailed
from turnout.runtime.batch import Batch, Item, Whole
from turnout.runtime.predict import Outcome

logger = logging.getLogger("turnout")


def settle(items: Sequence[Item], batch: Batch, outcome: Outcome, name: str, version: str, *, batched: bool) -> None:
    """Gives each item its rows of the outputs, or all of them where it was alone or the model knows no rows."""
    whole = Whole(name, version, batch, outcome, alone=len(items) == 1 or not batched)
    first = 0
    for item in items:
        if not item.done():
            try:
                item.answer(whole, first)
            except Exception:  # a waiter's own trouble is not the batch's
                logger.exception("an answer could not be delivered")
        first += item.rows


def fail(item: Item, problem: Exception) -> None:
    """Tells one item that it failed; what its waiter makes of that is its own trouble, not that of the next item."""
    try:
        item.set_exception(problem)
    except Exception:
        logger.exception("a failure could not be delivered")


def settle_mixed(batch: Batch, outcome: Outcome, name: str, version: str, *, batched: bool) -> None:
    """Gives those that failed their failure, and the others their rows: the outputs have theirs only."""
    good = []
    for item, failure in zip(batch.items, outcome.failures, strict=True):
        if failure is None:
            good.append(item)
        elif not item.done():
            if isinstance(failure, ModelFailed):
                logger.error("request %s: %s@%s: %s", item.id or "-", name, version, failure.message)
            fail(item, failure)
    if good:
        settle(good, batch, outcome, name, version, batched=batched)
