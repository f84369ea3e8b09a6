"""What to do so that what is served becomes what should be: pure decisions, one model at a time."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from turnout.deploy.policy import age


class Phase(enum.Enum):
    """Where a version is on its way."""

    PREPARING = "PREPARING"
    LOADING = "LOADING"
    READY = "READY"
    KEPT = "KEPT"
    DRAINING = "DRAINING"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A version that should be served. key: what tells its content from another of the same name."""

    version: str
    key: str


@dataclass(frozen=True, slots=True)
class Have:
    """A version that is there in some way; uid tells it from every other."""

    uid: str
    version: str
    key: str
    phase: Phase


@dataclass(frozen=True, slots=True)
class Load:
    """Prepare it, start its workers."""

    wanted: Wanted


@dataclass(frozen=True, slots=True)
class Unload:
    """Let what is in flight end, then stop its workers."""

    uid: str


@dataclass(frozen=True, slots=True)
class Keep:
    """Out of sight, but loaded, for an instant return."""

    uid: str


@dataclass(frozen=True, slots=True)
class Return:
    """Back into sight: it was kept."""

    uid: str


Action = Load | Unload | Keep | Return


@dataclass(frozen=True, slots=True)
class Manner:
    """How versions replace each other; the fields are those of ModelSpec."""

    swap: str = "availability"
    keep: int = 0


@dataclass(frozen=True, slots=True)
class Guide:
    """How an endpoint's requests are guided. endpoint: its spec, as JSON values.

    revision: the number of the state that it belongs to. allocation: which buckets of routing units go where, as
    JSON values. needs: the versions that have to be ready before it may be in force. graphs: the proved signature of
    each version that is a graph over others, and the names of the inputs of what it uses.
    """

    endpoint: Mapping[str, Any]
    revision: int
    allocation: Any
    needs: tuple[str, ...]
    graphs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Routing:
    """What callers see of a model: by version and by label, and what answers where none is named. Values are uids.

    guide: for an endpoint, how its requests are guided; None where the default version answers them all. digests: of
    the files of each uid, as far as they are known.
    """

    default: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    guide: Guide | None = None
    digests: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Routing:
        """From the form of `to_json`."""
        guide = found["guide"]
        kept = Guide(**{**guide, "needs": tuple(guide["needs"])}) if guide else None
        return cls(found["default"], found["versions"], found["labels"], kept, found["digests"])


def plan(wanted: Sequence[Wanted], have: Sequence[Have], manner: Manner) -> list[Action]:
    """The next actions; none when nothing is to be done, or when something under way has to end first.

    With swap "availability" no serving version goes before all that are wanted are ready.
    """
    goal = {(one.version, one.key) for one in wanted}
    there = {(one.version, one.key): one for one in have if one.phase is not Phase.DRAINING}
    surplus = [one for found, one in there.items() if found not in goal]
    missing = [one for one in wanted if (one.version, one.key) not in there]
    actions: list[Action] = [Return(one.uid) for found, one in there.items() if found in goal and _is(one, Phase.KEPT)]
    given_up = [one for one in surplus if one.phase in {Phase.PREPARING, Phase.LOADING, Phase.FAILED}]
    actions += [Unload(one.uid) for one in given_up]
    spare = sorted((one for one in surplus if one not in given_up), key=lambda one: age(one.version), reverse=True)
    if missing and manner.swap == "resources":
        actions += [Unload(one.uid) for one in spare]
        draining = any(_is(one, Phase.DRAINING) for one in have) or any(_is(one, Phase.LOADING) for one in given_up)
        return actions if spare or draining else actions + [Load(one) for one in missing]
    actions += [Load(one) for one in missing]
    ready = all(found in there and there[found].phase in {Phase.READY, Phase.KEPT} for found in goal)
    if ready:
        keep = manner.keep if wanted else 0
        actions += [Keep(one.uid) for one in spare[:keep] if one.phase is not Phase.KEPT]
        actions += [Unload(one.uid) for one in spare[keep:]]
    return actions


def route(wanted: Sequence[Wanted], have: Sequence[Have], labels: Mapping[str, str], now: Routing) -> Routing:
    """What callers should see: every ready version; what answers by default moves when all that are wanted are ready.

    A label goes to its version as soon as that is ready, and stays where it is until then.
    """
    goal = {(one.version, one.key) for one in wanted}
    ready = sorted((one for one in have if one.phase is Phase.READY), key=lambda one: age(one.version))
    meant = [one for one in ready if (one.version, one.key) in goal]
    # Of two contents of one version both may be ready for a moment: what is wanted is what callers see.
    versions = {one.version: one.uid for one in ready} | {one.version: one.uid for one in meant}
    uids = {one.uid for one in ready}
    default = now.default if now.default in uids else ""
    if meant and (len(meant) == len(goal) or not default):
        default = meant[-1].uid
    elif ready and not default:
        default = ready[-1].uid
    kept = {label: uid for label, uid in now.labels.items() if label in labels and uid in uids}
    moved = {label: versions[version] for label, version in labels.items() if version in versions}
    return Routing(default, versions, kept | moved)


def guided(routing: Routing, wanted: Guide | None, now: Guide | None) -> Routing:
    """The routing of an endpoint: the guide that is wanted is in force as soon as all that it needs can be called.

    Until then the one before it is, as long as what that one needs is there; with neither, whatever is ready answers.
    """
    for guide in (wanted, now):
        if guide is not None and all(name in routing.versions for name in guide.needs):
            return replace(routing, guide=guide)
    return routing


def _is(one: Have, phase: Phase) -> bool:
    return one.phase is phase
