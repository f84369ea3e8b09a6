"""What a router serves at this moment: the living tree, and the view that doors and protocols have of it."""

from __future__ import annotations

from collections.abc import Sequence

from turnout.core.errors import ModelNotFound, NotReady, VersionNotFound
from turnout.core.servable import Servable, ServedModel, State
from turnout.runtime.batching import Batching


class LiveVersion:
    """One version with its tree. Ready while at least one place can run it."""

    def __init__(self, name: str, version: str, format: str, batching: Batching, servable: Servable) -> None:
        self.name = name
        self.version = version
        self.format = format
        self.batching = batching
        self.signature = batching.signature
        self.servable = servable
        self.reason = ""

    @property
    def state(self) -> State:
        """READY with a living place, STARTING without."""
        return State.READY if self.batching.places else State.STARTING


class Live:
    """All versions that a router has been told of. `expected` names those that must be there to be ready."""

    def __init__(self, expected: Sequence[str]) -> None:
        self._expected = tuple(expected)
        self._versions: dict[str, dict[str, LiveVersion]] = {}
        self._newest: dict[str, LiveVersion] = {}
        self._draining = False

    @property
    def ready(self) -> bool:
        """Every expected model has a living worker, and the server is not stopping."""
        return not self._draining and all(
            name in self._versions and all(v.batching.places for v in self._versions[name].values())
            for name in self._expected
        )

    def drain(self) -> None:
        """From now on not ready, whatever the workers do."""
        self._draining = True

    def add(self, version: LiveVersion) -> None:
        """Serves a version from now on."""
        self._versions.setdefault(version.name, {})[version.version] = version
        self._newest[version.name] = version

    def models(self) -> Sequence[ServedModel]:
        """All versions, in the order in which they were asked for."""
        return self.versions()

    def versions(self) -> Sequence[LiveVersion]:
        """All versions with their trees."""
        return [version for name in self._names() for version in self._versions[name].values()]

    def find(self, name: str, version: str = "") -> LiveVersion:
        """The version asked for, or the newest one; the only model where no name is given."""
        if not version and (newest := self._newest.get(name)) is not None:
            return newest
        versions = self._versions.get(name)
        if versions is None:
            return self._without_name(name, version)
        found = versions.get(version)
        if found is None:
            raise VersionNotFound(f"model {name!r} has no version {version!r}; there is {', '.join(versions)}")
        return found

    def _names(self) -> list[str]:
        """Names of what is there: as they were asked for, not as they happened to load."""
        wanted = [name for name in self._expected if name in self._versions]
        return wanted + [name for name in self._versions if name not in self._expected]

    def _without_name(self, name: str, version: str) -> LiveVersion:
        known = ", ".join(self._names()) or "none yet"
        if name in self._expected:
            raise NotReady(f"model {name!r} is still loading", retry_after=1.0)
        if name:
            raise ModelNotFound(f"there is no model {name!r} here; served are: {known}")
        if len(self._versions) == 1:
            return self.find(next(iter(self._versions)), version)
        raise ModelNotFound(f"several models are served, so the request must name one: {known}")
