"""What all clients of HTTP here agree on: which answers pass, how slow is too slow, how failures are worded."""

from __future__ import annotations

import http.client
import ipaddress
import ssl
import urllib.error
from contextlib import suppress
from urllib.parse import urlsplit, urlunsplit

#: What is worth asking again: too many requests, and servers that are not themselves.
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
REDIRECTS = frozenset({301, 302, 303, 307, 308})
MAX_REDIRECTS = 5
#: What arrives slower than this (bytes a second, over one time-out) is as good as hung.
MIN_PACE = 1024


def shown(url: str) -> str:
    """A URL as it may stand in a message: without user, password, query (which may be a signature) and fragment."""
    with suppress(ValueError):
        parts = urlsplit(url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    return "that address"


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine. `127.example.org` does not."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def retry_after(value: str) -> float | None:
    """The seconds that a `Retry-After` field asks one to wait; None where it says none that are understood here."""
    return float(value) if value.isascii() and value.isdigit() else None


def reason(problem: BaseException) -> str:
    """A broken connection in words, without what the connection carried."""
    if isinstance(problem, urllib.error.URLError) and isinstance(problem.reason, BaseException):
        problem = problem.reason
    if isinstance(problem, TimeoutError):
        return "no answer in time"
    if isinstance(problem, ConnectionRefusedError):
        return "nobody listens there (connection refused)"
    if isinstance(problem, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({problem.verify_message})"
    if isinstance(problem, http.client.IncompleteRead | http.client.RemoteDisconnected | ConnectionResetError):
        return "the connection ended in the middle of the answer"
    if isinstance(problem, OSError) and problem.strerror:
        return problem.strerror
    return type(problem).__name__
