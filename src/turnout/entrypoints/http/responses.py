"""Responses as bytes: one head and body in as few parts as their size allows."""

from __future__ import annotations

import json
import math
from functools import lru_cache
from http import HTTPStatus
from urllib.parse import quote

from turnout.core.errors import Failure
from turnout.core.messages import Journey
from turnout.entrypoints.http.compression import deflate
from turnout.entrypoints.http.limits import HttpLimits
from turnout.protocols.http import JSON, HttpResponse

#: Bodies up to this size are joined with their head; larger ones go out in parts without being copied.
JOINED_BYTES = 64 * 1024
_REASONS = {status.value: status.phrase for status in HTTPStatus} | {499: "Client Closed Request"}
#: The response field that names which of several equal models has answered.
TWIN_FIELD = "X-Twin"
_starts: dict[tuple[int, str], bytes] = {}
_STARTS_KEPT = 512

#: What of printable ASCII stands for itself in a name, besides letters, digits and `_.-~`: all but blank and `%`.
PLAIN = "!\"#$&'()*+,/:;<=>?@[\\]^`{|}"

Parts = bytes | list[bytes | memoryview]


def refusal(status: int, message: str, headers: tuple[tuple[str, str], ...] = ()) -> HttpResponse:
    """A failure in the door's own words, for what is refused before any protocol is known."""
    return HttpResponse(status, JSON, json.dumps({"error": message}).encode(), headers)


def with_retry_after(answer: HttpResponse, failure: Failure) -> HttpResponse:
    """The answer with the failure's waiting time, in whole seconds and at least one, where it has one."""
    if failure.retry_after is None:
        return answer
    seconds = max(1, math.ceil(failure.retry_after))
    return answer._replace(headers=(*answer.headers, ("Retry-After", str(seconds))))


def _start(status: int, content_type: str) -> bytes:
    """The status line and the start of the fields, up to where the length belongs. Raises ValueError for a type
    that would break the line.
    """
    if not content_type.isprintable():
        raise ValueError("a content type has a control character")
    reason = _REASONS.get(status, "Unknown")
    text = f"HTTP/1.1 {status} {reason}\r\nContent-Type: {content_type}\r\nContent-Length: "
    if len(_starts) >= _STARTS_KEPT:
        _starts.clear()
    start = _starts[status, content_type] = text.encode("latin-1")
    return start


def answer_start(status: int, content_type: str) -> bytes:
    """A head up to where the length belongs."""
    return _starts.get((status, content_type)) or _start(status, content_type)


def usual_fields(twin: str, served_by: str, variant: str, revision: int) -> bytes:
    """The fields of a usual answer between its length and its prediction id."""
    return (_twin_field(twin) if twin else b"") + _answerer_start(served_by, variant, revision, "")


def encode_plain(answer: HttpResponse, tail: bytes, most: int) -> bytes | None:
    """The usual response in one piece: a body up to `most` bytes, no field of its own but the twin's. Else None.

    `tail` ends the head: the date line and the empty line.
    """
    body = answer.body
    if type(body) is not bytes or len(body) > most:
        return None
    if answer.headers:
        if len(answer.headers) > 1 or answer.headers[0][0] != TWIN_FIELD:
            return None
        tail = _twin_field(answer.headers[0][1]) + tail
    start = answer_start(answer.status, answer.content_type)
    return b"%b%d%b%b" % (start, len(body), tail, body)


@lru_cache(maxsize=256)
def _twin_field(twin: str) -> bytes:
    if not twin.isprintable():
        raise ValueError("a twin's name has a control character")
    return f"\r\nX-Twin: {twin}".encode("latin-1")


def answerer_fields(journey: Journey) -> bytes:
    """The fields that say who answered, as they stand at the end of a head. Needs a prediction id."""
    start = _answerer_start(journey.served_by, journey.variant, journey.revision, journey.degraded)
    return start + journey.prediction_id.encode()


@lru_cache(maxsize=1024)
def _answerer_start(served_by: str, variant: str, revision: int, degraded: str) -> bytes:
    """All that does not change from request to request. Names are percent-encoded where they are not plain ASCII."""
    text = f"\r\nX-Served-By: {_plain(served_by)}" if served_by else ""
    text += f"\r\nX-Variant: {_plain(variant)}" if variant else ""
    text += f"\r\nX-Revision: {revision}"
    text += f"\r\nX-Degraded: {_plain(degraded)}" if degraded else ""
    return (text + "\r\nX-Prediction-Id: ").encode("ascii")


def _plain(text: str) -> str:
    return quote(text, safe=PLAIN, errors="replace")


def encode_any(
    answer: HttpResponse,
    tail: bytes,
    limits: HttpLimits,
    *,
    connection: str = "",
    head_only: bool = False,
    coding: str = "",
) -> tuple[Parts, int]:
    """Any response and its size in bytes. Raises ValueError for a field that would break its line.

    `connection` is the value of the Connection field where one is needed, `coding` what the client accepts.
    """
    parts: list[bytes | memoryview] = [answer.body] if isinstance(answer.body, bytes) else answer.body
    size = sum(memoryview(part).nbytes for part in parts)
    fields = list(answer.headers)
    if coding and limits.compress_from_bytes <= size <= limits.compress_to_bytes:
        parts = [deflate(parts, coding)]
        size = len(parts[0])
        fields += (("Content-Encoding", coding), ("Vary", "Accept-Encoding"))
    if connection:
        fields.append(("Connection", connection))
    start = answer_start(answer.status, answer.content_type)
    head = b"%b%d%b%b" % (start, size, _encode_fields(fields), tail)
    if head_only:
        return head, len(head)
    if size <= JOINED_BYTES:
        return b"".join([head, *parts]), len(head) + size
    return [head, *parts], len(head) + size


def _encode_fields(fields: list[tuple[str, str]]) -> bytes:
    for name, value in fields:
        if not (name.isascii() and name.isprintable() and value.isprintable()):
            raise ValueError("a response field has a control character")
    return "".join(f"\r\n{name}: {value}" for name, value in fields).encode("latin-1")
