"""One version of one model, ready to be loaded: what a worker and a router are told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from turnout.runtime.batch_policy import BatchPolicy


def uid_of(name: str, version: str, generation: int) -> str:
    """What a version is called among everything that a server has ever served."""
    return f"{name}@{version}~{generation}" if generation > 1 else f"{name}@{version}"


@dataclass(frozen=True, slots=True)
class VersionSpec:
    """A version with everything decided: its files are on this machine, and its environment is built.

    artifact: a local path, or a Python reference. digest: of its manifest ("sha256:..."), "" where it has no files.
    generation: counts the contents that this version's name has stood for. python: the interpreter of its
    environment, "" for the server's own. environment: that environment's digest. pinned: what the URI stood for.
    The rest is as in `ModelSpec`.
    """

    name: str
    artifact: str
    version: str = "1"
    generation: int = 1
    digest: str = ""
    pinned: str = ""
    python: str = ""
    environment: str = ""
    format: str | None = None
    trust_pickle: bool = False
    place: str = "worker"
    replicas: int = 1
    threads: int = 1
    signature: str | None = None
    example: str | None = None
    batching: BatchPolicy = field(default_factory=BatchPolicy)

    @property
    def uid(self) -> str:
        """Its name among everything that this server has ever served."""
        return uid_of(self.name, self.version, self.generation)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> VersionSpec:
        """From the form of `to_json`."""
        return cls(**{**found, "batching": BatchPolicy(**found["batching"])})
