"""What would become different between one desired state and another: a pure comparison, in words and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from turnout.deploy.document import Document
from turnout.deploy.edits import ABSENT, Edit, edits
from turnout.deploy.endpoint_spec import EndpointSpec, VariantSpec
from turnout.deploy.ledger import Fit
from turnout.deploy.server_settings import SETTINGS
from turnout.deploy.variants import POLICIES, SHARED

_MARKS = {"load": "+", "unload": "-", "replace": "~", "move": "~", "set": "~", "break": "!"}
_RESTART = "in force after a restart"
_AGAIN = "it is loaded again"


@dataclass(frozen=True, slots=True)
class Line:
    """One difference.

    act: "load", "unload", "replace" (what a version stands for), "move" (requests), "set", or "break" (callers lose
    something). note: what comes of it, where that is not plain.
    """

    act: str
    path: str
    before: Any
    after: Any
    note: str = ""

    def __str__(self) -> str:
        mark = f"{_MARKS[self.act]} {self.act:<7}"
        note = f" ({self.note})" if self.note else ""
        if self.act == "load":
            return f"{mark} {self.path}: {_shown(self.after)}{note}"
        if self.act == "unload":
            return f"{mark} {self.path}: {_shown(self.before)}{note}"
        if self.act == "break" and self.after is None:
            return f"{mark} {self.path}: {_shown(self.before)} is not there any more{note}"
        return f"{mark} {self.path}: {_shown(self.before)} -> {_shown(self.after)}{note}"


@dataclass(frozen=True, slots=True)
class Actual:
    """What is known of what runs: all of it may be unknown.

    signatures: by "NAME@VERSION", as JSON values: what is loaded, or was. fit: whether what is wanted fits in memory.
    """

    signatures: Mapping[str, Any] = field(default_factory=dict)
    fit: Fit | None = None


@dataclass(frozen=True, slots=True)
class Changes:
    """All differences; `notes` is what else should be known, such as whether it fits in memory.

    edits: what turns the document in force into the wanted one, for whoever reads it. fits: False where it does not
    fit in memory, None where nobody can tell.
    """

    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()
    edits: tuple[Edit, ...] = ()
    fits: bool | None = None

    @property
    def changed(self) -> bool:
        """Whether there is any."""
        return bool(self.lines)

    @property
    def breaks(self) -> bool:
        """Whether callers lose something."""
        return any(line.act == "break" for line in self.lines)

    @property
    def text(self) -> str:
        """For a person, one a line."""
        return "\n".join([*map(str, self.lines), *self.notes]) or "nothing would change"

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "changed": self.changed, "breaks": self.breaks, "fits": self.fits,
            "changes": [asdict(line) for line in self.lines], "edits": [edit.to_json() for edit in self.edits],
            "notes": list(self.notes), "text": self.text,
        }  # fmt: skip


def changes(now: Document | None, wanted: Document, actual: Actual | None = None) -> Changes:
    """What applying `wanted` would do where `now` is in force; None where nothing is."""
    before, known = now or Document(), actual or Actual()
    found = edits(before.to_json(), wanted.to_json())
    lines = (
        *_models(before, wanted, found),
        *_endpoints(before, wanted, found),
        *_settings(before, wanted),
        *_breaks(before, wanted, known.signatures),
    )
    if not lines:
        return Changes(())
    notes = known.fit.notes if known.fit is not None else ()
    return Changes(lines, notes, tuple(found), known.fit.fits if known.fit is not None else None)


def _under(found: Sequence[Edit], *path: str) -> Iterator[tuple[Edit, tuple[str, ...]]]:
    """The edits at a path and below it, with the rest of theirs."""
    for edit in found:
        if edit.path[: len(path)] == path:
            yield edit, edit.path[len(path) :]


def _models(now: Document, wanted: Document, found: Sequence[Edit]) -> Iterator[Line]:
    before, after = ({model.name: model for model in one.models} for one in (now, wanted))
    for name, model in after.items():
        path = f"models.{name}"
        if name not in before:
            yield Line("load", path, None, model.artifact)
            continue
        for edit, rest in _under(found, "models", name):
            if rest == ("artifact",):
                yield Line("replace", path, edit.before, edit.after)
            else:
                yield _set(path, edit, rest)
    for name, model in before.items():
        if name not in after:
            yield Line("unload", f"models.{name}", model.artifact, None)


def _endpoints(now: Document, wanted: Document, found: Sequence[Edit]) -> Iterator[Line]:
    before, after = ({one.name: one for one in document.endpoints} for document in (now, wanted))
    for name, endpoint in after.items():
        path = f"endpoints.{name}"
        if name in before:
            yield from _endpoint(path, before[name], endpoint, [*_under(found, "endpoints", name)])
        else:
            for version in endpoint.versions:
                yield Line("load", f"{path}.versions.{version.name}", None, _what(version))
            yield Line("move", f"{path}.traffic", None, _shares(endpoint))
    for name, endpoint in before.items():
        if name not in after:
            for version in endpoint.versions:
                yield Line("unload", f"endpoints.{name}.versions.{version.name}", _what(version), None)


def _endpoint(
    path: str, now: EndpointSpec, wanted: EndpointSpec, found: Sequence[tuple[Edit, tuple[str, ...]]]
) -> Iterator[Line]:
    for version in wanted.versions:
        inner = f"{path}.versions.{version.name}"
        before = now.version(version.name)
        if before is None:
            yield Line("load", inner, None, _what(version))
            continue
        if before.kind != version.kind or _what(before) != _what(version):
            yield Line("replace", inner, _what(before), _what(version))
        for edit, rest in found:
            if rest[:2] == ("versions", version.name) and rest[2:] and rest[2] not in {"model", "ensemble", "cascade"}:
                yield _set(inner, edit, rest[2:], "" if rest[2] in POLICIES else _AGAIN)
            elif rest[:2] == ("versions", version.name) and before.kind == version.kind != "model":
                yield _set(inner, edit, rest[2:])
    for version in now.versions:
        if wanted.version(version.name) is None:
            yield Line("unload", f"{path}.versions.{version.name}", _what(version), None)
    if now.traffic != wanted.traffic and _shares(now) != _shares(wanted):
        yield Line("move", f"{path}.traffic", _shares(now), _shares(wanted))
    for edit, rest in found:
        if rest[0] not in {"versions", "traffic"}:
            yield _set(path, edit, rest, "of every version that says nothing else" if rest[0] in SHARED else "")


def _settings(now: Document, wanted: Document) -> Iterator[Line]:
    before, after = ({section: one.settings.get(section, {}) for section in SETTINGS} for one in (now, wanted))
    for edit in edits(before, after):
        yield _set(edit.path[0], edit, edit.path[1:], _RESTART)


def _breaks(now: Document, wanted: Document, signatures: Mapping[str, Any]) -> Iterator[Line]:
    """What callers use and would not find any more."""
    names = set(wanted.names)
    for section, gone in (("models", now.models), ("endpoints", now.endpoints)):
        for one in gone:
            if one.name not in names:
                yield Line("break", f"{section}.{one.name}", one.name, None)
    models = {model.name: model for model in wanted.models}
    for model in now.models:
        labels = dict(models[model.name].labels) if model.name in models else dict(model.labels)
        for label, version in model.labels:
            if label not in labels:
                yield Line("break", f"models.{model.name}.labels.{label}", version, None)
    endpoints = {endpoint.name: endpoint for endpoint in wanted.endpoints}
    for before in now.endpoints:
        if (after := endpoints.get(before.name)) is not None:
            yield from _endpoint_breaks(f"endpoints.{before.name}", before, after, signatures)


def _endpoint_breaks(
    path: str, now: EndpointSpec, wanted: EndpointSpec, signatures: Mapping[str, Any]
) -> Iterator[Line]:
    if now.split.direct and wanted.split.direct:
        for version in now.versions:
            if wanted.version(version.name) is None:
                yield Line("break", f"{path}.versions.{version.name}", version.name, None)
    elif now.split.direct:
        yield Line("break", f"{path}.direct", "callers may name a version", None)
    before, after = (signatures.get(f"{now.name}@{one.default}") for one in (now, wanted))
    if before is not None and after is not None and now.default != wanted.default:
        for side in ("inputs", "outputs"):
            old, new = _tensors(before, side), _tensors(after, side)
            if old != new:
                yield Line("break", f"{path}.{side}", old, new)


def _tensors(signature: Mapping[str, Any], side: str) -> dict[str, str]:
    return {one["name"]: f"{one['datatype']}{one['shape']}".replace(" ", "") for one in signature.get(side, [])}


def _set(path: str, edit: Edit, rest: tuple[str, ...], note: str = "") -> Line:
    before, after = (None if value is ABSENT else value for value in (edit.before, edit.after))
    return Line("set", ".".join((path, *rest)), before, after, note)


def _shares(endpoint: EndpointSpec) -> dict[str, float]:
    return {version: share for version, share in endpoint.traffic.items() if share > 0}


def _what(version: VariantSpec) -> str:
    if version.model is not None:
        return version.model.artifact
    return "an ensemble" if version.kind == "ensemble" else "a cascade"


def _shown(value: Any) -> str:
    """In one line for a person."""
    if value is None:
        return "(default)"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_shown(inner)}" for key, inner in value.items()) or "(defaults)"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_shown, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)
