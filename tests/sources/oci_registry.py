"""A real OCI registry on this machine (the distribution registry, from Debian), open, or with a login or tokens."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

USER, PASSWORD = "reader", "a secret of the tests"
#: bcrypt of the password; the registry takes no other kind.
_HASHED = "$2b$04$abcdefghijklmnopqrstuuNpvKgAHWcZ5/DzrTG3xyr61jp6DBb4O"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
EMPTY_CONFIG = "application/vnd.oci.empty.v1+json"
TITLE = "org.opencontainers.image.title"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class OciRegistry:
    """Started by `with`. auth: "" for everybody, "basic", or "token", which a server of tokens gives."""

    def __init__(self, directory: Path, auth: str = "") -> None:
        self.directory = directory
        self.auth = auth
        self.port = free_port()
        self.tokens = TokenServer(directory) if auth == "token" else None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self.directory.mkdir(exist_ok=True)
        if self.tokens:
            self.tokens.start()
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()
        if self.tokens:
            self.tokens.stop()

    def start(self) -> None:
        lines = ["version: 0.1", "log: {level: warn}", f"http: {{addr: '{self.host}'}}"]
        lines += [f"storage: {{filesystem: {{rootdirectory: '{self.directory / 'data'}'}}, delete: {{enabled: true}}}}"]
        if self.auth == "basic":
            (self.directory / "htpasswd").write_text(f"{USER}:{_HASHED}\n")
            lines += [f"auth: {{htpasswd: {{realm: tests, path: '{self.directory / 'htpasswd'}'}}}}"]
        if self.tokens:
            realm, bundle = self.tokens.address, self.tokens.certificate
            lines += [
                f"auth: {{token: {{realm: '{realm}', service: tests, issuer: tests, rootcertbundle: '{bundle}'}}}}"
            ]
        (self.directory / "config.yml").write_text("\n".join(lines) + "\n")
        program = shutil.which("docker-registry")
        assert program, "these tests need the Debian package docker-registry"
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [program, "serve", str(self.directory / "config.yml")], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(OSError):
                if self.call("GET", "/v2/")[0] in {200, 401}:
                    return
            time.sleep(0.05)
        raise RuntimeError((self.directory / "log").read_text(errors="replace")[-2000:])

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def call(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """One request, with the login or a token where the registry wants one."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        sent = dict(headers or {})
        if self.auth == "basic":
            sent["Authorization"] = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if self.tokens and path != "/v2/":
            repository = (
                path.rsplit("/v2/", maxsplit=1)[-1].split("/blobs/", maxsplit=1)[0].split("/manifests/", maxsplit=1)[0]
            )
            sent["Authorization"] = f"Bearer {self.tokens.token(repository, ['pull', 'push'])}"
        try:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def put_blob(self, repository: str, content: bytes) -> dict[str, Any]:
        """Pushes a blob as the distribution protocol says, in two steps; gives its descriptor."""
        status, headers, body = self.call("POST", f"/v2/{repository}/blobs/uploads/")
        assert status == 202, body
        place = urllib.parse.urlsplit(headers["Location"])
        query = f"{place.query}&digest={urllib.parse.quote(digest_of(content))}"
        kind = {"Content-Type": "application/octet-stream"}
        status, _, body = self.call("PUT", f"{place.path}?{query}", content, kind)
        assert status == 201, body
        return {"digest": digest_of(content), "size": len(content)}

    def put_manifest(self, repository: str, tag: str, manifest: Mapping[str, Any]) -> str:
        """Pushes a manifest or an index under a tag; gives its digest."""
        content = json.dumps(manifest).encode()
        kind = {"Content-Type": str(manifest["mediaType"])}
        status, _, body = self.call("PUT", f"/v2/{repository}/manifests/{tag}", content, kind)
        assert status == 201, body
        return digest_of(content)

    def push(
        self, repository: str, tag: str, layers: Sequence[tuple[str, bytes, Mapping[str, str]]],
        config: str = EMPTY_CONFIG,
    ) -> str:  # fmt: skip
        """Pushes layers (media type, content, annotations) as one artifact or image; gives its digest."""
        described = [
            {"mediaType": kind, **self.put_blob(repository, content), "annotations": dict(notes)}
            for kind, content, notes in layers
        ]
        about = {"mediaType": config, **self.put_blob(repository, b"{}")}
        manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": about, "layers": described}
        return self.put_manifest(repository, tag, manifest)


class TokenServer:
    """Gives tokens that the registry believes, as its specification says; only to those who know the password."""

    def __init__(self, directory: Path) -> None:
        self._key = directory / "token.key"
        self.certificate = directory / "token.pem"
        self._server: ThreadingHTTPServer | None = None
        self.given: list[str] = []

    @property
    def address(self) -> str:
        assert self._server
        return f"http://127.0.0.1:{self._server.server_port}/token"

    def start(self) -> None:
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=tests"]
        command += ["-keyout", str(self._key), "-out", str(self.certificate)]
        subprocess.run(command, check=True, capture_output=True)
        tokens = self
        wanted = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()

        class Tokens(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
                if self.headers.get("Authorization") != wanted:
                    body, status = b'{"errors": [{"code": "UNAUTHORIZED", "message": "who are you?"}]}', 401
                else:
                    scope = asked["scope"][0]
                    tokens.given.append(scope)
                    _, repository, actions = scope.split(":")
                    body, status = json.dumps({"token": tokens.token(repository, actions.split(","))}).encode(), 200
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Tokens)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        if self._server:
            self._server.shutdown()
            self._server.server_close()

    def token(self, repository: str, actions: Sequence[str]) -> str:
        """A signed JSON web token."""
        lines = self.certificate.read_text().splitlines()
        head = {"alg": "RS256", "typ": "JWT", "x5c": ["".join(line for line in lines if "-----" not in line)]}
        now = int(time.time())
        access = [{"type": "repository", "name": repository, "actions": list(actions)}]
        claims = {"iss": "tests", "aud": "tests", "sub": USER, "iat": now, "nbf": now - 10, "exp": now + 300}
        claims |= {"jti": "1", "access": access}
        text = ".".join(_url64(json.dumps(part).encode()) for part in (head, claims))
        command = ["openssl", "dgst", "-sha256", "-sign", str(self._key)]
        signed = subprocess.run(command, input=text.encode(), check=True, capture_output=True).stdout
        return f"{text}.{_url64(signed)}"


def _url64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
