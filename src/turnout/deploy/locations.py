"""Paths of files in a document count from the file that names them; then they hold everywhere on this machine."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from turnout.deploy.references import begins_with_reference

#: What an environment may be beside a path.
ENVIRONMENT_WORDS = {"auto", "none"}
_PYTHON_FILE = re.compile(r"(?P<prefix>python:)?(?P<file>[^:]+\.py):(?P<attribute>[A-Za-z_][\w.]*)\Z")


def located(path: str, folder: Path) -> str:
    """A path counts from the folder."""
    return os.path.normpath(folder / path)


def located_artifact(artifact: str, folder: Path) -> str:
    """A path counts from the folder, also that of Python code; a URI and what begins with `${NAME}` is what it is."""
    if begins_with_reference(artifact):
        return artifact
    if (code := _PYTHON_FILE.fullmatch(artifact)) is not None:
        return f"{code['prefix'] or ''}{located(code['file'], folder)}:{code['attribute']}"
    if ":" in artifact and not (folder / artifact).exists():
        return artifact
    return located(artifact, folder)


def located_values(said: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The same with paths of files that count from the folder. What has another form is left to who reads it."""

    def entry(value: Any, artifact: str) -> Any:
        if not isinstance(value, dict):
            return value
        found = dict(value)
        for key, change in (
            (artifact, located_artifact),
            ("signature", located),
            ("example", located),
            ("environment", _located_environment),
        ):
            if isinstance(found.get(key), str):
                found[key] = change(found[key], folder)
        return found

    found = dict(said)
    if isinstance(found.get("models"), list):
        found["models"] = [entry(model, "artifact") for model in found["models"]]
    _each(found, "endpoints", lambda one: _each(one, "versions", lambda version: entry(version, "model")))
    environments = found.get("environments")
    if isinstance(environments, dict) and isinstance(environments.get("wheels"), list):
        wheels = [
            located(one, folder) if isinstance(one, str) and not begins_with_reference(one) else one
            for one in environments["wheels"]
        ]
        found["environments"] = {**environments, "wheels": wheels}
    return found


def _each(said: Any, key: str, change: Callable[[Any], Any]) -> Any:
    """Changes every value of one mapping in a mapping, in a copy of the inner one."""
    if isinstance(said, dict) and isinstance(said.get(key), dict):
        inner = {name: dict(value) if isinstance(value, dict) else value for name, value in said[key].items()}
        said[key] = {name: _or_same(change(value), value) for name, value in inner.items()}
    return said


def _or_same(changed: Any, value: Any) -> Any:
    return value if changed is None else changed


def _located_environment(said: str, folder: Path) -> str:
    return said if said in ENVIRONMENT_WORDS else located(said, folder)
