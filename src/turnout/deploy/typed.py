"""Plain values become typed ones, and what does not fit is refused by its path, with what was meant perhaps."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec

from turnout.core.errors import InvalidInput
from turnout.deploy.problems import Problems, placed

T = TypeVar("T")
_AT = re.compile(r" - at `\$?(?P<path>[^`]*)`$")
_MISSING = re.compile(r"Object missing required field `(?P<field>[^`]*)`")
#: What msgspec calls a kind of value, and a user does.
_WORDS = {
    "float": "a number", "int": "a whole number", "str": "a text", "bool": "true or false", "array": "a list",
    "object": "keys with values", "null": "nothing",
}  # fmt: skip


def typed(kind: type[T], said: object, path: str) -> T:
    """A value of that type. Raises InvalidInput for all that is wrong, with the paths in the document."""
    try:
        return _converted(kind, said, path)
    except InvalidInput:
        problems = Problems()
        _look(kind, said, path, problems)
        problems.check()
        raise


def under(problem: InvalidInput, path: str) -> InvalidInput:
    """The same, said of a part of the document."""

    def whole(field: str) -> str:
        if field == path.rpartition(".")[2]:  # what a policy calls itself
            return path
        return field if field == path or field.startswith((f"{path}.", f"{path}[")) else join(path, field)

    return placed(problem, whole)


def join(path: str, name: str) -> str:
    """The path of a part."""
    return f"{path}.{name}" if path and name and not name.startswith("[") else path + name


def known(said: Mapping[str, Any], keys: Sequence[str], path: str) -> None:
    """Raises InvalidInput for keys that are not among these, with the nearest of them and a corrected line."""
    problems = Problems()
    for key, value in said.items():
        if key not in keys:
            problems.add(_unknown_key(key, value, keys, path))
    problems.check()


def nearest(name: str, names: Sequence[str]) -> str:
    """What may have been meant; "" where nothing is near."""
    near = get_close_matches(str(name).lower(), [one.lower() for one in names], n=1, cutoff=0.5)
    return next((one for one in names if near and one.lower() == near[0]), "")


def unknown(path: str, name: str, names: Sequence[str], reason: str = "unknown", line: str = "") -> InvalidInput:
    """What is not known, with the nearest that is. line: what would work, with NAME in the place of it."""
    near = nearest(name, names)
    meant = (line or "NAME").replace("NAME", near) if near else ""
    return InvalidInput(
        reason, field=path, expected="one of " + (", ".join(names) or "(none)"), got=repr(name), example=meant
    )


def mapping(value: Any, path: str, example: str = "") -> Mapping[str, Any]:
    """Keys with values. Raises InvalidInput for anything else."""
    if not isinstance(value, Mapping):
        raise InvalidInput("not a mapping", field=path, expected="keys with values", got=shown(value), example=example)
    return value


def shown(value: Any, length: int = 60) -> str:
    """A value as a person may read it in one line; short."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= length else text[: length - 4] + " ..."


@cache
def struct_fields(kind: type[msgspec.Struct]) -> tuple[msgspec.structs.FieldInfo, ...]:
    """The fields of a struct. Kept: to find their types takes long."""
    return msgspec.structs.fields(kind)


def _unknown_key(key: Any, value: Any, keys: Sequence[str], path: str) -> InvalidInput:
    return unknown(join(path, str(key)), str(key), keys, line=f"NAME: {shown(value)}")


def _look(kind: Any, said: object, path: str, problems: Problems) -> None:
    """Finds what is wrong with the parts, so that one is not hidden by another."""
    struct, before = _struct(kind), problems.count
    if struct is not None and isinstance(said, Mapping):
        fields = {field.encode_name: field for field in struct_fields(struct)}
        for key, value in said.items():
            if key not in fields:
                problems.add(_unknown_key(key, value, tuple(fields), path))
            else:
                _look(fields[key].type, value, join(path, key), problems)
        for key, field in fields.items():
            if field.required and key not in said:
                problems.add(_missing(join(path, key)))
        if problems.count == before:  # what the parts mean together is looked at where all of them are fine
            problems.take(lambda: _converted(struct, said, path), None)
        return
    inner = _inner(kind)
    if inner is not None and isinstance(said, list | tuple):
        for number, value in enumerate(said):
            _look(inner, value, f"{path}[{number}]", problems)
    elif inner is not None and isinstance(said, Mapping):
        for key, value in said.items():
            _look(inner, value, join(path, str(key)), problems)
    else:
        problems.take(lambda: _converted(kind, said, path), None)


def _converted(kind: type[T], said: object, path: str) -> T:
    try:
        return msgspec.convert(said, kind, strict=True)
    except msgspec.ValidationError as problem:
        raise _refused(kind, problem, said, path) from None
    except InvalidInput as problem:  # of a value that has the right type and means nothing
        raise under(problem, path) from None


def _refused(kind: Any, problem: msgspec.ValidationError, said: object, path: str) -> InvalidInput:
    cause = problem.__cause__
    if isinstance(cause, InvalidInput):
        return under(cause, path)
    text = str(problem)
    place = _AT.search(text)
    inner = place["path"].removeprefix(".").replace("[...]", "") if place else ""
    where = join(path, inner)
    reason = _AT.sub("", text)
    if reason.startswith("Invalid enum value"):
        return InvalidInput("not one of the words", field=where, expected=_allowed(kind), got=shown(said))
    if (found := _MISSING.match(reason)) is not None:
        return _missing(join(where, found["field"]))
    wanted, _, got = reason.partition(", got ")
    if not got:
        return InvalidInput(reason, field=where, got=shown(said))
    expected = " or ".join(_WORDS.get(word, word) for word in wanted.removeprefix("Expected ").strip("`").split(" | "))
    return InvalidInput("of the wrong kind", field=where, expected=expected, got=shown(said) if not inner else got)


def _allowed(kind: Any) -> str:
    return " or ".join(str(word) for one in _choices(kind) if get_origin(one) is Literal for word in get_args(one))


def _missing(path: str) -> InvalidInput:
    return InvalidInput("missing", field=path, expected="a value")


def _struct(kind: Any) -> type[msgspec.Struct] | None:
    """The one struct that a type may be, if it is one."""
    found = [one for one in _choices(kind) if isinstance(one, type) and issubclass(one, msgspec.Struct)]
    return found[0] if len(found) == 1 else None


def _inner(kind: Any) -> Any:
    """What a list or a mapping holds, where that is one type with a struct in it."""
    for one in _choices(kind):
        arguments = [part for part in get_args(one) if part is not Ellipsis]
        if arguments and _holds_struct(arguments[-1]):
            return arguments[-1]
    return None


def _holds_struct(kind: Any) -> bool:
    return _struct(kind) is not None or any(_holds_struct(part) for part in get_args(kind))


def _choices(kind: Any) -> Iterator[Any]:
    """What a type may be; itself, if it is no union."""
    if get_origin(kind) in {Union, UnionType}:
        for part in get_args(kind):
            yield from _choices(part)
    else:
        yield kind
