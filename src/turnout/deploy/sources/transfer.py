"""Files from a place to a directory: several pieces at once, each going on where it broke off, over crashes too."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from turnout.core.errors import SourceFailed
from turnout.deploy.sources.manifest import check_names
from turnout.deploy.sources.source import Progress, SourceMoved, check_size

PIECE_BYTES = 32 << 20
CONNECTIONS = 8
#: The journal's name inside the directory, while files are on their way. No artifact may have it.
JOURNAL = ".turnout-transfer"
_POSITION = struct.Struct("<Q")
_PROCESS = uuid.uuid4().hex


@dataclass(frozen=True, slots=True)
class Remote:
    """A file at the place. name: where it goes in the artifact. size: bytes. key, tag: the source's own words for
    which object this is and in which state.
    """

    name: str
    size: int
    key: str = ""
    tag: str = ""


#: The bytes of a file from `start` up to `stop`, in pieces of any size. Raises SourceFailed.
Read = Callable[[Remote, int, int], Iterator[bytes]]


def transfer(remotes: Sequence[Remote], read: Read, into: Path, *, limit: int, progress: Progress) -> None:
    """Brings the files into the directory; what an interrupted transfer of the same files left there is kept.

    limit: bytes of all files together. Tries each piece once; after a failure no other piece is begun.
    Raises SourceFailed: that failure, files that are too large, no room; LoadFailed for names no file may have.
    """
    check_names([*(remote.name for remote in remotes), JOURNAL])
    total = sum(remote.size for remote in remotes)
    check_size(total, limit)
    try:
        with _Journal(remotes, into) as journal:
            counter = _Counter(journal.done, total, progress)
            pieces = [piece for piece in journal.pieces if piece.position < piece.stop]
            failed = _bring_all(pieces, read, into, journal, counter)
            if failed is not None:
                raise failed
    except OSError as problem:
        raise SourceFailed(f"cannot write the artifact to disk: {problem.strerror}") from problem
    (into / JOURNAL).unlink()


def _bring_all(
    pieces: Sequence[_Piece], read: Read, into: Path, journal: _Journal, counter: _Counter
) -> BaseException | None:
    """Brings the pieces, several at once; the first failure, if any."""
    with ThreadPoolExecutor(max(1, min(CONNECTIONS, len(pieces))), thread_name_prefix="transfer") as pool:
        running = [pool.submit(_bring, piece, read, into, journal, counter) for piece in pieces]
        try:
            done, _ = wait(running, return_when=FIRST_EXCEPTION)
            failed = next((found for one in done if (found := one.exception())), None)
            # Where trying again will go on, what is on its way may still arrive. Elsewhere it is of no use.
            if failed is not None and (isinstance(failed, SourceMoved) or not getattr(failed, "retryable", False)):
                counter.stopped.set()
        except BaseException:  # Ctrl-C, say
            counter.stopped.set()
            raise
        finally:
            for one in running:
                one.cancel()
    return failed


class _Counter:
    """Counts for all pieces and tells, one at a time."""

    def __init__(self, done: int, total: int, progress: Progress) -> None:
        self.stopped = threading.Event()
        self._done, self._total, self._progress = done, total, progress
        self._lock = threading.Lock()
        progress("", done, total)

    def add(self, name: str, count: int) -> None:
        with self._lock:
            self._done += count
            self._progress(name, self._done, self._total)


@dataclass(slots=True)
class _Piece:
    """A stretch of a file: [start, stop) in bytes, of which what lies before `position` is on disk."""

    number: int
    remote: Remote
    stop: int
    position: int


class _Journal:
    """How far each piece is, in a file beside the files: one number each, written after the bytes it speaks of.

    It is believed only as long as the machine runs: after a power cut the numbers may be on disk, and not the bytes.
    """

    def __init__(self, remotes: Sequence[Remote], into: Path) -> None:
        self._remotes, self._into = remotes, into
        said = [[remote.name, remote.size, remote.key, remote.tag] for remote in remotes]
        told = json.dumps([said, PIECE_BYTES, _running_since()]).encode()
        self._head = hashlib.sha256(told).digest()
        self._file = -1
        self.pieces: list[_Piece] = []

    def __enter__(self) -> Self:
        path = self._into / JOURNAL
        kept = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        kept = kept if kept.startswith(self._head) else b""
        if not kept:
            shutil.rmtree(self._into)
            self._into.mkdir()
        for remote in self._remotes:
            file = self._into / remote.name
            is_kept = bool(kept) and file.is_file() and not file.is_symlink() and file.stat().st_size == remote.size
            if not is_kept:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.unlink(missing_ok=True)
                with file.open("xb") as made:
                    made.truncate(remote.size)
            for start in range(0, remote.size, PIECE_BYTES):
                stop, number = min(start + PIECE_BYTES, remote.size), len(self.pieces)
                at = len(self._head) + number * _POSITION.size
                told = kept[at : at + _POSITION.size]
                position = _POSITION.unpack(told)[0] if is_kept and len(told) == _POSITION.size else start
                self.pieces.append(_Piece(number, remote, stop, position if start <= position <= stop else start))
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        positions = b"".join(_POSITION.pack(piece.position) for piece in self.pieces)
        os.pwrite(self._file, self._head + positions, 0)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        os.close(self._file)

    @property
    def done(self) -> int:
        """Bytes on disk, of all pieces together."""
        left = sum(piece.stop - piece.position for piece in self.pieces)
        return sum(remote.size for remote in self._remotes) - left

    def note(self, piece: _Piece) -> None:
        """Writes down where the piece is now."""
        os.pwrite(self._file, _POSITION.pack(piece.position), len(self._head) + piece.number * _POSITION.size)


def _bring(piece: _Piece, read: Read, into: Path, journal: _Journal, counter: _Counter) -> None:
    name = piece.remote.name
    file = os.open(into / name, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        for chunk in read(piece.remote, piece.position, piece.stop):
            if counter.stopped.is_set():
                raise SourceFailed("stopped, because another part of the artifact failed", retryable=True)
            if piece.position + len(chunk) > piece.stop:
                raise SourceFailed(f"more bytes came than {name!r} has, {piece.remote.size}", retryable=True)
            written = 0
            while written < len(chunk):
                written += os.pwrite(file, memoryview(chunk)[written:], piece.position + written)
            piece.position += len(chunk)
            journal.note(piece)
            counter.add(name, len(chunk))
    finally:
        os.close(file)
    if piece.position < piece.stop:
        where = f"at byte {piece.position} of {name!r}, which has {piece.remote.size}"
        raise SourceFailed(f"the connection ended {where}", retryable=True)


def _running_since() -> str:
    """Names this run of the machine; where the system has no name for it, this process."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return _PROCESS
