"""The layers of an OCI artifact or image become files: by their titles, or out of the archives they are."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from turnout.core.errors import LoadFailed, SourceFailed
from turnout.deploy.sources.archives import MAX_RATIO
from turnout.deploy.sources.manifest import MAX_FILES, check_name
from turnout.deploy.sources.source import check_size
from turnout.deploy.sources.tar import members
from turnout.deploy.trees import remove_tree

_TITLES = ("org.opencontainers.image.title", "org.cncf.model.filepath", "org.cnai.model.filepath")
_UNPACK = "io.deis.oras.content.unpack"
_TAR = re.compile(r"[.+]tar([.+](gzip|zstd))?$")
_IMAGE_CONFIGS = frozenset(
    {"application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"}
)
#: Layers of model packages that are no part of what is served.
_NOT_SERVED = re.compile(r"\.dataset\.")
#: Where an image keeps its model (KServe's ModelCar).
MODELS = "models"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_OPAQUE = ".wh..wh..opq"
_WHITEOUT = ".wh."
#: What even the smallest layer may unpack to.
_FREE_BYTES = 16 << 20
_ARCHIVE_BROKEN = (EOFError, OSError, zlib.error, ValueError)


@dataclass(frozen=True, slots=True)
class Layer:
    """One blob: digest and bytes. title: the file it is. archive: "tar" or "gzip" where it is to be unpacked."""

    digest: str
    size: int
    title: str = ""
    archive: str = ""


def layers_of(manifest: Mapping[str, Any], named: str) -> tuple[list[Layer], bool]:
    """The layers that hold the model, in order, and whether it is an image, whose `/models` counts.

    named: what messages call it. Raises SourceFailed for what cannot be read.
    """
    config = manifest.get("config")
    kind = config.get("mediaType", "") if isinstance(config, dict) else ""
    found = manifest.get("layers")
    entries = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    titled = bool(entries) and all(_title(one) for one in entries)
    is_image = kind in _IMAGE_CONFIGS and not titled
    served = [one for one in entries if is_image or not _NOT_SERVED.search(str(one.get("mediaType", "")))]
    layers = [_layer(one, named, is_image=is_image) for one in served]
    if not layers:
        raise SourceFailed(f"{named} has no layers, so it holds no model")
    return layers, is_image


def only_file(layers: Sequence[Layer]) -> str:
    """The name of the only file there is; "" where there are several, or archives."""
    return layers[0].title if len(layers) == 1 and not layers[0].archive else ""


def _title(entry: Mapping[str, Any]) -> str:
    notes = entry.get("annotations")
    if not isinstance(notes, dict):
        return ""
    return next((str(notes[key]) for key in _TITLES if notes.get(key)), "")


def _layer(entry: Mapping[str, Any], named: str, *, is_image: bool) -> Layer:
    kind, digest, size = str(entry.get("mediaType", "")), str(entry.get("digest", "")), entry.get("size")
    if not _DIGEST.fullmatch(digest) or not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise SourceFailed(f"{named} has a layer without a sha256 digest or a size")
    if entry.get("urls") and "foreign" in kind:
        raise SourceFailed(f"{named} has a layer that is kept elsewhere ({kind}), which is not followed")
    title, notes = _title(entry), entry.get("annotations") or {}
    archived = _TAR.search(kind)
    # The common clients call every file a tar layer, so a title means a file, unless it says otherwise.
    specific = archived is not None and "vnd.oci.image" not in kind and "vnd.docker" not in kind
    if title and not is_image and notes.get(_UNPACK) != "true" and not specific:
        return Layer(digest, size, title=title)
    if archived is None:
        raise SourceFailed(f"{named} has a layer of type {kind!r} without a title, so nobody knows which file it is")
    if archived[2] == "zstd":
        raise SourceFailed(f"{named} has a layer packed with zstd, which is not read; push it with gzip or unpacked")
    return Layer(digest, size, archive="gzip" if archived[2] == "gzip" else "tar")


class Unpacking:
    """Unpacks archives into a directory, one after the other, the later ones over the earlier ones.

    below: only what lies in this directory of the archives, without it ("" for everything). limit: bytes of all
    files together. Members are files and directories: links, devices and names that lead out are refused.
    """

    def __init__(self, into: Path, named: str, below: str, limit: int) -> None:
        self._into = into
        self._named = named
        self._below = f"{below}/" if below else ""
        self._all_gone = f"{_WHITEOUT}{below}" if below else ""
        self._left = limit
        self._limit = limit
        self._count = 0
        self.seen: set[str] = set()

    def unpack(self, path: Path, archive: str) -> None:
        """One archive. Raises LoadFailed for one that is damaged, hostile or too large."""
        try:
            with path.open("rb") as raw:
                opened = cast("IO[bytes]", gzip.GzipFile(fileobj=raw)) if archive == "gzip" else raw
                stream = cast("IO[bytes]", _Bounded(opened, max(path.stat().st_size * MAX_RATIO, _FREE_BYTES)))
                for name, _, content in members(stream, self._is_wanted):
                    if _plain(name) == self._all_gone:
                        self._remove_all(path.parent)
                    else:
                        self._take(_plain(name)[len(self._below) :], content)
        except LoadFailed as problem:
            raise SourceFailed(f"{self._named} has a layer that is not unpacked: {problem.message}") from None
        except _ARCHIVE_BROKEN as problem:
            if isinstance(problem, OSError) and problem.errno:
                raise  # the disk's matter, not the archive's
            text = str(problem) or type(problem).__name__
            raise SourceFailed(f"{self._named} has a layer that is no readable archive: {text[:200]}") from None

    def _is_wanted(self, name: str) -> bool:
        name = _plain(name)
        if len(self.seen) < MAX_FILES:
            self.seen.add(name.split("/")[0][:80])
        return name.startswith(self._below) or name == self._all_gone

    def _take(self, name: str, content: Iterator[bytes]) -> None:
        check_name(name)
        last = name.rpartition("/")[2]
        if self._below and last.startswith(_WHITEOUT):
            self._remove(name, last)
            return
        self._count += 1
        if self._count > MAX_FILES:
            raise SourceFailed(f"it holds more than {MAX_FILES} files")
        place = self._into / name
        self._make_room(place)
        with place.open("xb") as file:
            for chunk in content:
                self._left -= len(chunk)
                if self._left < 0:
                    check_size(self._limit - self._left, self._limit)
                file.write(chunk)

    def _make_room(self, place: Path) -> None:
        """The directories for a file, over what an earlier layer has there."""
        for part in place.parents:
            if self._into in part.parents and part.is_file():
                part.unlink()
        remove_tree(place)
        place.parent.mkdir(parents=True, exist_ok=True)

    def _remove(self, name: str, last: str) -> None:
        """What a later layer says is no longer there."""
        parent = (self._into / name).parent
        gone = parent if last == _OPAQUE else parent / last.removeprefix(_WHITEOUT)
        if last != _OPAQUE:
            check_name(last.removeprefix(_WHITEOUT))
        remove_tree(gone)

    def _remove_all(self, archives: Path) -> None:
        """The same, of everything but the archives that are still to come."""
        for one in self._into.iterdir():
            if one != archives:
                remove_tree(one)


class _Bounded:
    """A stream that ends in a failure where it gives more than it should."""

    def __init__(self, stream: IO[bytes], limit: int) -> None:
        self._stream = stream
        self._left = limit

    def read(self, size: int) -> bytes:
        content = self._stream.read(size)
        self._left -= len(content)
        if self._left < 0:
            raise LoadFailed(f"it unpacks to more than {MAX_RATIO} times its size")
        return content


def _plain(name: str) -> str:
    """A name as an image means it: `./models/a`, `/models/a` and `models/a` are one."""
    return name.removeprefix("./").lstrip("/")
