"""YAML becomes plain values. The one file that speaks to PyYAML; never imported by a worker."""

from __future__ import annotations

import re
from typing import Any

import yaml

from turnout.core.errors import InvalidInput

MAX_BYTES = 1 << 20
MAX_VALUES = 100_000


class _Loader(yaml.SafeLoader):
    """Makes plain values only, and takes no name twice in one mapping: the last would win without a word."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.MarkedYAMLError(problem=f"{key.value!r} stands twice", problem_mark=key.start_mark)
                seen.add(key.value)
        return node


class _TextKeys(_Loader):
    """Takes every key for the text that stands there: `7`, `on` and `1.0` are names. Takes 1e-3 for a number."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                key.tag = "tag:yaml.org,2002:str"
        return node


_TextKeys.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+\Z"), list("-+0123456789")
)


def read_yaml(content: bytes, label: str, *, text_keys: bool = False) -> object:
    """The one document in `content` (UTF-8): mappings, lists, texts, numbers, dates, None.

    text_keys: every key is the text that stands there, and 1e-3 is a number.
    Raises InvalidInput with `label` and, where it can be said, the line: for what is no YAML, for more than
    MAX_BYTES, for a name that stands twice in one mapping, and for aliases that unfold into more than MAX_VALUES.
    """
    if len(content) > MAX_BYTES:
        raise InvalidInput("too large", field=label, expected=f"at most {MAX_BYTES} bytes", got=f"{len(content)} bytes")
    try:
        text = content.decode("utf-8-sig")
        found = yaml.load(text, _TextKeys if text_keys else _Loader)  # noqa: S506  a safe loader, with more refusals
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark
        line = "" if mark is None else f":{mark.line + 1}"
        raise InvalidInput(f"not YAML ({problem.problem})", field=f"{label}{line}") from None
    except RecursionError:
        raise InvalidInput("not YAML that can be read: it is nested too deeply", field=label) from None
    except (yaml.YAMLError, ValueError) as problem:  # ValueError: a date like 2024-99-99, text that is not UTF-8
        raise InvalidInput(f"not YAML ({str(problem).splitlines()[0]})", field=label) from None
    _count(found, label)
    return found


def lines_of(content: bytes) -> dict[str, int]:
    """The line of each path (`endpoints.fraud.versions`, `models[0].name`) in what `read_yaml` has read before."""
    try:
        root = yaml.compose(content.decode("utf-8-sig"), _TextKeys)
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    found: dict[str, int] = {}
    waiting: list[tuple[str, yaml.Node | None]] = [("", root)]
    while waiting and len(found) <= MAX_VALUES:
        path, node = waiting.pop()
        if isinstance(node, yaml.MappingNode):
            parts = [(f"{path}.{key.value}" if path else str(key.value), key, value) for key, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            parts = [(f"{path}[{number}]", value, value) for number, value in enumerate(node.value)]
        else:
            continue
        for name, marked, value in parts:
            if found.setdefault(name, marked.start_mark.line + 1) == marked.start_mark.line + 1:
                waiting.append((name, value))
    return found


def _count(found: object, label: str) -> None:
    """Refuses what grows when its aliases are followed, without following them all (a cycle included)."""
    waiting, count = [found], 1
    while waiting:
        value = waiting.pop()
        inside = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else ()
        count += len(inside)  # before they are kept: a list may hold one large list very often
        if count > MAX_VALUES:
            raise InvalidInput("its aliases unfold into too much", field=label, expected=f"at most {MAX_VALUES} values")
        waiting.extend(inside)
