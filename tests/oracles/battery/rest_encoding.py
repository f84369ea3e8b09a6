"""Compressed bodies both ways, chunked bodies, and lengths that lie."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

from ..case import HEADER_LENGTH, Case, http
from .bodies import SIMPLE, identity, identity_path, simple
from .rest_binary import ALL_BINARY, BINARY_TYPE, ONES_BYTES, ROW_BYTES, both

_GOOD = json.dumps(simple()).encode()
_LARGE = [100] * 2000
_HEADER = json.dumps(both(**ALL_BINARY)).encode()
_BINARY = _HEADER + ROW_BYTES + ONES_BYTES


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def _raw_deflate(data: bytes) -> bytes:
    squeeze = zlib.compressobj(wbits=-15)
    return squeeze.compress(data) + squeeze.flush()


def _encoded(name: str, encoding: str, body: bytes, **more: Any) -> Case:
    return http(f"encoding: {name}", "POST", SIMPLE, body, headers=[("Content-Encoding", encoding)], **more)


def _accepting(name: str, accepted: str, body: Any) -> Case:
    target = identity_path("INT32")
    return http(f"accept encoding: {name}", "POST", target, body, headers=[("Accept-Encoding", accepted)])


def _chunks(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (*parts, b""))


def _chunked(name: str, body: bytes) -> Case:
    return http(f"framing: {name}", "POST", SIMPLE, body, headers=[("Transfer-Encoding", "chunked")], framing=False)


CASES: tuple[Case, ...] = (
    _encoded("gzip", "gzip", _gzip(_GOOD)),
    _encoded("gzip in capitals", "GZIP", _gzip(_GOOD)),
    _encoded("deflate", "deflate", zlib.compress(_GOOD)),
    _encoded("deflate without the zlib frame", "deflate", _raw_deflate(_GOOD)),
    _encoded("identity", "identity", _GOOD),
    _encoded("empty name", "", _GOOD),
    _encoded("brotli", "br", _GOOD),
    _encoded("unknown", "sdch", _GOOD),
    _encoded("two", "gzip, deflate", zlib.compress(_gzip(_GOOD))),
    _encoded("gzip that is not", "gzip", _GOOD),
    _encoded("gzip cut", "gzip", _gzip(_GOOD)[:-12]),
    _encoded("gzip with a broken checksum", "gzip", _gzip(_GOOD)[:-8] + b"\0" * 8),
    _encoded("gzip with bytes after it", "gzip", _gzip(_GOOD) + b"xyz"),
    _encoded("gzip of nothing", "gzip", _gzip(b"")),
    _encoded("gzip, no body", "gzip", b""),
    _encoded("deflate that is not", "deflate", _GOOD),
    _encoded("gzip announced as deflate", "deflate", _gzip(_GOOD)),
    http("encoding: gzip with tensors", "POST", SIMPLE, _gzip(_BINARY),
         headers=[("Content-Type", BINARY_TYPE), ("Content-Encoding", "gzip"), (HEADER_LENGTH, str(len(_HEADER)))]),
    http("encoding: gzip with tensors both ways", "POST", SIMPLE, _gzip(_BINARY),
         headers=[("Content-Type", BINARY_TYPE), ("Content-Encoding", "gzip"), ("Accept-Encoding", "gzip"),
                  (HEADER_LENGTH, str(len(_HEADER)))]),
    _accepting("gzip", "gzip", identity("INT32", [8, 250], _LARGE)),
    _accepting("deflate", "deflate", identity("INT32", [8, 250], _LARGE)),
    _accepting("gzip and deflate", "gzip, deflate", identity("INT32", [8, 250], _LARGE)),
    _accepting("deflate first", "deflate, gzip", identity("INT32", [8, 250], _LARGE)),
    _accepting("gzip refused", "gzip;q=0", identity("INT32", [8, 250], _LARGE)),
    _accepting("weights", "gzip;q=0.1, deflate;q=0.9", identity("INT32", [8, 250], _LARGE)),
    _accepting("identity", "identity", identity("INT32", [8, 250], _LARGE)),
    _accepting("anything", "*", identity("INT32", [8, 250], _LARGE)),
    _accepting("brotli", "br", identity("INT32", [8, 250], _LARGE)),
    _accepting("unknown", "sdch", identity("INT32", [8, 250], _LARGE)),
    _accepting("gzip, tensors as bytes", "gzip", identity("INT32", [8, 250], _LARGE, **ALL_BINARY)),
    _accepting("gzip, a small answer", "gzip", identity("INT32", [1, 2], [1, 2])),
    _accepting("gzip, a refusal", "gzip", "{"),
    _chunked("chunked", _chunks(_GOOD)),
    _chunked("chunked in many", _chunks(*(_GOOD[at : at + 10] for at in range(0, len(_GOOD), 10)))),
    _chunked("chunked byte by byte", _chunks(*(bytes([byte]) for byte in _GOOD))),
    _chunked("chunked, nothing", _chunks()),
    _chunked("chunked, a length that is no number", b"zz\r\n" + _GOOD + b"\r\n0\r\n\r\n"),
    _chunked("chunked with an extension", b"%x;a=b\r\n%s\r\n0\r\n\r\n" % (len(_GOOD), _GOOD)),
    http("framing: chunked with a content length", "POST", SIMPLE, _chunks(_GOOD),
         headers=[("Transfer-Encoding", "chunked"), ("Content-Length", str(len(_GOOD)))], framing=False),
    http("framing: two equal lengths", "POST", SIMPLE, _GOOD,
         headers=[("Content-Length", str(len(_GOOD))), ("Content-Length", str(len(_GOOD)))], framing=False),
    http("framing: two different lengths", "POST", SIMPLE, _GOOD,
         headers=[("Content-Length", str(len(_GOOD))), ("Content-Length", "10")], framing=False),
    http("framing: a negative length", "POST", SIMPLE, _GOOD, headers=[("Content-Length", "-5")], framing=False),
    http("framing: a length that is a word", "POST", SIMPLE, _GOOD, headers=[("Content-Length", "ten")],
         framing=False),
    http("framing: an unknown transfer encoding", "POST", SIMPLE, _GOOD,
         headers=[("Transfer-Encoding", "sdch"), ("Content-Length", str(len(_GOOD)))], framing=False),
    http("framing: a header name with a space", "GET", "/v2/health/live", headers=[("X Y", "z")]),
    http("framing: a header of 4 kB", "GET", "/v2/health/live", headers=[("X-Long", "x" * 4000)]),
    http("framing: a GET with a body", "GET", "/v2/health/live", "{}"),
)  # fmt: skip
