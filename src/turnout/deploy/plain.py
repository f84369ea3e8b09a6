"""Typed values become what a document would say of them, as short as it can be said: equal meaning, equal form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from turnout.deploy.model_entry import plain_number
from turnout.deploy.typed import struct_fields
from turnout.graph.outputs import OutputsPolicy


def plain(value: Any) -> Any:
    """Structs as the keys that are not at their defaults, numbers as they are written shortest."""
    if isinstance(value, OutputsPolicy):
        return _outputs(value)
    if isinstance(value, msgspec.Struct):
        return _struct(value)
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return plain_number(value)


def _struct(value: msgspec.Struct) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in struct_fields(type(value)):
        default = field.default
        if field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        inner = getattr(value, field.name)
        if inner != default and not (_is_empty(inner) and _is_empty(default)):
            found[field.encode_name] = plain(inner)
    return found


def _is_empty(value: Any) -> bool:
    return isinstance(value, list | tuple) and not value


def _outputs(value: OutputsPolicy) -> dict[str, Any]:
    """Outputs beside the settings, but for one that is called like a setting."""
    found = _struct(value)
    each = found.pop("each", {})
    clash = {name: inner for name, inner in each.items() if name in OutputsPolicy.__struct_fields__}
    beside = {name: inner for name, inner in each.items() if name not in clash}
    return {**found, **beside, **({"each": clash} if clash else {})}
