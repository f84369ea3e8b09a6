"""Requests become batches: one bounded queue for all replicas of a version, and no clock in the way.

A lone request goes at once. While every place is busy, what arrives waits and leaves together when a
place is free again; all that one pass of the event loop delivered is cut as one batch. Each item is waited for
by itself, so a caller that leaves costs nobody else anything.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic

from turnout.core.errors import DeadlineExceeded, Failure, NotReady, QueueFull, WorkerDied
from turnout.core.messages import TWIN, InferRequest, InferResponse, answered_by
from turnout.core.signature import Signature
from turnout.core.tensors import Tensors, byte_size, join_rows, slice_rows
from turnout.runtime.batch import CAUTION, Batch, Cost, Item, Key, is_hung, is_overdue
from turnout.runtime.batch_policy import BatchPolicy
from turnout.runtime.outlier import OutlierPolicy, Verdict
from turnout.runtime.predict import Outcome
from turnout.runtime.replica import Place
from turnout.runtime.replicas import Replicas
from turnout.runtime.settle import fail, settle, settle_mixed
from turnout.runtime.waiting import Waiting

logger = logging.getLogger("turnout")
_RETRY_AFTER = 1.0

OnBatch = Callable[[int, float], None]


class Batching:
    """A servable over places that run batches. Belongs to the event loop that it is made in."""

    def __init__(
        self,
        name: str,
        version: str,
        signature: Signature,
        policy: BatchPolicy,
        on_batch: OnBatch | None = None,
        outlier: OutlierPolicy | None = None,
    ) -> None:
        self.name = name
        self.version = version
        self.signature = signature
        self.policy = policy
        self.cost = Cost()
        self.replicas = Replicas(f"model {name}@{version}", outlier, self._schedule)
        self.places = self.replicas.all
        self.waiting = Waiting()
        self._on_batch = on_batch
        self._loop = asyncio.get_running_loop()
        self._row_seconds = 0.0  # how much longer the wait is for each row that waits
        self._next_free = 0.0  # when the first of the busy places is expected to be free (monotonic seconds)
        self._ends: dict[Place, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._scheduled = False
        self._flushing = False
        self.max_rows = policy.max_rows if signature.batched else 1
        # Where all dimensions but the row are fixed, every two requests fit together and need no key.
        self._uniform = all(-1 not in spec.shape[1:] and not spec.optional for spec in signature.inputs)
        self._row_bytes = signature.row_bytes if self._uniform else 0

    def __repr__(self) -> str:
        now = f", {len(self.places)} places, {self.waiting.rows} rows waiting" if self.places else ""
        return f"Batching({self.name}@{self.version}{now})"

    async def infer(self, request: InferRequest) -> InferResponse:
        """Waits for its batch. Raises QueueFull, NotReady, WorkerDied, DeadlineExceeded or what the model raised."""
        rows = request.rows
        if rows > self.max_rows:
            return await self._infer_in_parts(request)
        if (self.waiting.rows or not self.places) and (refused := self.refuse_now(request.context.deadline, rows)):
            raise refused
        item = self._enqueue(request, request.inputs, rows)
        try:
            return await item
        except asyncio.CancelledError:
            self.waiting.forget(item)
            raise

    async def _infer_in_parts(self, request: InferRequest) -> InferResponse:
        refused = self.refuse_now(request.context.deadline, request.rows)
        if refused is not None:
            raise refused
        items = []
        for start in range(0, request.rows, self.max_rows):
            stop = min(start + self.max_rows, request.rows)
            items.append(self._enqueue(request, slice_rows(request.inputs, start, stop), stop - start))
        try:
            answers = [await item for item in items]
        except BaseException:
            for item in items:
                item.cancel()
                self.waiting.forget(item)
            raise
        seconds = sum([answer.predict_seconds for answer in answers])
        twins = dict.fromkeys([str(a.parameters[TWIN]) for a in answers if TWIN in a.parameters])
        return answers[0]._replace(
            outputs=join_rows([a.outputs for a in answers]),
            predict_seconds=seconds,
            parameters=answered_by("+".join(twins)),
        )

    def refuse_now(self, deadline: float = math.inf, rows: int = 1) -> Failure | None:
        """Why a request with this deadline (monotonic seconds) would be refused at this moment, if it would."""
        if not self.places:
            return NotReady(f"model {self.name!r} has no worker at this moment", retry_after=_RETRY_AFTER)
        waiting = self.waiting
        if not waiting.rows and self.replicas.any_free():
            return None  # always let one through: only what runs teaches the cost
        policy = self.policy
        now = monotonic()
        behind = waiting.rows * self._row_seconds
        # A place that is later than expected is expected to take as long again.
        wait = abs(self._next_free - now) + behind
        if waiting.rows >= policy.queue_rows or waiting.nbytes >= policy.queue_bytes:
            return QueueFull(f"the queue of model {self.name!r} is full", retry_after=wait)
        left = (deadline - now) / CAUTION - self.cost.predict(rows)
        # A place with nothing to do takes what waits at the end of this pass of the loop, whenever it was last busy.
        if wait > left and (behind > left or self.replicas.pick(full=False) is None):
            return QueueFull(
                f"the queue of model {self.name!r} is too long for this deadline: {wait * 1e3:.0f} ms to wait",
                retry_after=wait,
                too_late=True,
            )
        return None

    def expected_seconds(self, rows: int = 1) -> float:
        """What a batch of so many rows is expected to take, without its wait; 0 while nothing is known."""
        return self.cost.predict(rows)

    def learn(self, rows: int, seconds: float) -> None:
        """Takes what a batch of so many rows took, and settles what the next requests are told to expect."""
        self.cost.observe(rows, seconds)
        limit = self._row_limit()
        self._row_seconds = self.cost.predict(limit) / limit / max(1, len(self.replicas.open))

    def add_place(self, place: Place) -> None:
        """From now on batches may run there."""
        self.replicas.add(place)
        self._schedule()

    def remove_place(self, place: Place) -> None:
        """No further batches go there. Without any place left, what waits is refused at once."""
        if place in self.places:
            self.replicas.remove(place)
            self._expect_nothing(place)
        if not self.places:
            for item in self.waiting.drain():
                fail(item, WorkerDied(f"model {self.name!r} lost its last worker", retry_after=_RETRY_AFTER))

    def retire_place(self, place: Place) -> bool:
        """No further batches go there while another place takes them. Lets go of it, and is True, once it is empty."""
        if not self.replicas.leave(place):
            return False
        self._expect_nothing(place)
        if place.inside():
            return False
        self.remove_place(place)
        place.close()
        return True

    @property
    def busy(self) -> bool:
        """Whether anything waits or runs."""
        return bool(len(self.waiting)) or any(place.inside() for place in self.places)

    def close(self) -> None:
        """Lets go of all places; to be called when nothing waits or runs."""
        for place in list(self.places):
            self.remove_place(place)
            place.close()

    def done(self, place: Place, batch: Batch, outcome: Outcome) -> None:
        """Takes a batch's outcome: the next batch leaves first, then everybody gets an answer."""
        if self.replicas.suspects:
            self.replicas.suspects.discard(place)
        if len(self.places) > 1:
            verdict = self.replicas.judge(place, batch, outcome, self.cost.predict(batch.total_rows))
            if verdict in {Verdict.EJECT, Verdict.REST}:
                self._expect_nothing(place)
        self.learn(batch.total_rows, outcome.seconds)
        if place in self._ends:  # from now on, or what was once predicted too long would be believed for ever
            self._ends[place] = monotonic() + sum([self.cost.predict(one.total_rows) for one in place.inside()])
        if self._on_batch is not None:
            self._on_batch(batch.total_rows, outcome.seconds)
        if not self._flushing:
            self._flush()
        for detail in outcome.details:
            logger.error("model %s@%s failed: %s", self.name, self.version, detail)
        if outcome.failures and any(outcome.failures):
            for failure in outcome.failures:
                if failure is not None:
                    failure.by = place
            settle_mixed(batch, outcome, self.name, self.version, batched=self.signature.batched)
        else:
            settle(batch.items, batch, outcome, self.name, self.version, batched=self.signature.batched)

    def lost(self, place: Place, batches: Sequence[Batch]) -> None:
        """A place died with batches inside: each item gets one more try, alone, where there is another place.

        Only the oldest batch can have been running: what was sent ahead behind it is under no suspicion.
        """
        self.remove_place(place)
        again = []
        elsewhere = {id(item) for one in self.places for batch in one.inside() for item in batch.items}
        for batch in batches:
            for item in batch.items:
                if item.done() or item.waiting or id(item) in elsewhere:
                    continue  # it was hedged and has its second try already
                item.attempts += batch is batches[0]
                if self.places and item.attempts < 2:
                    again.append(item)
                else:
                    fail(item, WorkerDied("the worker died while it held the request", retry_after=_RETRY_AFTER))
        self.waiting.put_back(again)
        self._schedule()

    def watch(self, now: float, most: float = 60.0) -> list[Place]:
        """Looks after places that do not answer; gives those that should be killed. Call it now and then.

        The items of an overdue place also go to another one, and the first answer wins. What was running there goes
        alone, and once only: an item that hangs every place it comes to takes no more than two of them.
        """
        hung = []
        self.replicas.wake(now)
        for place in list(self.places):
            inside = place.inside()
            if not inside:
                continue
            elapsed = now - place.busy_since
            if is_overdue(elapsed, self.cost.predict(inside[0].total_rows)):
                self._hedge(place, inside)
            waits = [
                min(item.deadline, now + most) - batch.started
                for batch in inside
                for item in batch.items
                if item.cancelled() or not item.done()  # what another place has answered is no reason for patience
            ]
            patience = max(waits, default=0.0)
            if is_hung(elapsed, patience, most):
                hung.append(place)
        return hung

    def _hedge(self, place: Place, batches: Sequence[Batch]) -> None:
        if place not in self.replicas.suspects and self.replicas.can_spare(place):
            self.replicas.suspects.add(place)
            self._expect_nothing(place)
            again = [item for batch in batches[1:] for item in batch.items]
            fresh = [item for item in batches[0].items if not item.attempts]
            for item in fresh:
                item.attempts = 1
            self.waiting.put_back(fresh + again)
            self._schedule()

    def _expect_nothing(self, place: Place) -> None:
        """Nobody is told to wait for this place any more."""
        self._ends.pop(place, None)
        self._next_free = min(self._ends.values(), default=monotonic())

    def _enqueue(self, request: InferRequest, inputs: Tensors, rows: int) -> Item:
        key: Key = () if self._uniform else tuple([(name, array.shape[1:]) for name, array in inputs.items()])
        if request.context.avoid:
            key = (*key, request.context.avoid)
        nbytes = self._row_bytes * rows or byte_size(inputs)
        item = Item(self._loop, inputs, rows, nbytes, request.context, monotonic(), key)
        self.admit(item)
        return item

    def admit(self, item: Item) -> None:
        """Queues an item that somebody else has made; `refuse_now` was asked."""
        self.waiting.add(item)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        self._flushing = True
        replicas = self.replicas
        try:
            while (queue := self.waiting.oldest()) is not None:
                limit = self._row_limit()
                place = replicas.pick(full=self.waiting.rows >= limit, avoid=queue[0].avoid)
                if place is None:
                    if not queue[0].avoid or (found := self._next_elsewhere(limit)) is None:
                        return
                    queue, place = found
                now = monotonic()
                if self.policy.max_wait and self._should_wait(queue[0], now, limit):
                    return
                start = max(now, self._ends.get(place, 0.0)) if place.busy_since else now
                taken, late, _ = self.waiting.take(queue, start, limit, self.cost)
                for item in late:
                    fail(item, DeadlineExceeded("the deadline passed while the request was queued"))
                if taken:
                    batch = Batch(taken, now)
                    self._ends[place] = start + self.cost.predict(batch.total_rows)
                    self._next_free = min(self._ends.values())
                    place.run(batch)
                    if replicas.due:
                        replicas.probe(self._loop, batch)
        finally:
            self._flushing = False

    def _next_elsewhere(self, limit: int) -> tuple[deque[Item], Place] | None:
        """Who is served where the oldest waits for anybody but those that failed it."""
        full = self.waiting.rows >= limit
        for queue in self.waiting.by_age():
            place = self.replicas.pick(full=full, avoid=queue[0].avoid)
            if place is not None:
                return queue, place
        return None

    def _should_wait(self, head: Item, now: float, limit: int) -> bool:
        left = head.enqueued + self.policy.max_wait - now
        if self.waiting.rows >= limit or left <= 0:
            return False
        if self._timer is None or self._timer.cancelled() or self._timer.when() <= self._loop.time():
            self._timer = self._loop.call_later(left, self._flush)
        return True

    def _row_limit(self) -> int:
        return self.cost.rows_within(self.policy.max_seconds, self.max_rows)
