"""A model's identity: the name, size and sha256 of each of its files, and the digest of that list."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from turnout.core.errors import LoadFailed

MAX_FILES = 100_000
MAX_DEPTH = 64
MAX_NAME_BYTES = 1024
MAX_PART_BYTES = 255
#: What lies beside a model without being part of it, in a directory that people work in.
BESIDE = frozenset({"__pycache__", ".git", ".DS_Store"})
_HASHERS = 4
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_ODD = re.compile(r"[\x00-\x1f\x7f\\]")


class ManifestMismatch(LoadFailed):
    """Files are not what their manifest says: damaged on disk, or changed by somebody."""


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file: its name relative to the artifact ("a/b.bin"), its bytes, its sha256 in hex."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Every file of an artifact, sorted by name. Equal content has an equal digest, wherever it lies."""

    files: tuple[FileEntry, ...]

    @cached_property
    def digest(self) -> str:
        """`sha256:<hex>` of the canonical JSON: what names the model, for ever."""
        return f"sha256:{hashlib.sha256(self.canonical()).hexdigest()}"

    @property
    def nbytes(self) -> int:
        """The bytes of all files together."""
        return sum(file.size for file in self.files)

    def canonical(self) -> bytes:
        """The one JSON text of this manifest: keys sorted, no spaces, UTF-8."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return text.encode()

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        files = [{"name": file.name, "sha256": file.sha256, "size": file.size} for file in self.files]
        return {"files": files, "manifest": 1}

    @classmethod
    def from_json(cls, found: object) -> Manifest:
        """From the form of `to_json`. Raises ManifestMismatch for anything else, unsafe names included."""
        try:
            if not isinstance(found, Mapping) or found["manifest"] is True or found["manifest"] != 1:
                raise ManifestMismatch("this is no manifest of the form that is known here")
            files = tuple(FileEntry(one["name"], one["size"], one["sha256"]) for one in found["files"])
            wrong = [
                file for file in files if type(file.size) is not int or file.size < 0 or not _SHA256.match(file.sha256)
            ]
            if wrong or list(files) != sorted(files, key=lambda file: file.name):
                raise ManifestMismatch("a manifest has sizes or digests that are none, or is not sorted")
        except (KeyError, TypeError, AttributeError) as problem:
            raise ManifestMismatch(f"a manifest is damaged: {type(problem).__name__}") from None
        check_names(file.name for file in files)
        return cls(files)


def manifest_of(path: Path, *, strict: bool = False) -> Manifest:
    """The manifest of a file or a directory. Reads every byte, several files at a time.

    strict: for what was fetched. Links of any kind are refused and everything counts. Otherwise, for a directory
    that people work in, links to files and directories are followed, and what tools leave there is passed over.
    Raises LoadFailed: nothing there, something that is neither file nor directory, names no file may have, too many.
    """
    try:
        return _manifest_of(path, strict=strict)
    except OSError as problem:
        raise LoadFailed(f"cannot read {Path(str(problem.filename or path)).name!a}: {problem.strerror}") from None


def _manifest_of(path: Path, *, strict: bool) -> Manifest:
    names = manifest_files(path, strict=strict)
    return Manifest(tuple(_hash_all(sorted(names.items()), strict=strict)))


def manifest_files(path: Path, *, strict: bool = False) -> dict[str, Path]:
    """What `manifest_of` would read: the files by their relative names. Raises as it does, and OSError."""
    if not strict and path.is_file():
        names = {path.name: path}
    elif path.is_dir() and not (strict and path.is_symlink()):
        names = dict(_walk(path, strict=strict))
    else:
        raise LoadFailed(f"{path.name!a} is neither a file nor a directory, so it has no content to name it by")
    check_names(names)
    return names


def verify(path: Path, manifest: Manifest) -> None:
    """Raises ManifestMismatch unless `path` holds exactly what the manifest says. Reads every byte.

    path: the directory, or the one file, that the manifest is of.
    """
    try:
        _verify(path, manifest)
    except OSError as problem:
        where = Path(str(problem.filename or path)).name
        raise ManifestMismatch(f"cannot read {where!a} of the artifact: {problem.strerror}") from None


def _verify(path: Path, manifest: Manifest) -> None:
    if path.is_dir():
        there = dict(_walk(path, strict=True))
    else:
        there = {path.name: path}
    wanted = {file.name: file for file in manifest.files}
    missing, extra = sorted(wanted.keys() - there.keys()), sorted(there.keys() - wanted.keys())
    if missing or extra:
        found = [f"{name!r} is missing" for name in missing[:3]] + [f"{name!r} is too many" for name in extra[:3]]
        raise ManifestMismatch(f"the artifact does not hold the files of its manifest: {', '.join(found)}")
    for file in manifest.files:
        if (size := _stat(there[file.name]).st_size) != file.size:
            raise ManifestMismatch(f"{file.name!r} has {size} bytes; its manifest says {file.size}")
    for found_file in _hash_all(sorted(there.items()), strict=True):
        expected = wanted[found_file.name]
        if found_file != expected:
            raise ManifestMismatch(
                f"{found_file.name!r} is not what it was: its sha256 is {found_file.sha256[:16]}..., "
                f"its manifest says {expected.sha256[:16]}..."
            )


def check_names(names: Iterable[str]) -> None:
    """Raises LoadFailed for names that could leave a directory, that clash, or that are absurdly many or long."""
    seen: dict[str, str] = {}
    directories: set[str] = set()
    for name in names:
        if len(seen) >= MAX_FILES:
            raise LoadFailed(f"the artifact has more than {MAX_FILES} files")
        check_name(name)
        folded = unicodedata.normalize("NFC", name).casefold()
        if folded in seen:
            raise LoadFailed(f"the artifact has {seen[folded]!r} and {name!r}, which are one file on some systems")
        seen[folded] = name
        parts = folded.split("/")
        directories.update("/".join(parts[:depth]) for depth in range(1, len(parts)))
    for folded in directories & seen.keys():
        raise LoadFailed(f"the artifact has {seen[folded]!r} both as a file and as a directory")


def check_name(name: str) -> None:
    """Raises LoadFailed unless this is a relative posix name that stays where it is put."""
    shown = ascii(name[:120])
    parts = name.split("/")
    try:
        size, longest = len(name.encode()), max(len(part.encode()) for part in parts)
    except UnicodeEncodeError:
        raise LoadFailed(f"the artifact has a file called {shown}, which is not UTF-8") from None
    if any(part in {"", ".", ".."} for part in parts) or _ODD.search(name) or re.match(r"[A-Za-z]:", name):
        raise LoadFailed(f"the artifact has a file called {shown}, which is no name inside a directory")
    if size > MAX_NAME_BYTES or longest > MAX_PART_BYTES or len(parts) > MAX_DEPTH:
        raise LoadFailed(f"the artifact has a file called {shown}..., which is too long or too deep")


def _walk(root: Path, *, strict: bool) -> Iterator[tuple[str, Path]]:
    """Every file below a directory, by relative name. Breadth first; nothing is read."""
    waiting: list[tuple[Path, str, frozenset[tuple[int, int]]]] = [(root, "", frozenset())]
    count = 0
    while waiting:
        directory, prefix, above = waiting.pop()
        status = directory.stat()
        here = (status.st_dev, status.st_ino)
        if here in above:
            raise LoadFailed(f"{prefix.rstrip('/')!r} is a link to a directory that it lies in")
        with os.scandir(directory) as entries:
            for entry in entries:
                if not strict and entry.name in BESIDE:
                    continue
                name = prefix + entry.name
                count += 1
                if count > 2 * MAX_FILES or name.count("/") >= MAX_DEPTH:
                    raise LoadFailed(f"the artifact has more than {MAX_FILES} files, or more than {MAX_DEPTH} levels")
                if strict and entry.is_symlink():
                    raise LoadFailed(f"the artifact has a link, {name!a}; links are not followed")
                if entry.is_dir():
                    waiting.append((Path(entry.path), name + "/", above | {here}))
                elif entry.is_file():
                    if strict and entry.stat(follow_symlinks=False).st_nlink > 1:
                        raise LoadFailed(f"the artifact has {name!a}, which has a second name elsewhere (a hard link)")
                    yield name, Path(entry.path)
                else:
                    what = "a link to nothing" if entry.is_symlink() else "neither a file nor a directory"
                    raise LoadFailed(f"the artifact has {name!a}, which is {what}")


def _hash_all(files: Iterable[tuple[str, Path]], *, strict: bool) -> Iterator[FileEntry]:
    with ThreadPoolExecutor(_HASHERS, thread_name_prefix="sha256") as pool:
        yield from pool.map(lambda file: _hash(*file, strict=strict), files)


def _hash(name: str, path: Path, *, strict: bool) -> FileEntry:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (os.O_NOFOLLOW if strict else 0))
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise LoadFailed(f"{name!a} is no longer a file")
        digest = hashlib.file_digest(file, "sha256")
        return FileEntry(name, file.tell(), digest.hexdigest())


def _stat(path: Path) -> os.stat_result:
    return path.stat(follow_symlinks=False)
