"""Plain values become typed ones, and what does not fit is refused by its path, with what was meant perhaps."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

import msgspec

from turnout.core.errors import InvalidInput

T = TypeVar("T")
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<field>[^`]*)`")
_AT = re.compile(r" - at `\$?(?P<path>[^`]*)`$")


def typed(kind: type[T], said: object, path: str) -> T:
    """A value of that type. Raises InvalidInput, with the path in the document that the value comes from."""
    try:
        return msgspec.convert(said, kind, strict=True)
    except msgspec.ValidationError as problem:
        raise _refused(kind, problem, path) from None
    except InvalidInput as problem:  # of a value that has the right type and means nothing
        raise under(problem, path) from None


def under(problem: InvalidInput, path: str) -> InvalidInput:
    """The same, said of a part of the document."""
    field = problem.field
    whole = field if field == path or field.startswith(f"{path}.") else join(path, field)
    return InvalidInput(
        problem.reason, field=whole, expected=problem.expected, got=problem.got, example=problem.example
    )


def join(path: str, name: str) -> str:
    """The path of a part."""
    return f"{path}.{name}" if path and name and not name.startswith("[") else path + name


def known(said: Mapping[str, Any], keys: tuple[str, ...], path: str) -> None:
    """Raises InvalidInput for the first key that is not among these, with the nearest of them."""
    for key in said:
        if key not in keys:
            raise unknown(join(path, str(key)), str(key), keys)


def unknown(path: str, name: str, names: tuple[str, ...] | list[str]) -> InvalidInput:
    """What is not known, with the nearest that is."""
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    return InvalidInput(
        "unknown", field=path, expected="one of " + ", ".join(names), got=repr(name), example=near[0] if near else ""
    )


def _refused(kind: type[Any], problem: msgspec.ValidationError, path: str) -> InvalidInput:
    text = str(problem)
    place = _AT.search(text)
    inner = place["path"].removeprefix(".") if place else ""
    reason = _AT.sub("", text)
    if (found := _UNKNOWN.match(reason)) is not None:
        return unknown(join(join(path, inner), found["field"]), found["field"], _fields(kind, inner))
    wanted, _, got = reason.partition(", got ")
    expected = wanted.removeprefix("Expected ").strip("`") if got else ""
    return InvalidInput(
        "of the wrong kind" if got else reason, field=join(path, inner), expected=expected, got=got.strip("`")
    )


def _fields(kind: Any, inner: str) -> tuple[str, ...]:
    """The keys of the struct at a path within another one, as far as that can be followed."""
    for name in [part for part in re.split(r"[.\[]", inner) if part and not part.startswith(("...", "]"))]:
        found = {one.encode_name: one.type for one in msgspec.structs.fields(kind)}.get(name.rstrip("]"))
        structs = [one for one in _parts(found) if isinstance(one, type) and issubclass(one, msgspec.Struct)]
        if not structs:
            break
        kind = structs[0]
    return tuple(one.encode_name for one in msgspec.structs.fields(kind))


def _parts(kind: Any) -> list[Any]:
    inner = getattr(kind, "__args__", ())
    return [kind, *(part for one in inner for part in _parts(one))]
