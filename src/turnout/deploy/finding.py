"""What models stand for: found when a server starts, and looked after from then on where the user wants that."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from turnout.core.errors import Failure
from turnout.deploy.spec import ModelSpec
from turnout.deploy.supply import Found, Supply
from turnout.deploy.threads import in_thread
from turnout.deploy.versions import Versions
from turnout.deploy.watch import Watch

logger = logging.getLogger("turnout")


class Finding:
    """Of one server. Belongs to the running event loop.

    give_up: called with the name of a model that cannot be found, and why. keep_going: the rest is served all the same.
    """

    def __init__(
        self, supply: Supply, versions: Versions, give_up: Callable[[str, str], None], *, keep_going: bool
    ) -> None:
        #: By model.
        self.watches: dict[str, Watch] = {}
        self._supply = supply
        self._versions = versions
        self._give_up = give_up
        self._keep_going = keep_going
        self._loop = asyncio.get_running_loop()

    async def find(self, models: Iterable[ModelSpec]) -> None:
        """Finds all of them at once, and has them served."""
        await asyncio.gather(*[self._find(model) for model in models])

    async def _find(self, model: ModelSpec) -> None:
        """What one model stands for. A place that is down is asked again, by whoever watches it."""
        try:
            found = await in_thread(self._loop, lambda: self._supply.find(model))
        except Failure as failure:
            if (managed := self._versions.models.get(model.name)) is not None:  # it is served all the same
                logger.warning("%s: %s", model.name, failure.message)
                self.watch(model, managed.found)
                return
            if not (failure.retryable and (model.watch or self._keep_going)):
                self._give_up(model.name, failure.message)
                return
            found = []
            logger.warning("%s: %s", model.name, failure.message)
        self._versions.manage(model, found)
        self.watch(model, found)

    def watch(self, model: ModelSpec, found: list[Found]) -> None:
        """Looks after what a model comes from, from now on."""
        if previous := self.watches.pop(model.name, None):
            previous.stop()
        if model.watch:
            manage = self._versions.manage
            self.watches[model.name] = Watch(model, self._supply, found, lambda changed: manage(model, changed))

    def end(self) -> None:
        """Looks after nothing any more."""
        for watch in self.watches.values():
            watch.stop()
