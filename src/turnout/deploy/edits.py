"""The difference between two documents as edits that turn one into the other, for whoever compares revisions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

#: In the place of a value: there is none.
ABSENT: Any = ...


class Edit(NamedTuple):
    """One place where they differ; `before` or `after` is ABSENT where there is nothing. Lists are one value."""

    path: tuple[str, ...]
    before: Any
    after: Any

    def to_json(self) -> dict[str, Any]:
        """As JSON values; what is absent has no key."""
        found: dict[str, Any] = {"path": list(self.path)}
        sides = {"before": self.before, "after": self.after}
        return found | {key: value for key, value in sides.items() if value is not ABSENT}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Edit:
        """From the form of `to_json`."""
        return cls(tuple(found["path"]), found.get("before", ABSENT), found.get("after", ABSENT))


def by_name(said: Mapping[str, Any]) -> dict[str, Any]:
    """A document's JSON form with its models by their names, so that the order of a list is no difference."""
    models = {model["name"]: {key: value for key, value in model.items() if key != "name"} for model in said["models"]}
    return {**said, "models": models}


def by_number(said: Mapping[str, Any]) -> dict[str, Any]:
    """The reverse of `by_name`."""
    return {**said, "models": [{"name": name, **model} for name, model in said["models"].items()]}


def edits(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Edit]:
    """What turns one document's JSON form into the other's, in the order of the paths; none where they are equal."""
    found = _edits((), by_name({"models": [], **before}), by_name({"models": [], **after}))
    return sorted(found, key=lambda edit: edit.path)


def edited(before: Mapping[str, Any], changes: Sequence[Edit]) -> dict[str, Any]:
    """A document's JSON form after edits. Raises ValueError where something else stands than an edit has seen."""
    whole = _copy(by_name({"models": [], **before}))
    for edit in changes:
        place = whole
        for key in edit.path[:-1]:
            place = place.setdefault(key, {})
        if place.get(edit.path[-1], ABSENT) != edit.before:
            raise ValueError(f"{'.'.join(edit.path)} is not what it was")
        if edit.after is ABSENT:
            del place[edit.path[-1]]
        else:
            place[edit.path[-1]] = _copy(edit.after)
    found = by_number(whole)
    return {key: value for key, value in found.items() if value or key != "models"}


def _edits(path: tuple[str, ...], before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Edit]:
    for key in {**before, **after}:
        old, new = before.get(key, ABSENT), after.get(key, ABSENT)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            if path[-1:] == ("ensemble",) and [*old] != [*new]:
                yield Edit((*path, key), old, new)  # its order means something
            else:
                yield from _edits((*path, key), old, new)
        elif old is ABSENT or new is ABSENT or old != new:
            yield Edit((*path, key), old, new)


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(inner) for key, inner in value.items()}
    return [_copy(inner) for inner in value] if isinstance(value, list) else value
