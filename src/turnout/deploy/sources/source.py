"""What a source is: it pins a URI to something immutable, then brings that onto this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

#: Told while bytes arrive: (what, bytes so far, bytes in total or 0 where nobody knows).
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """What the operator allows and names; the same for every source. Sizes in bytes, durations in seconds.

    options: by source name, what its client needs to know ("s3": {"endpoint": ...}); credentials come from the
    environment variables that each client knows, never from here.
    """

    allow_https: bool = False
    allowed_hosts: tuple[str, ...] = ()
    max_artifact_bytes: int = 64 << 30
    timeout: float = 60.0
    attempts: int = 4
    options: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pinned:
    """A URI at one moment: what it stood for then, and will stand for ever.

    uri: as the user gave it. pinned: the immutable form (a commit, a digest, a version, an entity tag), itself
    a URI that the same source takes. version: the registry's own number, where there is one. facts: what
    `fetch` needs of what `resolve` found (object names with their sizes and entity tags, say); plain JSON.
    """

    uri: str
    pinned: str
    version: str = ""
    facts: Mapping[str, object] = field(default_factory=dict)


class Source(Protocol):
    """One kind of place; one file each, the only one that speaks to it.

    `schemes` are the beginnings it takes ("s3"); `extra` is the dependency group that brings its library.
    Both methods block, and raise SourceFailed (retryable when trying again may help) with what was asked, of
    whom, and what came.
    """

    name: str
    schemes: tuple[str, ...]
    extra: str

    def resolve(self, uri: str, settings: SourceSettings) -> Pinned:
        """What the URI stands for now. Brings no artifact; quick enough to be asked every few seconds."""
        ...

    def fetch(self, pinned: Pinned, into: Path, settings: SourceSettings, progress: Progress) -> None:
        """Writes the artifact's files into the empty directory `into`; resumes nothing by itself, hides nothing."""
        ...
