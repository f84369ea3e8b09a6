"""What should be served, as the user says it: plain frozen values that travel as JSON."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from turnout.core.errors import InvalidInput
from turnout.deploy.policy import LABEL, VersionPolicy
from turnout.runtime.batch_policy import BatchPolicy

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,127}")
PLACES = ("worker", "inline")
#: Settings of a model that are one of some words.
WORDS = {
    "place": PLACES,
    "compile": ("off", "auto"),
    "on_change": ("apply", "plan"),
    "swap": ("availability", "resources"),
}


def is_model_name(name: str) -> bool:
    """Whether a model or an endpoint may be called so."""
    return _NAME.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One model: its name, where its artifact is, which versions of it are served, and how they run.

    artifact: a path, a URI or a Python reference; a directory of version directories is a repository of versions.
    version: what the only version is called, where the artifact is no repository ("": what its registry calls it,
    or "1"). versions: which of a repository's. labels: names for versions, as pairs. environment: "auto" (what the
    artifact brings), "none" (the server's own), a requirements file, an interpreter, or requirement lines.
    compile: "off" or "auto" (a faster twin where it is proved equal). watch: seconds between looks at where it came
    from, 0 for never; on_change: "apply" what is found there, or only "plan" it. swap: "availability" (load, then
    unload) or "resources" (unload, then load). keep: how many replaced versions stay loaded for an instant return.
    place: "worker" (own process) or "inline" (in the router: trusted models only). threads: for the model's own
    library, per replica.
    signature, example: paths of JSON files, where the artifact is silent.
    """

    name: str
    artifact: str
    version: str = ""
    versions: VersionPolicy = field(default_factory=VersionPolicy)
    labels: tuple[tuple[str, str], ...] = ()
    environment: str | tuple[str, ...] = "auto"
    compile: str = "off"
    watch: float = 0.0
    on_change: str = "apply"
    swap: str = "availability"
    keep: int = 0
    format: str | None = None
    trust_pickle: bool = False
    place: str = "worker"
    replicas: int = 1
    threads: int = 1
    signature: str | None = None
    example: str | None = None
    batching: BatchPolicy = field(default_factory=BatchPolicy)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise InvalidInput(
                "not a model name",
                field="name",
                expected="letters, digits, '.', '_' and '-', at most 128, beginning with a letter or digit",
                got=repr(self.name),
                example="turnout serve fraud=model.onnx",
            )
        for key, words in WORDS.items():
            if getattr(self, key) not in words:
                raise InvalidInput(
                    f"unknown {key}", field=key, expected=" or ".join(words), got=repr(getattr(self, key))
                )
        if self.replicas < 1 or self.threads < 1:
            raise InvalidInput(
                "replicas and threads start at 1", field="replicas", got=str(min(self.replicas, self.threads))
            )
        if self.place == "inline" and self.replicas != 1:
            raise InvalidInput(
                "an inline model has one replica", field="replicas", expected="1", got=str(self.replicas)
            )
        if not 0.0 <= self.watch < math.inf or self.keep < 0:
            raise InvalidInput(
                "not a number of seconds or versions",
                field="watch or keep",
                expected="0 or more",
                got=f"{self.watch:g}, {self.keep}",
            )
        for label, version in self.labels:
            if not LABEL.fullmatch(label):
                raise InvalidInput(
                    "not a label",
                    field=f"labels.{label}",
                    expected="letters, digits and '_', not beginning with a digit",
                    got=repr(label),
                    example=f"labels: {{stable: '{version}'}}",
                )

    def as_it_runs(self) -> ModelSpec:
        """What of it cannot be changed while it is loaded; all else by default."""
        return replace(
            self, versions=VersionPolicy(), labels=(), watch=0.0, on_change="apply", swap="availability", keep=0
        )

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> ModelSpec:
        """From the form of `to_json`."""
        environment = found["environment"]
        return cls(
            **{
                **found,
                "batching": BatchPolicy(**found["batching"]),
                "versions": VersionPolicy(**{**found["versions"], "versions": tuple(found["versions"]["versions"])}),
                "labels": tuple((label, version) for label, version in found["labels"]),
                "environment": environment if isinstance(environment, str) else tuple(environment),
            }
        )


def template_of(models: Sequence[ModelSpec]) -> ModelSpec:
    """How a model runs that is loaded later by a name of its own: as all of these do, and by default where they differ.

    What belongs to an artifact (labels, format, signature, example, specific versions) is nobody else's.
    """
    if not models:
        return ModelSpec("model", "")
    first = models[0]
    own = {"name", "artifact", "version", "labels", "format", "signature", "example"}
    own |= {"versions"} if first.versions.kind == "specific" else set()
    said = {one.name: getattr(first, one.name) for one in fields(first) if one.name not in own}
    same = {key: value for key, value in said.items() if all(getattr(model, key) == value for model in models)}
    return ModelSpec(first.name, first.artifact, **same)


@dataclass(frozen=True, slots=True)
class ServeSpec:
    """Everything one `turnout serve` serves, and on which doors. Durations in seconds, sizes in bytes.

    default_deadline: for requests that bring none. load_timeout: for one model to become ready. drain_timeout: for
    requests in flight when the server is told to stop. orphan_seconds: how long routers and workers go on without a
    controller. memory_limit: what all models may take together, 0 for what the machine or its cgroup has. store: URL of
    where desired states are kept, "" for a file of this port's own. model_control: whether callers may load and unload
    models. keep_going: serve what loads although something else does not.
    """

    models: tuple[ModelSpec, ...]
    host: str = "127.0.0.1"
    port: int = 8080
    grpc_port: int = 8081
    routers: int = 1
    default_deadline: float = 30.0
    load_timeout: float = 300.0
    drain_timeout: float = 30.0
    orphan_seconds: float = 86400.0
    max_body_bytes: int = 64 << 20
    memory_limit: int = 0
    access_log: str = "stderr"
    store: str = ""
    model_control: bool = False
    keep_going: bool = False

    def __post_init__(self) -> None:
        names = [model.name for model in self.models]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise InvalidInput(
                f"two models are called {twice!r}", field="models", example=f"turnout serve {twice}=a.onnx other=b.onnx"
            )
        if self.routers < 1:
            raise InvalidInput("at least one router is needed", field="routers", got=str(self.routers))
        for field_name in ("port", "grpc_port"):
            if not 0 <= getattr(self, field_name) <= 65535:
                raise InvalidInput(
                    "no such port", field=field_name, expected="0 to 65535", got=str(getattr(self, field_name))
                )
        if self.port == self.grpc_port != 0:
            raise InvalidInput("REST and gRPC need a port each", field="grpc_port", got=f"{self.port} for both")
        for field_name in ("default_deadline", "load_timeout", "drain_timeout", "orphan_seconds"):
            if not 0.0 < getattr(self, field_name) < math.inf:
                raise InvalidInput(
                    "not a duration",
                    field=field_name,
                    expected="a finite number of seconds above 0",
                    got=str(getattr(self, field_name)),
                )
        if self.memory_limit < 0:
            raise InvalidInput("too small", field="memory_limit", expected="0 or more", got=str(self.memory_limit))
        if self.max_body_bytes < 1:
            raise InvalidInput("too small", field="max_body_bytes", expected="at least 1", got=str(self.max_body_bytes))

    def with_ports(self, port: int, grpc_port: int) -> ServeSpec:
        """The same with the ports that were really bound."""
        return replace(self, port=port, grpc_port=grpc_port)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {**asdict(self), "models": [model.to_json() for model in self.models]}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> ServeSpec:
        """From the form of `to_json`."""
        return cls(**{**found, "models": tuple(ModelSpec.from_json(model) for model in found["models"])})
