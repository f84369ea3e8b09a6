"""A call's request headers: what RFC 9113 and the gRPC protocol say of them, read once for each distinct block."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from turnout.core.errors import Failure, InvalidInput, TooLarge, Unsupported
from turnout.entrypoints.grpc.frames import ErrorCode, StreamFault
from turnout.entrypoints.grpc.header_blocks import Block, Field
from turnout.protocols.grpc import GrpcMethod

#: What messages may be compressed with, as written in `grpc-accept-encoding`.
ENCODINGS = ("identity", "deflate", "gzip")

_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_BAD_VALUE = re.compile(rb"[\x00\r\n]|^[ \t]|[ \t]$")
_CONNECTION = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"))
_PSEUDO = frozenset((b":method", b":scheme", b":path", b":authority"))
_MAX_ID = 128
#: Fields up to this length are judged once and remembered, as nearly all of a client's are always the same (bytes).
_SHORT = 128


class Head(NamedTuple):
    """What the door needs of a call's headers.

    `timeout` is in seconds, infinite where the client gave none; `content_length` is -1 where it gave none.
    `encoding` is how its messages may be compressed, `answer_encoding` how ours are.
    `usual` are predictions without any wish that a lane would not know.
    Where the call is refused at once, `failure` is its gRPC status or `status` an HTTP status with `reason`.
    It is also what nodes see of the call (`core.messages.Attributes`): its metadata as header fields.
    """

    method: GrpcMethod | None = None
    timeout: float = math.inf
    encoding: str = "identity"
    answer_encoding: str = "identity"
    request_id: str = ""
    content_length: int = -1
    failure: Failure | None = None
    status: int = 0
    reason: str = ""
    explain: bool = False
    usual: bool = False
    fields: Mapping[bytes, bytes] = {}

    def header(self, name: str) -> str | None:
        """A metadata value; `name` in lower case."""
        value = self.fields.get(name.encode())
        return None if value is None else value.decode("utf-8", "replace")

    def cookie(self, name: str) -> str | None:
        """None: gRPC has no cookies."""
        del name
        return None

    def argument(self, name: str) -> str | None:
        """None: gRPC has no query."""
        del name
        return None


def read_head(block: Block, methods: Mapping[bytes, GrpcMethod]) -> Head:
    """The head of a call. Raises StreamFault (PROTOCOL_ERROR) where the header list is malformed."""
    if block.too_large:
        return Head(failure=TooLarge("the call's metadata is larger than this server takes"))
    pseudo, fields = _split(block.fields)
    method = pseudo.get(b":method")
    if method is None or (method != b"CONNECT" and (b":scheme" not in pseudo or not pseudo.get(b":path"))):
        raise _malformed("a request needs :method, :scheme and :path")
    length = _content_length(fields.get(b"content-length"))
    if method != b"POST":
        return Head(status=405, reason="gRPC calls are POST requests.")
    if not _is_grpc(fields.get(b"content-type", b"")):
        return Head(
            status=415, reason="This port takes gRPC calls: content-type application/grpc or application/grpc+proto."
        )
    return _read_call(pseudo[b":path"], fields, length, methods)


def check_trailers(block: Block) -> None:
    """Raises StreamFault (PROTOCOL_ERROR) where a request's trailers are malformed."""
    if any(name.startswith(b":") for name, _value in block.fields):
        raise _malformed("trailers with a pseudo-header field")
    _split(block.fields)


def _read_call(path: bytes, fields: dict[bytes, bytes], length: int, methods: Mapping[bytes, GrpcMethod]) -> Head:
    encoding = fields.get(b"grpc-encoding", b"identity").decode("latin-1")
    failure: Failure | None = None
    timeout = math.inf
    explain = False
    method = methods.get(path)
    if method is None:
        failure = Unsupported(f"there is no method {path[:200].decode('utf-8', 'replace')}")
    elif encoding not in ENCODINGS:
        failure = Unsupported(
            f"grpc-encoding: messages compressed with {encoding[:50]!r} are not read here; "
            f"expected {', '.join(ENCODINGS)}"
        )
    else:
        try:
            timeout = read_timeout(fields.get(b"grpc-timeout"))
            explain = read_flag(fields.get(b"x-explain"))
        except InvalidInput as problem:
            failure = problem
    return Head(
        method=method,
        timeout=timeout,
        encoding=encoding,
        answer_encoding=_answer_encoding(encoding, fields.get(b"grpc-accept-encoding", b"")),
        request_id=fields.get(b"x-request-id", b"")[:_MAX_ID].decode("utf-8", "replace"),
        content_length=length,
        failure=failure,
        explain=explain,
        usual=(
            failure is None
            and method is not None
            and method.infer is not None
            and encoding == "identity"
            and length < 0
            and not explain
        ),
        fields=fields,
    )


def read_flag(text: bytes | None) -> bool:
    """Whether `x-explain` asks for the steps. Raises InvalidInput."""
    if text is None or text.lower() in (b"false", b"0"):
        return False
    if text.lower() in (b"true", b"1"):
        return True
    raise InvalidInput(
        "neither yes nor no", field="x-explain", expected="true or false", got=repr(text[:40].decode("latin-1"))
    )


def _answer_encoding(encoding: str, accepted: bytes) -> str:
    """Answers are compressed where the client compresses, if it can read the same."""
    if encoding == "identity":
        return encoding
    names = {name.strip() for name in accepted.decode("latin-1").split(",")}
    return encoding if encoding in names else "identity"


def read_timeout(text: bytes | None) -> float:
    """Seconds of a `grpc-timeout`; infinity without one. Raises InvalidInput."""
    if text is None:
        return math.inf
    found = _TIMEOUT.fullmatch(text)
    if found is None:
        raise InvalidInput(
            "not a timeout",
            field="grpc-timeout",
            expected="one to eight digits and one of H, M, S, m, u, n",
            got=repr(text[:40].decode("latin-1")),
        )
    return int(found[1]) * _UNITS[found[2]]


def _split(fields: Sequence[Field]) -> tuple[dict[bytes, bytes], dict[bytes, bytes]]:
    """Pseudo-header and other fields; of repeated ones the first counts, as no field read here may repeat."""
    pseudo: dict[bytes, bytes] = {}
    others: dict[bytes, bytes] = {}
    for field in fields:
        name, value = field
        if _check_short(field) if len(name) + len(value) <= _SHORT else _check(field):
            if others or name in pseudo:
                raise _malformed("pseudo-header fields come first, once each")
            pseudo[name] = value
        elif name not in others:
            others[name] = value
        elif name == b"content-length" and others[name] != value:
            raise _malformed("two content lengths")
    return pseudo, others


def _check(field: Field) -> bool:
    """Whether it is a pseudo-header field. Raises StreamFault where it may not be in a request at all."""
    name, value = field
    if _BAD_VALUE.search(value):
        raise _malformed("a field value with a forbidden character")
    if name[:1] == b":":
        if name not in _PSEUDO:
            raise _malformed("a pseudo-header field that is none of a request")
        return True
    if not _NAME.fullmatch(name):
        raise _malformed("a field name with a forbidden character")
    if name in _CONNECTION or (name == b"te" and value != b"trailers"):
        raise _malformed("a field that belongs to a connection")
    return False


_check_short = lru_cache(2048)(_check)


def _content_length(text: bytes | None) -> int:
    if text is None:
        return -1
    if not text.isdigit() or len(text) > 15:
        raise _malformed("content-length is not a number")
    return int(text)


def _is_grpc(content_type: bytes) -> bool:
    kind = content_type.split(b";")[0].strip().lower()
    return kind in (b"application/grpc", b"application/grpc+proto")


def _malformed(text: str) -> StreamFault:
    return StreamFault(ErrorCode.PROTOCOL_ERROR, text)
