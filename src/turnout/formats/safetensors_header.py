"""The header of a safetensors file: checked before a library reads it, and recognised by it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from turnout.core.errors import LoadFailed
from turnout.formats.artifact import Artifact

SUFFIX = ".safetensors"
_HEADER_BYTES = 100 << 20
_BITS = {
    name: bits
    for bits, names in {
        4: "F4",
        8: "BOOL U8 I8 F8_E4M3 F8_E5M2 F8_E8M0",
        16: "I16 U16 F16 BF16",
        32: "I32 U32 F32",
        64: "I64 U64 F64 C64",
    }.items()
    for name in names.split()
}


def looks_like(artifact: Artifact) -> bool:
    """Whether the file starts as safetensors do: the length of a JSON object, and the object."""
    return starts_well(artifact.head, artifact.size)


def starts_well(head: bytes, size: int) -> bool:
    """The same for the first bytes of a file of that size."""
    length = int.from_bytes(head[:8], "little")
    return len(head) >= 9 and head[8:9] == b"{" and 2 <= length <= min(_HEADER_BYTES, size)


def check(path: Path) -> dict[str, str]:
    """The metadata of a whole, well-formed file. Raises LoadFailed saying what is wrong with it."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(9)
        if not starts_well(head, size):
            raise LoadFailed(f"{path.name} is not a safetensors file, or is cut off")
        length = int.from_bytes(head[:8], "little")
        stream.seek(8)
        text = stream.read(length)
    try:
        header: dict[str, Any] = json.loads(text)
        metadata = header.pop("__metadata__", {})
        spans = sorted(tuple(entry["data_offsets"]) for entry in header.values())
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            if math.prod(entry["shape"]) * _BITS[entry["dtype"]] != (end - begin) * 8:
                raise LoadFailed(f"{path.name}: the size of {name!r} does not fit its shape")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        raise LoadFailed(f"{path.name}: its header is damaged ({type(problem).__name__}: {problem})") from None
    at = 0
    for begin, end in spans:
        if begin != at or end < begin:
            raise LoadFailed(f"{path.name}: its tensors overlap or leave gaps")
        at = end
    if at != size - 8 - length:
        raise LoadFailed(
            f"{path.name} is cut off: its header says {at} bytes of tensors, and {size - 8 - length} are there"
        )
    return {str(key): str(value) for key, value in metadata.items()} if isinstance(metadata, dict) else {}
