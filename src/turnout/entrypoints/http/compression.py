"""Content codings: bodies are inflated under a cap, answers are deflated where the client asks for it."""

from __future__ import annotations

import zlib
from functools import lru_cache

from turnout.core.errors import InvalidInput, TooLarge
from turnout.entrypoints.http.limits import HttpLimits

_GZIP = zlib.MAX_WBITS | 16
_ZLIB = zlib.MAX_WBITS
_RAW = -zlib.MAX_WBITS
_CHEAP = 1
#: A gzip stream may have several members; each copies what is left, so a body of tiny ones would cost too much.
_MEMBERS = 8


def inflate(body: bytes | bytearray | memoryview, coding: str, limits: HttpLimits) -> bytes:
    """The body without its `gzip` or `deflate` coding. Raises InvalidInput where it is damaged or cut off,
    TooLarge where it would grow over the limits.
    """
    cap = min(limits.body_bytes, max(limits.inflate_free_bytes, len(body) * limits.inflate_factor))
    if coding == "gzip":
        bits = _GZIP
    else:  # "deflate" means zlib's form, and some clients send the bare one
        bits = _ZLIB if len(body) >= 2 and body[0] & 0x0F == 8 and (body[0] << 8 | body[1]) % 31 == 0 else _RAW
    parts: list[bytes] = []
    size = 0
    rest: bytes | bytearray | memoryview = body
    for _ in range(_MEMBERS):
        stream = zlib.decompressobj(bits)
        try:
            part = stream.decompress(rest, cap - size + 1)
        except zlib.error:
            raise _damaged(coding) from None
        size += len(part)
        if size > cap:
            raise TooLarge(f"the decompressed body is too large; expected at most {cap} bytes")
        if not stream.eof:
            raise _damaged(coding)
        parts.append(part)
        rest = stream.unused_data
        if not rest:
            return parts[0] if len(parts) == 1 else b"".join(parts)
        if coding != "gzip":
            break
    raise _damaged(coding)


def _damaged(coding: str) -> InvalidInput:
    return InvalidInput("the body cannot be decompressed", field="body", expected=f"a complete {coding} stream")


def deflate(parts: list[bytes | memoryview], coding: str) -> bytes:
    """The joined parts in the coding `gzip` or `deflate`, at the cheapest level."""
    stream = zlib.compressobj(_CHEAP, zlib.DEFLATED, _GZIP if coding == "gzip" else _ZLIB)
    return b"".join([*(stream.compress(part) for part in parts), stream.flush()])


@lru_cache(maxsize=256)
def accepted_coding(accept_encoding: str) -> str:
    """The coding to answer in, `gzip`, `deflate` or none (empty): the heaviest of those the client names.

    A weight of 0 and an unreadable one refuse a coding; `*` stands for gzip.
    """
    best, best_weight = "", 0.0
    weights: dict[str, float] = {}
    for item in accept_encoding.lower().split(","):
        coding, *settings = (piece.strip(" \t") for piece in item.split(";"))
        weights[coding] = _weight(settings)
    for coding in ("gzip", "deflate"):
        weight = weights.get(coding, weights.get("*", 0.0) if coding == "gzip" else 0.0)
        if weight > best_weight:
            best, best_weight = coding, weight
    return best if weights.get("identity", 0.0) <= best_weight else ""


def _weight(settings: list[str]) -> float:
    for setting in settings:
        name, _, value = setting.partition("=")
        if name.strip() == "q":
            value = value.strip()
            return float(value) if value.replace(".", "", 1).isdecimal() and value.isascii() else 0.0
    return 1.0
