"""The outcome of a batch becomes the answers of those that it was made of."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from turnout.core.errors import ModelFailed
from turnout.core.messages import InferResponse, answered_by
from turnout.core.tensors import Tensors
from turnout.runtime.batch import Batch, Item
from turnout.runtime.predict import Outcome

logger = logging.getLogger("turnout")


def settle(items: Sequence[Item], batch: Batch, outcome: Outcome, name: str, version: str, *, batched: bool) -> None:
    """Gives each item its rows of the outputs, or all of them where it was alone or the model knows no rows."""
    started, total, seconds, outputs = batch.started, batch.total_rows, outcome.seconds, outcome.outputs
    parameters = answered_by(outcome.twin)
    alone = len(items) == 1 or not batched
    at = 0
    for item in items:
        stop = at + item.rows
        if not item.done():
            mine: Tensors = outputs if alone else {key: array[at:stop] for key, array in outputs.items()}
            try:
                item.set_result(InferResponse(mine, name, version, parameters, started - item.enqueued, seconds, total))
            except Exception:  # a waiter's own trouble is not the batch's
                logger.exception("an answer could not be delivered")
        at = stop


def settle_mixed(batch: Batch, outcome: Outcome, name: str, version: str, *, batched: bool) -> None:
    """Gives those that failed their failure, and the others their rows: the outputs have theirs only."""
    good = []
    for item, failure in zip(batch.items, outcome.failures, strict=True):
        if failure is None:
            good.append(item)
        elif not item.done():
            if isinstance(failure, ModelFailed):
                logger.error("request %s: %s@%s: %s", item.id or "-", name, version, failure.message)
            item.set_exception(failure)
    if good:
        settle(good, batch, outcome, name, version, batched=batched)
