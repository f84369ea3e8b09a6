"""What has happened, in order, for those who watch: kept in the store, and told to whoever waits."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from time import localtime, strftime
from typing import Any

from turnout.core.errors import Failure
from turnout.deploy.store.records import Event
from turnout.deploy.store.store import Store

logger = logging.getLogger("turnout")
_MOST = 500
_WAIT = 25.0

Call = Callable[[Callable[[Store], Any]], Awaitable[Any]]


class Happenings:
    """Events of one server. `call` runs something on the store in a thread."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._told = asyncio.Event()
        self._telling: set[asyncio.Task[None]] = set()

    def tell(self, kind: str, subject: str, text: str, **numbers: Any) -> None:
        """Something has happened. It is written down in its own time; a store that is away loses it."""
        task = asyncio.ensure_future(self._tell(kind, subject, json.dumps({"text": text, **numbers})))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def after(self, seq: int, wait: float = _WAIT) -> dict[str, Any]:
        """The events after that one; waits so many seconds where there is none. A seq below 0 stands for the newest."""
        if seq < 0:
            newest = await self._call(_newest)
            return {"events": [], "after": newest}
        loop = asyncio.get_running_loop()
        until = loop.time() + min(max(wait, 0.0), 60.0)
        while True:
            self._told.clear()
            found: list[Event] = await self._call(lambda store: store.after(seq, _MOST))
            left = until - loop.time()
            if found or left <= 0:
                return {"events": [_said(event) for event in found], "after": found[-1].seq if found else seq}
            try:
                async with asyncio.timeout(min(left, 1.0)):  # another controller may have told the store something
                    await self._told.wait()
            except TimeoutError:
                continue

    async def _tell(self, kind: str, subject: str, data: str) -> None:
        try:
            await self._call(lambda store: store.append(kind, subject, data))
        except Failure as failure:
            logger.warning("an event could not be written down (%s): %s %s", failure.message, kind, data)
        self._told.set()


def _newest(store: Store) -> int:
    events = store.after(0, 1 << 30)
    return events[-1].seq if events else 0


def _said(event: Event) -> dict[str, Any]:
    return {
        "seq": event.seq,
        "at": event.at,
        "at_text": strftime("%Y-%m-%d %H:%M:%S", localtime(event.at)),
        "kind": event.kind,
        "subject": event.subject,
        **json.loads(event.data),
    }
