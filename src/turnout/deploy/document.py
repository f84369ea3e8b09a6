"""The whole desired state as one document: what a file says, in a form in which equal meaning is equal text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from turnout.core.errors import InvalidInput, ModelNotFound
from turnout.deploy.endpoint_spec import EndpointSpec, parse_endpoint
from turnout.deploy.spec import ModelSpec
from turnout.deploy.spec_file import SECTIONS, model_of
from turnout.deploy.typed import known
from turnout.deploy.yaml_text import read_yaml

_EXAMPLE = "endpoints: {fraud: {versions: {v1: {model: fraud.onnx}}}}"


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be served: models by themselves, and endpoints. How the server itself runs is no part of it."""

    models: tuple[ModelSpec, ...] = ()
    endpoints: tuple[EndpointSpec, ...] = ()

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
        """As plain JSON values."""
        return {
            "models": [model.to_json() for model in self.models],
            "endpoints": {endpoint.name: dict(endpoint.said) for endpoint in self.endpoints},
        }

    def to_text(self) -> str:
        """As JSON, always the same for the same meaning."""
        return json.dumps(self.to_json(), sort_keys=False, separators=(",", ":"))

    @property
    def digest(self) -> str:
        """Tells one desired state from another."""
        return "sha256:" + hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    @classmethod
    def from_text(cls, text: str) -> Document:
        """From the form of `to_text`. Raises InvalidInput."""
        said = json.loads(text)
        return cls(
            models=tuple(ModelSpec.from_json(model) for model in said["models"]),
            endpoints=tuple(parse_endpoint(name, found) for name, found in said["endpoints"].items()),
        )

    def with_traffic(self, name: str, weights: Any) -> Document:
        """The same with other weights for an endpoint's versions. Raises ModelNotFound or InvalidInput."""
        return self._with(name, {**self.endpoint(name).said, "traffic": weights})

    def _with(self, name: str, said: Mapping[str, Any]) -> Document:
        changed = parse_endpoint(name, dict(said))
        return Document(
            models=self.models, endpoints=tuple(changed if one.name == name else one for one in self.endpoints)
        )


def parse_document(said: str | Mapping[str, Any], path: str = "") -> Document:
    """A document from YAML or JSON text, or from values; `path` is the file, from which relative paths in it count.

    Sections that say how the server itself runs are passed over: they are read when it starts. Raises InvalidInput.
    """
    found = read_yaml(said.encode(), Path(path).name or "the document") if isinstance(said, str) else dict(said)
    if not isinstance(found, dict):
        raise InvalidInput("not a mapping", field="document", expected="models or endpoints", example=_EXAMPLE)
    known(found, SECTIONS, "")
    folder = Path(path).parent if path else Path("/")
    models = found.get("models", [])
    if not isinstance(models, list):
        raise InvalidInput("not a list", field="models", expected="a list of models", got=repr(models)[:60])
    endpoints = found.get("endpoints", {})
    if not isinstance(endpoints, dict):
        raise InvalidInput("not a mapping", field="endpoints", got=repr(endpoints)[:60], example=_EXAMPLE)
    document = Document(
        models=tuple(model_of(entry, f"models[{number}]", folder) for number, entry in enumerate(models)),
        endpoints=tuple(parse_endpoint(str(name), entry, folder) for name, entry in endpoints.items()),
    )
    names = document.names
    if not names:
        raise InvalidInput(
            "nothing to serve", field="endpoints", expected="at least one endpoint or model", example=_EXAMPLE
        )
    if (twice := next((name for name in names if names.count(name) > 1), None)) is not None:
        raise InvalidInput("two are called the same", field=f"endpoints.{twice}", expected="a name of its own")
    return document
