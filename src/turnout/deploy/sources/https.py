"""`https:` URIs: one file, or an archive that is unpacked. Off unless the operator allows it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from turnout.core.errors import LoadFailed, SourceFailed
from turnout.deploy.sources.archives import is_archive
from turnout.deploy.sources.checked_http import Answer, ask
from turnout.deploy.sources.fragments import joined, parted, split
from turnout.deploy.sources.http_words import shown
from turnout.deploy.sources.manifest import check_name
from turnout.deploy.sources.source import Pinned, Progress, SourceMoved, SourceSettings, check_size
from turnout.deploy.sources.transfer import Remote, transfer

_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


class HttpsSource:
    """Pins by the entity tag or the time that the server gives; or by `#sha256=` in the URI, which is verified."""

    name = "https"
    schemes = ("https", "http")
    extra = ""
    resumes = True
    retries = False

    def resolve(self, uri: str, settings: SourceSettings) -> Pinned:
        url, said = parted(uri)
        file = _file_of(url)
        is_packed = is_archive(file) and said.get("unpack") != "no"
        if "sha256" in said:
            if not _SHA256.match(said["sha256"]):
                raise SourceFailed(f"#sha256={said['sha256'][:70]!a} is not 64 hexadecimal digits in lower case")
            return Pinned(uri, joined(uri, {}), file=file, unpack=is_packed)
        facts = _facts(url, settings)
        nbytes = max(int(facts["size"]), 0)
        check_size(nbytes, settings.max_artifact_bytes)
        if not facts["tag"] and not facts["modified"]:
            raise SourceFailed(
                f"{shown(url)} comes with neither an ETag nor a time (Last-Modified): nothing tells its content "
                "of today from that of tomorrow. Add #sha256= and the digest of the file to the URI"
            )
        told = f"{facts['tag']} {facts['modified']} {facts['size']}"
        state = hashlib.sha256(told.encode()).hexdigest()
        if said.get("state", state) != state:
            raise SourceFailed(f"{shown(url)} is no longer what was pinned")
        pinned = joined(uri, {"state": state})
        return Pinned(uri, pinned, facts=facts, file=file, unpack=is_packed, nbytes=nbytes)

    def fetch(self, pinned: Pinned, into: Path, settings: SourceSettings, progress: Progress) -> None:
        url, said = parted(pinned.pinned)
        facts: dict[str, Any] = {**pinned.facts} or _facts(url, settings)
        if facts["ranges"] and facts["size"] >= 0:
            remotes = [Remote(pinned.file, facts["size"], tag=facts["tag"])]
            read = _Reader(url, settings).read
            transfer(remotes, read, into, limit=settings.max_artifact_bytes, progress=progress)
        else:
            _whole(url, facts, into / pinned.file, settings, progress)
        if wanted := said.get("sha256"):
            with (into / pinned.file).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != wanted:
                raise SourceFailed(f"{shown(url)} is not what the URI says: its sha256 is {found}, expected {wanted}")


class _Reader:
    """Stretches of one file, all of them in the state in which it was pinned."""

    def __init__(self, url: str, settings: SourceSettings) -> None:
        self._url, self._settings = url, settings

    def read(self, remote: Remote, start: int, stop: int) -> Iterator[bytes]:
        """The bytes from `start` up to `stop`."""
        wanted = {"Range": f"bytes={start}-{stop - 1}", "If-Match": remote.tag}
        with ask(self._url, self._settings, headers=wanted) as answer:
            if answer.status == 412 or (answer.status in {200, 206} and answer.header("ETag") != remote.tag):
                raise SourceMoved(f"{answer.url} was replaced while it was fetched")
            answer.check()
            is_all = answer.status == 200 and (start, stop) == (0, remote.size)
            if not is_all and _stretch(answer) != (start, stop, remote.size):
                raise SourceFailed(f"{answer.url} was asked for bytes {start} to {stop - 1}, and sent others")
            yield from answer.body()


def _whole(url: str, facts: dict[str, Any], target: Path, settings: SourceSettings, progress: Progress) -> None:
    """A file of which the server gives no parts, from its beginning."""
    done, size = 0, int(facts["size"])
    with ask(url, settings) as answer, target.open("wb") as file:
        if answer.status == 200 and (answer.header("ETag"), answer.header("Last-Modified")) != (
            facts["tag"],
            facts["modified"],
        ):
            raise SourceMoved(f"{answer.url} was replaced while it was fetched")
        answer.check()
        for chunk in answer.body():
            done += len(chunk)
            check_size(done, settings.max_artifact_bytes)
            file.write(chunk)
            progress(target.name, done, max(size, 0))
        if 0 <= size != done:
            raise SourceFailed(f"{answer.url} broke off at byte {done} of {size}", retryable=True)


def _facts(url: str, settings: SourceSettings) -> dict[str, Any]:
    """What the head of the file says: size (-1 if nothing), tag and time, and whether there are parts to be had."""
    with ask(url, settings, "HEAD") as answer:
        if answer.status not in {403, 405, 501}:
            answer.check()
            length = answer.header("Content-Length")
            ranges = answer.header("Accept-Ranges").lower() == "bytes"
            return _told(answer, int(length) if length.isascii() and length.isdigit() else -1, ranges=ranges)
    with ask(url, settings, headers={"Range": "bytes=0-0"}) as answer:  # a signed URL is good for GET only
        answer.check()
        if answer.status == 206 and (found := _stretch(answer)) is not None:
            return _told(answer, found[2], ranges=True)
        length = answer.header("Content-Length")
        return _told(answer, int(length) if length.isascii() and length.isdigit() else -1, ranges=False)


def _told(answer: Answer, size: int, *, ranges: bool) -> dict[str, Any]:
    tag = answer.header("ETag")
    return {
        "size": size,
        "tag": tag,
        "modified": answer.header("Last-Modified"),
        "ranges": ranges and tag.startswith('"') and size > 0,
    }


def _stretch(answer: Answer) -> tuple[int, int, int] | None:
    """What part came: its first byte, the one after its last, and the size of the whole (-1 if that is not said)."""
    found = _RANGE.match(answer.header("Content-Range"))
    if found is None or answer.status != 206:
        return None
    return int(found[1]), int(found[2]) + 1, int(found[3]) if found[3] != "*" else -1


def _file_of(url: str) -> str:
    name = unquote(split(url).path.rpartition("/")[2])
    if not name:
        raise SourceFailed(f"{shown(url)} ends in a slash, so it names no file; https: fetches files and archives")
    try:
        check_name(name)
    except LoadFailed as problem:
        raise SourceFailed(f"{shown(url)}: {problem.message}") from None
    return name
