"""Items that wait, the batches cut from them, and the pure decisions: what to cut, what the wait will be."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from turnout.core.messages import Context, InferResponse, answered_by
from turnout.core.tensors import Tensors, dtype_name, pack
from turnout.runtime.frames import Form
from turnout.runtime.predict import Outcome
from turnout.runtime.reply import Reply

Key = tuple[object, ...]
#: How much longer than expected a batch is taken to last when a deadline depends on it.
CAUTION = 1.35


class Item(Reply[InferResponse]):
    """One request, or one part of an over-long one, while it waits and runs; whoever sent it awaits it.

    `waiting` is True while its rows count as queued; `attempts` counts the workers that died or hung while they ran it;
    `avoid` are the places that it shall not come to again, and part of its key.
    """

    __slots__ = ("attempts", "avoid", "deadline", "enqueued", "id", "inputs", "key", "nbytes", "rows", "waiting")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        inputs: Tensors,
        rows: int,
        nbytes: int,
        context: Context,
        enqueued: float,
        key: Key,
    ) -> None:
        # Reply.__init__, written out: every request is here, and a call costs as much as the rest of this.
        self._loop = loop
        self._state = 0
        self._callback = self._context = self._more = self._problem = None
        self._asyncio_future_blocking = False
        self.inputs = inputs
        self.rows = rows
        self.nbytes = nbytes
        self.deadline = context.deadline
        self.id = context.id
        self.enqueued = enqueued
        self.key = key
        self.avoid = context.avoid
        self.attempts = 0
        self.waiting = True

    def answer(self, whole: Whole, first: int) -> None:
        """Takes its rows of a batch's answer, the first of them at `first`."""
        self.set_result(whole.share(first, self.rows, self.enqueued))

    def form(self, name: str) -> Form | None:
        """The type and shape of an input; None where it was not given."""
        array = self.inputs.get(name)
        return None if array is None else (dtype_name(array.dtype), array.shape)

    def part(self, name: str) -> bytes | memoryview:
        """The bytes of an input."""
        return pack(self.inputs[name])


class Whole:
    """The answer to a whole batch, of which each item takes its rows; `alone`: it takes all that there is.

    `rendered` and `packed` are for who makes text, or bytes, of all rows at once.
    """

    __slots__ = (
        "alone",
        "name",
        "outputs",
        "packed",
        "parameters",
        "rendered",
        "rows",
        "seconds",
        "started",
        "twin",
        "version",
    )

    def __init__(self, name: str, version: str, batch: Batch, outcome: Outcome, *, alone: bool) -> None:
        self.name = name
        self.version = version
        self.outputs = outcome.outputs
        self.twin = outcome.twin
        self.parameters = answered_by(outcome.twin)
        self.started = batch.started
        self.seconds = outcome.seconds
        self.rows = batch.total_rows
        self.alone = alone
        self.rendered: Any = None
        self.packed: Any = None

    def share(self, first: int, rows: int, enqueued: float) -> InferResponse:
        """What an item of so many rows, the first of them at `first`, is answered."""
        outputs: Tensors = self.outputs
        if not self.alone:
            outputs = {key: array[first : first + rows] for key, array in outputs.items()}
        waited = self.started - enqueued
        return InferResponse(outputs, self.name, self.version, self.parameters, waited, self.seconds, self.rows)


class Batch:
    """Items that run together."""

    __slots__ = ("items", "number", "started", "total_rows")

    def __init__(self, items: Sequence[Item], started: float) -> None:
        self.items = items
        self.number = 0
        self.started = started
        self.total_rows = sum([item.rows for item in items])

    def rows(self) -> Sequence[int]:
        """Rows per item."""
        return [item.rows for item in self.items]

    def deadlines(self) -> Sequence[float]:
        """Deadline per item, monotonic seconds."""
        return [item.deadline for item in self.items]


class Cost:
    """How long a batch takes: seconds = a + b * rows, fitted to the recent batches by weighted least squares."""

    __slots__ = ("_n", "_x", "_xx", "_xy", "_y", "fixed", "per_row")
    KEEP = 0.98  # weight left to what was known, per new batch: about the last fifty count

    def __init__(self) -> None:
        self._n = self._x = self._y = self._xx = self._xy = 0.0
        self.fixed = 0.0
        self.per_row = 0.0

    def __repr__(self) -> str:
        return f"<Cost {self.fixed * 1e3:.3f} ms + {self.per_row * 1e3:.4f} ms a row>"

    def observe(self, rows: int, seconds: float) -> None:
        """Learns from one batch. One that took absurdly long counts as ten times what was expected."""
        keep = self.KEEP
        if self._n > 5.0:
            seconds = min(seconds, 10.0 * self.predict(rows) + 0.001)
        self._n = n = self._n * keep + 1.0
        self._x = x = self._x * keep + rows
        self._y = y = self._y * keep + seconds
        self._xx = xx = self._xx * keep + rows * rows
        self._xy = xy = self._xy * keep + rows * seconds
        spread = n * xx - x * x
        slope = (n * xy - x * y) / spread if spread > 1e-9 * xx * n else y / x
        slope = max(slope, 0.0)
        fixed = (y - slope * x) / n
        if fixed < 0.0:
            fixed, slope = 0.0, y / x
        self.fixed, self.per_row = fixed, slope

    def predict(self, rows: int) -> float:
        """Seconds for a batch of that many rows; 0 while nothing is known."""
        return self.fixed + self.per_row * rows

    def rows_within(self, seconds: float, most: int) -> int:
        """The most rows whose batch is predicted to end in time; at least 1."""
        if self.per_row <= 0.0 or self.predict(most) <= seconds:
            return most
        return max(1, min(most, int((seconds - self.fixed) / self.per_row)))


class Cut(NamedTuple):
    """What was taken from the front of a queue: to run, too late to run, and waited for by nobody any more."""

    taken: list[Item]
    late: list[Item]
    dropped: list[Item]


def cut(queue: deque[Item], start: float, max_rows: int, cost: Cost) -> Cut:
    """Takes the next batch from the front of a queue; it will begin to run at `start` (monotonic seconds).

    A batch is answered as a whole, so it only grows while it is expected to end before the first deadline in it.
    An item that cannot make its own is late, unless nothing else waits: what never runs never corrects the cost.
    An item that was inside a worker when it died runs alone, so that it can take nobody with it.
    """
    if len(queue) <= max_rows and (whole := _whole(queue, start, max_rows, cost)) is not None:
        return Cut(whole, [], [])
    taken: list[Item] = []
    late: list[Item] = []
    dropped: list[Item] = []
    rows = 0
    soonest = math.inf
    while queue:
        item = queue[0]
        if item.done():
            dropped.append(queue.popleft())
            continue
        deadline = item.deadline
        if deadline <= start or (deadline < start + cost.predict(item.rows) and (taken or len(queue) > 1)):
            late.append(queue.popleft())
            continue
        if taken:
            if rows + item.rows > max_rows or item.attempts:
                break
            if start + CAUTION * cost.predict(rows + item.rows) > min(soonest, deadline):
                break
        taken.append(queue.popleft())
        rows += item.rows
        soonest = min(soonest, deadline)
        if item.attempts:
            break
    return Cut(taken, late, dropped)


def _whole(queue: deque[Item], start: float, max_rows: int, cost: Cost) -> list[Item] | None:
    """All that waits, where it fits into one batch and is in no hurry: the usual case at a third of the price."""
    rows = sum([item.rows for item in queue])
    if rows > max_rows or start + CAUTION * cost.predict(rows) > min([item.deadline for item in queue], default=0.0):
        return None
    for item in queue:
        if item.attempts or item.done():
            return None
    taken = list(queue)
    queue.clear()
    return taken


def is_overdue(elapsed: float, predicted: float) -> bool:
    """Whether a batch has been inside for so long that somebody else should try: seconds, seconds."""
    return elapsed > max(0.25, 10.0 * predicted)


def is_hung(elapsed: float, patience: float, most: float) -> bool:
    """Whether a place is to be given up: twice the longest wait of anybody inside, 2 s at least, `most` at most."""
    return elapsed > max(2.0, min(2.0 * patience, most))
