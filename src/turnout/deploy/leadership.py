"""Which of several controllers on one store leads: it alone carries rollouts on. All follow what is in force."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from turnout.core.errors import Failure
from turnout.deploy.store.failures import LeaseLost
from turnout.deploy.store.records import Lease
from turnout.deploy.store.store import Store

logger = logging.getLogger("turnout")
_NAME = "leader"
#: How long a leader that is silent stays one, and how often it says that it lives (seconds).
LEASE_SECONDS = 5.0
_RENEW_SECONDS = 1.0
#: How often it is looked whether another controller has changed what is in force.
_FOLLOW_SECONDS = 0.1

Call = Callable[[Callable[[Store], Any]], Awaitable[Any]]


def is_shared(url: str) -> bool:
    """Whether other controllers may use the same store."""
    return not url.startswith("sqlite:")


def _renewed(lease: Lease, store: Store) -> Lease:
    return store.renew(lease)


class Leadership:
    """Of one controller. `follow` is called when something was written to the store by anybody.

    `lease` is what a leader shows with its writes, None for who does not lead.
    """

    def __init__(self, call: Call, port: int, follow: Callable[[], Awaitable[None]]) -> None:
        self.lease: Lease | None = None
        self._call = call
        #: What this controller is called, also after it was started again.
        self.name = f"{socket.gethostname()}:{port}"
        self._holder = f"{self.name}:{os.getpid()}"
        self._follow = follow
        self._tasks: list[asyncio.Task[None]] = []

    def begin(self) -> None:
        """Takes part from now on."""
        self._tasks = [asyncio.ensure_future(self._lead()), asyncio.ensure_future(self._look())]

    def end(self) -> None:
        """Takes no part any more; the lease runs out by itself."""
        for task in self._tasks:
            task.cancel()

    async def _lead(self) -> None:
        while True:
            held = self.lease
            try:
                if held is None:
                    self.lease = await self._call(lambda store: store.lease(_NAME, self._holder, LEASE_SECONDS))
                    if self.lease is not None:
                        logger.info("this controller leads: it carries rollouts on")
                else:
                    self.lease = await self._call(partial(_renewed, held))
            except LeaseLost:
                self.lease = None
                logger.warning("another controller leads now")
            except Failure as failure:  # who cannot say that it lives does not lead: another may, by now
                self.lease = None
                logger.warning("the store cannot be asked who leads: %s", failure.message)
            await asyncio.sleep(_RENEW_SECONDS)

    async def _look(self) -> None:
        position = -1
        silent = False
        while True:
            await asyncio.sleep(_FOLLOW_SECONDS)
            try:
                now: int = await self._call(lambda store: store.position())
                if now != position:
                    await self._follow()
                    position = now
                silent = False
            except Failure as failure:
                if not silent:
                    logger.warning("what is served stays as it is while the store is away: %s", failure.message)
                silent = True
            except Exception:
                logger.exception("what another controller has changed could not be followed")
