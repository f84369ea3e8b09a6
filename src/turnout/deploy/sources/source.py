"""What a source is: it pins a URI to something immutable, then brings that onto this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from turnout.core.errors import SourceFailed

#: Told while bytes arrive: (what, bytes so far, bytes in total or 0 where nobody knows).
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """What the operator allows and names; the same for every source. Sizes in bytes, durations in seconds.

    options: by source name, what its client needs to know ("s3": {"endpoint": ...}); credentials come from the
    environment variables that each client knows, never from here. allowed_hosts: hosts (or host:port) that may be
    asked although they are on a private network. timeout: of one answer, not of a whole fetch. attempts: how often
    in a row something is tried without a byte of progress; retry_wait: about how long the first pause is, doubled
    for each further one. offline: ask nobody, and use what is kept.
    """

    allow_https: bool = False
    allowed_hosts: tuple[str, ...] = ()
    max_artifact_bytes: int = 64 << 30
    timeout: float = 60.0
    attempts: int = 4
    retry_wait: float = 0.5
    offline: bool = False
    options: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pinned:
    """A URI at one moment: what it stood for then, and will stand for ever.

    uri: as the user gave it. pinned: the immutable form (a commit, a digest, a version, an entity tag), itself
    a URI that the same source takes. version: the registry's own number, where there is one. facts: what
    `fetch` needs of what `resolve` found (object names with their sizes and entity tags, say); plain JSON.
    file: the name of the one file that the URI stands for, "" where it is a directory. unpack: whether that file is
    an archive, whose content is the artifact. nbytes: what will be fetched, 0 where nobody knows.
    """

    uri: str
    pinned: str
    version: str = ""
    facts: Mapping[str, object] = field(default_factory=dict)
    file: str = ""
    unpack: bool = False
    nbytes: int = 0


def check_size(nbytes: int, limit: int) -> None:
    """Raises SourceFailed for an artifact above the limit; both in bytes."""
    if nbytes > limit:
        raise SourceFailed(f"the artifact has {nbytes} bytes or more; the limit is {limit} (max_artifact_bytes)")


class SourceMoved(SourceFailed):
    """What was pinned is no longer there: something else took its place. Resolving again may help."""

    def __init__(self, message: str) -> None:
        super().__init__(message, retryable=True)


class Source(Protocol):
    """One kind of place; one file each, the only one that speaks to it.

    `schemes` are the beginnings it takes ("s3"); `extra` is the dependency group that brings its library.
    `resumes`: whether `fetch` goes on where an interrupted one stopped; if not, it gets an empty directory each time.
    `retries`: whether it tries again by itself; if not, the cache does.
    Both methods block, and raise SourceFailed (retryable when trying again may help) with what was asked, of
    whom, and what came.
    """

    @property
    def name(self) -> str: ...
    @property
    def schemes(self) -> tuple[str, ...]: ...
    @property
    def extra(self) -> str: ...
    @property
    def resumes(self) -> bool: ...
    @property
    def retries(self) -> bool: ...

    def resolve(self, uri: str, settings: SourceSettings) -> Pinned:
        """What the URI stands for now. Brings no artifact; quick enough to be asked every few seconds."""
        ...

    def fetch(self, pinned: Pinned, into: Path, settings: SourceSettings, progress: Progress) -> None:
        """Writes the artifact's files into the directory `into`.

        It is empty, or has what an interrupted fetch of the same pinned URI left there (only if `resumes`). What the
        source keeps in it for itself is gone when this returns. Where `pinned.file` is set, that is the only file.
        Raises SourceMoved if the place no longer has what was pinned.
        """
        ...
