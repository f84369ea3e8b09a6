"""How artifacts lie on disk: whole, read-only and named by their digest, or on their way and named so."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from turnout.core.errors import SourceFailed
from turnout.deploy.locks import FileLock
from turnout.deploy.sources.manifest import Manifest, ManifestMismatch
from turnout.deploy.trees import remove_tree, size_of, write_durably

#: Left free on the disk, for everybody else on this machine.
SPARE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Entry:
    """A whole artifact in the cache. nbytes: on disk. used: when it was last asked for, in seconds since the epoch.

    uri, pinned: where it was fetched from first. file: its name, if it is one file. in_use: whether a living process
    holds it.
    """

    digest: str
    path: Path
    uri: str
    pinned: str
    file: str
    nbytes: int
    files: int
    used: float
    in_use: bool


class ArtifactDisk:
    """The directories of a cache, safe for any number of processes at once. Everything is on one file system."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._whole = root / "whole"
        self._partial = root / "partial"
        self._trash = root / "trash"
        self._records = root / "records"
        self._locks = root / "locks"

    def prepare(self) -> None:
        """Makes the directories. Raises SourceFailed where that is not allowed."""
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            for directory in (self._whole, self._partial, self._trash, self._records, self._locks):
                directory.mkdir(exist_ok=True, mode=0o700)
        except OSError as problem:
            raise SourceFailed(
                f"cannot keep artifacts in {self.root}: {problem.strerror}; set TURNOUT_HOME to a directory that can "
                "be written to"
            ) from None

    # -- whole artifacts

    def files(self, digest: str) -> Path:
        """Where the files of an artifact are, or would be."""
        return self._whole / _hex(digest) / "files"

    def hold(self, digest: str) -> FileLock | None:
        """Keeps an artifact from being removed until the lock is released. None where there is no such one."""
        lock = self.lock_of(digest)
        lock.take(shared=True)
        if not self.files(digest).is_dir():
            lock.release()
            return None
        lock.touch()
        return lock

    def lock_of(self, digest: str) -> FileLock:
        """Shared by who uses an artifact, exclusive for who removes it."""
        return FileLock(self._locks / f"whole-{_hex(digest)}")

    def about(self, digest: str) -> Mapping[str, Any]:
        """What was written down when it was put here. Raises ManifestMismatch where that is damaged."""
        found = _read_json(self._whole / _hex(digest) / "manifest.json")
        if found is None:
            raise ManifestMismatch("the manifest of an artifact in the cache is missing or damaged")
        return found

    def manifest(self, digest: str) -> Manifest:
        """The manifest of an artifact; its digest is the one asked for. Raises ManifestMismatch where it is not."""
        manifest = Manifest.from_json(self.about(digest).get("manifest"))
        if manifest.digest != digest:
            raise ManifestMismatch(f"the manifest of {digest[:19]}... in the cache has another digest")
        return manifest

    def put(self, key: str, files: Path, manifest: Manifest, about: Mapping[str, Any]) -> FileLock:
        """Makes what was fetched an artifact of the cache, in one step; the lock that holds it.

        files: below `partial(key)`. On power loss there is all of it, or nothing.
        """
        entry = self._partial / key / "entry"
        remove_tree(entry)
        entry.mkdir()
        files.rename(entry / "files")
        _seal(entry / "files")
        write_durably(entry / "manifest.json", {**about, "manifest": manifest.to_json()})
        (entry / "manifest.json").chmod(0o444)
        _sync(entry)
        lock = self.lock_of(manifest.digest)
        lock.take(shared=True)
        target = self._whole / _hex(manifest.digest)
        try:
            if not (target / "files").is_dir():
                remove_tree(target)
                with contextlib.suppress(FileExistsError):
                    entry.rename(target)
                    target.chmod(0o555)
                    _sync(self._whole)
        except OSError as problem:
            if not (target / "files").is_dir():  # of another process, from another URI, at the same moment
                lock.release()
                raise SourceFailed(f"cannot keep the artifact in {self.root}: {problem.strerror}") from None
        remove_tree(self._partial / key)
        return lock

    def discard(self, digest: str) -> None:
        """Takes an artifact away, whoever uses it: for what is damaged."""
        self._throw(self._whole / _hex(digest))

    def remove(self, digest: str) -> bool:
        """Takes an artifact away; False where a living process holds it."""
        lock = self.lock_of(digest)
        if not lock.take(wait=False):
            return False
        try:
            self._throw(self._whole / _hex(digest))
            for path in self._records.glob("pin-*.json"):
                if (_read_json(path) or {}).get("digest", digest) == digest:
                    path.unlink(missing_ok=True)
        finally:
            lock.release(remove=True)
        return True

    def entries(self) -> Iterator[Entry]:
        """Every whole artifact, in no order."""
        for directory in self._whole.iterdir():
            digest = f"sha256:{directory.name}"
            try:
                about, manifest = self.about(digest), self.manifest(digest)
            except ManifestMismatch:
                about, manifest = {"uri": "(damaged)"}, Manifest(())
            lock = self.lock_of(digest)
            try:
                used = lock.path.stat().st_mtime
            except FileNotFoundError:
                used = 0.0
            if is_free := lock.take(wait=False):
                lock.release()
            nbytes = manifest.nbytes or size_of(directory).nbytes
            uri, pinned, file = (str(about.get(name, "")) for name in ("uri", "pinned", "file"))
            count = len(manifest.files)
            yield Entry(digest, directory / "files", uri, pinned, file, nbytes, count, used, in_use=not is_free)

    # -- artifacts on their way

    def partial(self, key: str) -> Path:
        """The directory of a fetch. Only who holds `fetch_lock(key)` may touch it."""
        return self._partial / key

    def fetch_lock(self, key: str) -> Path:
        """The lock file of a fetch."""
        return self._locks / f"fetch-{key}"

    # -- what was resolved

    def record(self, kind: str, uri: str, found: Mapping[str, Any]) -> None:
        """Writes down what is known of a URI."""
        write_durably(self._records / f"{kind}-{key_of(uri)}.json", found)

    def recorded(self, kind: str, uri: str) -> Mapping[str, Any] | None:
        """What was written down of a URI, if anything (and if it can be read)."""
        return _read_json(self._records / f"{kind}-{key_of(uri)}.json")

    # -- room

    def make_room(self, nbytes: int, max_bytes: int, *, keep: str = "") -> None:
        """Removes what has not been used for longest until `nbytes` more are allowed, and fit on the disk.

        keep: the key of the fetch that asks; what it has already counts as part of `nbytes`. Raises SourceFailed
        where what is in use leaves too little.
        """
        self.sweep()
        entries = sorted(self.entries(), key=lambda entry: entry.used)
        partials = {path: size_of(path).nbytes for path in self._partial.iterdir() if path.name != keep}
        total = sum(entry.nbytes for entry in entries) + sum(partials.values())
        own = size_of(self._partial / keep).nbytes if keep else 0

        def lacking() -> bool:
            free = shutil.disk_usage(self.root).free
            return total + nbytes > max_bytes or free < nbytes - own + SPARE_BYTES

        for path, size in sorted(
            partials.items(), key=lambda found: found[0].stat().st_mtime if found[0].exists() else 0
        ):
            if not lacking():
                return
            lock = FileLock(self.fetch_lock(path.name))
            if lock.take(wait=False):
                self._throw(path)
                lock.release(remove=True)
                total -= size
        for entry in entries:
            if not lacking():
                return
            if self.remove(entry.digest):
                total -= entry.nbytes
        if lacking():
            free = shutil.disk_usage(self.root).free
            raise SourceFailed(
                f"no room for {nbytes} bytes in the cache {self.root}: {total} bytes are in use by running servers, "
                f"the limit is {max_bytes}, and the disk has {free} free"
            )

    def sweep(self) -> None:
        """Deletes what was thrown away, by this or a process that died over it."""
        for path in self._trash.iterdir():
            remove_tree(path)

    def _throw(self, path: Path) -> None:
        """Out of sight in one step, then gone."""
        target = self._trash / uuid.uuid4().hex
        try:
            path.chmod(0o700)  # a directory that moves is written to
            path.rename(target)
        except FileNotFoundError:
            return
        remove_tree(target)


def key_of(uri: str) -> str:
    """A file name for a URI."""
    return hashlib.sha256(uri.encode("utf-8", "surrogatepass")).hexdigest()[:40]


def _seal(files: Path) -> None:
    """Makes everything read-only and durable. Files first, then the directories that name them."""
    for directory, _, names in os.walk(files, topdown=False):
        for name in names:
            _sync(Path(directory, name), mode=0o444)
        _sync(Path(directory), mode=0o555)


def _sync(path: Path, mode: int | None = None) -> None:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        if mode is not None:
            os.fchmod(file, mode)
        os.fsync(file)
    finally:
        os.close(file)


def _read_json(path: Path) -> Mapping[str, Any] | None:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _hex(digest: str) -> str:
    """The part of a digest that names a directory. Raises SourceFailed for what is no digest."""
    name, _, value = digest.partition(":")
    if name != "sha256" or len(value) != 64 or not set(value) <= set("0123456789abcdef"):
        raise SourceFailed(f"{digest[:80]!r} is no digest; expected sha256: and 64 hexadecimal digits")
    return value
