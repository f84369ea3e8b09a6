"""`${NAME}` and `${NAME:-default}` stand for what the environment says: for addresses and secrets, nowhere else.

What is kept, compared and shown is the reference; what it stands for is looked up where it is used, each time.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from turnout.core.errors import InvalidInput
from turnout.deploy.problems import Problems

_REFERENCE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<default>:-[^${}]*)?\}")
#: Where references may stand; `*` is any name, `[]` any place in a list.
PLACES = (
    "models[].artifact",
    "endpoints.*.versions.*.model",
    "endpoints.*.rollout.gates.webhooks[].url",
    "server.host",
    "server.port",
    "server.grpc_port",
    "server.store",
    "sources.allowed_hosts[]",
    "sources.options.*.*",
    "environments.index_urls[]",
    "environments.wheels[]",
)
_WHOLE_NUMBERS = {"port", "grpc_port"}
_EXAMPLE = "artifact: ${MODELS:-s3://models}/fraud/8"


def has_reference(text: str) -> bool:
    """Whether a text has a reference in it."""
    return _REFERENCE.search(text) is not None


def begins_with_reference(text: str) -> bool:
    """Whether what a text is relative to, if anything, is not known before it is resolved."""
    return _REFERENCE.match(text) is not None


def resolved(text: str, field: str = "", environment: Mapping[str, str] | None = None) -> str:
    """The text with what the environment says. Raises InvalidInput for a name that it has not, without a default."""
    known = os.environ if environment is None else environment
    parts: list[str] = []
    end = 0
    for found in _REFERENCE.finditer(text):
        name, default = found["name"], found["default"]
        value = known.get(name, "") or (None if default is None else default[2:])
        if value is None:
            raise InvalidInput(
                f"the environment has no {name}",
                field=field,
                expected="a variable that is set where the server runs, or a default",
                got=f"${{{name}}}",
                example=f"${{{name}:-default}}",
            )
        parts += [text[end : found.start()], value]
        end = found.end()
    return "".join([*parts, text[end:]])


def resolved_values(said: Any, path: str, environment: Mapping[str, str] | None = None) -> Any:
    """The same values with every reference resolved; ports become numbers. Raises InvalidInput."""
    if isinstance(said, dict):
        return {key: resolved_values(value, f"{path}.{key}", environment) for key, value in said.items()}
    if isinstance(said, list):
        return [resolved_values(value, f"{path}[{number}]", environment) for number, value in enumerate(said)]
    if not isinstance(said, str) or not has_reference(said):
        return said
    text = resolved(said, path, environment)
    if path.rpartition(".")[2] in _WHOLE_NUMBERS:
        try:
            return int(text)
        except ValueError:
            raise InvalidInput("not a port", field=path, expected="0 to 65535", got=said) from None
    return text


def check_references(said: Any) -> None:
    """Raises InvalidInput for references where none may stand, and for what was meant to be one."""
    problems = Problems()
    for path, place, text in _texts(said, "", ""):
        if "${" not in text:
            continue
        left = _REFERENCE.sub("", text)
        if place not in PLACES and has_reference(text):
            problems.add(
                InvalidInput(
                    "only addresses and secrets come from the environment: everything else is said in the document, "
                    "so that it can be compared",
                    field=path,
                    expected="the value itself",
                    got=text[:60],
                    example=_EXAMPLE,
                )
            )
        elif place in PLACES and "${" in left:
            problems.add(
                InvalidInput(
                    "not a reference",
                    field=path,
                    expected="${NAME} or ${NAME:-default}",
                    got=left[left.index("${") :][:60],
                    example=_EXAMPLE,
                )
            )
    problems.check()


def names_in(said: Any) -> dict[str, str]:
    """The names without a default that are referred to, with the path of the first place."""
    found: dict[str, str] = {}
    for path, _, text in _texts(said, "", ""):
        for one in _REFERENCE.finditer(text):
            if one["default"] is None:
                found.setdefault(one["name"], path)
    return found


def _texts(said: Any, path: str, place: str) -> Iterator[tuple[str, str, str]]:
    """Every text with its path and the place that this is."""
    if isinstance(said, dict):
        within = place in {"endpoints", "endpoints.*.versions", "sources.options", "sources.options.*"}
        for key, value in said.items():
            own = f"{path}.{key}" if path else str(key)
            yield from _texts(value, own, (f"{place}." if place else "") + ("*" if within else str(key)))
    elif isinstance(said, list):
        for number, value in enumerate(said):
            yield from _texts(value, f"{path}[{number}]", f"{place}[]")
    elif isinstance(said, str):
        yield path, place, said
