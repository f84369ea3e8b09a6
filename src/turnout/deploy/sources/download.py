"""Files from a server onto this machine: several at once, resumed where they broke off, checked while they arrive."""

from __future__ import annotations

import hashlib
import http.client
import math
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from turnout.core.errors import SourceFailed
from turnout.deploy.sources.http_words import MIN_PACE, PASSING, reason, shown
from turnout.deploy.sources.manifest import check_names
from turnout.deploy.sources.source import Progress, check_size
from turnout.deploy.sources.web import BROKEN, Answer, Web, announced, pause, read, said

_CHUNK_BYTES = 1 << 20
_AT_ONCE = 4
#: So much more than before, and the attempts are counted anew.
_PROGRESS_BYTES = 64 << 10
_ERROR_BODY_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class WebFile:
    """One file to fetch. name: its path in the artifact. size: bytes, -1 where unknown.

    digest: "sha256:<hex>", or "git:<hex>" for the sha-1 that git gives a blob; "" where nobody knows.
    patience: seconds to wait for the first byte beyond the time-out.
    """

    name: str
    url: str
    size: int = -1
    digest: str = ""
    patience: float = 0.0


class Tally:
    """Counts what has arrived, for all files of one artifact, and stops what is over the limit. Any thread may call."""

    def __init__(self, expected: int, limit: int, progress: Progress) -> None:
        self._lock = threading.Lock()
        self._expected = expected
        self._limit = limit
        self._progress = progress
        self._seen = 0
        self._stopped = threading.Event()
        check_size(expected, limit)

    def add(self, name: str, count: int) -> None:
        """Counts bytes (below 0 where a file begins anew). Raises SourceFailed over the limit, or once stopped."""
        with self._lock:
            if self._stopped.is_set():
                raise SourceFailed("stopped, because another file of the artifact failed", retryable=True)
            self._seen += count
            check_size(self._seen, self._limit)
            self._progress(name, self._seen, self._expected)

    def stop(self) -> None:
        """Makes every later `add` raise."""
        self._stopped.set()


def download(web: Web, files: Iterable[WebFile], into: Path, tally: Tally, *, at_once: int = _AT_ONCE) -> None:
    """Fetches the files, several at a time. Raises LoadFailed, the first there is; then no more bytes are asked for."""
    wanted = list(files)
    check_names(one.name for one in wanted)
    jobs = [(one, into.joinpath(*one.name.split("/"))) for one in wanted]
    for _, place in jobs:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise SourceFailed(f"cannot write into {place.parent.name!r}: {problem.strerror}") from None
    with ThreadPoolExecutor(max_workers=at_once, thread_name_prefix="download") as pool:
        running = [pool.submit(fetch_file, web, one, place, tally) for one, place in jobs]
        try:
            done, waiting = wait(running, return_when=FIRST_EXCEPTION)
        except BaseException:
            tally.stop()
            raise
        failed = [found for one in running if one in done and (found := one.exception())]
        if failed:
            tally.stop()
            for late in waiting:
                late.cancel()
            raise failed[0]


def fetch_file(web: Web, remote: WebFile, place: Path, tally: Tally) -> None:
    """One file, in as many attempts as the settings allow without a byte of progress. Raises SourceFailed."""
    url = web.url(remote.url)
    # What an earlier, interrupted fetch has left is good for something only if a digest will tell whether it fits.
    is_left = bool(remote.digest) and place.is_file()
    with place.open("r+b" if is_left else "wb") as file:
        transfer = _Transfer(web, remote, url, file, tally)
        if is_left:
            transfer.go_on()
        failed, problem, last = 0, "", 0
        while True:
            waited: float | None = None
            try:
                if (refused := transfer.attempt()) is None:
                    return
                problem, waited = (
                    f"it answered {refused.status}{said(refused)}",
                    refused.retry_after,
                )
            except BROKEN as error:
                problem = reason(error)
            failed = 1 if transfer.at - last >= _PROGRESS_BYTES else failed + 1
            last = max(last, transfer.at)
            if not pause(failed, web.settings, math.inf, waited):
                raise web.gone(url, f"{problem}, at byte {transfer.at} of {remote.name!r}")


class _Transfer:
    """A file on its way: how far it is, and the digest of what is there."""

    def __init__(self, web: Web, remote: WebFile, url: str, file: BinaryIO, tally: Tally) -> None:
        self.at = self._kept = 0
        self._web = web
        self._remote = remote
        self._url = url
        self._file = file
        self._tally = tally
        self._tag = ""
        self._digest = self._new_digest()

    def attempt(self) -> Answer | None:
        """None once the file is whole; an answer that says to try again. Raises what broke, or SourceFailed."""
        if self.at and self.at == self._remote.size and self._is_right():
            return None
        if self._kept and self.at == self._remote.size:
            self._begin_anew()
        headers = {"Accept": "*/*"}
        if self.at:
            headers["Range"] = f"bytes={self.at}-"
            if self._tag:
                headers["If-Range"] = self._tag
        timeout = self._web.settings.timeout
        with self._web.open(self._url, headers, timeout + self._remote.patience) as found:
            if found.status not in {200, 206}:
                return self._refused(found)
            if found.headers.get("Content-Encoding", "identity") != "identity":
                raise SourceFailed(f"{self._web.name} sent {self._remote.name!r} encoded, which was not asked for")
            if self.at and not self._continues(found):
                self._begin_anew()
            self._tag = found.headers.get("ETag", "")
            if self._tag.startswith("W/"):
                self._tag = ""
            self._receive(found, timeout)
        self._check()
        return None

    def go_on(self) -> None:
        """Counts what the file holds already; all of it is thrown away where it is more than there should be."""
        while chunk := self._file.read(_CHUNK_BYTES):
            self._digest.update(chunk)
            self._tally.add(self._remote.name, len(chunk))
            self.at += len(chunk)
        if self.at > max(self._remote.size, 0):
            self._begin_anew()
        self._kept = self.at

    def _refused(self, found: http.client.HTTPResponse) -> Answer | None:
        body = read(found, _ERROR_BODY_BYTES, time.monotonic() + self._web.settings.timeout)
        names = {name.lower(): value for name, value in found.headers.items()}
        answer = Answer(found.status, names, body, self._url)
        if answer.status == 416:  # what we have is not a beginning of what is there now
            self._begin_anew()
            return answer
        if answer.status in PASSING:
            return answer
        self._web.check(answer, self._url)
        where = f"{self._web.name} has no file {self._remote.name!r}" if answer.status == 404 else self._web.name
        raise SourceFailed(f"{where}: {answer.status} to GET {shown(self._url)}{said(answer)}")

    def _continues(self, found: http.client.HTTPResponse) -> bool:
        return found.status == 206 and found.headers.get("Content-Range", "").startswith(f"bytes {self.at}-")

    def _begin_anew(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._tally.add(self._remote.name, -self.at)
        self.at = self._kept = 0
        self._digest = self._new_digest()

    def _receive(self, found: http.client.HTTPResponse, timeout: float) -> None:
        size = self._remote.size
        until = self.at + length if (length := announced(found)) else size
        began, counted = time.monotonic(), self.at
        while chunk := found.read1(_CHUNK_BYTES):
            self._tally.add(self._remote.name, len(chunk))
            self._write(chunk)
            self._digest.update(chunk)
            self.at += len(chunk)
            if 0 <= size < self.at:
                raise SourceFailed(f"{self._web.name} sends more than the {size} bytes of {self._remote.name!r}")
            now = time.monotonic()
            if now - began > timeout:
                if self.at - counted < MIN_PACE * timeout:
                    raise TimeoutError("too slow")
                began, counted = now, self.at
        if self.at < until:
            raise http.client.IncompleteRead(b"")

    def _write(self, chunk: bytes) -> None:
        try:
            self._file.write(chunk)
        except OSError as problem:
            raise SourceFailed(f"cannot write {self._remote.name!r}: {problem.strerror}") from None

    def _check(self) -> None:
        kind, _, wanted = self._remote.digest.partition(":")
        size = self._remote.size
        if 0 <= size != self.at:
            raise SourceFailed(
                f"{self._remote.name!r} from {self._web.name} has {self.at} bytes, not the {size} announced"
            )
        if not self._is_right():
            if self._kept:  # what was left from before may be what is wrong
                self._begin_anew()
                raise http.client.IncompleteRead(b"")
            raise SourceFailed(
                f"{self._remote.name!r} from {self._web.name} is not what it should be: its {kind} is "
                f"{self._digest.hexdigest()}, expected {wanted}. Something on the way, or at the place, changed it"
            )

    def _is_right(self) -> bool:
        wanted = self._remote.digest.partition(":")[2]
        return not wanted or self._digest.hexdigest() == wanted.lower()

    def _new_digest(self) -> hashlib._Hash:
        if self._remote.digest.startswith("git:"):
            return hashlib.sha1(b"blob %d\0" % self._remote.size, usedforsecurity=False)
        return hashlib.sha256()


def sizes(files: Iterable[WebFile]) -> int:
    """The bytes of all files together, as far as they are known."""
    return sum(max(one.size, 0) for one in files)


def size_said(found: Mapping[str, object], key: str) -> int:
    """A size in an answer, which JSON may have as a number or as text; -1 where there is none."""
    value = found.get(key)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else -1
