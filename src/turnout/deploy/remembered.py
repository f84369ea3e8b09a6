"""What a controller knows of its models, as JSON values that the next one goes on from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from turnout.deploy.managed import Managed, Version
from turnout.deploy.plan import Guide, Phase, Routing
from turnout.deploy.sources.source import Pinned
from turnout.deploy.spec import ModelSpec
from turnout.deploy.supply import Found
from turnout.deploy.version import VersionSpec


def remembered(managed: Managed) -> dict[str, Any]:
    """One model or endpoint. What is only prepared, or staged, is not: nobody waits for that any more."""
    kept = {uid: one for uid, one in managed.versions.items() if one.phase is not Phase.PREPARING}
    begun = {one.found.version: one.generation for one in managed.versions.values() if one.uid not in kept}
    return {
        "spec": managed.spec.to_json(),
        "found": [asdict(one) for one in managed.found],
        "versions": [_version(one) for one in kept.values()],
        "routing": managed.routing.to_json(),
        "labels": dict(managed.labels),
        "variants": {name: spec.to_json() for name, spec in managed.variants.items()},
        "guide": asdict(managed.guide) if managed.guide is not None else None,
        # A generation that only was begun can be begun again: nothing bears its name.
        "generations": {v: g - 1 if begun.get(v) == g else g for v, g in managed.generations.items()},
        "gone": dict(managed.gone),
        "removed": managed.removed,
    }


def recalled(found: Mapping[str, Any]) -> Managed:
    """From the form of `remembered`."""
    guide = found["guide"]
    managed = Managed(
        ModelSpec.from_json(found["spec"]),
        [_found(one) for one in found["found"]],
        routing=Routing.from_json(found["routing"]),
        labels=dict(found["labels"]),
        variants={name: ModelSpec.from_json(spec) for name, spec in found["variants"].items()},
        guide=Guide(**{**guide, "needs": tuple(guide["needs"])}) if guide else None,
        generations=dict(found["generations"]),
        gone=dict(found["gone"]),
        removed=found["removed"],
    )
    managed.versions = {one["uid"]: _recalled(managed.spec.name, one) for one in found["versions"]}
    return managed


def _version(version: Version) -> dict[str, Any]:
    return {
        "uid": version.uid,
        "found": asdict(version.found),
        "generation": version.generation,
        "phase": version.phase.value,
        "reason": version.reason,
        "spec": version.spec.to_json() if version.spec is not None else None,
        "digest": version.digest,
        "description": version.description,
        "since": version.since,
        "replicas": version.replicas,
        "by_hand": version.by_hand,
    }


def _recalled(model: str, found: Mapping[str, Any]) -> Version:
    spec = VersionSpec.from_json(found["spec"]) if found["spec"] else None
    return Version(
        found["uid"], model, _found(found["found"]), found["generation"], Phase(found["phase"]), found["reason"],
        spec, found["digest"], found["description"], found["since"],
        found["replicas"], found["by_hand"],
    )  # fmt: skip


def _found(found: Mapping[str, Any]) -> Found:
    pinned = found["pinned"]
    return Found(found["version"], found["key"], found["path"], Pinned(**pinned) if pinned else None)
