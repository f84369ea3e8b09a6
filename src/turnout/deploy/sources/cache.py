"""From a URI to a verified, read-only copy on this machine: fetched once, by whoever comes first, and kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from turnout.core.errors import LoadFailed, SourceFailed
from turnout.deploy.locks import FileLock
from turnout.deploy.sources import source_of
from turnout.deploy.sources.archives import unpack
from turnout.deploy.sources.disk import ArtifactDisk, Entry, key_of
from turnout.deploy.sources.fetched import Fetched, in_place, pinned_of
from turnout.deploy.sources.file import FileSource
from turnout.deploy.sources.manifest import Manifest, manifest_of, verify
from turnout.deploy.sources.retry import retrying
from turnout.deploy.sources.source import Pinned, Progress, Source, SourceMoved, SourceSettings, check_size
from turnout.deploy.trees import remove_tree

__all__ = ["ArtifactCache", "Fetched"]
DEFAULT_MAX_BYTES = 100 << 30


def _silent(what: str, done: int, total: int) -> None:
    """Nobody is told."""


class ArtifactCache:
    """What was fetched, by the digest of its content. Any number of processes and threads may share one directory.

    root: made if it is not there. max_bytes: of all artifacts together; what no living process uses goes first, and
    of that what has not been used for longest. What `fetch` and `open` return stays until `release`, or until this
    process ends.
    """

    def __init__(self, root: Path, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self.root = root
        self.max_bytes = max_bytes
        self._disk = ArtifactDisk(root)
        self._held: dict[str, list[FileLock]] = {}

    def resolve(
        self, uri: str, settings: SourceSettings, progress: Progress = _silent, *, fresh: bool = False
    ) -> tuple[Pinned, str]:
        """What the URI stands for, and "" or why that could not be asked now (then it is what it last stood for).

        `fresh` refuses what it last stood for. Raises SourceFailed where nobody can say, and LoadFailed for a plain
        path or a reference to code.
        """
        source = source_of(uri)
        if source is None:
            raise LoadFailed(f"{uri!r} is not a URI")
        self._disk.prepare()
        return self._resolve(source, uri, settings, progress, fresh=fresh)

    def fetch(self, uri: str, settings: SourceSettings, progress: Progress = _silent) -> Fetched:
        """The artifact behind a URI, or at a plain path, which stays where it is.

        Raises SourceFailed with what was asked, of whom, and what came; LoadFailed for content that is refused.
        """
        source = source_of(uri)
        if source is None:
            return in_place(uri)
        self._disk.prepare()
        attempts = 0
        while True:
            pinned, stale = self._resolve(source, uri, settings, progress)
            try:
                return self._fetch(source, pinned, stale, settings, progress)
            except SourceMoved as moved:
                attempts += 1
                if stale or attempts >= settings.attempts:
                    raise
                progress(f"{moved.message}; looking again", 0, 0)

    def arriving(self, pinned: Pinned) -> Path:
        """Where the files of a fetch under way appear, whole or not; for a look, and nothing else."""
        return self._disk.partial(key_of(pinned.pinned)) / "files"

    def open(self, digest: str) -> Fetched:
        """An artifact that is here already, verified. Raises SourceFailed where it is not, or is damaged."""
        self._disk.prepare()
        lock = self._disk.hold(digest)
        if lock is None:
            raise SourceFailed(f"the cache {self.root} holds no artifact {digest}")
        try:
            manifest = self._verified(digest)
            about = self._disk.about(digest)
        except LoadFailed as problem:
            lock.release()
            raise SourceFailed(f"{problem.message}; remove it from the cache, and fetch it again") from None
        self._held.setdefault(digest, []).append(lock)
        pinned = pinned_of(about.get("from")) or Pinned(digest, digest)
        return Fetched(self._path(digest, pinned), digest, pinned, manifest, from_cache=True)

    def hold(self, digest: str) -> bool:
        """Keeps an artifact that is in use already, without a look at it. False where it is not here."""
        lock = self._disk.hold(digest)
        if lock is not None:
            self._held.setdefault(digest, []).append(lock)
        return lock is not None

    def release(self, digest: str) -> None:
        """Says that one use of an artifact (one `fetch` or `open`) is over. Without effect for one in place."""
        held = self._held.get(digest)
        if held:
            held.pop().release()
            if not held:
                del self._held[digest]

    def entries(self) -> list[Entry]:
        """What the cache holds, what was used last first."""
        self._disk.prepare()
        return sorted(self._disk.entries(), key=lambda entry: entry.used, reverse=True)

    def remove(self, digest: str) -> None:
        """Deletes an artifact. Raises SourceFailed where there is none, or a living process uses it."""
        self._disk.prepare()
        if not self._disk.files(digest).parent.is_dir():
            raise SourceFailed(f"the cache {self.root} holds no artifact {digest}")
        if not self._disk.remove(digest):
            raise SourceFailed(f"{digest} is in use by a running process")

    def verify(self, digest: str) -> Manifest:
        """Compares every byte of an artifact with its manifest. Raises ManifestMismatch."""
        self._disk.prepare()
        if not self._disk.files(digest).parent.is_dir():
            raise SourceFailed(f"the cache {self.root} holds no artifact {digest}")
        return self._verified(digest)

    # -- resolving

    def _resolve(
        self, source: Source, uri: str, settings: SourceSettings, progress: Progress, *, fresh: bool = False
    ) -> tuple[Pinned, str]:
        kept = self._kept_pin(uri)
        if kept is not None:  # the URI is immutable itself, and its content is here
            return kept, ""
        last = pinned_of((self._disk.recorded("uri", uri) or {}).get("from"))
        usable = last is not None and not fresh and self._kept_pin(last.pinned) is not None
        if settings.offline and not isinstance(source, FileSource):
            why = "offline: nobody was asked"
            failure = SourceFailed(f"{uri} has not been fetched yet, and nobody may be asked (offline)")
        else:
            # Who has something to serve does not wait long for news.
            patience = replace(settings, attempts=1) if usable else settings
            try:
                found = self._asked(source, uri, patience, progress)
                self._disk.record("uri", uri, {"from": asdict(found)})
                return found, ""
            except SourceFailed as problem:
                if not problem.retryable:
                    raise
                why, failure = problem.message, problem
        if last is None or not usable:
            raise failure
        return last, why

    def _asked(self, source: Source, uri: str, settings: SourceSettings, progress: Progress) -> Pinned:
        if source.retries:
            return source.resolve(uri, settings)
        tell = _teller(progress)
        return retrying(lambda: source.resolve(uri, settings), settings, tell=tell)

    def _kept_pin(self, uri: str) -> Pinned | None:
        """What was fetched for a pinned URI, if it is still here."""
        record = self._disk.recorded("pin", uri)
        pinned = pinned_of((record or {}).get("from"))
        if record is None or pinned is None or not self._disk.files(str(record.get("digest"))).is_dir():
            return None
        return pinned

    # -- fetching

    def _fetch(
        self, source: Source, pinned: Pinned, stale: str, settings: SourceSettings, progress: Progress
    ) -> Fetched:
        kept = self._kept(pinned, stale, progress)
        if kept is not None:
            return kept
        if settings.offline and not isinstance(source, FileSource):
            raise SourceFailed(f"{pinned.uri} is not whole in the cache, and nobody may be asked (offline)")
        key = key_of(pinned.pinned)
        lock = FileLock(self._disk.fetch_lock(key))
        if not lock.take(wait=False):
            progress("waiting for another process, which fetches the same", 0, 0)
            lock.take()
        try:
            return self._kept(pinned, stale, progress) or self._bring(source, pinned, key, settings, progress)
        finally:
            lock.release(remove=True)

    def _kept(self, pinned: Pinned, stale: str, progress: Progress) -> Fetched | None:
        """The artifact from the cache, verified; None where it is not there. A damaged one is thrown away."""
        digest = str((self._disk.recorded("pin", pinned.pinned) or {}).get("digest", ""))
        lock = self._disk.hold(digest) if digest else None
        if lock is None:
            return None
        try:
            progress("verifying", 0, 0)
            manifest = self._verified(digest)
        except LoadFailed as problem:
            self._disk.discard(digest)
            lock.release()
            progress(f"the cache was damaged ({problem.message}); fetching again", 0, 0)
            return None
        except BaseException:
            lock.release()
            raise
        self._held.setdefault(digest, []).append(lock)
        return Fetched(self._path(digest, pinned), digest, pinned, manifest, stale, from_cache=True)

    def _bring(self, source: Source, pinned: Pinned, key: str, settings: SourceSettings, progress: Progress) -> Fetched:
        check_size(pinned.nbytes, settings.max_artifact_bytes)
        self._disk.make_room(pinned.nbytes, self.max_bytes, keep=key)
        partial = self._disk.partial(key)
        try:
            self._attempts(source, pinned, partial / "files", settings, progress)
            files = partial / "files"
            if pinned.unpack:
                progress(f"unpacking {pinned.file}", 0, 0)
                files = partial / "unpacked"
                unpack(partial / "files" / pinned.file, files, max_bytes=settings.max_artifact_bytes)
            progress("computing digests", 0, 0)
            manifest = manifest_of(files, strict=True)
            if not manifest.files:
                raise SourceFailed(f"there are no files at {pinned.uri}")
            check_size(manifest.nbytes, settings.max_artifact_bytes)
            self._disk.make_room(manifest.nbytes, self.max_bytes, keep=key)
            about = {"from": asdict(pinned), "uri": pinned.uri, "pinned": pinned.pinned, "file": pinned.file}
            lock = self._disk.put(key, files, manifest, about)
        except LoadFailed as problem:
            if not problem.retryable or isinstance(problem, SourceMoved):
                remove_tree(partial)
            raise
        except OSError as problem:
            remove_tree(partial)
            raise SourceFailed(f"cannot keep {pinned.uri} in {self.root}: {problem.strerror}") from problem
        self._held.setdefault(manifest.digest, []).append(lock)
        self._disk.record("pin", pinned.pinned, {"digest": manifest.digest, "from": asdict(pinned)})
        return Fetched(self._path(manifest.digest, pinned), manifest.digest, pinned, manifest)

    def _attempts(
        self, source: Source, pinned: Pinned, into: Path, settings: SourceSettings, progress: Progress
    ) -> None:
        best = 0

        def told(what: str, done: int, total: int) -> None:
            nonlocal best
            best = max(best, done)
            progress(what, done, total)

        def attempt() -> None:
            if not source.resumes:
                remove_tree(into)
            into.mkdir(parents=True, exist_ok=True)
            source.fetch(pinned, into, settings, told)

        if source.retries:
            attempt()
        else:
            retrying(attempt, settings, position=lambda: best, tell=_teller(progress))

    def _verified(self, digest: str) -> Manifest:
        manifest = self._disk.manifest(digest)
        files = self._disk.files(digest)
        named = {file.name for file in manifest.files}
        for left in files.rglob("__pycache__"):  # of a worker that may write everywhere; no part of the artifact
            if not any(name.startswith(f"{left.relative_to(files).as_posix()}/") for name in named):
                remove_tree(left)
        verify(files, manifest)
        return manifest

    def _path(self, digest: str, pinned: Pinned) -> Path:
        files = self._disk.files(digest)
        return files / pinned.file if pinned.file and not pinned.unpack else files


def _teller(progress: Progress) -> Callable[[str], None]:
    return lambda message: progress(message, 0, 0)
