"""Which versions of a repository are served: a pure decision over their names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from turnout.core.errors import InvalidInput

_NUMBER = re.compile(r"[0-9]+")
#: Labels stand in URLs beside version numbers, so one must never look like the other.
LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_EXAMPLES = "latest:2, all, or specific:1,3"


@dataclass(frozen=True, slots=True)
class VersionPolicy:
    """`latest` so many, `all`, or `specific` ones.

    count: for latest, at least 1. versions: for specific, as they are named in the repository.
    """

    kind: str = "latest"
    count: int = 1
    versions: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.kind == "latest":
            return f"latest:{self.count}"
        return "all" if self.kind == "all" else f"specific:{','.join(self.versions)}"

    def choose(self, available: Iterable[str]) -> list[str]:
        """The versions to serve, oldest first. A specific one that is not there is simply not among them."""
        ordered = sorted(available, key=age)
        if self.kind == "latest":
            return ordered[-self.count :]
        return ordered if self.kind == "all" else [version for version in ordered if version in self.versions]

    def missing(self, available: Iterable[str]) -> list[str]:
        """Specific versions that are not there."""
        there = set(available)
        return [version for version in self.versions if version not in there]

    @classmethod
    def parse(cls, said: Any, field: str = "versions") -> VersionPolicy:
        """From words (`latest:2`, `all`, `specific:1,3`) or the spec file's form (`{latest: 2}`, `[1, 3]`).

        Raises InvalidInput.
        """
        if isinstance(said, dict) and len(said) == 1:
            kind, value = next(iter(said.items()))
            said = f"{kind}:{','.join(map(str, value)) if isinstance(value, list) else value}"
        if isinstance(said, int) and not isinstance(said, bool):
            said = f"specific:{said}"
        elif isinstance(said, list):
            said = f"specific:{','.join(map(str, said))}"
        kind, _, value = str(said).partition(":")
        if kind == "all" and not value:
            return cls("all")
        if kind == "latest" and (not value or (_NUMBER.fullmatch(value) and int(value) > 0)):
            return cls("latest", int(value or 1))
        if kind == "specific" and (versions := tuple(one.strip() for one in value.split(",") if one.strip())):
            return cls("specific", versions=versions)
        raise InvalidInput("not a version policy", field=field, expected=_EXAMPLES, got=repr(said))


def age(version: str) -> tuple[int, int, str]:
    """Sorts versions from old to new: numbers by value, and names before them by spelling."""
    return (1, int(version), version) if _NUMBER.fullmatch(version) else (0, 0, version)
