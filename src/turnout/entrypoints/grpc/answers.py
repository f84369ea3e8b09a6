"""How an answer begins and ends: response headers and trailers, as header blocks made once."""

from __future__ import annotations

import asyncio
import logging
import math
from functools import lru_cache
from urllib.parse import quote

from turnout.core.errors import Failure, NotReady
from turnout.core.messages import Journey
from turnout.entrypoints.grpc.header_blocks import Field, literal
from turnout.entrypoints.grpc.heads import ENCODINGS

_log = logging.getLogger("turnout.grpc")

_STATUS_200 = b"\x88"  # entry 8 of the static table
_CONTENT_TYPE = (b"content-type", b"application/grpc")
_ACCEPT = (b"grpc-accept-encoding", ",".join(ENCODINGS).encode())
#: The characters besides letters, digits and `_.-~` that stand for themselves in a grpc-message.
_PLAIN = " !\"#$&'()*+,/:;<=>?@[\\]^`{|}"
_MAX_MESSAGE = 2048

#: The block of a normal response, by the encoding of its messages.
HEADERS_BLOCKS = {
    encoding: _STATUS_200
    + literal((_CONTENT_TYPE, _ACCEPT, *(((b"grpc-encoding", encoding.encode()),) if encoding != "identity" else ())))
    for encoding in ENCODINGS
}
#: The block that ends a call that went well.
OK_BLOCK = literal(((b"grpc-status", b"0"),))


def as_failure(problem: BaseException) -> Failure:
    """What the caller is told of any exception; what is not a Failure goes to the log and not on the wire."""
    if isinstance(problem, Failure):
        return problem
    if isinstance(problem, asyncio.CancelledError):
        return NotReady("the server gave the request up")
    _log.error("a call ended with an unexpected %s", type(problem).__name__, exc_info=problem)
    return Failure("internal error; the server's log has the details")


def failure_fields(failure: Failure) -> list[Field]:
    """The trailers of a failed call."""
    fields = [(b"grpc-status", str(failure.code.value).encode()), (b"grpc-message", percent(failure.message))]
    if failure.retry_after is not None:
        fields.append((b"grpc-retry-pushback-ms", str(math.ceil(failure.retry_after * 1000)).encode()))
    return fields


def answerer_block(journey: Journey) -> bytes:
    """The trailers that say who answered. Needs a prediction id."""
    start = answerer_start(journey.served_by, journey.variant, journey.revision, journey.degraded)
    name = journey.prediction_id.encode()
    return start + bytes((len(name),)) + name


@lru_cache(maxsize=1024)
def answerer_start(served_by: str, variant: str, revision: int, degraded: str) -> bytes:
    """All that does not change from call to call, up to the id's length."""
    said = {
        b"x-served-by": served_by,
        b"x-variant": variant,
        b"x-revision": str(revision),
        b"x-degraded": degraded,
    }
    fields = [
        (name, quote(value, safe=_PLAIN.strip(), errors="replace").encode()) for name, value in said.items() if value
    ]
    return literal(fields) + literal(((b"x-prediction-id", b""),))[:-1]


def failure_block(failure: Failure, *, alone: bool) -> bytes:
    """The block of a failed call's trailers; `alone` where it is all of the response (Trailers-Only)."""
    block = literal(failure_fields(failure))
    return _STATUS_200 + literal((_CONTENT_TYPE, _ACCEPT)) + block if alone else block


def plain_block(status: int, length: int) -> bytes:
    """The headers of a plain HTTP answer, for requests that are no gRPC calls."""
    fields = [
        (b":status", str(status).encode()),
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(length).encode()),
    ]
    if status == 405:
        fields.append((b"allow", b"POST"))
    return literal(fields)


def percent(message: str) -> bytes:
    """The text as a grpc-message: percent-encoded UTF-8, cut where it would not fit into a client's limits."""
    text = quote(message, safe=_PLAIN, errors="replace")
    if len(text) > _MAX_MESSAGE:
        while len(text := quote(message, safe=_PLAIN, errors="replace")) > _MAX_MESSAGE - 3:
            message = message[: len(message) * (_MAX_MESSAGE - 3) // len(text)]
        text += "..."
    return text.encode("ascii")


#: What a client that speaks HTTP/1 is told before the connection is closed.
HTTP1_TEXT = "This is the gRPC port (HTTP/2 without TLS). REST requests go to the HTTP port.\n"
HTTP1_ANSWER = (
    "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n"
    f"Content-Length: {len(HTTP1_TEXT)}\r\nConnection: close\r\n\r\n{HTTP1_TEXT}"
).encode()
