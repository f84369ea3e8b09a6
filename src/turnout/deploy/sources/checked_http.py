"""HTTP to hosts that strangers may have named: each address is checked, and what was checked is connected to."""

from __future__ import annotations

import http.client
import netrc
import os
import socket
import ssl
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import SplitResult, quote, urljoin, urlunsplit

from turnout import __version__
from turnout.core.errors import SourceFailed
from turnout.deploy.sources.addresses import connectable, is_listed
from turnout.deploy.sources.fragments import split
from turnout.deploy.sources.http_words import MAX_REDIRECTS, MIN_PACE, PASSING, REDIRECTS, reason, retry_after, shown
from turnout.deploy.sources.source import SourceSettings

_CHUNK_BYTES = 256 << 10
_WORDS = {
    401: "it wants to know who asks; put the host into ~/.netrc (or the file that NETRC names)",
    403: "it does not allow that",
    404: "there is no such thing",
    410: "there is no such thing any more",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of which only the head has been read. Used with `with`. url: after redirects, for messages."""

    response: http.client.HTTPResponse
    connection: http.client.HTTPConnection
    url: str
    timeout: float

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.response.close()
        self.connection.close()

    @property
    def status(self) -> int:
        """The status code."""
        return self.response.status

    def header(self, name: str) -> str:
        """A field of the head, "" where there is none."""
        return self.response.headers.get(name, "") or ""

    def body(self) -> Iterator[bytes]:
        """The body as it comes. Raises SourceFailed (retryable) where it breaks off, or all but stands still."""
        began, count = time.monotonic(), 0
        while True:
            try:
                chunk = self.response.read1(_CHUNK_BYTES)
            except (OSError, http.client.HTTPException) as problem:
                raise SourceFailed(f"{self.url} broke off: {reason(problem)}", retryable=True) from None
            if not chunk:
                return
            yield chunk
            count += len(chunk)
            now = time.monotonic()
            if now - began > self.timeout:
                if count < MIN_PACE * self.timeout:
                    raise SourceFailed(f"{self.url} sends {count / (now - began):.0f} bytes a second", retryable=True)
                began, count = now, 0

    def check(self) -> None:
        """Raises SourceFailed for a status that is no success."""
        if self.status not in {200, 206}:
            words = _WORDS.get(self.status, self.response.reason)
            raise SourceFailed(
                f"{self.url} answered {self.status}: {words}",
                retryable=self.status in PASSING,
                retry_after=retry_after(self.header("Retry-After")),
            )
        if (coding := self.header("Content-Encoding").lower()) not in {"", "identity"}:
            raise SourceFailed(f"{self.url} came encoded as {coding!a}, which was not asked for")


def ask(url: str, settings: SourceSettings, method: str = "GET", headers: Mapping[str, str] | None = None) -> Answer:
    """The answer to one request, redirects followed, every host on the way checked. No proxy is used.

    Raises SourceFailed: what is not allowed, a host that is not known, nobody there (retryable), a bad certificate.
    """
    trusted, first = True, ""
    for _ in range(MAX_REDIRECTS + 1):
        parts = _split(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        host = parts.hostname or ""
        # Who is listed may be on a private network; who is not may not send us to one that is.
        listed = trusted and is_listed(host, port, settings.allowed_hosts)
        _check_allowed(parts, settings, listed=listed)
        trusted = listed
        first = first or parts.netloc
        sent = {
            "User-Agent": f"turnout/{__version__}",
            "Accept": "*/*",
            "Accept-Encoding": "identity",
            **(headers or {}),
        }
        if parts.netloc == first and parts.scheme == "https" and (credentials := _credentials(host)):
            sent["Authorization"] = credentials
        answer = _once(parts, port, method, sent, settings, listed=listed)
        if answer.status not in REDIRECTS:
            return answer
        with answer:
            target = urljoin(url, answer.header("Location"))
            if not answer.header("Location") or (parts.scheme == "https" and not target.lower().startswith("https:")):
                raise SourceFailed(f"{shown(url)} redirects to {shown(target)!a}, which is not followed")
        url = target
    raise SourceFailed(f"{shown(url)}: more than {MAX_REDIRECTS} redirects")


def _split(url: str) -> SplitResult:
    parts = split(url)
    if "@" in parts.netloc:
        raise SourceFailed(f"{shown(url)} has a user or password in it; put them into ~/.netrc")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise SourceFailed(f"{shown(url)!a} is no address of the form https://HOST/PATH")
    return parts


def _check_allowed(parts: SplitResult, settings: SourceSettings, *, listed: bool) -> None:
    if listed or (parts.scheme == "https" and settings.allow_https):
        return
    if parts.scheme == "http":
        raise SourceFailed(
            f"http: has nothing to tell a server from somebody in between; use https:, or allow the host by "
            f"name (--allow-host {parts.hostname})"
        )
    raise SourceFailed(
        f"fetching from https: is not allowed; allow it (--allow-https), or just the host {parts.hostname} "
        f"(--allow-host {parts.hostname})"
    )


def _once(
    parts: SplitResult, port: int, method: str, headers: Mapping[str, str], settings: SourceSettings, *, listed: bool
) -> Answer:
    host = parts.hostname or ""
    where = connectable(host, port, listed=listed)
    connection = _Connection(host, port, where, settings.timeout, secure=parts.scheme == "https")
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._") + (f"?{parts.query}" if parts.query else "")
    url = shown(urlunsplit(parts))
    try:
        connection.request(method, path, headers=dict(headers))
        return Answer(connection.getresponse(), connection, url, settings.timeout)
    except ssl.SSLCertVerificationError as problem:
        connection.close()
        raise SourceFailed(f"the certificate of {url} is not trusted: {problem.verify_message}") from None
    except http.client.InvalidURL:
        connection.close()
        raise SourceFailed(f"{url!a} is no address of the form https://HOST/PATH") from None
    except (OSError, http.client.HTTPException) as problem:
        connection.close()
        raise SourceFailed(f"{url} does not answer: {reason(problem)}", retryable=True) from None


class _Connection(http.client.HTTPConnection):
    """Connects to addresses that were found before; for TLS it is still the name that is verified."""

    def __init__(
        self, host: str, port: int, where: list[tuple[int, tuple[str, int]]], timeout: float, *, secure: bool
    ) -> None:
        super().__init__(host, port, timeout=timeout)
        self._where, self._secure = where, secure
        if secure:
            self.default_port = 443

    def connect(self) -> None:
        """To the first address that takes us. Raises OSError."""
        last: OSError = OSError("no address")
        for family, address in self._where:
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                sock.settimeout(self.timeout)
                sock.connect(address)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self._secure:
                    sock = ssl.create_default_context().wrap_socket(sock, server_hostname=self.host)
            except OSError as problem:
                sock.close()
                last = problem
            else:
                self.sock = sock
                return
        raise last


def _credentials(host: str) -> str:
    """The Authorization field for a host that stands in the user's netrc file; "" for any other."""
    path = os.environ.get("NETRC") or Path.home() / ".netrc"
    try:
        found = netrc.netrc(path).hosts.get(host)  # by name only: its "default" is not for us
    except FileNotFoundError:
        return ""
    except (netrc.NetrcParseError, OSError) as problem:
        raise SourceFailed(f"cannot read {path}: {problem}") from None
    if found is None:
        return ""
    return "Basic " + b64encode(f"{found[0]}:{found[2]}".encode()).decode()
