"""What stands in `compiled.json`: an original, its proved twins, and which of them answers how many rows."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from turnout.core.errors import LoadFailed
from turnout.core.signature import Signature

FILE = "compiled.json"
SCHEMA = 1
#: What a guard does with values on which the twin was not proved equal: the original answers, or nobody does.
NATIVE, REFUSE = "native", "refuse"
_ACTIONS = {"", NATIVE, REFUSE}


@dataclass(frozen=True, slots=True)
class Guard:
    """For one input: on which values the twin does not answer.

    nan, inf, above, unseen: "" (the twin answers), "native" (the original does) or "refuse" (the original refuses
    them, so they are refused). `above` is for numbers whose size is over `limit`; `known` are the texts that are
    not unseen. nan_columns, inf_columns: the columns that these two are about, empty for all.
    """

    input: str
    nan: str = ""
    inf: str = ""
    above: str = ""
    limit: float = math.inf
    unseen: str = ""
    known: tuple[str, ...] = ()
    nan_columns: tuple[int, ...] = ()
    inf_columns: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not {self.nan, self.inf, self.above, self.unseen} <= _ACTIONS:
            raise ValueError(f"a guard of {self.input!r} has an unknown action")

    @property
    def sends_away(self) -> bool:
        """Whether some values go to the original."""
        return NATIVE in (self.nan, self.inf, self.above, self.unseen)


@dataclass(frozen=True, slots=True)
class Twin:
    """A proved twin: its name, its file in the directory, and the threads it was measured with."""

    name: str
    file: str
    threads: int = 1


@dataclass(frozen=True, slots=True)
class Choice:
    """What answers best at one batch size: `seconds` is the median time of each candidate."""

    rows: int
    variant: str
    seconds: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Compiled:
    """The whole of `compiled.json`. `files` are the digests of all other files in the directory.

    original: its path in the directory; original_format: its format, which is also its variant's name.
    machine: where the choices were measured. proof, tolerance: as reported when it was compiled.
    """

    original: str
    original_format: str
    twins: tuple[Twin, ...]
    files: Mapping[str, str]
    signature: Signature
    guards: tuple[Guard, ...]
    choices: tuple[Choice, ...]
    threads: int = 1
    machine: Mapping[str, Any] = field(default_factory=dict)
    libraries: Mapping[str, str] = field(default_factory=dict)
    tolerance: Mapping[str, float] = field(default_factory=dict)
    proof: Mapping[str, Any] = field(default_factory=dict)

    @property
    def needs_original(self) -> bool:
        """Whether the original may have to answer, and so has to be loaded."""
        won = any(choice.variant == self.original_format for choice in self.choices)
        return won or any(guard.sends_away for guard in self.guards) or any(s.optional for s in self.signature.inputs)

    def table(self) -> list[tuple[float, str]]:
        """(most rows, variant) in rising order; the border between two measured sizes is their geometric mean."""
        found: list[tuple[float, str]] = []
        ordered = sorted(self.choices, key=lambda choice: choice.rows)
        for at, choice in enumerate(ordered):
            last = at + 1 == len(ordered)
            bound = math.inf if last else math.sqrt(choice.rows * ordered[at + 1].rows)
            if found and found[-1][1] == choice.variant:
                found[-1] = (bound, choice.variant)
            else:
                found.append((bound, choice.variant))
        return found

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        found = {name: getattr(self, name) for name in self.__dataclass_fields__}
        found |= {
            "signature": self.signature.to_json(),
            "twins": [asdict(twin) for twin in self.twins],
            "guards": [_guard_json(guard) for guard in self.guards],
            "choices": [asdict(choice) for choice in self.choices],
        }
        return {"turnout": "compiled", "schema": SCHEMA, **found}

    @classmethod
    def from_json(cls, found: Any) -> Compiled:
        """From the form of `to_json`. Raises ValueError, TypeError or KeyError where it is not that."""
        if found.pop("turnout") != "compiled" or found.pop("schema") != SCHEMA:
            raise ValueError(f"not a compiled model of schema {SCHEMA}")
        made = cls(
            **{
                **found,
                "signature": Signature.from_json(found["signature"]),
                "twins": tuple(Twin(**twin) for twin in found["twins"]),
                "guards": tuple(_guard_from(guard) for guard in found["guards"]),
                "choices": tuple(Choice(**choice) for choice in found["choices"]),
            }
        )
        names = {made.original_format, *(twin.name for twin in made.twins)}
        if not made.choices or not all(choice.variant in names and choice.rows > 0 for choice in made.choices):
            raise ValueError("its table of choices names no variant that is there")
        inputs = {spec.name for spec in made.signature.inputs}
        if not all(guard.input in inputs for guard in made.guards):
            raise ValueError("a guard is about an input that is not there")
        for name in (made.original, *(twin.file for twin in made.twins), *made.files):
            _check_inside(name)
        if not all(twin.file in made.files for twin in made.twins):
            raise ValueError("a twin has no digest")
        return made


def _guard_json(guard: Guard) -> dict[str, Any]:
    return {**asdict(guard), "limit": None if math.isinf(guard.limit) else guard.limit}


def _guard_from(found: Mapping[str, Any]) -> Guard:
    limit = found.get("limit")
    return Guard(
        **{
            **found,
            "limit": math.inf if limit is None else float(limit),
            "known": tuple(map(str, found.get("known", ()))),
            **{name: tuple(map(int, found.get(name, ()))) for name in ("nan_columns", "inf_columns")},
        }
    )


def _check_inside(name: Any) -> None:
    parts = PurePosixPath(name)
    if not name or parts.is_absolute() or ".." in parts.parts or "\\" in name or "\0" in name:
        raise ValueError(f"the file {name!r} is not inside the directory")


def read(directory: Path) -> Compiled:
    """What a compiled directory says of itself. Raises LoadFailed."""
    try:
        return Compiled.from_json(json.loads((directory / FILE).read_bytes()))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as problem:
        raise LoadFailed(
            f"{directory.name}: {FILE} cannot be read ({type(problem).__name__}: {problem}); "
            "it is damaged or of another version: compile the model again"
        ) from None


def digests(directory: Path) -> dict[str, str]:
    """The sha256 of every file below a directory but its own `compiled.json`, by relative path."""
    found = {}
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if path.is_file() and name != FILE:
            found[name] = digest(path)
    return found


def digest(path: Path) -> str:
    """The sha256 of a file."""
    with path.open("rb") as stream:
        return "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest()


def check_files(directory: Path, compiled: Compiled, names: Sequence[str]) -> None:
    """Raises LoadFailed unless these files, and all below those that are directories, have their digests."""
    for name in names:
        path = directory / name
        inside = [n for n in compiled.files if n == name or n.startswith(f"{name}/")]
        present = digests(path) if path.is_dir() else {}
        extra = [n for n in present if f"{name}/{n}" not in compiled.files]
        if not inside or extra or path.is_symlink():
            raise LoadFailed(f"{directory.name}: {name} is not what was compiled; compile the model again")
        for one in inside:
            file = directory / one
            if not file.is_file() or file.is_symlink():
                raise LoadFailed(f"{directory.name}: {one} is missing; compile the model again")
            if digest(file) != compiled.files[one]:
                raise LoadFailed(f"{directory.name}: {one} was changed or damaged after it was compiled")


def this_machine() -> dict[str, Any]:
    """What decides which engine is faster here: the processor's name and how many of its cores may be used."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    return {"cpu": name, "cores": cores}
