"""What a server does at this moment, as plain JSON values: for `turnout status` and the repository API."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic, time
from typing import Any

from turnout.deploy.endpoint_spec import EndpointSpec
from turnout.deploy.managed import Managed, Version, by_age
from turnout.deploy.versions import Versions
from turnout.deploy.watch import Watch
from turnout.deploy.workers import Workers


def status_of(
    versions: Versions, workers: Workers, watches: Mapping[str, Watch], problems: Mapping[str, str]
) -> dict[str, Any]:
    """Every model with its versions, and why one that should be served is not."""
    models = [_model(managed, workers, watches.get(name)) for name, managed in versions.models.items()]
    models += [
        {"name": name, "artifact": "", "default": "", "labels": {}, "versions": [], "problem": reason}
        for name, reason in problems.items()
        if name not in versions.models
    ]
    return {"models": models}


def waiting_labels(managed: Managed) -> dict[str, str]:
    """The labels that lead nowhere yet, because the versions that they mean are not loaded."""
    return {label: version for label, version in managed.labels.items() if label not in managed.routing.labels}


def _model(managed: Managed, workers: Workers, watch: Watch | None) -> dict[str, Any]:
    default = managed.versions.get(managed.routing.default)
    guided = _guided(managed)
    found: dict[str, Any] = {
        "name": managed.spec.name,
        "artifact": managed.spec.artifact,
        "default": guided.get("default", default.found.version if default else ""),
        "labels": {
            label: managed.versions[uid].found.version
            for label, uid in managed.routing.labels.items()
            if uid in managed.versions
        },
        "waiting_labels": waiting_labels(managed),
        "versions": [_version(version, workers) for version in by_age(managed)],
        **guided,
        "unloaded": dict(managed.gone),
        "problem": "",
    }
    if watch is not None:
        look = watch.look
        found["watch"] = {
            "every_seconds": managed.spec.watch,
            "pending": [one.pinned.pinned if one.pinned else one.version for one in look.pending],
            "unreachable_seconds": round(time() - look.since, 1) if look.since else 0.0,
        }
        found["problem"] = look.trouble
    return found


def _guided(managed: Managed) -> dict[str, Any]:
    """Of an endpoint: the revision in force, the percent of its requests that each version has, and which has most."""
    guide = managed.routing.guide
    if guide is None:
        return {}
    endpoint = EndpointSpec.from_json(guide.endpoint)
    traffic = {version: share for version, share in endpoint.traffic.items() if share}
    return {"default": max(traffic, key=lambda one: traffic[one]), "revision": guide.revision, "traffic": traffic}


def _version(version: Version, workers: Workers) -> dict[str, Any]:
    spec = version.spec
    description = version.description
    return {
        "version": version.found.version,
        "state": version.phase.value,
        "reason": version.reason,
        "generation": version.generation,
        "seconds": round(monotonic() - version.since, 3),
        "format": description.get("format", ""),
        "digest": version.digest,
        "pinned": spec.pinned if spec else "",
        "environment": spec.environment if spec else "",
        "place": spec.place if spec else "",
        "self_test": description.get("self_test", ""),
        "answered_by": description.get("answered_by", ""),
        "workers": [
            {"name": w.name, "pid": w.pid, "state": w.state, "restarts": w.restarts, "memory_bytes": w.memory}
            for w in workers.of(version.uid)
        ],
    }
