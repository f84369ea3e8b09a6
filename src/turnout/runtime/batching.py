"""Requests become batches: one bounded queue for all replicas of a version, and no clock in the way.

A lone request goes at once. While every place is busy, what arrives waits and leaves together when a
place is free again; all that one pass of the event loop delivered is cut as one batch. Each item carries
its own reply, so a caller that leaves costs nobody else anything.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic

from turnout.core.errors import DeadlineExceeded, Failure, ModelFailed, NotReady, QueueFull, WorkerDied
from turnout.core.messages import InferRequest, InferResponse
from turnout.core.signature import Signature
from turnout.core.tensors import Tensors, byte_size, join_rows, slice_rows
from turnout.runtime.batch import Answered, Batch, BatchPolicy, Cost, Item, Key, cut, is_hung, is_overdue
from turnout.runtime.predict import Outcome
from turnout.runtime.replica import Place
from turnout.runtime.reply import Reply

logger = logging.getLogger("turnout")
_RETRY_AFTER = 1.0
_PURGE = 1024
#: The share of a deadline that is left for what no batch shows: the way in, the way out, a busy loop.
_MARGIN = 0.1

OnBatch = Callable[[int, float], None]


class Batching:
    """A servable over places that run batches. Belongs to the event loop that it is made in."""

    def __init__(
        self, name: str, version: str, signature: Signature, policy: BatchPolicy, on_batch: OnBatch | None = None
    ) -> None:
        self.name = name
        self.version = version
        self.signature = signature
        self.policy = policy
        self.cost = Cost()
        self.queued_rows = 0
        self.queued_bytes = 0
        self.places: list[Place] = []
        self._on_batch = on_batch
        self._loop = asyncio.get_running_loop()
        self._queues: dict[Key, deque[Item]] = {}
        self._forgotten = 0
        self._row_seconds = 0.0  # how much longer the wait is for each row that waits
        self._next_free = 0.0  # when the first of the busy places is expected to be free (monotonic seconds)
        self._ends: dict[Place, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._scheduled = False
        self._flushing = False
        self._suspect: set[Place] = set()
        self._max_rows = 1 if not signature.batched else policy.max_rows
        # Where all dimensions but the row are fixed, every two requests fit together and need no key.
        self._uniform = all(-1 not in spec.shape[1:] and not spec.optional for spec in signature.inputs)
        self._fixed_bytes = self._row_bytes(signature) if self._uniform else 0

    def __repr__(self) -> str:
        return f"Batching({self.name}@{self.version}, {len(self.places)} places, {self.queued_rows} rows waiting)"

    async def infer(self, request: InferRequest) -> InferResponse:
        """Waits for its batch. Raises QueueFull, NotReady, WorkerDied, DeadlineExceeded or what the model raised."""
        rows = request.rows
        if rows > self._max_rows and self.signature.batched:
            return await self._infer_in_parts(request)
        refused = self.refuse_now(request.context.deadline, rows)
        if refused is not None:
            raise refused
        item = self._enqueue(request, request.inputs, rows)
        try:
            answered = await item.reply
        except asyncio.CancelledError:
            self._forget(item)
            raise
        return InferResponse(
            answered.outputs,
            self.name,
            self.version,
            {},
            answered.queue_seconds,
            answered.predict_seconds,
            answered.batch_rows,
        )

    async def _infer_in_parts(self, request: InferRequest) -> InferResponse:
        refused = self.refuse_now(request.context.deadline, request.rows)
        if refused is not None:
            raise refused
        starts = range(0, request.rows, self._max_rows)
        items = [
            self._enqueue(
                request,
                slice_rows(request.inputs, start, start + self._max_rows),
                min(self._max_rows, request.rows - start),
            )
            for start in starts
        ]
        try:
            answers = [await item.reply for item in items]
        except BaseException:
            for item in items:
                item.reply.cancel()
                self._forget(item)
            raise
        return InferResponse(
            join_rows([a.outputs for a in answers]),
            self.name,
            self.version,
            {},
            answers[0].queue_seconds,
            sum([a.predict_seconds for a in answers]),
            answers[0].batch_rows,
        )

    def refuse_now(self, deadline: float = math.inf, rows: int = 1) -> Failure | None:
        """Why a request with this deadline (monotonic seconds) would be refused at this moment, if it would."""
        if not self.places:
            return NotReady(f"model {self.name!r} has no worker at this moment", retry_after=_RETRY_AFTER)
        waiting = self.queued_rows
        if not waiting and self._any_free():
            return None  # always let one through: only what runs teaches the cost
        policy = self.policy
        now = monotonic()
        # A place that is later than expected is expected to take as long again.
        wait = abs(self._next_free - now) + waiting * self._row_seconds
        if waiting >= policy.queue_rows or self.queued_bytes >= policy.queue_bytes:
            return QueueFull(f"the queue of model {self.name!r} is full", retry_after=wait)
        if deadline != math.inf and wait + self.cost.predict(rows) > (1.0 - _MARGIN) * (deadline - now):
            return QueueFull(
                f"the queue of model {self.name!r} is too long for this deadline: {wait * 1e3:.0f} ms to wait",
                retry_after=wait,
            )
        return None

    def learn(self, rows: int, seconds: float) -> None:
        """Takes what a batch of so many rows took, and settles what the next requests are told to expect."""
        self.cost.observe(rows, seconds)
        limit = self._row_limit()
        self._row_seconds = self.cost.predict(limit) / limit / max(1, len(self.places))

    @property
    def queued_requests(self) -> int:
        """How many requests (or parts of long ones) wait."""
        return sum(len(queue) for queue in self._queues.values())

    def add_place(self, place: Place) -> None:
        """From now on batches may run there."""
        self.places.append(place)
        self._schedule()

    def remove_place(self, place: Place) -> None:
        """No further batches go there. Without any place left, what waits is refused at once."""
        if place in self.places:
            self.places.remove(place)
            self._suspect.discard(place)
            self._ends.pop(place, None)
        if not self.places:
            for queue in self._queues.values():
                for item in queue:
                    self._uncount(item)
                    item.reply.set_exception(
                        WorkerDied(f"model {self.name!r} lost its last worker", retry_after=_RETRY_AFTER)
                    )
                queue.clear()

    def done(self, place: Place, batch: Batch, outcome: Outcome) -> None:
        """Takes a batch's outcome: the next batch leaves first, then everybody gets an answer."""
        self._suspect.discard(place)
        self.learn(batch.total_rows, outcome.seconds)
        if self._on_batch is not None:
            self._on_batch(batch.total_rows, outcome.seconds)
        if not self._flushing:
            self._flush()
        for detail in outcome.details:
            logger.error("model %s@%s failed: %s", self.name, self.version, detail)
        if outcome.failures and any(outcome.failures):
            self._settle_mixed(batch, outcome)
        else:
            self._settle(batch.items, batch, outcome)

    def lost(self, place: Place, batches: Sequence[Batch]) -> None:
        """A place died with batches inside: each item gets one more try, alone, where there is another place."""
        self.remove_place(place)
        for batch in reversed(batches):
            for item in reversed(batch.items):
                if item.reply.done():
                    continue
                item.attempts += 1
                if self.places and item.attempts < 2:
                    self._count(item)
                    self._queues.setdefault(item.key, deque()).appendleft(item)
                else:
                    item.reply.set_exception(
                        WorkerDied("the worker died while it held the request", retry_after=_RETRY_AFTER)
                    )
        self._schedule()

    def watch(self, now: float, most: float = 60.0) -> list[Place]:
        """Looks after places that do not answer; gives those that should be killed. Call it now and then.

        The items of an overdue place also go to another one, and the first answer wins.
        """
        hung = []
        for place in list(self.places):
            inside = place.inside()
            if not inside:
                continue
            elapsed = now - place.busy_since
            if is_overdue(elapsed, self.cost.predict(inside[0].total_rows)):
                self._hedge(place, inside)
            patience = max([min(item.deadline, now + most) - batch.started for batch in inside for item in batch.items])
            if is_hung(elapsed, patience, most):
                hung.append(place)
        return hung

    def _hedge(self, place: Place, batches: Sequence[Batch]) -> None:
        if place in self._suspect or len(self.places) - len(self._suspect) < 2:
            return
        self._suspect.add(place)
        for batch in reversed(batches):
            for item in reversed(batch.items):
                if not item.reply.done():
                    self._count(item)
                    self._queues.setdefault(item.key, deque()).appendleft(item)
        self._schedule()

    def _settle(self, items: Sequence[Item], batch: Batch, outcome: Outcome) -> None:
        at = 0
        outputs, seconds, started, total = outcome.outputs, outcome.seconds, batch.started, batch.total_rows
        alone = len(items) == 1 or not self.signature.batched
        for item in items:
            stop = at + item.rows
            if not item.reply.done():
                mine: Tensors = outputs if alone else {name: a[at:stop] for name, a in outputs.items()}
                try:
                    item.reply.set_result(Answered(mine, started - item.enqueued, seconds, total))
                except Exception:  # a waiter's own trouble is not the batch's
                    logger.exception("an answer could not be delivered")
            at = stop

    def _settle_mixed(self, batch: Batch, outcome: Outcome) -> None:
        good = []
        for item, failure in zip(batch.items, outcome.failures, strict=True):
            if failure is None:
                good.append(item)
            elif not item.reply.done():
                if isinstance(failure, ModelFailed):
                    logger.error("request %s: %s@%s: %s", item.id or "-", self.name, self.version, failure.message)
                item.reply.set_exception(failure)
        if good:
            self._settle(good, batch, outcome)

    def _enqueue(self, request: InferRequest, inputs: Tensors, rows: int) -> Item:
        key: Key = () if self._uniform else tuple([(name, a.shape[1:]) for name, a in inputs.items()])
        nbytes = self._fixed_bytes * rows if self._fixed_bytes else byte_size(inputs)
        context = request.context
        item = Item(inputs, rows, nbytes, context.deadline, monotonic(), key, Reply(self._loop), context.id)
        queue = self._queues.get(key)
        if queue is None:
            self._queues[key] = deque((item,))
        else:
            queue.append(item)
        self.queued_rows += rows
        self.queued_bytes += nbytes
        if not self._scheduled:
            self._schedule()
        return item

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        self._flushing = True
        try:
            while self.queued_rows or self._forgotten:
                queue = self._oldest()
                if queue is None:
                    return
                limit = self._row_limit()
                place = self._pick(self.queued_rows >= limit)
                if place is None:
                    return
                now = monotonic()
                if self._should_wait(queue[0], now, limit):
                    return
                self._cut_and_run(queue, place, now, limit)
        finally:
            self._flushing = False

    def _cut_and_run(self, queue: deque[Item], place: Place, now: float, limit: int) -> None:
        taken, late, dropped = cut(queue, now, limit)
        for item in (*taken, *late, *dropped):
            self._uncount(item)
        for item in late:
            item.reply.set_exception(DeadlineExceeded("the deadline passed while the request was queued"))
        if taken:
            batch = Batch(taken, now)
            self._ends[place] = max(now, self._ends.get(place, 0.0)) + self.cost.predict(batch.total_rows)
            self._next_free = min(self._ends.values())
            place.run(batch)

    def _should_wait(self, head: Item, now: float, limit: int) -> bool:
        left = head.enqueued + self.policy.max_wait - now
        if not self.policy.max_wait or self.queued_rows >= limit or left <= 0:
            return False
        if self._timer is None or self._timer.cancelled() or self._timer.when() <= self._loop.time():
            self._timer = self._loop.call_later(left, self._flush)
        return True

    def _oldest(self) -> deque[Item] | None:
        if len(self._queues) == 1:
            (queue,) = self._queues.values()
            return queue or None
        found: deque[Item] | None = None
        for key in [k for k, q in self._queues.items() if not q]:
            del self._queues[key]
        for queue in self._queues.values():
            if found is None or queue[0].enqueued < found[0].enqueued:
                found = queue
        return found

    def _pick(self, full: bool) -> Place | None:
        ahead: Place | None = None
        for place in self.places:
            if place.free and place not in self._suspect:
                if not place.busy_since:
                    return place
                ahead = place
        return ahead if full else None  # a second batch is sent ahead only when it could not grow any more

    def _any_free(self) -> bool:
        for place in self.places:  # noqa: SIM110  a generator costs five times this loop, and every request is here
            if place.free:
                return True
        return False

    def _row_limit(self) -> int:
        return self.cost.rows_within(self.policy.max_seconds, self._max_rows)

    def _count(self, item: Item) -> None:
        item.waiting = True
        self.queued_rows += item.rows
        self.queued_bytes += item.nbytes

    def _uncount(self, item: Item) -> None:
        if item.waiting:
            item.waiting = False
            self.queued_rows -= item.rows
            self.queued_bytes -= item.nbytes

    def _forget(self, item: Item) -> None:
        if not item.waiting:
            return
        self._uncount(item)
        item.inputs = {}
        self._forgotten += 1
        if self._forgotten > _PURGE:
            self._forgotten = 0
            for queue in self._queues.values():
                live = [one for one in queue if not one.reply.done()]
                queue.clear()
                queue.extend(live)

    @staticmethod
    def _row_bytes(signature: Signature) -> int:
        total = 0
        for spec in signature.inputs:
            if spec.datatype == "BYTES":
                return 0
            size = spec.dtype.itemsize
            for dimension in spec.shape[1:]:
                size *= dimension
            total += size
        return total
