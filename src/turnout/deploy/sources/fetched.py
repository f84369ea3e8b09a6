"""An artifact that is here: where it lies, what it is, and what it came from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from turnout.core.errors import LoadFailed
from turnout.deploy.sources.manifest import Manifest, manifest_of
from turnout.deploy.sources.source import Pinned


@dataclass(frozen=True, slots=True)
class Fetched:
    """An artifact on this machine, every byte of it compared with its manifest just now.

    path: the directory, or the file if the URI names one; read-only in the cache. digest: the manifest's, the
    identity of the model. stale: "" where the URI was resolved now; else why it was not, and this is what it stood
    for when it last was. from_cache: whether no byte had to be fetched. in_place: a plain path, not copied.
    """

    path: Path
    digest: str
    pinned: Pinned
    manifest: Manifest
    stale: str = ""
    from_cache: bool = False
    in_place: bool = False


def in_place(given: str) -> Fetched:
    """What lies at a plain path, where it lies. Raises LoadFailed where there is nothing."""
    path = Path(given)
    if not path.exists():
        raise LoadFailed(f"there is no file or directory {given!r}")
    manifest = manifest_of(path)
    return Fetched(path, manifest.digest, Pinned(given, given), manifest, in_place=True)


def pinned_of(found: object) -> Pinned | None:
    """From the JSON of a record; None where that is damaged."""
    try:
        return Pinned(**found) if isinstance(found, dict) else None
    except TypeError:
        return None
