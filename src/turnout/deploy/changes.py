"""What would become different between one desired state and another: a pure comparison, in words and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from turnout.deploy.document import Document
from turnout.deploy.endpoint_spec import EndpointSpec, VariantSpec


@dataclass(frozen=True, slots=True)
class Line:
    """One difference. act: "load", "unload", "move" (requests), "set", or "break" (callers lose something)."""

    act: str
    path: str
    before: Any
    after: Any

    def __str__(self) -> str:
        mark = {"load": "+", "unload": "-", "move": "~", "set": "~", "break": "!"}[self.act]
        if self.act in {"load", "unload"}:
            return f"{mark} {self.act:<6} {self.path}: {self.after if self.act == 'load' else self.before}"
        if self.act == "break":
            return f"{mark} break  {self.path}: {self.before} is not there any more"
        return f"{mark} {self.act:<6} {self.path}: {_shown(self.before)} -> {_shown(self.after)}"


@dataclass(frozen=True, slots=True)
class Changes:
    """All differences; `notes` is what else should be known, such as whether it fits in memory."""

    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether there is any."""
        return bool(self.lines)

    @property
    def text(self) -> str:
        """For a person, one a line."""
        return "\n".join([*map(str, self.lines), *self.notes]) or "nothing would change"

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        lines = [asdict(line) for line in self.lines]
        return {"changed": self.changed, "changes": lines, "notes": list(self.notes), "text": self.text}


def changes(now: Document, wanted: Document) -> Changes:
    """What applying `wanted` would do where `now` is in force."""
    return Changes((*_models(now, wanted), *_endpoints(now, wanted)))


def _models(now: Document, wanted: Document) -> Iterator[Line]:
    before = {model.name: model for model in now.models}
    after = {model.name: model for model in wanted.models}
    for name, model in after.items():
        if name not in before:
            yield Line("load", f"models.{name}", None, model.artifact)
        else:
            yield from _set(f"models.{name}", before[name].to_json(), model.to_json())
    for name, model in before.items():
        if name not in after:
            yield Line("unload", f"models.{name}", model.artifact, None)
            if all(one.name != name for one in wanted.endpoints):
                yield Line("break", f"models.{name}", name, None)


def _endpoints(now: Document, wanted: Document) -> Iterator[Line]:
    before = {one.name: one for one in now.endpoints}
    after = {one.name: one for one in wanted.endpoints}
    for name, endpoint in after.items():
        path = f"endpoints.{name}"
        if name not in before:
            for version in endpoint.versions:
                yield Line("load", f"{path}.versions.{version.name}", None, _what(version))
            yield Line("move", f"{path}.traffic", None, dict(endpoint.traffic))
        else:
            yield from _endpoint(path, before[name], endpoint)
    for name, endpoint in before.items():
        if name not in after:
            for version in endpoint.versions:
                yield Line("unload", f"endpoints.{name}.versions.{version.name}", _what(version), None)
            if all(one.name != name for one in wanted.models):
                yield Line("break", f"endpoints.{name}", name, None)


def _endpoint(path: str, now: EndpointSpec, wanted: EndpointSpec) -> Iterator[Line]:
    before, after = now.said["versions"], wanted.said["versions"]
    for version in wanted.versions:
        if version.name not in before:
            yield Line("load", f"{path}.versions.{version.name}", None, _what(version))
        elif before[version.name] != after[version.name]:
            yield from _set(f"{path}.versions.{version.name}", before[version.name], after[version.name])
    for version in now.versions:
        if version.name not in after:
            yield Line("unload", f"{path}.versions.{version.name}", _what(version), None)
            if now.split.direct:
                yield Line("break", f"{path}.versions.{version.name}", version.name, None)
    if now.traffic != wanted.traffic:
        yield Line("move", f"{path}.traffic", dict(now.traffic), dict(wanted.traffic))
    own = {"versions", "traffic"}
    yield from _set(
        path,
        {key: value for key, value in now.said.items() if key not in own},
        {key: value for key, value in wanted.said.items() if key not in own},
    )


def _set(path: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Line]:
    for key in dict.fromkeys([*before, *after]):
        old, new = before.get(key), after.get(key)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _set(f"{path}.{key}", old, new)
        else:
            yield Line("set", f"{path}.{key}", old, new)


def _what(version: VariantSpec) -> str:
    if version.model is not None:
        return version.model.artifact
    return "an ensemble" if version.ensemble is not None else "a cascade"


def _shown(value: Any) -> str:
    if value is None:
        return "(nothing)"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(inner)}" for key, inner in value.items()) or "(nothing)"
    return f"{value:g}" if isinstance(value, float) else str(value)
