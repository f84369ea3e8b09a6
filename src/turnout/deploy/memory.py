"""What is loaded and what a document wants, in bytes: whether it fits is told by a plan, and asked before a change."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from turnout.deploy.changes import Actual
from turnout.deploy.document import Document
from turnout.deploy.home import home
from turnout.deploy.ledger import Need, judge, keep_ledger, read_ledger
from turnout.deploy.managed import Version
from turnout.deploy.memory_limit import limit_of
from turnout.deploy.plan import Phase
from turnout.deploy.spec import ModelSpec
from turnout.deploy.versions import Versions
from turnout.deploy.workers import Workers
from turnout.monitoring.process import resident_bytes

_LOADED = {Phase.LOADING, Phase.READY, Phase.KEPT}
#: Directories with more files than this are not looked through.
_MOST_FILES = 10_000


class Memory:
    """Of one server. `ledger` says what versions took when they ran."""

    def __init__(self, versions: Versions, workers: Workers, kept: Path | None = None) -> None:
        self._kept = kept or home() / "memory.json"
        self.ledger = read_ledger(self._kept)
        self._news = False
        self.limit = 0
        self._versions = versions
        self._workers = workers

    def actual(self, wanted: Document) -> Actual:
        """What is known of what runs, and whether what is wanted fits."""
        loaded = {_name(version): version for version in self._loaded()}
        signatures = {
            f"{version.model}@{version.found.version}": version.description["signature"]
            for version in loaded.values()
            if "signature" in version.description
        }
        now = [self._taken(name, version) for name, version in loaded.items()]
        goal = list(self._goal(wanted, loaded))
        rest = resident_bytes(os.getpid())
        if self._versions.routers is not None:
            rest += sum(resident_bytes(one.child.pid) for one in self._versions.routers.all if one.child)
        self._keep()
        # What is replaced stays loaded for an instant return, so nothing is counted as given back.
        return Actual(signatures, judge(now, goal, limit_of(self.limit), kept=now, rest=rest))

    def _loaded(self) -> Iterator[Version]:
        for managed in self._versions.models.values():
            yield from (version for version in managed.versions.values() if version.phase in _LOADED)

    def _taken(self, name: str, version: Version) -> Need:
        workers = self._workers.of(version.uid)
        taken = sum(worker.memory for worker in workers)
        managed = self._versions.models.get(version.model)
        uri = managed.spec_of(version.found).artifact if managed is not None else ""
        pinned = version.spec.pinned if version.spec else ""
        most = max((worker.memory for worker in workers if worker.ready), default=0)
        self._news = self.ledger.record((version.digest, pinned, uri), most) or self._news
        return Need(name, taken, max(1, len(workers)), measured=True)

    def _keep(self) -> None:
        """Writes down what was measured, for plans of servers to come."""
        if self._news:
            with suppress(OSError):  # a full disk makes the next plan an estimate, no more
                keep_ledger(self.ledger, self._kept)
                self._news = False

    def _goal(self, wanted: Document, loaded: dict[str, Version]) -> Iterator[Need]:
        specs = {model.name: (model.name, "", model) for model in wanted.models}
        specs |= {
            f"{one.name}@{version.name}": (one.name, version.name, version.model)
            for one in wanted.endpoints
            for version in one.versions
            if version.model is not None
        }
        for name, (model, variant, spec) in specs.items():
            there = [known for known, version in loaded.items() if self._is(version, model, variant, spec)]
            if there:
                yield from (Need(known, 0) for known in there)
            else:
                yield self._new(name, spec)

    def _is(self, version: Version, model: str, variant: str, spec: ModelSpec) -> bool:
        """Whether a loaded version is the one that is wanted, as it is to run."""
        managed = self._versions.models.get(model)
        if managed is None or version.model != model:
            return False
        if not variant:
            return managed.spec == spec and version.found in managed.found
        return version.found.version == variant and managed.variants.get(variant) == spec

    def _new(self, name: str, spec: ModelSpec) -> Need:
        path = Path(spec.artifact.partition("#")[0])
        return self.ledger.need(
            name, (spec.artifact,), replicas=spec.replicas, artifact_bytes=_size(path), format=spec.format or "",
            inline=spec.place == "inline",
        )  # fmt: skip


def _name(version: Version) -> str:
    return f"{version.model}@{version.found.version}" + (f"~{version.generation}" if version.generation > 1 else "")


def _size(path: Path) -> int | None:
    """Bytes of the files at a local path; None for what is none."""
    try:
        if path.is_file():
            return path.stat().st_size
        if path.is_dir():
            files = [one for one, _ in zip(path.rglob("*"), range(_MOST_FILES), strict=False) if one.is_file()]
            return sum(one.stat().st_size for one in files)
    except OSError:
        return None
    return 0 if path.name.startswith("python:") else None
