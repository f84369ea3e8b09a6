"""What a router serves at this moment: the living tree, and the view that doors and protocols have of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from turnout.core.errors import ModelNotFound, NotReady, VersionNotFound
from turnout.core.servable import Servable, ServedModel, State
from turnout.core.signature import Signature
from turnout.deploy.plan import Guide, Routing
from turnout.graph.endpoint import Endpoint
from turnout.runtime.batching import Batching


class LiveVersion:
    """One version with its tree. Ready while at least one place can run it. `uid` tells it from all others ever."""

    def __init__(
        self, uid: str, name: str, version: str, format: str, batching: Batching, servable: Servable, digest: str = ""
    ) -> None:
        self.uid = uid
        self.digest = digest
        self.name = name
        self.version = version
        self.format = format
        self.batching = batching
        self.signature = batching.signature
        self.servable = servable
        self.reason = ""

    def identify(self, digest: str) -> None:
        """Says the digest of its files, which may be known only after it was loaded."""
        if digest != self.digest:
            self.digest = digest
            if isinstance(self.servable, Endpoint):
                self.servable.identify(self.version, digest)

    @property
    def state(self) -> State:
        """READY with a living place, STARTING without."""
        return State.READY if self.batching.places else State.STARTING


class LiveEndpoint:
    """An endpoint, or one of its versions that a caller named: what answers is a tree over `versions`."""

    def __init__(
        self, name: str, version: str, format: str, signature: Signature, servable: Servable,
        versions: Sequence[ServedModel],
    ) -> None:  # fmt: skip
        self.name = name
        self.version = version
        self.format = format
        self.signature = signature
        self.servable = servable
        self.versions = tuple(versions)
        self.reason = ""

    @property
    def state(self) -> State:
        """READY when all the versions that answer requests are."""
        return State.READY if all(one.state is State.READY for one in self.versions) else State.STARTING


class Trees(NamedTuple):
    """What is built for an endpoint: what answers where no version is named, and what answers under each name."""

    whole: ServedModel
    versions: Mapping[str, ServedModel]


class Build(Protocol):
    """Builds an endpoint's trees over its loaded versions, which are given by their names."""

    def __call__(self, name: str, guide: Guide, versions: Mapping[str, LiveVersion]) -> Trees: ...


class Live:
    """All versions that a router has been told of; callers see those that were shown.

    `expected` names the models that must be there for the server to be ready. `build` makes the trees of endpoints.
    """

    def __init__(self, expected: Sequence[str] = ()) -> None:
        self._expected = tuple(expected)
        self.build: Build | None = None
        self._loaded: dict[str, LiveVersion] = {}
        self._shown: dict[str, Mapping[str, ServedModel]] = {}
        self._labels: dict[str, Mapping[str, ServedModel]] = {}
        self._defaults: dict[str, ServedModel] = {}
        self._draining = False

    @property
    def ready(self) -> bool:
        """Every expected model has living workers for all that is shown of it, and the server is not stopping."""
        return not self._draining and all(
            name in self._shown and all(v.state is State.READY for v in self._shown[name].values())
            for name in self._expected
        )

    def drain(self) -> None:
        """From now on not ready, whatever the workers do."""
        self._draining = True

    def expect(self, models: Sequence[str]) -> None:
        """Says which models must be there for the server to be ready."""
        self._expected = tuple(models)

    def add(self, version: LiveVersion) -> None:
        """Takes a version that callers do not see yet."""
        self._loaded[version.uid] = version

    def show(self, model: str, routing: Routing) -> None:
        """What callers see of a model from now on; one swap, so that nobody meets half of it."""
        loaded = self._loaded
        shown = {version: loaded[uid] for version, uid in routing.versions.items() if uid in loaded}
        for one in shown.values():
            one.identify(routing.digests.get(one.uid, one.digest))
        default = loaded.get(routing.default)
        if routing.guide is not None and self.build is not None:
            whole, versions = self.build(model, routing.guide, shown)
            self._labels[model], self._shown[model], self._defaults[model] = {}, versions, whole
            return
        if not shown or default is None:
            for table in (self._shown, self._labels, self._defaults):
                table.pop(model, None)
            return
        self._labels[model] = {label: loaded[uid] for label, uid in routing.labels.items() if uid in loaded}
        self._shown[model] = shown
        self._defaults[model] = default

    def remove(self, uid: str) -> LiveVersion | None:
        """Forgets a version; requests that have found it go on."""
        return self._loaded.pop(uid, None)

    def loaded(self, uid: str) -> LiveVersion | None:
        """The version, shown or not."""
        return self._loaded.get(uid)

    def models(self) -> Sequence[ServedModel]:
        """What callers see: all versions, in the order in which the models were asked for."""
        return [version for name in self._names() for version in self._shown[name].values()]

    def versions(self) -> Sequence[LiveVersion]:
        """All versions that run somewhere, seen or not."""
        return list(self._loaded.values())

    def find(self, name: str, version: str = "") -> ServedModel:
        """The version asked for, by number or label, or the default one; the only model where no name is given."""
        if not version and (default := self._defaults.get(name)) is not None:
            return default
        shown = self._shown.get(name)
        if shown is None:
            return self._without_name(name, version)
        found = shown.get(version) or self._labels[name].get(version)
        if found is None:
            there = ", ".join([*shown, *self._labels[name]])
            raise VersionNotFound(f"model {name!r} has no version {version!r}; there is {there}")
        return found

    def _names(self) -> list[str]:
        """Names of what is there: as they were asked for, not as they happened to load."""
        wanted = [name for name in self._expected if name in self._shown]
        return wanted + [name for name in self._shown if name not in self._expected]

    def _without_name(self, name: str, version: str) -> ServedModel:
        known = ", ".join(self._names()) or "none yet"
        if name in self._expected:
            raise NotReady(f"model {name!r} is not loaded yet", retry_after=1.0)
        if name:
            raise ModelNotFound(f"there is no model {name!r} here; served are: {known}")
        if len(self._shown) == 1:
            return self.find(next(iter(self._shown)), version)
        raise ModelNotFound(f"several models are served, so the request must name one: {known}")
