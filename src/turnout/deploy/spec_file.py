"""`turnout.yaml`: what is served, from where and how, in one file. Strict: what it does not know it refuses by path."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from turnout.core.errors import InvalidInput
from turnout.deploy.environments.environment import IndexPolicy
from turnout.deploy.policy import VersionPolicy
from turnout.deploy.sources.source import SourceSettings
from turnout.deploy.spec import ModelSpec, ServeSpec
from turnout.deploy.yaml_text import read_yaml
from turnout.runtime.batch_policy import BatchPolicy

#: What a file may say.
SECTIONS = ("models", "endpoints", "server", "sources", "environments")
_EXAMPLE = "models: [{name: fraud, artifact: fraud.onnx}]"
_PATHS = ("signature", "example")


class SpecFile(NamedTuple):
    """Everything that a file says."""

    spec: ServeSpec
    text: str
    sources: SourceSettings
    environments: IndexPolicy


def read_spec(path: Path) -> SpecFile:
    """The file's meaning; relative paths in it count from its own directory.

    Raises InvalidInput, naming the file and the key.
    """
    try:
        content = path.read_bytes()
    except OSError as problem:
        raise InvalidInput(f"{path} cannot be read ({problem.strerror})", field="spec", example=_EXAMPLE) from None
    said = read_yaml(content, path.name)
    try:
        return _meaning(said, path, content.decode())
    except InvalidInput as problem:
        raise InvalidInput(
            problem.reason,
            field=f"{path.name}: {problem.field}",
            expected=problem.expected,
            got=problem.got,
            example=problem.example,
        ) from None


def _meaning(said: object, path: Path, text: str) -> SpecFile:
    found = _mapping(said, "", SECTIONS)
    models = found.get("models", [])
    if not isinstance(models, list) or not (models or found.get("endpoints")):
        raise InvalidInput("at least one model is needed", field="models", expected="a list", example=_EXAMPLE)
    specs = tuple(model_of(entry, f"models[{number}]", path.parent) for number, entry in enumerate(models))
    server = _fields(ServeSpec, found.get("server", {}), "server", without=("models",))
    sources = _fields(SourceSettings, found.get("sources", {}), "sources")
    environments = _fields(IndexPolicy, found.get("environments", {}), "environments")
    if "wheels" in environments:
        environments["wheels"] = tuple(path.parent / folder for folder in environments["wheels"])
    return SpecFile(ServeSpec(specs, **server), text, SourceSettings(**sources), IndexPolicy(**environments))


def model_of(entry: Any, where: str, folder: Path) -> ModelSpec:
    """One model; relative paths in it count from the folder. Raises InvalidInput with the path in the document."""
    said = _fields(ModelSpec, entry, where, ("batching", "versions", "labels", "environment"))
    for needed in ("name", "artifact"):
        if needed not in said:
            raise InvalidInput("missing", field=f"{where}.{needed}", expected="a text", example=_EXAMPLE)
    said["artifact"] = _relative(said["artifact"], folder)
    for key in _PATHS:
        if said.get(key) is not None:
            said[key] = str(folder / said[key])
    if "version" in entry:
        said["version"] = str(entry["version"])
    if "versions" in entry:
        said["versions"] = VersionPolicy.parse(entry["versions"], f"{where}.versions")
    if "labels" in entry:
        labels = _mapping(entry["labels"], f"{where}.labels")
        said["labels"] = tuple((label, str(version)) for label, version in labels.items())
    if "environment" in entry:
        said["environment"] = _environment(entry["environment"], f"{where}.environment", folder)
    if "batching" in entry:
        said["batching"] = BatchPolicy(**_fields(BatchPolicy, entry["batching"], f"{where}.batching"))
    try:
        return ModelSpec(**said)
    except InvalidInput as problem:
        raise InvalidInput(
            problem.reason,
            field=f"{where}.{problem.field}",
            expected=problem.expected,
            got=problem.got,
            example=problem.example,
        ) from None


def _environment(said: Any, where: str, folder: Path) -> str | tuple[str, ...]:
    if isinstance(said, list) and all(isinstance(line, str) for line in said):
        return tuple(said)
    if not isinstance(said, str):
        raise InvalidInput("not an environment", field=where, expected="auto, none, a path, or a list of requirements")
    return said if said in {"auto", "none"} else str(folder / said)


def _relative(artifact: str, folder: Path) -> str:
    """A path in the file counts from the file; a URI and a Python reference are what they are."""
    path = folder / artifact
    return str(path) if ":" not in artifact or path.exists() else artifact


def _mapping(value: Any, where: str, known: tuple[str, ...] | None = None) -> Mapping[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise InvalidInput("not a mapping", field=where or "the file", expected="keys with values", example=_EXAMPLE)
    if known is not None and (unknown := next((key for key in value if key not in known), None)) is not None:
        raise InvalidInput(
            "unknown", field=f"{where}.{unknown}" if where else unknown, expected="one of " + ", ".join(known)
        )
    return value


def _fields(
    kind: type, value: Any, where: str, apart: tuple[str, ...] = (), without: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The values for a dataclass's fields, each of its declared type; those named in `apart` are left to others."""
    fields = {field.name: field for field in dataclasses.fields(kind) if field.name not in without}
    found = _mapping({} if value is None else value, where, tuple(fields))
    return {key: _typed(fields[key], entry, f"{where}.{key}") for key, entry in found.items() if key not in apart}


def _typed(field: dataclasses.Field[Any], value: Any, where: str) -> Any:
    kind = str(field.type)
    if kind.startswith("tuple"):
        if isinstance(value, list) and all(isinstance(one, str) for one in value):
            return tuple(value)
        raise InvalidInput("of the wrong kind", field=where, expected="a list of texts", got=repr(value)[:60])
    if kind.startswith("Mapping"):
        return {key: dict(_mapping(inner, f"{where}.{key}")) for key, inner in _mapping(value, where).items()}
    wanted: dict[str, tuple[Any, str]] = {
        "bool": (bool, "true or false"),
        "int": (int, "a whole number"),
        "float": ((int, float), "a number"),
    }
    types, meaning = wanted.get(kind, (str, "a text"))
    if value is None and "None" in kind:
        return None
    if kind == "str" and isinstance(value, int) and not isinstance(value, bool):
        return str(value)  # version: 3 means what version: "3" does
    if not isinstance(value, types) or (isinstance(value, bool) and types is not bool):
        raise InvalidInput("of the wrong kind", field=where, expected=meaning, got=repr(value)[:60])
    return float(value) if kind == "float" else value
