"""A package index in the simplest form there is, over a folder of wheels; and a place that records who asks it."""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote


class Index(ThreadingHTTPServer):
    """Serves `folder` as an index, with hashes; keeps the paths it was asked for. With a user it wants a password."""

    daemon_threads = True

    def __init__(self, folder: Path | None, user: str = "", password: str = "") -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.folder = folder
        self.user = user
        self.wanted = f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}" if user else ""
        self.asked: list[str] = []
        self.came = threading.Event()
        self.go = threading.Event()
        self.go.set()
        self.address = f"http://127.0.0.1:{self.server_address[1]}"
        login = f"{user}:{password}@" if user else ""
        self.url = f"http://{login}127.0.0.1:{self.server_address[1]}/simple/"

    def wheels(self, name: str) -> list[Path]:
        assert self.folder is not None
        return [path for path in self.folder.glob("*.whl") if path.name.split("-")[0].replace("_", "-") == name]


class _Answer(BaseHTTPRequestHandler):
    server: Index
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.server.came.set()
        self.server.go.wait(30)
        if self.server.folder is None:
            return self._send(502, b"this place only records")
        if self.server.wanted and self.headers.get("authorization") != self.server.wanted:
            return self._send(401, b"who are you?", {"WWW-Authenticate": "Basic"})
        kind, _, name = unquote(self.path).strip("/").partition("/")
        if kind == "simple" and name and (wheels := self.server.wheels(name)):
            links = [
                f'<a href="/files/{path.name}#sha256={hashlib.sha256(path.read_bytes()).hexdigest()}">{path.name}</a>'
                for path in wheels
            ]
            return self._send(200, f"<!DOCTYPE html><html><body>{''.join(links)}</body></html>".encode())
        if kind == "files" and (path := self.server.folder / Path(name).name).is_file():
            return self._send(200, path.read_bytes(), {"Content-Type": "application/octet-stream"})
        return self._send(404, b"no such package")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_CONNECT(self) -> None:
        self.server.asked.append(f"CONNECT {self.path}")
        self._send(502, b"this place only records")

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "text/html", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(folder: Path | None, user: str = "", password: str = "") -> Iterator[Index]:
    """An index over that folder; without one, a place that answers nothing and keeps what it was asked."""
    index = Index(folder, user, password)
    thread = threading.Thread(target=index.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield index
    finally:
        index.shutdown()
        thread.join()
        index.server_close()
