"""Request heads: bytes in, a `Head` with every decision that does not need the body out.

Reading is a pure function of the bytes, so the heads that a client repeats are read once and looked up after.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qs

import httptools

from turnout.core.errors import Failure, InvalidInput, TooLarge, Unsupported
from turnout.entrypoints.http.compression import accepted_coding
from turnout.entrypoints.http.limits import HttpLimits
from turnout.entrypoints.http.responses import JOINED_BYTES, refusal
from turnout.entrypoints.http.routing import Found, Routes
from turnout.entrypoints.http.syntax import HEAD, HeadBounds, Refusal, first_fault, shown
from turnout.protocols.http import HttpResponse, InferCodec

#: After a refusal that is known from the head, a body up to this size is read and the connection kept.
KEPT_REFUSED_BYTES = 64 * 1024

_METHODS = frozenset(("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"))
_LENGTH = re.compile(r"[0-9]{1,15}")
_MILLISECONDS = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,6})?")
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[!$%&'()*+,\-.0-9;=A-Z_a-z~]*)(?::[0-9]{0,5})?")
_CODINGS = re.compile(r"[0-9A-Za-z\-]+")
_ABSOLUTE = re.compile(r"https?://([^/?#]*)(/[^?]*)?(?:\?(.*))?", re.IGNORECASE)
#: Fields that have one meaning for framing and reading: twice is a contradiction even when equal.
_SINGLE = frozenset(
    (
        "content-encoding", "content-length", "content-type", "expect", "host", "inference-header-content-length",
        "transfer-encoding", "x-request-deadline-ms",
    )
)  # fmt: skip
#: Spellings that some other server on the way might take for a framing field.
_LOOKALIKES = frozenset(("content_length", "transfer_encoding"))
_REQUEST_ID_LENGTH = 128
_FLAGS = {"true": True, "1": True, "false": False, "0": False}


class Head:
    """One request head, read and resolved. Shared by all requests whose heads are the same bytes.

    `codec` is set where a prediction is asked for and nothing stands against it, with the model's `name` and
    `version`. `length` is the body's size in bytes, -1 where it is chunked. Where the request cannot be served,
    `answer` or `failure` says why; `close` says that the connection ends with this request, `unread` that it does
    so without waiting for the body. `deadline` is in seconds. A response body up to `plain_bytes` without fields
    of its own goes the short way. `explain`: the caller wants to know which steps his request took. `lane` is what
    `lane.lane_of` has found for it: None while it was not asked, False (until `lane_until`) where there is none.
    """

    __slots__ = (
        "accepts", "answer", "close", "codec", "coding", "deadline", "deadline_given", "expects", "explain", "failure",
        "found", "head_only", "headers", "keep_alive_field", "lane", "lane_until", "length",
        "method", "name", "path", "plain_bytes", "query", "request_id", "unread", "version",
    )  # fmt: skip

    def __init__(self, method: str, headers: Mapping[str, str]) -> None:
        self.method = method
        self.headers = headers
        self.path = ""
        self.query = ""
        self.length = 0
        self.close = False
        self.keep_alive_field = ""
        self.expects = False
        self.explain = False
        self.found: Found | None = None
        self.codec: InferCodec | None = None
        self.name = ""
        self.version = ""
        self.answer: HttpResponse | None = None
        self.failure: Failure | None = None
        self.unread = False
        self.head_only = method == "HEAD"
        self.coding = ""
        self.accepts = ""
        self.deadline = 0.0
        self.deadline_given = False
        self.request_id = headers.get("x-request-id", "")[:_REQUEST_ID_LENGTH]
        self.plain_bytes = JOINED_BYTES
        self.lane: Any = None
        self.lane_until = 0.0

    @property
    def refused(self) -> bool:
        """Whether the head alone decides that the request fails."""
        return self.answer is not None or self.failure is not None


class HeadReader:
    """Reads heads for one set of routes and limits, and remembers the short ones it has read lately.

    Two generations stand in for a least-recently-used order: what is asked for in the younger costs one look-up.
    """

    def __init__(self, routes: Routes, limits: HttpLimits, default_deadline: float) -> None:
        self._routes = routes
        self._limits = limits
        self._default_deadline = default_deadline
        self.bounds = HeadBounds(limits.header_bytes, limits.header_count, limits.target_bytes)
        self._young: dict[bytes, Head] = {}
        self._old: dict[bytes, Head] = {}

    def read(self, raw: bytes) -> Head:
        """The head in `raw`, which ends with the empty line. Raises Refusal where it is malformed or ambiguous."""
        head = self._young.get(raw)
        if head is None:
            head = self._old.get(raw) or self.parse(raw)
            if len(raw) <= self._limits.remembered_head_bytes:
                if len(self._young) >= self._limits.remembered_heads:
                    self._old, self._young = self._young, {}
                self._young[raw] = head
        return head

    def parse(self, raw: bytes) -> Head:
        """Reads one head afresh: `parse_head` with this reader's routes and limits."""
        return parse_head(raw, self._routes, self._limits, self.bounds, self._default_deadline)


def _shown(value: str) -> str:
    return shown(value.encode("latin-1"))


class _Fields:
    """Collects what httptools finds."""

    def __init__(self) -> None:
        self.fields: list[tuple[bytes, bytes]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value))


def parse_head(raw: bytes, routes: Routes, limits: HttpLimits, bounds: HeadBounds, default_deadline: float) -> Head:
    """A whole request head, read twice: by the strict grammar, and by httptools; both have to take it.

    Raises Refusal for what is malformed, ambiguous or over a limit; those end the connection.
    """
    match = HEAD.fullmatch(raw)
    if match is None or len(raw) > bounds.head_bytes or len(match[2]) > bounds.target_bytes:
        raise first_fault(raw, bounds) or Refusal(400, "malformed request head")
    if match[1].decode() not in _METHODS:
        raise Refusal(501, f"unknown method {shown(match[1])}; expected one of {', '.join(sorted(_METHODS))}")
    fields = _fields(raw)
    if len(fields) > bounds.fields:
        raise first_fault(raw, bounds) or Refusal(431, "the request head has too many fields")
    headers = _headers(fields)
    http_1_1 = match[3] == b"1"
    head = Head(match[1].decode(), headers)
    _frame(head, http_1_1, limits)
    _target(head, match[2].decode(), routes, http_1_1=http_1_1)
    _settle(head, default_deadline)
    if head.found is not None and not head.refused:
        head.codec, head.name, head.version = head.found.route.codec, head.found.name, head.found.version
    if head.refused and (head.expects or head.length < 0 or head.length > KEPT_REFUSED_BYTES):
        head.unread = head.close = True
    if head.accepts:
        head.plain_bytes = min(head.plain_bytes, limits.compress_from_bytes - 1)
    if head.close or head.keep_alive_field or head.head_only:
        head.plain_bytes = -1
    return head


def _fields(raw: bytes) -> list[tuple[bytes, bytes]]:
    collected = _Fields()
    try:
        httptools.HttpRequestParser(collected).feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass  # this door speaks one protocol: the request is answered as if it had not asked to change
    except httptools.HttpParserError:
        raise Refusal(400, "malformed request head") from None
    return collected.fields


def _headers(fields: list[tuple[bytes, bytes]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in fields:
        name = raw_name.decode("ascii").lower()
        value = raw_value.decode("latin-1").strip(" \t")
        if name not in headers:
            headers[name] = value
        elif name in _SINGLE:
            raise Refusal(400, f"the header {name} came more than once")
        else:
            headers[name] += ("; " if name == "cookie" else ", ") + value
    if not _LOOKALIKES.isdisjoint(headers):
        raise Refusal(400, "a framing header is spelt with an underscore; expected content-length or transfer-encoding")
    return headers


def _frame(head: Head, http_1_1: bool, limits: HttpLimits) -> None:
    """Where the body ends, and whether the connection goes on after it."""
    headers = head.headers
    length = headers.get("content-length")
    transfer = headers.get("transfer-encoding")
    if transfer is not None:
        _check_transfer(transfer, length, http_1_1)
        head.length = -1
    elif length is not None:
        if not _LENGTH.fullmatch(length):
            raise Refusal(400, f"content-length: expected one plain decimal number, got {_shown(length)}")
        head.length = int(length)
        if head.length > limits.body_bytes:
            head.failure = TooLarge(
                f"the body is too large; expected at most {limits.body_bytes} bytes, got {head.length}"
            )
            head.unread = head.close = True
    expect = headers.get("expect")
    if expect is not None and http_1_1:
        if expect.lower() != "100-continue":
            raise Refusal(417, f"expect: only 100-continue can be met, got {_shown(expect)}")
        head.expects = head.length != 0
    if head.unread:
        return
    options = _options(headers.get("connection", ""))
    if "close" in options or not (http_1_1 or "keep-alive" in options):
        head.close = True
    elif not http_1_1:
        head.keep_alive_field = "keep-alive"


@lru_cache(maxsize=256)
def _options(connection: str) -> frozenset[str]:
    return frozenset(option.strip(" \t") for option in connection.lower().split(","))


def _check_transfer(transfer: str, length: str | None, http_1_1: bool) -> None:
    if length is not None:
        raise Refusal(400, "content-length and transfer-encoding came together; expected one of them")
    if not http_1_1:
        raise Refusal(400, "transfer-encoding: not part of HTTP/1.0; expected content-length")
    if transfer.lower() == "chunked":
        return
    codings = [coding.strip(" \t").lower() for coding in transfer.split(",")]
    known = all(map(_CODINGS.fullmatch, codings)) and codings[-1] == "chunked" and codings.count("chunked") == 1
    status = 501 if known else 400
    raise Refusal(status, f"transfer-encoding: expected exactly 'chunked', got {_shown(transfer)}")


def _target(head: Head, target: str, routes: Routes, *, http_1_1: bool) -> None:
    """Host, path, query, and the route they lead to."""
    host = head.headers.get("host")
    if host is None:
        if http_1_1:
            raise Refusal(400, "the host header is missing; HTTP/1.1 needs exactly one")
    elif not _HOST.fullmatch(host):
        raise Refusal(400, f"malformed host header; expected 'name' or 'name:port', got {_shown(host)}")
    if target.startswith("/"):
        path, _, head.query = target.partition("?")
    elif head.method == "CONNECT":
        head.answer = refusal(405, "CONNECT is not allowed here", (("Allow", routes.methods),))
        head.close = True
        return
    elif target == "*" and head.method == "OPTIONS":
        head.path = target
        head.answer = HttpResponse(200, "text/plain", b"", (("Allow", routes.methods),))
        return
    else:
        match = _ABSOLUTE.fullmatch(target)
        if match is None:
            raise Refusal(400, f"malformed request target; expected a path that begins with '/', got {_shown(target)}")
        if host is not None and match[1].lower() != host.lower():
            raise Refusal(400, "the host in the request target is not the one in the host header")
        path, head.query = match[2] or "/", match[3] or ""
    head.path, hit = routes.find(head.method, path)
    if isinstance(hit, Found):
        head.found = hit
    elif head.failure is None or hit.status != 200:
        head.answer = hit


def _settle(head: Head, default_deadline: float) -> None:
    """The deadline and the codings, as far as the head says. The first failure stands."""
    headers = head.headers
    head.deadline = default_deadline
    wanted = headers.get("x-request-deadline-ms")
    if wanted is not None:
        if _MILLISECONDS.fullmatch(wanted):
            head.deadline = min(default_deadline, float(wanted) / 1000.0)
            head.deadline_given = True
        elif head.failure is None:
            head.failure = InvalidInput(
                "not a duration",
                field="x-request-deadline-ms",
                expected="milliseconds as a plain number",
                got=wanted[:40],
            )
    if head.query or "x-explain" in headers:
        _read_explain(head)
    coding = headers.get("content-encoding", "").lower()
    if coding in ("gzip", "x-gzip"):
        head.coding = "gzip"
    elif coding == "deflate":
        head.coding = coding
    elif coding not in ("", "identity") and head.failure is None:
        head.failure = Unsupported(f"content-encoding: expected gzip, deflate or none, got {coding[:40]!r}")
    accept = headers.get("accept-encoding")
    if accept is not None:
        head.accepts = accepted_coding(accept)


def _read_explain(head: Head) -> None:
    """Whether the steps of the request shall be told: `?explain` or the header field, off where it says so."""
    wanted = head.headers.get("x-explain")
    field = "x-explain"
    if wanted is None and "explain" in head.query:
        found = parse_qs(head.query, keep_blank_values=True).get("explain")
        wanted, field = (found[0] or "true") if found else None, "?explain"
    if wanted is None:
        return
    known = _FLAGS.get(wanted.lower())
    if known is not None:
        head.explain = known
    elif head.failure is None:
        head.failure = InvalidInput("neither yes nor no", field=field, expected="true or false", got=wanted[:40])
