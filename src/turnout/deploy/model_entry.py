"""What a document says of one model becomes a ModelSpec, and a ModelSpec what a document would say of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from turnout.core.errors import InvalidInput
from turnout.deploy.locations import ENVIRONMENT_WORDS, located, located_artifact
from turnout.deploy.policy import VersionPolicy
from turnout.deploy.problems import NOTHING, Problems
from turnout.deploy.spec import ModelSpec
from turnout.deploy.typed import known, mapping, shown, under
from turnout.runtime.batch_policy import BatchPolicy

#: The sections of a document.
SECTIONS = ("models", "endpoints", "server", "sources", "environments")
_EXAMPLE = "models: [{name: fraud, artifact: fraud.onnx}]"
_PATHS = ("signature", "example")
_KINDS: Mapping[str, tuple[Any, str]] = {
    "bool": (bool, "true or false"),
    "int": (int, "a whole number"),
    "float": ((int, float), "a number"),
}


def model_of(entry: Any, where: str, folder: Path) -> ModelSpec:
    """One model; relative paths in it count from the folder. Raises InvalidInput with the path in the document."""
    problems = Problems()
    said = fields_of(ModelSpec, entry, where, problems, apart=("batching", "versions", "labels", "environment"))
    for needed in ("name", "artifact"):
        if needed not in mapping(entry, where, _EXAMPLE):
            problems.add(InvalidInput("missing", field=f"{where}.{needed}", expected="a text", example=_EXAMPLE))
    if "artifact" in said:
        said["artifact"] = located_artifact(said["artifact"], folder)
    for key in _PATHS:
        if said.get(key) is not None:
            said[key] = located(said[key], folder)
    if "versions" in entry:
        said["versions"] = problems.take(lambda: VersionPolicy.parse(entry["versions"], f"{where}.versions"), None)
    if "labels" in entry:
        labels = problems.take(lambda: mapping(entry["labels"], f"{where}.labels"), NOTHING)
        said["labels"] = tuple(sorted((str(label), str(version)) for label, version in labels.items()))
    if "environment" in entry:
        path = f"{where}.environment"
        usual: str | tuple[str, ...] = "auto"
        said["environment"] = problems.take(lambda: _environment(entry["environment"], path, folder), usual)
    if "batching" in entry:
        said["batching"] = problems.take(lambda: _batching(entry["batching"], f"{where}.batching"), None)
    problems.check()
    try:
        return ModelSpec(**said)
    except InvalidInput as problem:
        raise under(problem, where) from None


def plain_model(model: ModelSpec) -> dict[str, Any]:
    """What a document says of a model, as short as it can be said: `model_of` makes the same of it again."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(ModelSpec):
        value = getattr(model, field.name)
        default = field.default_factory() if callable(field.default_factory) else field.default
        if value == default:
            continue
        if field.name == "batching":
            value = {
                one.name: plain_number(getattr(value, one.name))
                for one in dataclasses.fields(BatchPolicy)
                if getattr(value, one.name) != one.default
            }
        elif field.name == "versions":
            value = str(value)
        elif field.name == "labels":
            value = dict(value)
        elif isinstance(value, tuple):
            value = list(value)
        found[field.name] = plain_number(value)
    return found


def plain_number(value: Any) -> Any:
    """A number as it is written shortest: 90 for 90.0."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


def fields_of(
    kind: type, value: Any, where: str, problems: Problems, apart: tuple[str, ...] = (), without: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The values for a dataclass's fields, each of its declared type; those named in `apart` are left to others."""
    fields = {field.name: field for field in dataclasses.fields(kind) if field.name not in without}
    found = problems.take(lambda: mapping({} if value is None else value, where or "the file", _EXAMPLE), NOTHING)
    problems.take(lambda: known(found, tuple(fields), where), None)
    said: dict[str, Any] = {}
    for key, entry in found.items():
        if key in fields and key not in apart:
            field, path = fields[key], f"{where}.{key}"
            problems.take(lambda field=field, entry=entry, path=path: _put(said, field, entry, path), None)  # type: ignore[misc]
    return said


def _put(said: dict[str, Any], field: dataclasses.Field[Any], value: Any, where: str) -> None:
    said[field.name] = _typed(field, value, where)


def _typed(field: dataclasses.Field[Any], value: Any, where: str) -> Any:
    kind = str(field.type)
    if kind.startswith("tuple"):
        if isinstance(value, list) and all(isinstance(one, str) for one in value):
            return tuple(value)
        raise InvalidInput("of the wrong kind", field=where, expected="a list of texts", got=shown(value))
    if kind.startswith("Mapping"):
        return {key: dict(mapping(inner, f"{where}.{key}")) for key, inner in mapping(value, where).items()}
    types, meaning = _KINDS.get(kind, (str, "a text"))
    if value is None and "None" in kind:
        return None
    if kind == "str" and isinstance(value, int) and not isinstance(value, bool):
        return str(value)  # version: 3 means what version: "3" does
    if isinstance(value, bool) and types is str and not value:
        raise InvalidInput(
            "of the wrong kind", field=where, expected=meaning, got="false", example=f'{field.name}: "off"'
        )  # YAML takes a bare off for false
    if not isinstance(value, types) or (isinstance(value, bool) and types is not bool):
        got = repr(value)[:60] if isinstance(value, str | bool) else shown(value)
        raise InvalidInput("of the wrong kind", field=where, expected=meaning, got=got)
    return float(value) if kind == "float" else value


def _environment(said: Any, where: str, folder: Path) -> str | tuple[str, ...]:
    if isinstance(said, list) and all(isinstance(line, str) for line in said):
        return tuple(said)
    if not isinstance(said, str):
        raise InvalidInput("not an environment", field=where, expected="auto, none, a path, or a list of requirements")
    return said if said in ENVIRONMENT_WORDS else located(said, folder)


def _batching(said: Any, where: str) -> BatchPolicy:
    problems = Problems()
    found = fields_of(BatchPolicy, said, where, problems)
    problems.check()
    try:
        return BatchPolicy(**found)
    except InvalidInput as problem:
        raise under(problem, where) from None
