"""A small hub that speaks as the Hugging Face hub does, with large files at another address, as its CDN."""

from __future__ import annotations

import hashlib
import json
import threading
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

LARGE = 64 << 10
TOKEN = "hf_of-the-tests"


@dataclass
class Repository:
    """Commits by name, newest last; each is the files by name. refs: branches and tags to commits."""

    commits: dict[str, Mapping[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    gated: bool = False

    def commit(self, files: Mapping[str, bytes], ref: str = "main") -> str:
        sha = hashlib.sha1(repr((sorted(files.items()), len(self.commits))).encode()).hexdigest()
        self.commits[sha] = dict(files)
        self.refs[ref] = sha
        return sha


class Hub:
    """Started by `with`. seen: (which server, path, Authorization field, Range field) of each request."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.seen: list[tuple[str, str, str, str]] = []
        self.damaged: set[str] = set()
        self._servers = [self._server("hub", self._answer), self._server("cdn", self._blob)]
        self.port, self.cdn_port = (server.server_port for server in self._servers)

    def __enter__(self) -> Self:
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _server(self, name: str, answer: object) -> ThreadingHTTPServer:
        hub = self

        class Requests(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                fields = (self.headers.get("Authorization", ""), self.headers.get("Range", ""))
                hub.seen.append((name, self.path, *fields))
                answer(self)  # type: ignore[operator]

            def log_message(self, format: str, *args: object) -> None:
                """Nothing."""

        return ThreadingHTTPServer(("127.0.0.1", 0), Requests)

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        parts = urllib.parse.unquote(urllib.parse.urlsplit(request.path).path).strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            self._about("/".join(parts[2:4]), parts[4:], request)
            return
        repository = self._known("/".join(parts[:2]), request)
        if repository is None:
            return
        files = repository.commits.get(parts[3])
        name = "/".join(parts[4:])
        if files is None or name not in files:
            _say(request, 404, b"Entry not found", {"X-Error-Code": "EntryNotFound"})
        elif len(files[name]) > LARGE:
            place = f"http://127.0.0.1:{self.cdn_port}/{_sha256(files[name])}?signature=secret"
            _say(request, 302, b"", {"Location": place})
        else:
            _content(request, files[name])

    def _known(self, name: str, request: BaseHTTPRequestHandler) -> Repository | None:
        found = self.repositories.get(name)
        who = request.headers.get("Authorization")
        if who not in {None, f"Bearer {TOKEN}"}:
            _json(request, 401, {"error": "Invalid credentials in Authorization header"})
        elif found is None or (found.gated and who is None):
            code = "RepoNotFound" if found is None else "GatedRepo"
            body = {"error": "Repository not found" if found is None else "Access to this model is restricted"}
            _json(request, 401 if who is None else 404, body, {"X-Error-Code": code})
        else:
            return found
        return None

    def _about(self, name: str, rest: list[str], request: BaseHTTPRequestHandler) -> None:
        repository = self._known(name, request)
        if repository is None:
            return
        if rest == ["refs"]:
            _json(request, 200, {"branches": [{"name": one} for one in repository.refs], "tags": []})
            return
        revision = "/".join(rest[1:])
        sha = repository.refs.get(revision, revision)
        if sha not in repository.commits:
            _json(request, 404, {"error": f"Invalid rev id: {revision}"}, {"X-Error-Code": "RevisionNotFound"})
            return
        siblings: list[dict[str, object]] = []
        for file, content in repository.commits[sha].items():
            one: dict[str, object] = {"rfilename": file, "size": len(content), "blobId": _git(content)}
            if len(content) > LARGE:
                one["lfs"] = {"sha256": _sha256(content), "size": len(content), "pointerSize": 134}
            siblings.append(one)
        _json(request, 200, {"id": name, "sha": sha, "siblings": siblings})

    def _blob(self, request: BaseHTTPRequestHandler) -> None:
        wanted = urllib.parse.urlsplit(request.path).path.strip("/")
        contents = (
            content
            for repository in self.repositories.values()
            for files in repository.commits.values()
            for content in files.values()
        )
        found = next(content for content in contents if _sha256(content) == wanted)
        _content(request, b"\xff" + found[1:] if wanted in self.damaged else found)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _git(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _content(request: BaseHTTPRequestHandler, content: bytes) -> None:
    tag = f'"{_sha256(content)}"'
    asked = request.headers.get("Range", "")
    if asked and request.headers.get("If-Range", tag) == tag:
        start = int(asked.removeprefix("bytes=").rstrip("-"))
        place = f"bytes {start}-{len(content) - 1}/{len(content)}"
        _say(request, 206, content[start:], {"ETag": tag, "Content-Range": place})
    else:
        _say(request, 200, content, {"ETag": tag})


def _json(request: BaseHTTPRequestHandler, status: int, body: object, fields: Mapping[str, str] | None = None) -> None:
    _say(request, status, json.dumps(body).encode(), {"Content-Type": "application/json", **(fields or {})})


def _say(request: BaseHTTPRequestHandler, status: int, body: bytes, fields: Mapping[str, str]) -> None:
    request.send_response(status)
    for name, value in fields.items():
        request.send_header(name, value)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)
