"""What the HTTP door and the REST codecs hand each other: a request, a response, and one translation of codes.

Nothing here reads or writes a socket.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from typing import Any, NamedTuple, Protocol
from urllib.parse import parse_qs

from turnout.core.errors import Code, Failure, Fault, RateLimited
from turnout.core.messages import Context, InferRequest, InferResponse
from turnout.core.servable import ServedModel, Serving

#: The one table from codes to HTTP status numbers.
STATUS: Mapping[Code, int] = {
    Code.OK: 200,
    Code.CANCELLED: 499,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 413,
    Code.FAILED_PRECONDITION: 400,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.UNAUTHENTICATED: 401,
}

JSON = "application/json"


class HttpRequest(NamedTuple):
    """One request after framing: path percent-decoded once, header names in lower case, body decompressed."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes | bytearray | memoryview

    def parameters(self) -> Mapping[str, list[str]]:
        """The query string's values by name."""
        return parse_qs(self.query, keep_blank_values=True)

    def header(self, name: str) -> str | None:
        """A header field's value; `name` in lower case."""
        return self.headers.get(name)

    def cookie(self, name: str) -> str | None:
        """A cookie's value, as it was sent; of several with the name the first, which is the most specific one."""
        sent = self.headers.get("cookie")
        if sent is None or name not in sent:
            return None
        for pair in sent.split(";"):
            key, equals, value = pair.partition("=")
            if equals and key.strip(" \t") == name:
                value = value.strip(" \t")
                return value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value
        return None

    def argument(self, name: str) -> str | None:
        """A query argument's value, percent-decoded; the first of several."""
        if not self.query:
            return None
        found = self.parameters().get(name)
        return found[0] if found else None


class HttpResponse(NamedTuple):
    """One response; `body` in parts is sent in one write without being joined when it is large."""

    status: int
    content_type: str
    body: bytes | list[bytes | memoryview]
    headers: tuple[tuple[str, str], ...] = ()


class UnsupportedMediaType(Failure):
    """The content type is not one that this path reads. HTTP status 415."""

    code = Code.INVALID_ARGUMENT
    fault = Fault.CALLER


def status_of(failure: Failure) -> int:
    """The HTTP status of a failure."""
    if isinstance(failure, RateLimited):
        return 429
    return 415 if isinstance(failure, UnsupportedMediaType) else STATUS[failure.code]


class InferCodec(Protocol):
    """Decodes one wire form of a prediction request and encodes its answer. Stateless."""

    name: str

    def decode(self, http: HttpRequest, model: ServedModel, context: Context) -> InferRequest: ...
    def encode(self, http: HttpRequest, request: InferRequest, response: InferResponse) -> HttpResponse: ...
    def encode_failure(self, http: HttpRequest, failure: Failure) -> HttpResponse: ...


class Answer(Protocol):
    """Answers a request that needs no prediction: health, metadata, lists, documents; now, or when awaited."""

    def __call__(
        self, http: HttpRequest, serving: Serving, name: str, version: str
    ) -> HttpResponse | Coroutine[Any, Any, HttpResponse]: ...


class Route(NamedTuple):
    """Where a method and a path lead. Exactly one of `codec` (a prediction) and `answer` is set.

    `pattern` holds `{name}` and `{version}` where those stand in the path; `path` matching is exact otherwise.
    """

    method: str
    pattern: str
    codec: InferCodec | None = None
    answer: Answer | None = None
    summary: str = ""


class RestProtocol(Protocol):
    """One REST protocol: its routes, and the form its errors take."""

    name: str

    def routes(self) -> tuple[Route, ...]: ...
    def encode_failure(self, http: HttpRequest, failure: Failure) -> HttpResponse: ...
