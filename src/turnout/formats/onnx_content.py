"""What must be known of an ONNX file before onnxruntime opens it: that it is one, and which other files it names."""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from turnout.core.errors import LoadFailed
from turnout.formats.artifact import Artifact
from turnout.formats.protobuf_fields import BYTES, VARINT, Buffer, Damaged, spans

_IR_VERSION, _GRAPH = 1, 7
#: Field number to wire type in ModelProto: what may stand at the top of the file.
_MODEL = {1: VARINT, 2: BYTES, 3: BYTES, 4: BYTES, 5: VARINT, 6: BYTES, 7: BYTES, 8: BYTES, 14: BYTES, 20: BYTES}
_MODEL |= {25: BYTES, 26: BYTES}
_DEPTH = 32
#: Per message, the fields that lead to a tensor: field number to the message's kind.
_WAYS = {
    "model": {7: "graph", 25: "function", 20: "training"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}


def looks_like_onnx(artifact: Artifact) -> bool:
    """Whether the file starts as an ONNX model does, complete or cut off."""
    head = artifact.head
    if len(head) < 4 or head[0] != _IR_VERSION << 3:
        return False
    seen: set[int] = set()
    try:
        for span in spans(head, 0, len(head)):
            if _MODEL.get(span.number) != span.wire or (span.number == _IR_VERSION and not 1 <= span.value < 1000):
                return False
            seen.add(span.number)
    except Damaged:
        # The graph is usually longer than the head, or the file is cut off: the fields before it decide.
        return bool(seen) and _cut_field_is_known(head)
    return _GRAPH in seen


def _cut_field_is_known(head: bytes) -> bool:
    at = 0
    try:
        for span in spans(head, 0, len(head)):
            at = span.end
    except Damaged:
        return at < len(head) and _MODEL.get(head[at] >> 3) == head[at] & 7
    return True


def check_whole(artifact: Artifact) -> None:
    """Raises LoadFailed if the file is cut off or names files that it must not read."""
    path = artifact.file
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            if _GRAPH not in {span.number for span in spans(data, 0, len(data))}:
                raise LoadFailed(f"{artifact.label}: the ONNX file has no graph; it is cut off or damaged")
            named = set(_external(data, 0, len(data), "model", 0)) if data.find(b"location") >= 0 else set()
        except Damaged as problem:
            raise LoadFailed(f"{artifact.label}: the ONNX file is cut off or damaged ({problem})") from None
    for location in sorted(named):
        _check_external(artifact, path.parent, location)


def _external(data: Buffer, start: int, end: int, kind: str, depth: int) -> Iterator[str]:
    """The locations of external data in every tensor below. Raises Damaged."""
    if depth > _DEPTH:
        raise Damaged("graphs are nested too deeply")
    if kind == "tensor":
        for span in spans(data, start, end):
            if span.number == 13 and span.wire == BYTES:
                entry = {s.number: bytes(data[s.start : s.end]) for s in spans(data, span.start, span.end)}
                if entry.get(1) == b"location":
                    yield entry.get(2, b"").decode(errors="replace")
        return
    ways = _WAYS[kind]
    for span in spans(data, start, end):
        into = ways.get(span.number)
        if into is not None and span.wire == BYTES:
            yield from _external(data, span.start, span.end, into, depth + 1)


def _check_external(artifact: Artifact, directory: Path, location: str) -> None:
    """Raises LoadFailed unless the location is a plain file below the model's directory, without links."""
    parts = PurePosixPath(location.replace("\\", "/"))
    refused = f"{artifact.label}: the model keeps weights in {location!r}, "
    if not location or "\0" in location or parts.is_absolute() or ".." in parts.parts or ":" in parts.parts[0]:
        raise LoadFailed(refused + "which is outside the model's directory; refused")
    at = directory
    mode = os.lstat(at)
    for part in parts.parts:
        at = at / part
        try:
            mode = os.lstat(at)
        except OSError:
            raise LoadFailed(refused + "which is not there; put the file beside the model") from None
        if stat.S_ISLNK(mode.st_mode):
            raise LoadFailed(refused + "which is reached by a symbolic link; refused: copy the file beside the model")
    if not stat.S_ISREG(mode.st_mode):
        raise LoadFailed(refused + "which is not a plain file; refused")
    if mode.st_nlink != 1:
        raise LoadFailed(refused + "which has a second name (a hard link); refused: copy the file beside the model")
