"""What waits for a place: items in the order they came, in one queue for each shape that can be joined."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from turnout.runtime.batch import CAUTION, Cost, Cut, Item, Key, cut

_PURGE = 1024


class Waiting:
    """Queued items and how much they are: `rows` and `nbytes` count those that somebody still waits for."""

    def __init__(self) -> None:
        self.rows = 0
        self.nbytes = 0
        self._queues: dict[Key, deque[Item]] = {}
        self._forgotten = 0

    def __len__(self) -> int:
        """How many items are queued."""
        return sum(len(queue) for queue in self._queues.values())

    def add(self, item: Item) -> None:
        """Queues a new item behind the others of its shape."""
        queue = self._queues.get(item.key)
        if queue is None:
            self._queues[item.key] = deque((item,))
        else:
            queue.append(item)
        self.rows += item.rows
        self.nbytes += item.nbytes

    def put_back(self, items: Iterable[Item]) -> None:
        """Queues items again, in front and in their old order: they have waited longest. One that waits stays."""
        for item in reversed(list(items)):
            if not item.done() and not item.waiting:
                item.waiting = True
                self.rows += item.rows
                self.nbytes += item.nbytes
                self._queues.setdefault(item.key, deque()).appendleft(item)

    def oldest(self) -> deque[Item] | None:
        """The queue whose first item has waited longest, if anything waits."""
        queues = self._queues
        if len(queues) == 1:
            (queue,) = queues.values()
            return queue or None
        for key in [key for key, queue in queues.items() if not queue]:
            del queues[key]
        return min(queues.values(), key=lambda queue: queue[0].enqueued, default=None)

    def by_age(self) -> list[deque[Item]]:
        """The queues in which something waits, in the order of their first items."""
        return sorted([queue for queue in self._queues.values() if queue], key=lambda queue: queue[0].enqueued)

    def take(self, queue: deque[Item], start: float, max_rows: int, cost: Cost) -> Cut:
        """Cuts the next batch from a queue of this."""
        if len(queue) == 1 and _goes_alone(queue[0], start, max_rows, cost):
            item = queue.popleft()
            item.waiting = False
            self.rows -= item.rows
            self.nbytes -= item.nbytes
            return Cut([item], [], [])
        found = cut(queue, start, max_rows, cost)
        rows = nbytes = 0
        for items in found:
            for item in items:
                if item.waiting:
                    item.waiting = False
                    rows += item.rows
                    nbytes += item.nbytes
        self.rows -= rows
        self.nbytes -= nbytes
        return found

    def forget(self, item: Item) -> None:
        """Nobody waits for the item any more: it counts no longer, holds no arrays, and goes when it is met."""
        if not item.waiting:
            return
        item.waiting = False
        item.inputs = {}
        self.rows -= item.rows
        self.nbytes -= item.nbytes
        self._forgotten += 1
        if self._forgotten > _PURGE:
            self._forgotten = 0
            for queue in self._queues.values():
                live = [one for one in queue if not one.done()]
                queue.clear()
                queue.extend(live)

    def drain(self) -> Iterator[Item]:
        """Empties it, item by item."""
        queues, self._queues = self._queues, {}
        self.rows = self.nbytes = 0
        for queue in queues.values():
            for item in queue:
                item.waiting = False
                yield item


def _goes_alone(item: Item, start: float, max_rows: int, cost: Cost) -> bool:
    """Whether the only item of a queue makes a batch as it is: with one caller at a time every batch is one."""
    if not item.waiting or item.attempts or item.rows > max_rows or item.done():
        return False
    return start + CAUTION * cost.predict(item.rows) <= item.deadline
