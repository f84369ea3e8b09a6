"""What an environment is: the packages a model brings, as a virtualenv that its workers run in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from turnout.core.errors import InvalidInput

#: Told one line at a time while an environment is built.
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Requirements:
    """What a model asks for.

    lines: requirement lines in their canonical form, with `--hash=` where the model brought hashes. python: the
    wanted version ("3.11", "" for any). origin: where they were found, for messages ("requirements.txt",
    "conda.yaml", "the spec"). constraints: lines that limit a version without asking for the package. places:
    options by which the model's files name indexes; never followed, kept so that it can be said.
    """

    lines: tuple[str, ...]
    python: str = ""
    origin: str = "the spec"
    constraints: tuple[str, ...] = ()
    places: tuple[str, ...] = ()

    @property
    def hashed(self) -> bool:
        """Whether every file that may be installed is fixed by its hash."""
        return bool(self.lines) and all("--hash=" in line for line in self.lines)


@dataclass(frozen=True, slots=True)
class IndexPolicy:
    """From where packages may come. With nothing named, what the host's own pip is configured to ask.

    index_urls: asked in this order; a package comes from the first that knows it. public: whether the default
    public index may be asked too, after these. wheels: folders of wheels. offline: ask no index at all.
    source_builds: whether a package without a wheel may be built (runs its code). require_hashes: refuse
    requirements without hashes.
    """

    index_urls: tuple[str, ...] = ()
    public: bool = True
    wheels: tuple[Path, ...] = ()
    offline: bool = False
    source_builds: bool = False
    require_hashes: bool = False

    def __post_init__(self) -> None:
        if wrong := next((url for url in self.index_urls if "://" not in url), None):
            raise InvalidInput(
                "not the address of a package index", field="index_urls", expected="https://HOST/PATH", got=repr(wrong)
            )

    @property
    def host(self) -> bool:
        """Whether the host's own configuration says where packages come from, because the operator does not."""
        return not self.index_urls and self.public and not self.offline


@dataclass(frozen=True, slots=True)
class Environment:
    """A finished environment: immutable, shared by every model with the same requirements.

    digest: of requirements, Python and policy; its name on disk. python: the interpreter to start a worker with.
    packages: name to version, as installed. nbytes: on disk; shared_bytes: the part of it that hard links share
    with the installer's cache or other environments. built, used: when it was built and last asked for, in seconds
    since the epoch. lines: the requirements as they were given.
    """

    digest: str
    path: Path
    python: Path
    origin: str = ""
    packages: Mapping[str, str] = field(default_factory=dict)
    nbytes: int = 0
    shared_bytes: int = 0
    built: float = 0.0
    used: float = 0.0
    lines: tuple[str, ...] = ()
