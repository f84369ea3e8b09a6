"""An environment is built while the artifact that brings it is still on its way."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from time import monotonic

from turnout.core.errors import Failure
from turnout.deploy.environments.environment import Requirements, Tell
from turnout.deploy.environments.requirements import requirements_of
from turnout.deploy.environments.store import Environments

_EVERY = 0.2


class Ahead:
    """Looks into the directory of a fetch, and begins to build as soon as the same requirements stand there twice.

    What it builds is only ever found again by who asks for the very same: a file that was not whole yet costs time,
    and does no harm.
    """

    def __init__(self, environments: Environments, arriving: Path, tell: Tell) -> None:
        self._environments = environments
        self._arriving = arriving
        self._tell = tell
        self._seen: Requirements | None = None
        self._next = 0.0
        self._begun = False

    def look(self) -> None:
        """To be called while files arrive, as often as one likes."""
        if self._begun or monotonic() < self._next:
            return
        self._next = monotonic() + _EVERY
        found = None
        with suppress(Failure, OSError):
            found = requirements_of(self._arriving)
        if found is not None and found == self._seen:
            self.begin(found)
        self._seen = found

    def begin(self, requirements: Requirements) -> None:
        """Builds in a thread of its own; what goes wrong is said by who asks for it in the end."""
        self._begun = True
        threading.Thread(target=self._build, args=(requirements,), daemon=True).start()

    def _build(self, requirements: Requirements) -> None:
        with suppress(Failure):
            self._environments.ensure(requirements, self._tell)
