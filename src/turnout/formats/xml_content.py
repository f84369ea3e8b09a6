"""Walks an XML file before any library reads it: whole, of bounded size and depth, and with no document type in it.

A document type may declare entities, and those may name other files or grow without bound. No model needs one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from xml.parsers import expat

from turnout.core.errors import LoadFailed
from turnout.formats.artifact import Artifact

#: Encodings that every XML reader takes for the same thing, so that what is checked here is what is read there.
_ENCODINGS = {"utf-8", "us-ascii", "ascii", "iso-8859-1", "utf-16"}
_MAX_DEPTH = 10_000
_CHUNK = 1 << 20

OnStart = Callable[[int, str, Mapping[str, str]], None]


class _Enough(Exception):
    """The root element was seen, which was all that was asked."""


def root_of(artifact: Artifact) -> str:
    """The name of a file's outermost element without its namespace; "" where the file is no XML."""
    start = artifact.head.lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n\0")[:1]
    if start != b"<":
        return ""
    found: list[str] = []

    def started(name: str, _attributes: Mapping[str, str]) -> None:
        found.append(name)
        raise _Enough

    try:
        parser = _parser(artifact.label)
        parser.StartElementHandler = started
        parser.Parse(artifact.head, False)
    except (_Enough, expat.ExpatError, LoadFailed):
        pass
    return found[0].rpartition(":")[2] if found else _root_after_document_type(artifact.head)


def _root_after_document_type(head: bytes) -> str:
    """The root that a document type names, so that the file is refused for what it is and not taken for unknown."""
    _, _, rest = head.partition(b"<!DOCTYPE")
    words = rest.split(None, 1)
    return words[0].strip(b">[").decode("ascii", "replace").rpartition(":")[2] if words else ""


def walk_xml(path: Path, max_bytes: int, started: OnStart) -> None:
    """Calls `started` with the depth (0 for the root), name and attributes of each element.

    Raises LoadFailed for a file that is too large, not well-formed, or holds a document type.
    """
    size = path.stat().st_size
    if size > max_bytes:
        raise LoadFailed(f"{path.name} is an XML file of {size} bytes; at most {max_bytes} are read")
    depth = 0

    def opened(name: str, attributes: Mapping[str, str]) -> None:
        nonlocal depth
        if depth > _MAX_DEPTH:
            raise LoadFailed(f"{path.name}: its elements are nested deeper than {_MAX_DEPTH}")
        started(depth, name.rpartition(":")[2], attributes)
        depth += 1

    def closed(_name: str) -> None:
        nonlocal depth
        depth -= 1

    parser = _parser(path.name)
    parser.StartElementHandler = opened
    parser.EndElementHandler = closed
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                parser.Parse(chunk, False)
        parser.Parse(b"", True)
    except expat.ExpatError as problem:
        raise LoadFailed(f"{path.name}: the XML is cut off or damaged ({problem})") from None


def _parser(label: str) -> expat.XMLParserType:
    parser = expat.ParserCreate()

    def document_type(*_said: object) -> None:
        raise LoadFailed(
            f"{label} has a document type (<!DOCTYPE ...>), which may name other files; no model needs one, so it is "
            "refused. Remove that line"
        )

    def declared(_version: str, encoding: str | None, _standalone: int) -> None:
        if encoding is not None and encoding.lower() not in _ENCODINGS:
            raise LoadFailed(f"{label} is written in the encoding {encoding!r}; save it as UTF-8")

    parser.StartDoctypeDeclHandler = document_type
    parser.XmlDeclHandler = declared
    return parser
