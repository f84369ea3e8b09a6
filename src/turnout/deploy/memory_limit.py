"""How much memory there is: what was said, what the cgroup allows, or what the machine has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from turnout.core.errors import InvalidInput

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40}
_SIZE = re.compile(r"(?P<number>[0-9]+(\.[0-9]+)?) *(?P<unit>[A-Za-z]*)")


class Limit(NamedTuple):
    """How much there is (bytes), and who says so."""

    nbytes: int
    why: str


def limit_of(said: int, files: Path = Path("/")) -> Limit:
    """The limit that was said (bytes, 0 for none), or that of the cgroup, or what the machine has."""
    if said:
        return Limit(said, "server.memory_limit")
    found = [Limit(_machine(files), "the memory of this machine")]
    found += [Limit(nbytes, "the limit of this cgroup") for nbytes in _cgroups(files)]
    return min((one for one in found if one.nbytes > 0), default=Limit(1 << 62, "nobody says how much there is"))


def parse_bytes(said: Any, field: str) -> int:
    """A number of bytes, or a text with a unit (`4GiB`, `512 MB`). Raises InvalidInput."""
    if isinstance(said, int) and not isinstance(said, bool) and said >= 0:
        return said
    found = _SIZE.fullmatch(said.strip()) if isinstance(said, str) else None
    unit = _UNITS.get(found["unit"].upper()) if found else None
    if found is None or unit is None:
        raise InvalidInput(
            "not a size", field=field, expected="a number of bytes, or with KiB, MiB, GiB, TiB, KB, MB, GB or TB",
            got=repr(said)[:60], example=f"{field.rpartition('.')[2]}: 4GiB",
        )  # fmt: skip
    return int(float(found["number"]) * unit)


def shown_bytes(nbytes: float) -> str:
    """In the unit that a person would use."""
    for unit in ("B", "KiB", "MiB"):
        if abs(nbytes) < 1024:
            return f"{nbytes:.0f} {unit}"
        nbytes /= 1024
    return f"{nbytes:.1f} GiB"


def _machine(files: Path) -> int:
    try:
        found = re.search(r"^MemTotal: +(\d+) kB", (files / "proc/meminfo").read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0


def _cgroups(files: Path) -> list[int]:
    """The limits of this process's cgroup and of those around it; of version 2, or of version 1."""
    try:
        lines = (files / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found: list[int] = []
    for line in lines:
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers not in {"", "memory"}:
            continue
        root = files / "sys/fs/cgroup" / controllers
        name = "memory.max" if not controllers else "memory.limit_in_bytes"
        folder = root / path.strip("/")
        while folder.is_relative_to(root):
            try:
                text = (folder / name).read_text().strip()
            except OSError:
                text = ""
            if text.isdigit() and int(text) < 1 << 60:
                found.append(int(text))
            folder = folder.parent
    return found
