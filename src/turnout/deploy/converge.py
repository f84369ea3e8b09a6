"""Carries a document out: what it names is found and loaded beside what serves, and used when all of it is there."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, NamedTuple

from turnout.core.errors import Failure, LoadFailed
from turnout.core.signature import Signature
from turnout.deploy.document import Document
from turnout.deploy.endpoint_spec import EndpointSpec
from turnout.deploy.graphs import prove
from turnout.deploy.managed import Managed, Version
from turnout.deploy.plan import Guide, Phase
from turnout.deploy.rehearsal import rehearse
from turnout.deploy.sources.source import Pinned
from turnout.deploy.spec import ModelSpec
from turnout.deploy.supply import Found, Supply
from turnout.deploy.threads import in_thread
from turnout.deploy.versions import Versions

logger = logging.getLogger("turnout")


class Wanted(NamedTuple):
    """What is to be served: models by themselves, and endpoints. whole: what is not among them is to go."""

    models: Sequence[ModelSpec]
    endpoints: Sequence[EndpointSpec]
    whole: bool = True

    @classmethod
    def whole_of(cls, document: Document) -> Wanted:
        """All that a document says, and nothing else."""
        return cls(document.models, document.endpoints)

    @classmethod
    def endpoints_of(cls, document: Document) -> Wanted:
        """Its endpoints, where its models are looked after already."""
        return cls((), document.endpoints, whole=False)


#: By endpoint and version: what was found when that revision was applied.
Pins = Mapping[str, Mapping[str, Any]]


class Staged(NamedTuple):
    """What has been found and loaded. models: as found, those that run otherwise than now under another key.

    seen: of the models, as their sources give it.
    """

    wanted: Wanted
    seen: Mapping[str, list[Found]]
    models: Mapping[str, list[Found]]
    endpoints: Mapping[str, list[Found]]
    graphs: Mapping[str, Mapping[str, Any]]

    @property
    def names(self) -> list[str]:
        """Whatever may have been loaded beside what serves."""
        return [*self.endpoints, *self.models]

    def pins(self) -> dict[str, dict[str, Any]]:
        """As JSON values."""
        return {name: {one.version: asdict(one) for one in found} for name, found in self.endpoints.items()}


class Converge:
    """Of one server. One document is carried out at a time; whoever calls sees to that."""

    def __init__(self, versions: Versions, supply: Supply, watch: Callable[[ModelSpec, list[Found]], None]) -> None:
        self._versions = versions
        self._supply = supply
        self._watch = watch
        self._loop = asyncio.get_running_loop()

    async def stage(self, wanted: Wanted, pins: Pins | None = None) -> Staged:
        """Finds everything, and loads what endpoints need and do not have. What serves goes on as it is.

        pins: what a revision stood for that is gone back to. Raises the first failure; then nothing is left staged.
        """
        pinned = pins or {}
        changed = [model for model in wanted.models if not self._is_served(model)]
        seen = {model.name: await self._find(model) for model in changed}
        models = {model.name: self._renamed(model, seen[model.name]) for model in changed}
        endpoints: dict[str, list[Found]] = {}
        for endpoint in wanted.endpoints:
            endpoints[endpoint.name] = await self._find_all(endpoint, pinned.get(endpoint.name, {}))
        # One that is to be unloaded before the next is loaded cannot be tried beside it.
        beside = [model for model in changed if model.swap == "availability"]
        names = [*endpoints, *[model.name for model in beside]]
        for model in beside:
            found = models[model.name]
            self._versions.stage(model.name, dict.fromkeys([one.version for one in found], model), found)
        for endpoint in wanted.endpoints:
            self._versions.stage(endpoint.name, model_specs(endpoint), endpoints[endpoint.name])
        try:
            for name in names:
                await self._versions.settled(name)
            for model in beside:
                self._check_loaded(model.name, models[model.name], f"models.{model.name}")
            for name, found in endpoints.items():
                self._check_loaded(name, found, f"endpoints.{name}.versions")
            graphs = {one.name: self._prove(one, endpoints[one.name]) for one in wanted.endpoints}
            for one in wanted.endpoints:
                self._rehearse(one, endpoints[one.name], graphs[one.name])
        except BaseException:
            self.unstage(names)
            raise
        return Staged(wanted, seen, models, endpoints, graphs)

    async def stage_what_loads(self, endpoints: Sequence[EndpointSpec]) -> Staged:
        """All endpoints that can be served; what is wrong with the others is said."""
        loaded: dict[str, list[Found]] = {}
        graphs: dict[str, Mapping[str, Any]] = {}
        good = []
        for endpoint in endpoints:
            try:
                staged = await self.stage(Wanted((), (endpoint,), whole=False))
            except Failure as failure:
                logger.error("%s", failure.message)  # noqa: TRY400  the sentence says all
            else:
                loaded |= staged.endpoints
                graphs |= staged.graphs
                good.append(endpoint)
        return Staged(Wanted((), good, whole=False), {}, {}, loaded, graphs)

    def unstage(self, names: Sequence[str]) -> None:
        """What was staged is not wanted after all."""
        for name in names:
            managed = self._versions.models.get(name)
            if managed is not None:
                self._versions.unstage(name)
                if managed.guide is None and not managed.found:  # nothing but what was staged
                    self._versions.remove(name)

    async def use(self, staged: Staged, revision: int, allocations: Mapping[str, Any]) -> None:
        """From now on requests are guided so; returns when every router does it."""
        for endpoint in staged.wanted.endpoints:
            found = staged.endpoints[endpoint.name]
            guide = Guide(
                endpoint.to_json(),
                revision,
                allocations.get(endpoint.name),
                tuple(one.version for one in found),
                staged.graphs[endpoint.name],
            )
            before = self._versions.models.get(endpoint.name)
            left = {one.version for one in before.found} - {one.version for one in found} if before else set()
            if before is not None:
                self._watch(replace(before.spec, watch=0.0), [])  # of a model that had the name
            self._versions.guide(model_specs(endpoint), found, guide, keep=max(1, len(left)))
        for model in staged.wanted.models:
            if model.name in staged.models:
                self._versions.manage(model, staged.models[model.name])
                self._watch(model, staged.seen[model.name])
                if model.swap != "availability":
                    await self._versions.settled(model.name)
        names = {model.name for model in staged.wanted.models} | set(staged.endpoints)
        if not staged.wanted.whole:
            names |= set(self._versions.models)
        for name, managed in list(self._versions.models.items()):
            if name not in names and not managed.removed:
                self._watch(replace(managed.spec, watch=0.0), [])  # or the next change would bring it back
                self._versions.remove(name)
        await self._versions.settled("")

    def is_in_force(self, wanted: Wanted, revision: int) -> bool:
        """Whether a revision is carried out already: what was done by hand since is left as it is."""
        if not wanted.endpoints:
            return all(self._is_served(model) for model in wanted.models)
        there = {one.spec.name: one.guide.revision for one in self._versions.models.values() if one.guide is not None
                 and not one.removed}  # fmt: skip
        return there == {endpoint.name: revision for endpoint in wanted.endpoints}

    def _is_served(self, model: ModelSpec) -> bool:
        """Whether a model is wanted just as it is: then nobody is asked what it stands for now."""
        managed = self._versions.models.get(model.name)
        return managed is not None and not managed.removed and managed.spec == model

    async def _find(self, model: ModelSpec) -> list[Found]:
        return await in_thread(self._loop, lambda: self._supply.find(model))

    async def _find_all(self, endpoint: EndpointSpec, pins: Mapping[str, Any]) -> list[Found]:
        managed = self._versions.models.get(endpoint.name)
        found = []
        for name, spec in model_specs(endpoint).items():
            there = _served(managed, name, spec)
            if there is None and name in pins:
                there = found_of(pins[name])
            found.append(
                there or _named(name, spec, await self._find_one(f"endpoints.{endpoint.name}.versions.{name}", spec))
            )
        return found

    async def _find_one(self, path: str, spec: ModelSpec) -> Found:
        try:
            return (await self._find(spec))[-1]
        except Failure as failure:
            failure.message = f"{path}: {failure.message}"
            failure.args = (failure.message,)
            raise

    def _prove(self, endpoint: EndpointSpec, found: Sequence[Found]) -> dict[str, Any]:
        """Raises InvalidInput where a graph's parts do not fit together."""
        managed = self._versions.models[endpoint.name]
        signatures: dict[str, Signature] = {}
        for one in found:
            version = managed.is_at(one, Phase.READY)
            if version is not None:
                signatures[one.version] = Signature.from_json(version.description["signature"])
        return prove(endpoint, signatures, self._beside)

    def _rehearse(self, endpoint: EndpointSpec, found: Sequence[Found], graphs: Mapping[str, Any]) -> None:
        managed = self._versions.models[endpoint.name]
        loaded = {one.version: version for one in found if (version := managed.is_at(one, Phase.READY)) is not None}
        guide = Guide(endpoint.to_json(), 0, None, tuple(loaded), graphs)
        if len(loaded) == len(found):
            rehearse(endpoint, guide, loaded)

    def _beside(self, use: str) -> Signature | None:
        """The signature of what is served under a name, or NAME@VERSION."""
        name, _, version = use.partition("@")
        managed = self._versions.models.get(name)
        if managed is None or managed.removed:
            return None
        routing = managed.routing
        uid = routing.versions.get(version) or routing.labels.get(version) if version else routing.default
        there = managed.versions.get(uid or "")
        return Signature.from_json(there.description["signature"]) if there is not None and there.description else None

    def _check_loaded(self, name: str, found: Sequence[Found], path: str) -> None:
        managed = self._versions.models[name]
        for one in found:
            if (failed := managed.is_at(one, Phase.FAILED)) is not None:
                raise LoadFailed(f"{path}.{one.version}: it does not load: {failed.reason}")

    def _renamed(self, model: ModelSpec, found: list[Found]) -> list[Found]:
        """What was found, as something else than what is loaded where it is to run otherwise."""
        managed = self._versions.models.get(model.name)
        if managed is None or managed.removed or managed.guide is not None:
            return found
        if model.as_it_runs() == managed.spec.as_it_runs():
            return found
        return [replace(one, key=f"{one.key} {_how(model)}") for one in found]


def model_specs(endpoint: EndpointSpec) -> dict[str, ModelSpec]:
    """How each version of an endpoint runs that is a model."""
    return {one.name: one.model for one in endpoint.versions if one.model is not None}


def found_of(said: Mapping[str, Any]) -> Found:
    """From JSON values."""
    pinned = said["pinned"]
    return Found(said["version"], said["key"], said["path"], Pinned(**pinned) if pinned else None)


def _named(name: str, spec: ModelSpec, found: Found) -> Found:
    """Under the name that the endpoint gives it; how it runs is part of what tells it from another."""
    return replace(found, version=name, key=f"{found.key} {_how(spec)}")


def _how(spec: ModelSpec) -> str:
    """Tells how it runs from how another does."""
    return hashlib.sha256(json.dumps(spec.to_json(), sort_keys=True, default=str).encode()).hexdigest()[:16]


def _served(managed: Managed | None, name: str, spec: ModelSpec) -> Found | None:
    """What is served under that name already, if it runs just so: then nobody is asked what it stands for now."""
    if managed is None or managed.removed or managed.variants.get(name) != spec:
        return None
    return next((one for one in managed.found if one.version == name), None)


def failed(managed: Managed) -> list[Version]:
    """The versions of it that could not be loaded."""
    return [version for version in managed.versions.values() if version.phase is Phase.FAILED]
