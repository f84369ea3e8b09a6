"""What the user points at: a file, a directory, or Python code by reference; read cheaply and by content.

`PATH#NAME` names one of several signatures that an artifact has.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

from turnout.core.errors import FormatMismatch, LoadFailed
from turnout.core.servable import Model
from turnout.core.signature import Signature
from turnout.core.tensors import Tensors

HEAD_BYTES = 65_536
MEMBERS = 100_000
_MODULE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*\Z")
_LIKE_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:|[a-z][a-z0-9]+//")
#: Said where somebody may have meant a URI.
URIS = "A URI is written as file:///PATH, https://HOST/PATH, s3://BUCKET/NAME, models:/NAME/3 or models:/NAME@ALIAS"
_FILE = re.compile(r"(?:python:)?(?P<file>.+\.py):(?P<attribute>[A-Za-z_][\w.]*)\Z", re.DOTALL)
_STREAMS: tuple[tuple[bytes, Callable[[], object]], ...] = (
    (b"\x1f\x8b", lambda: zlib.decompressobj(wbits=31)),
    (b"BZh", bz2.BZ2Decompressor),
    (b"\xfd7zXZ\x00", lzma.LZMADecompressor),
    (b"\x5d\x00\x00", lambda: lzma.LZMADecompressor(format=lzma.FORMAT_ALONE)),
    (b"\x78", zlib.decompressobj),
)


@dataclass(frozen=True)
class LoadOptions:
    """How an artifact is to be loaded.

    `trust_pickle` says that the file may run code when it is loaded. `signature` overrides what the artifact
    says; `example` is a few input rows from which names, types and shapes are taken. `threads` is the number
    of threads one prediction may use. `format` names the format instead of detecting it; a contradiction with
    the content is refused.
    """

    trust_pickle: bool = False
    signature: Signature | None = None
    example: Tensors | None = None
    threads: int = 1
    format: str | None = None


class Format(Protocol):
    """One model format: recognises its artifacts by content and loads them.

    `extra` is the optional dependency group that brings its library ("" if none); `suffixes` are the file
    endings that promise this format. One that has `signatures = True` serves the signature that a `#` behind the path
    names; the others refuse such a name. `recognise` imports no model library and never raises on odd content.
    `load` raises LoadFailed or one of its kinds.
    """

    @property
    def name(self) -> str: ...
    @property
    def extra(self) -> str: ...
    @property
    def suffixes(self) -> tuple[str, ...]: ...
    def recognise(self, artifact: Artifact) -> bool: ...
    def load(self, artifact: Artifact, options: LoadOptions) -> Model: ...


@dataclass(frozen=True)
class Artifact:
    """A path, or Python code as `module:attr` or `python:FILE.py:ATTR`. Look-ups read little and are kept.

    `fragment` is what stood behind a `#`: the name of the signature to serve, "" for the usual one.
    """

    given: str
    path: Path | None
    module: str = ""
    attribute: str = ""
    directory: Path | None = field(default=None)
    fragment: str = ""

    @classmethod
    def of(cls, given: str | Path) -> Artifact:
        """The artifact a user means. An existing path wins over a reference. Raises LoadFailed if there is none."""
        text = str(given)
        path = Path(text)
        if path.exists():
            return cls(text, path, directory=path if path.is_dir() else None)
        before, _, fragment = text.rpartition("#")
        if before and fragment and Path(before).exists():
            path = Path(before)
            return cls(text, path, directory=path if path.is_dir() else None, fragment=fragment)
        code = _FILE.match(text)
        if code is not None:
            file = Path(code["file"])
            if not file.is_file():
                raise LoadFailed(f"there is no file {code['file']!r}")
            return cls(text, file, attribute=code["attribute"])
        if _MODULE.match(text):
            module, _, attribute = text.partition(":")
            return cls(text, None, module=module, attribute=attribute)
        hint = f". {URIS}" if _LIKE_URI.match(text) else ""
        raise LoadFailed(f"there is no file or directory {text!r}{hint}")

    def inside(self, path: Path) -> Artifact:
        """The artifact for one file of this directory; what lies beside it still counts as its own."""
        return Artifact(self.given, path, directory=self.path, fragment=self.fragment)

    @property
    def is_reference(self) -> bool:
        """Whether this names Python code, not a file to be recognised."""
        return bool(self.attribute)

    @property
    def file(self) -> Path:
        """The path; raises LoadFailed for a reference to a module."""
        if self.path is None:
            raise LoadFailed(f"{self.given!r} is a reference to Python code, not a file")
        return self.path

    @property
    def label(self) -> str:
        """How messages call it: the file's name without its folders, or the reference."""
        return self.path.name if self.path is not None and self.path.name else self.given

    @property
    def suffix(self) -> str:
        """The file's ending in lower case, "" for a directory or a reference."""
        return self.path.suffix.lower() if self.is_file and self.path is not None else ""

    @cached_property
    def is_file(self) -> bool:
        """Whether this is a file on disk."""
        return self.path is not None and self.path.is_file()

    @cached_property
    def is_directory(self) -> bool:
        """Whether this is a directory on disk."""
        return self.path is not None and self.path.is_dir()

    @cached_property
    def name(self) -> str:
        """A model name from the file's stem or the reference's attribute: only letters, digits, `_`, `.`, `-`."""
        if self.attribute:
            stem = self.attribute
        elif self.path is None:
            stem = self.given
        else:
            known = self.path if self.path.name not in {"", ".", ".."} else self.path.resolve()
            stem = known.name if self.is_directory else known.stem
        return re.sub(r"[^A-Za-z0-9_.-]+", "_", stem).strip("_.-") or "model"

    @cached_property
    def size(self) -> int:
        """Bytes of the file; 0 for anything else."""
        return self.path.stat().st_size if self.is_file and self.path is not None else 0

    @cached_property
    def head(self) -> bytes:
        """The first 64 KiB of the file, b"" for anything else."""
        if not self.is_file or self.path is None:
            return b""
        with self.path.open("rb") as stream:
            return stream.read(HEAD_BYTES)

    @cached_property
    def unpacked_head(self) -> bytes:
        """The first bytes behind a gzip, zlib, bzip2 or xz compression; `head` where there is none."""
        for magic, start in _STREAMS:
            if self.head.startswith(magic):
                stream = start()
                try:
                    return stream.decompress(self.head, 4096)  # type: ignore[attr-defined,no-any-return]
                except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, gzip.BadGzipFile):
                    continue
        return self.head

    @property
    def is_zip(self) -> bool:
        """Whether the file starts as a zip archive does."""
        return self.head.startswith(b"PK\x03\x04")

    @cached_property
    def members(self) -> tuple[str, ...]:
        """The names in a zip archive; () where it is none, is damaged, or has too many to be a model."""
        if not self.is_zip or self.path is None:
            return ()
        try:
            with zipfile.ZipFile(self.path) as archive:
                names = archive.namelist()
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, UnicodeDecodeError):
            return ()
        return tuple(names) if len(names) <= MEMBERS else ()

    @cached_property
    def listing(self) -> tuple[str, ...]:
        """The names in the directory, sorted; () for anything else."""
        if not self.is_directory or self.path is None:
            return ()
        return tuple(sorted(entry.name for entry in self.path.iterdir()))

    def beside(self, name: str) -> Path | None:
        """A file of that name in the artifact's directory, where the user gave a directory."""
        if self.directory is None:
            return None
        path = self.directory / name
        return path if path.is_file() else None

    def check_suffix(self, found: str, belongs_to: str, *suffixes: str) -> None:
        """Raises FormatMismatch if the file's ending is one of `suffixes`, which promise `belongs_to`, not `found`."""
        if self.suffix in suffixes:
            raise FormatMismatch(
                f"{self.label}: the ending {self.suffix} promises {belongs_to}, but the content is {found}. "
                "Rename the file if the content is right, or save the model again"
            )
