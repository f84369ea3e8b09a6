"""What a server knows of each model and of each version of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any

from turnout.core.signature import Signature
from turnout.deploy.plan import Guide, Have, Phase, Routing, Wanted, guided, route
from turnout.deploy.policy import age
from turnout.deploy.spec import ModelSpec
from turnout.deploy.supply import Found
from turnout.deploy.version import VersionSpec


@dataclass(eq=False)
class Version:
    """One version of one model, from the wish to have it until it is gone.

    replicas: how many it shall have now, 0 for as many as its spec says. by_hand: a person has said that.
    """

    uid: str
    model: str
    found: Found
    generation: int
    phase: Phase = Phase.PREPARING
    reason: str = ""
    spec: VersionSpec | None = None
    digest: str = ""
    description: dict[str, Any] = field(default_factory=dict)
    since: float = field(default_factory=monotonic)
    replicas: int = 0
    by_hand: bool = False

    @property
    def count(self) -> int:
        """How many replicas it shall have now; 0 while that is not known."""
        return self.replicas or (self.spec.replicas if self.spec is not None else 0)

    @property
    def have(self) -> Have:
        """As the plan sees it."""
        return Have(self.uid, self.found.version, self.found.key, self.phase)

    @property
    def wanted(self) -> Wanted:
        """As the plan asks for it."""
        return Wanted(self.found.version, self.found.key)

    def move(self, phase: Phase, reason: str = "") -> None:
        """It is somewhere else on its way now."""
        self.phase, self.reason, self.since = phase, reason, monotonic()


@dataclass(eq=False)
class Managed:
    """One model or endpoint: what the user said, what was found, and what is made of it.

    variants: of an endpoint, how each of its versions runs. guide: of an endpoint, how its requests should be guided.
    staged, staged_specs: what is loaded beside them, and how it runs, to be wanted as soon as all of it is there.
    gone: what versions that are unloaded gave back. busy, again: its actions are under way, and were asked for once
    more meanwhile. tries: how often in a row its place could not be asked for a version's files.
    """

    spec: ModelSpec
    found: list[Found] = field(default_factory=list)
    versions: dict[str, Version] = field(default_factory=dict)
    routing: Routing = field(default_factory=Routing)
    labels: dict[str, str] = field(default_factory=dict)
    variants: Mapping[str, ModelSpec] = field(default_factory=dict)
    guide: Guide | None = None
    staged: list[Found] = field(default_factory=list)
    staged_specs: Mapping[str, ModelSpec] = field(default_factory=dict)
    generations: dict[str, int] = field(default_factory=dict)
    gone: dict[str, str] = field(default_factory=dict)
    removed: bool = False
    busy: bool = False
    again: bool = False
    tries: int = 0

    @property
    def wanted(self) -> list[Wanted]:
        """What callers should see."""
        return [] if self.removed else [Wanted(found.version, found.key) for found in self.found]

    @property
    def needed(self) -> list[Wanted]:
        """As the plan sees it: that, and what is staged."""
        wanted = self.wanted
        staged = [Wanted(one.version, one.key) for one in self.staged]
        return wanted + [one for one in staged if one not in wanted]

    def is_at(self, found: Found, phase: Phase) -> Version | None:
        """The version that was found so, if it is in that phase."""
        for version in self.versions.values():
            if version.found == found and version.phase is phase:
                return version
        return None

    def spec_of(self, found: Found) -> ModelSpec:
        """How one version runs."""
        specs = self.variants if found in self.found else self.staged_specs
        return specs.get(found.version, self.spec)

    def route(self) -> Routing:
        """What callers should see of it now."""
        if self.guide is None and not self.wanted:
            return Routing()  # it is to go, or is an endpoint whose first versions are staged
        seen, wanted = set(self.routing.versions.values()), self.wanted
        have = [one.have for one in self.versions.values() if one.uid in seen or one.wanted in wanted]
        plain = route(wanted, have, self.labels, self.routing)
        # What was an endpoint is one until the model that takes its name answers.
        now = self.routing.guide if self.guide is not None or not self._answers(plain.default) else None
        found = guided(plain, self.guide, now)
        digests = {uid: self.versions[uid].digest for uid in found.versions.values()}
        return replace(found, digests={uid: digest for uid, digest in digests.items() if digest})

    def _answers(self, uid: str) -> bool:
        version = self.versions.get(uid)
        return version is not None and version.wanted in self.wanted

    @property
    def settled(self) -> bool:
        """Whether nothing is under way."""
        moving = {Phase.PREPARING, Phase.LOADING, Phase.DRAINING}
        return not any(version.phase in moving for version in self.versions.values())


def served_of(models: Mapping[str, Managed]) -> dict[str, dict[str, Any]]:
    """What callers get of each model who name no version: what its workers say of it."""
    defaults = {name: managed.versions.get(managed.routing.default) for name, managed in models.items()}
    return {name: default.description for name, default in defaults.items() if default is not None}


def loading(models: Mapping[str, Managed]) -> str:
    """The versions that are not ready yet, as text."""
    versions = [version for managed in models.values() for version in managed.versions.values()]
    return ", ".join(one.uid for one in versions if one.phase in {Phase.PREPARING, Phase.LOADING})


def unfit(managed: Managed, version: Version, used_at: Iterable[tuple[str, str]]) -> str:
    """Why a version cannot take the place of the one that graphs were proved with; "" where it can.

    used_at: where graphs use the model, and the version that they name. What is staged is proved with the graphs that
    come with it.
    """
    before = managed.versions.get(managed.routing.default)
    if before is None or not before.description or not version.description or version.found in managed.staged:
        return ""
    now, then = (Signature.from_json(one.description["signature"]) for one in (version, before))
    if (now.inputs, now.outputs, now.batched) == (then.inputs, then.outputs, then.batched):
        return ""
    used = [path for path, name in used_at if name in {"", version.found.version}]
    if not used:
        return ""
    return (
        f"{used[0]} uses it with the inputs and outputs of version {before.found.version}, and these are others: "
        "apply a document in which both are changed"
    )


def by_age(managed: Managed) -> list[Version]:
    """The versions of a model, oldest first."""
    return sorted(managed.versions.values(), key=lambda version: (age(version.found.version), version.generation))
