"""One server that is asked over HTTP: retries with back-off, redirects, credentials that go nowhere else."""

from __future__ import annotations

import http.client
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit, urlunsplit

from turnout import __version__
from turnout.core.errors import SourceFailed
from turnout.deploy.sources.http_words import (
    MAX_REDIRECTS,
    PASSING,
    REDIRECTS,
    is_loopback,
    reason,
    retry_after,
    shown,
)
from turnout.deploy.sources.retry import pause_before
from turnout.deploy.sources.source import SourceSettings

_MAX_BODY_BYTES = 32 << 20
#: What the socket, TLS and HTTP parts of the standard library raise.
BROKEN = (OSError, http.client.HTTPException)
Authorize = Callable[[SplitResult], str]


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer: `headers` by lower-case name, `url` where it came from after redirects."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str

    @property
    def retry_after(self) -> float | None:
        """The seconds that the server asks one to wait."""
        return retry_after(self.headers.get("retry-after", ""))

    def json(self, asked: str) -> Any:
        """The body as JSON. Raises SourceFailed naming what was asked."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            start = self.body[:60].decode("ascii", "replace")
            raise SourceFailed(f"{asked} answered what is not JSON: {start!r}; is it the right address?") from None


def origin(parts: SplitResult) -> tuple[str, str, int]:
    """Scheme, host and port: what credentials are good for."""
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


class Web:
    """A server by its address. `name` is what messages call it; `denied` says what to do about 401 and 403.

    authorize: gives the Authorization field for a URL of the server's own origin ("" for none). It is never
    asked for any other origin, so a redirect to a store of blobs carries no credentials.
    challenge: is told of the WWW-Authenticate field of a 401, and says whether it is worth asking once more.
    elsewhere: whether redirects may leave the origin at all. ca_file: a PEM file of authorities to trust.
    """

    def __init__(
        self,
        name: str,
        address: str,
        settings: SourceSettings,
        *,
        authorize: Authorize = lambda _: "",
        challenge: Callable[[str], bool] = lambda _: False,
        denied: str = "",
        elsewhere: bool = False,
        ca_file: str | None = None,
    ) -> None:
        try:
            parts = urlsplit(address)
            self._origin = origin(parts)
        except ValueError:
            raise SourceFailed(f"the address of {name} is not one: its port is no number from 0 to 65535") from None
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise SourceFailed(f"{name} needs an address that begins with https:// or http://, not {shown(address)!r}")
        self.name = name
        self.address = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))
        self.settings = settings
        self._authorize = authorize
        self._challenge = challenge
        self._denied = denied
        self._elsewhere = elsewhere
        self._opener = _opener(ca_file)

    def ask(
        self, path: str, *, headers: Mapping[str, str] = {}, method: str = "GET", body: bytes | None = None
    ) -> Answer:
        """One answer, below 500 and not 429, 401 or 403; within `settings.timeout` seconds in all, retries included.

        Raises SourceFailed: retryable where the server is down, hangs or says that it is busy.
        """
        url = self.url(path)
        deadline = time.monotonic() + self.settings.timeout
        problem = ""
        for failed in range(1, self.settings.attempts + 1):
            wait: float | None = None
            try:
                answer = self._once(url, headers, method, body, deadline)
            except BROKEN as error:
                problem = reason(error)
            else:
                if answer.status not in PASSING:
                    self.check(answer, url, method)
                    return answer
                problem, wait = (
                    f"it answered {answer.status}{said(answer)}",
                    retry_after(answer.headers.get("retry-after", "")),
                )
            if not pause(failed, self.settings, deadline, wait):
                break
        raise self.gone(url, problem, method)

    def json(self, path: str, *, headers: Mapping[str, str] = {}) -> tuple[int, Any]:
        """Status and JSON of an answer to GET."""
        answer = self.ask(path, headers={"Accept": "application/json", **headers})
        return answer.status, answer.json(f"{self.name} at {shown(answer.url)}")

    def url(self, path: str) -> str:
        """A path (with its query) of the server as a URL; a URL stays what it is."""
        return path if path.startswith(("http://", "https://")) else self.address + path

    def open(
        self, url: str, headers: Mapping[str, str], timeout: float, method: str = "GET", body: bytes | None = None
    ) -> http.client.HTTPResponse:
        """An answer whose body has not been read, after redirects. Raises OSError, HTTPException or SourceFailed."""
        challenged = False
        for _ in range(MAX_REDIRECTS + 2):
            parts = urlsplit(url)
            sent = {"User-Agent": f"turnout/{__version__}", "Accept-Encoding": "identity", **headers}
            if origin(parts) == self._origin and (credentials := self._authorize(parts)):
                sent["Authorization"] = credentials
            request = urllib.request.Request(url, data=body, headers=sent, method=method)  # noqa: S310  see _follow
            found: http.client.HTTPResponse = self._opener.open(request, timeout=max(timeout, 0.001))
            if found.status == 401 and not challenged and origin(parts) == self._origin:
                challenged = True
                with _closed_on_failure(found):  # where tokens come from is asked here, and may refuse
                    again = self._challenge(found.headers.get("WWW-Authenticate", ""))
                if again:
                    found.close()
                    continue
            if found.status not in REDIRECTS or method not in {"GET", "HEAD"}:
                return found
            found.close()
            url = self._follow(url, found.headers.get("Location", ""))
        raise SourceFailed(f"{self.name} redirects more than {MAX_REDIRECTS} times from {shown(url)}")

    def check(self, answer: Answer, url: str, method: str = "GET") -> None:
        """Raises SourceFailed where the server does not know or does not allow who asks."""
        if answer.status in {401, 403}:
            what = "does not know who asks (401)" if answer.status == 401 else "does not allow it (403)"
            text = f"{self.name} {what}: {method} {shown(url)}{said(answer)}"
            raise SourceFailed(f"{text}. {self._denied}" if self._denied else text)

    def gone(self, url: str, problem: str, method: str = "GET") -> SourceFailed:
        """What to raise where trying again did not help so far."""
        return SourceFailed(f"{self.name} did not answer {method} {shown(url)}: {problem}", retryable=True)

    def _once(self, url: str, headers: Mapping[str, str], method: str, body: bytes | None, deadline: float) -> Answer:
        with self.open(url, headers, deadline - time.monotonic(), method, body) as found:
            content = read(found, _MAX_BODY_BYTES, deadline)
            names = {name.lower(): value for name, value in found.headers.items()}
            return Answer(found.status, names, content, found.url or url)

    def _follow(self, url: str, location: str) -> str:
        """Where a redirect leads, if that is a place one may go to."""
        try:
            target = urljoin(url, location)
            to = origin(urlsplit(target))
        except ValueError:
            raise SourceFailed(f"{self.name} redirects to what is no address, from {shown(url)}") from None
        secure = self._origin[0] == "https"
        if not location or to[0] not in {"http", "https"} or (secure and to[0] != "https"):
            raise SourceFailed(f"{self.name} redirects from {shown(url)} to {shown(target)!r}, which is not followed")
        if to != self._origin and (not self._elsewhere or (is_loopback(to[1]) and not is_loopback(self._origin[1]))):
            raise SourceFailed(f"{self.name} redirects from {shown(url)} to another server, {to[1]}; not followed")
        return target


@contextmanager
def _closed_on_failure(found: http.client.HTTPResponse) -> Iterator[None]:
    try:
        yield
    except BaseException:
        found.close()
        raise


def read(found: http.client.HTTPResponse, limit: int, deadline: float) -> bytes:
    """A whole body. Raises TimeoutError at the deadline, SourceFailed over the limit (bytes)."""
    content = bytearray()
    while chunk := found.read1(1 << 16):
        content += chunk
        if len(content) > limit:
            raise SourceFailed(f"an answer from {shown(found.url or '')} is larger than {limit} bytes")
        if time.monotonic() > deadline:
            raise TimeoutError("timed out")
    if found.status != 204 and len(content) < announced(found):
        raise http.client.IncompleteRead(b"")
    return bytes(content)


def announced(found: http.client.HTTPResponse) -> int:
    """The body's length as its head says, in bytes; 0 where it does not, or there is none to come (HEAD)."""
    if found.length is None or found.length == 0:
        return 0
    value = found.headers.get("Content-Length", "")
    return int(value) if value.isascii() and value.isdigit() else 0


def said(answer: Answer) -> str:
    """What the server says went wrong, in brief: MLflow, OCI and Hugging Face each have their own form."""
    try:
        found = json.loads(answer.body)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(found, dict):
        return ""
    errors: object = found.get("errors")
    if isinstance(errors, list) and errors and isinstance(errors[0], dict):
        found = errors[0]
    words = [found.get(key) for key in ("error_code", "code", "message", "error", "detail")]
    text = ": ".join(word for word in words if isinstance(word, str) and word)
    return f" ({text[:300]})" if text else ""


def pause(failed: int, settings: SourceSettings, deadline: float, at_least: float | None = None) -> bool:
    """Waits before another attempt, after so many have failed; False where there is no time, or none is left."""
    wait = pause_before(failed, settings, at_least)
    if failed >= settings.attempts or time.monotonic() + wait > deadline:
        return False
    time.sleep(wait)
    return True


def _opener(ca_file: str | None) -> urllib.request.OpenerDirector:
    """Opens http and https only, through the proxies of the environment; follows nothing and raises on no status."""
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except (OSError, ssl.SSLError) as problem:
        raise SourceFailed(f"cannot read the certificates in {ca_file}: {problem}") from None
    opener = urllib.request.OpenerDirector()
    parts: Iterable[urllib.request.BaseHandler] = (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(context=context),
    )
    for part in parts:
        opener.add_handler(part)
    return opener
