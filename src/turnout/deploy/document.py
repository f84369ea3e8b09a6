"""The whole desired state as one document: what a file says, in a form in which equal meaning is equal text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from turnout.core.errors import InvalidInput, ModelNotFound
from turnout.deploy.document_text import Text, check_plain, read_text
from turnout.deploy.endpoint_spec import EndpointSpec, parse_endpoint
from turnout.deploy.locations import located_values
from turnout.deploy.model_entry import model_of, plain_model
from turnout.deploy.plain import plain
from turnout.deploy.problems import NOTHING, Problems, placed
from turnout.deploy.references import check_references, names_in, resolved
from turnout.deploy.server_settings import SETTINGS, settings_of
from turnout.deploy.spec import ModelSpec
from turnout.deploy.typed import mapping, shown
from turnout.deploy.uses import check_uses

_IN_ORDER = {"ensemble", "default"}
_EXAMPLE = "endpoints: {fraud: {versions: {v1: {model: fraud.onnx}}}}"


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be served: models by themselves, and endpoints; and how the server runs, which a restart changes.

    settings: the sections `server`, `sources` and `environments` as far as they are said, as JSON values.
    References (`${NAME}`) are in it as they were written.
    """

    models: tuple[ModelSpec, ...] = ()
    endpoints: tuple[EndpointSpec, ...] = ()
    settings: Mapping[str, Mapping[str, Any]] = {}

    def endpoint(self, name: str) -> EndpointSpec:
        """Raises ModelNotFound."""
        for endpoint in self.endpoints:
            if endpoint.name == name:
                return endpoint
        there = ", ".join(one.name for one in self.endpoints) or "none"
        raise ModelNotFound(f"there is no endpoint {name!r}; there is {there}")

    @property
    def names(self) -> list[str]:
        """What callers call by name."""
        return [model.name for model in self.models] + [endpoint.name for endpoint in self.endpoints]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values: a document that says the same, as short as it can be said."""
        found: dict[str, Any] = {}
        if self.models:
            found["models"] = [plain_model(model) for model in sorted(self.models, key=lambda model: model.name)]
        if self.endpoints:
            found["endpoints"] = {endpoint.name: dict(endpoint.said) for endpoint in self.endpoints}
        return {**found, **{key: plain(said) for key, said in self.settings.items() if said}}

    def to_text(self) -> str:
        """As JSON, always the same for the same meaning."""
        return json.dumps(_ordered(self.to_json()), separators=(",", ":"), ensure_ascii=False)

    @property
    def digest(self) -> str:
        """Tells one desired state from another."""
        return "sha256:" + hashlib.sha256(self.to_text().encode()).hexdigest()

    @classmethod
    def from_text(cls, text: str) -> Document:
        """From the form of `to_text`. Raises InvalidInput."""
        return _document(json.loads(text), may_be_empty=True)

    def with_traffic(self, name: str, weights: Any) -> Document:
        """The same with other weights for an endpoint's versions. Raises ModelNotFound or InvalidInput."""
        return self._with(name, {**self.endpoint(name).said, "traffic": weights})

    def check_environment(self, environment: Mapping[str, str] | None = None) -> None:
        """Raises InvalidInput for references to what the environment has not: asked where they will be resolved."""
        problems = Problems()
        for name, path in names_in(self.to_json()).items():
            problems.take(partial(resolved, f"${{{name}}}", path, environment), "")
        problems.check()

    def _with(self, name: str, said: Mapping[str, Any]) -> Document:
        changed = parse_endpoint(name, dict(said))
        endpoints = tuple(changed if one.name == name else one for one in self.endpoints)
        return Document(models=self.models, endpoints=endpoints, settings=self.settings)


def parse_document(said: str | Mapping[str, Any], path: str = "") -> Document:
    """A document from YAML or JSON text, or from values; `path` is the file, from which relative paths in it count.

    Raises InvalidInput for all that is wrong, each with the file and the line where they are known.
    """
    if isinstance(said, str):
        return document_of(read_text(said, path))
    values = check_plain(said)
    return _document(located_values(values, Path(path).parent) if path else values)


def read_document(path: Path) -> Document:
    """The document in a file, with what it includes. Raises InvalidInput."""
    try:
        content = path.read_bytes()
    except OSError as problem:
        raise InvalidInput(
            f"{path} cannot be read ({problem.strerror})", field="FILE", example="turnout.yaml"
        ) from None
    return document_of(read_text(content, str(path)))


def document_of(text: Text) -> Document:
    """The meaning of what was read. Raises InvalidInput."""
    try:
        return _document(text.said)
    except InvalidInput as problem:
        raise placed(problem, text.place) from None


def _document(said: Mapping[str, Any], *, may_be_empty: bool = False) -> Document:
    """Relative paths in it count from the root of the file system by now."""
    problems = Problems()
    problems.take(partial(check_references, said), None)
    models = said.get("models") or []
    if not isinstance(models, list):
        problems.add(InvalidInput("not a list", field="models", expected="a list of models", got=shown(models)))
        models = []
    endpoints = problems.take(lambda: mapping(said.get("endpoints") or {}, "endpoints", _EXAMPLE), NOTHING)
    if not (models or endpoints or may_be_empty or problems.count):
        problems.add(
            InvalidInput(
                "at least one model or endpoint is needed", field="models", expected="models or endpoints",
                example=_EXAMPLE,
            )
        )  # fmt: skip
    root = Path("/")
    found = [
        problems.take(partial(model_of, entry, f"models[{number}]", root), None) for number, entry in enumerate(models)
    ]
    guided = [problems.take(partial(parse_endpoint, str(name), entry), None) for name, entry in endpoints.items()]
    settings = {
        key: problems.take(partial(settings_of, key, said[key]), NOTHING)
        for key in SETTINGS
        if said.get(key) is not None
    }
    _check_names(found, endpoints, problems)
    problems.check()
    check_uses([model for model in found if model is not None], [one for one in guided if one is not None])
    return Document(
        models=tuple(model for model in found if model is not None),
        endpoints=tuple(endpoint for endpoint in guided if endpoint is not None),
        settings={key: one for key, one in settings.items() if one},
    )


def _ordered(said: Any) -> Any:
    """By name, but where order means something: the first output of an ensemble is the one that some callers get."""
    if isinstance(said, Mapping):
        return {key: said[key] if key in _IN_ORDER else _ordered(said[key]) for key in sorted(said)}
    return [_ordered(inner) for inner in said] if isinstance(said, list) else said


def _check_names(models: list[ModelSpec | None], endpoints: Mapping[str, Any], problems: Problems) -> None:
    first: dict[str, str] = {}
    for number, model in enumerate(models):
        if model is None:
            continue
        place = f"models[{number}].name"
        if model.name in first:
            problems.add(_twice(model.name, place, first[model.name]))
        first.setdefault(model.name, place)
    for name in endpoints:
        if name in first:
            problems.add(_twice(name, f"endpoints.{name}", first[name]))


def _twice(name: str, path: str, other: str) -> InvalidInput:
    return InvalidInput(
        f"two are called {name!r}", field=path, expected="a name of its own", got=f"also at {other}"
    )  # fmt: skip
