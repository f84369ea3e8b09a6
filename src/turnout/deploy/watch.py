"""Looks again and again at where a model came from, and says when something else is there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from time import time

from turnout.core.errors import Failure
from turnout.deploy.spec import ModelSpec
from turnout.deploy.supply import Found, Supply
from turnout.deploy.threads import in_thread

logger = logging.getLogger("turnout")
_MOST = 60.0

OnChange = Callable[[list[Found]], object]


@dataclass
class Look:
    """What the last look showed. since: when the place stopped to answer (epoch seconds), 0 while it does."""

    trouble: str = ""
    since: float = 0.0
    failures: int = 0
    pending: tuple[Found, ...] = ()


class Watch:
    """Watches one model's artifact: the versions in a directory, an alias in a registry.

    A directory's version counts only when two looks in a row found the same in it: a copy under way changes.
    A place that is down is asked ever more rarely, and what is served goes on being served.
    """

    def __init__(self, spec: ModelSpec, supply: Supply, served: list[Found], on_change: OnChange) -> None:
        self.look = Look()
        self.spec = spec
        self._supply = supply
        self._served = served
        self._last = served
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.ensure_future(self._watch())

    def stop(self) -> None:
        """No look is taken any more."""
        self._task.cancel()

    def apply(self) -> bool:
        """Does what was only planned; False where nothing is."""
        pending, self.look.pending = list(self.look.pending), ()
        if not pending:
            return False
        self._take(pending)
        return True

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(delay(self.spec.watch, self.look.failures))
            try:
                found = await in_thread(self._loop, lambda: self._supply.find(self.spec, fresh=True))
            except Failure as failure:
                self._trouble(failure.message)
            except Exception as problem:
                logger.exception("looking for versions of %s failed", self.spec.name)
                self._trouble(f"{type(problem).__name__}: {problem}")
            else:
                self._saw(found)

    def _trouble(self, text: str) -> None:
        if not self.look.failures:
            logger.warning("%s: cannot see what is there now, and serves on what it has: %s", self.spec.name, text)
            self.look.since = time()
        self.look.failures += 1
        self.look.trouble = text

    def _saw(self, found: list[Found]) -> None:
        if self.look.failures:
            logger.info("%s: its place answers again", self.spec.name)
        self.look.failures, self.look.trouble, self.look.since = 0, "", 0.0
        steady = found == self._last or all(one.pinned for one in found)
        self._last = found
        if not steady or not found:
            return
        if found == self._served:
            self.look.pending = ()
        elif self.spec.on_change == "apply":
            self._take(found)
        elif tuple(found) != self.look.pending:
            self.look.pending = tuple(found)
            names = ", ".join(one.pinned.pinned if one.pinned else one.version for one in found)
            logger.info("%s: now there is %s; `turnout apply %s` serves it", self.spec.name, names, self.spec.name)

    def _take(self, found: list[Found]) -> None:
        names = ", ".join(one.pinned.pinned if one.pinned else one.version for one in found)
        logger.info("%s: now there is %s", self.spec.name, names)
        self._served = found
        self._on_change(found)


def delay(every: float, failures: int) -> float:
    """Seconds to the next look: the user's own, and doubled for every failure in a row, up to a minute at least."""
    return min(every * 2.0 ** min(failures, 20), max(_MOST, every))
