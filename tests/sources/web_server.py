"""A server of files on this machine, over HTTP or HTTPS, that can be told to misbehave and counts what it sends."""

from __future__ import annotations

import hashlib
import re
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class WebServer:
    """files: path to content. redirects: path to location. cut_after: bytes of a body after which it hangs up, once
    for each number. statuses: answered first, one by one. sent: bytes of bodies that went out. asked: (method, path,
    headers) of each request.
    """

    def __init__(self, certificate: Path | None = None) -> None:
        self.files: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}
        self.cut_after: list[int] = []
        self.statuses: list[int] = []
        self.has_ranges = True
        self.has_tags = True
        self.has_times = True
        self.has_length = True
        self.has_head = True
        self.before_body: Callable[[], None] = lambda: None
        self.extra: dict[str, str] = {}
        self.sent = 0
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.scheme = "http"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            self.scheme = "https"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"{self.scheme}://{host}:{self.port}{path}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(web: Self) -> type[BaseHTTPRequestHandler]:  # noqa: N805  the handler's own `self` is another
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 5

            def log_message(self, *arguments: Any) -> None:
                """Quiet."""

            def do_HEAD(self) -> None:
                self._answer()

            def do_GET(self) -> None:
                self._answer()

            def _answer(self) -> None:
                with web._lock:
                    web.asked.append((self.command, self.path, dict(self.headers.items())))
                    status = web.statuses.pop(0) if web.statuses else 0
                path = self.path.partition("?")[0]
                if path in web.redirects:
                    self._head(302, {"Location": web.redirects[path], "Content-Length": "0"})
                elif status or (self.command == "HEAD" and not web.has_head):
                    self._head(status or 403, {"Content-Length": "0"})
                elif path not in web.files:
                    self._head(404, {"Content-Length": "0"})
                else:
                    self._file(web.files[path])

            def _file(self, content: bytes) -> None:
                tag = f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'
                wanted = self.headers.get("If-Match")
                if wanted and wanted != tag:
                    self._head(412, {"Content-Length": "0"})
                    return
                found = re.match(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")) if web.has_ranges else None
                start, stop = (int(found[1]), min(int(found[2]) + 1, len(content))) if found else (0, len(content))
                headers = dict(web.extra)
                if web.has_tags:
                    headers["ETag"] = tag
                elif web.has_times:
                    headers["Last-Modified"] = f"Mon, 01 Jan 2024 00:00:00 GMT {tag}"
                if web.has_ranges:
                    headers["Accept-Ranges"] = "bytes"
                if found:
                    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
                if web.has_length:
                    headers["Content-Length"] = str(stop - start)
                else:
                    headers["Connection"] = "close"
                    self.close_connection = True
                self._head(206 if found else 200, headers)
                if self.command == "HEAD":
                    return
                web.before_body()
                body = content[start:stop]
                with web._lock:
                    cut = web.cut_after.pop(0) if web.cut_after and len(body) > web.cut_after[0] else None
                    body = body[:cut]
                    web.sent += len(body)
                self.wfile.write(body)
                if cut is not None:
                    self.wfile.flush()
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)

            def _head(self, status: int, headers: dict[str, str]) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()

        return Handler


def make_certificate(folder: Path, name: str) -> Path:
    """A key and a self-signed certificate for a name, in one PEM file."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += [
        "-days",
        "2",
        "-subj",
        f"/CN={name}",
        "-addext",
        f"subjectAltName=DNS:{name}",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
    ]
    subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    both = folder / "both.pem"
    both.write_bytes(key.read_bytes() + certificate.read_bytes())
    return both
