"""The sections of a document that say how the server itself runs: in force when it is started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from turnout.core.errors import InvalidInput
from turnout.deploy.environments.environment import IndexPolicy
from turnout.deploy.memory_limit import parse_bytes
from turnout.deploy.model_entry import fields_of, plain_number
from turnout.deploy.problems import Problems
from turnout.deploy.references import has_reference, resolved_values
from turnout.deploy.sources.source import SourceSettings
from turnout.deploy.spec import ServeSpec
from turnout.deploy.typed import mapping, under

#: What each section becomes.
SETTINGS: Mapping[str, type[Any]] = {"server": ServeSpec, "sources": SourceSettings, "environments": IndexPolicy}
#: Sizes may be said with a unit.
SIZES = {"memory_limit", "max_body_bytes", "max_artifact_bytes"}
#: Fields of ServeSpec that are sections of their own.
APART = ("models", "endpoints")


def settings_of(section: str, said: Any) -> Mapping[str, Any]:
    """What is said in a section, checked; references stay. Raises InvalidInput with the path in the document."""
    found = mapping(said, section)
    literal = {key: value for key, value in found.items() if not _refers(value)}
    with_words = {key: value for key, value in found.items() if key not in literal}
    _typed(section, literal, tuple(with_words))
    usual = _usual(section)
    said = {key: plain_number(_number_of_bytes(section, key, value)) for key, value in found.items()}
    return {key: value for key, value in said.items() if key not in usual or value != usual[key]}


def server_of(said: Mapping[str, Any]) -> ServeSpec:
    """How the server runs, without what it serves; references are resolved now. Raises InvalidInput."""
    return _resolved("server", said)  # type: ignore[no-any-return]


def sources_of(said: Mapping[str, Any]) -> SourceSettings:
    """From where artifacts may come. Raises InvalidInput."""
    return _resolved("sources", said)  # type: ignore[no-any-return]


def environments_of(said: Mapping[str, Any]) -> IndexPolicy:
    """From where packages may come. Raises InvalidInput."""
    return _resolved("environments", said)  # type: ignore[no-any-return]


def _resolved(section: str, said: Mapping[str, Any]) -> Any:
    return _typed(section, resolved_values(dict(said), section))


def _typed(section: str, said: Mapping[str, Any], others: tuple[str, ...] = ()) -> Any:
    kind = SETTINGS[section]
    problems = Problems()
    words = dict.fromkeys(others)
    said = {key: _number_of_bytes(section, key, value) for key, value in said.items()}
    found = fields_of(kind, {**words, **said}, section, problems, apart=others, without=APART)
    problems.check()
    if "wheels" in found:
        found["wheels"] = tuple(Path(folder) for folder in found["wheels"])
    try:
        return kind((), **found) if kind is ServeSpec else kind(**found)
    except InvalidInput as problem:
        raise under(problem, section) from None


def _number_of_bytes(section: str, key: str, value: Any) -> Any:
    """Sizes may be said with a unit."""
    return parse_bytes(value, f"{section}.{key}") if isinstance(value, str) and key in SIZES else value


def _usual(section: str) -> dict[str, Any]:
    """What is meant where nothing is said: that is left out."""
    found = {}
    for one in fields(SETTINGS[section]):
        value = one.default_factory() if callable(one.default_factory) else one.default
        found[one.name] = plain_number([*value] if isinstance(value, tuple) else value)
    return found


def _refers(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_refers(inner) for inner in value.values())
    if isinstance(value, list):
        return any(_refers(inner) for inner in value)
    return isinstance(value, str) and has_reference(value)
