"""What an OCI registry is asked, and how: the distribution protocol, with its tokens. The only file that speaks it."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from turnout.core.errors import SourceFailed
from turnout.deploy.sources.http_words import is_loopback, shown
from turnout.deploy.sources.source import SourceSettings
from turnout.deploy.sources.web import Answer, Web, said

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_INDEXES = frozenset(
    {
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    }
)
_ACCEPT = ", ".join([MANIFEST, _DOCKER_MANIFEST, *sorted(_INDEXES)])
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_HUB = "docker.io"
_HUB_API = "registry-1.docker.io"
_HUB_KEY = "https://index.docker.io/v1/"
_PARAMETER = re.compile(r'([a-zA-Z]+)="([^"]*)"')
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
_HELPER_SECONDS = 20.0
_DENIED = "Log in with `docker login`, `podman login` or `skopeo login`, as the user that the server runs as"


@dataclass(frozen=True, slots=True)
class Login:
    """What a registry knows one by: user and password, or (with no user) an identity token."""

    user: str
    secret: str


class Registry:
    """A registry by its host (and port), for one repository."""

    def __init__(self, host: str, repository: str, settings: SourceSettings) -> None:
        self._settings = settings
        self.repository = f"library/{repository}" if host == _HUB and "/" not in repository else repository
        self._key = host
        self._lock = threading.Lock()
        self._authorization = ""
        api = _HUB_API if host == _HUB else host
        self.web = Web(
            f"the registry {host}",
            f"{self._scheme(host)}://{api}",
            settings,
            authorize=lambda _: self._authorization,
            challenge=self._log_in,
            denied=_DENIED,
            elsewhere=True,
            ca_file=settings.options.get("oci", {}).get("ca_file"),
        )

    def digest(self, reference: str) -> str:
        """The digest that a tag means now. Raises SourceFailed naming the tags there are."""
        path = f"/v2/{self.repository}/manifests/{reference}"
        answer = self.web.ask(path, headers={"Accept": _ACCEPT}, method="HEAD")
        found = answer.headers.get("docker-content-digest", "")
        if answer.status == 200 and _DIGEST.fullmatch(found):
            return found
        answer = self.web.ask(path, headers={"Accept": _ACCEPT})  # HEAD says nothing of what is wrong
        if answer.status == 200:
            return f"sha256:{hashlib.sha256(answer.body).hexdigest()}"
        raise self._missing(reference, answer)

    def manifest(self, digest: str) -> dict[str, Any]:
        """The manifest of that digest; of an index, that of this machine's kind or the only one there is."""
        found, kind = self._manifest(digest)
        for _ in range(4):  # an index may hold an index
            if kind not in _INDEXES:
                return found
            found, kind = self._manifest(_choose(found, self._at()))
        raise SourceFailed(f"{self._at()}: {digest} is an index of indexes of indexes")

    def blob_url(self, digest: str) -> str:
        """Where a blob is."""
        return self.web.url(f"/v2/{self.repository}/blobs/{digest}")

    def _manifest(self, digest: str) -> tuple[dict[str, Any], str]:
        answer = self.web.ask(f"/v2/{self.repository}/manifests/{digest}", headers={"Accept": _ACCEPT})
        if answer.status != 200:
            raise self._missing(digest, answer)
        if (came := f"sha256:{hashlib.sha256(answer.body).hexdigest()}") != digest:
            raise SourceFailed(f"{self._at()} gave a manifest with the digest {came}; {digest} was asked for")
        found = answer.json(self._at())
        kind = str(found.get("mediaType") or answer.headers.get("content-type", "")) if isinstance(found, dict) else ""
        if found.get("schemaVersion") != 2 or kind.partition(";")[0] not in {MANIFEST, _DOCKER_MANIFEST, *_INDEXES}:
            raise SourceFailed(f"{self._at()}: {digest} is {kind or 'no manifest'}, which is not read; push it as OCI")
        return found, kind.partition(";")[0]

    def _missing(self, reference: str, answer: Answer) -> SourceFailed:
        if answer.status != 404:
            return SourceFailed(f"{self._at()} answered {answer.status} for {reference!r}{said(answer)}")
        tags = self.web.ask(f"/v2/{self.repository}/tags/list")
        known = tags.json(self._at()).get("tags") if tags.status == 200 else None
        if not known:
            return SourceFailed(f"{self._at()} has no such repository, or nothing in it ({reference!r} was asked for)")
        return SourceFailed(f"{self._at()} has no {reference!r}; there are: {', '.join(map(str, known[:20]))}")

    def _at(self) -> str:
        return f"{self.web.name}/{self.repository}"

    def _scheme(self, host: str) -> str:
        name = urlsplit(f"//{host}").hostname or ""
        insecure = self._settings.options.get("oci", {}).get("insecure", "")
        return "http" if is_loopback(name) or host in insecure.replace(",", " ").split() else "https"

    def _log_in(self, challenge: str) -> bool:
        """Answers a challenge of the registry; whether there is something new to try with."""
        kind, _, rest = challenge.partition(" ")
        parameters = dict(_PARAMETER.findall(rest))
        with self._lock:
            before = self._authorization
            login = _login(self._key, self.repository)
            if kind.lower() == "basic":
                self._authorization = _basic(login) if login else ""
            elif kind.lower() == "bearer" and parameters.get("realm"):
                self._authorization = f"Bearer {self._token(parameters, login)}"
            return bool(self._authorization) and self._authorization != before

    def _token(self, parameters: Mapping[str, str], login: Login | None) -> str:
        """A token for reading this repository, from the place that the registry names."""
        realm = urlsplit(parameters["realm"])
        if realm.scheme != "https" and self._scheme(realm.netloc) != "http":
            raise SourceFailed(f"{self.web.name} wants one to log in at {shown(parameters['realm'])}, without TLS")
        known = _basic(login) if login and login.user else ""
        name = f"the login of {self.web.name}"
        web = Web(name, parameters["realm"], self._settings, authorize=lambda _: known, denied=_DENIED)
        scope = {"scope": parameters.get("scope") or f"repository:{self.repository}:pull"}
        query = scope | ({"service": parameters["service"]} if parameters.get("service") else {})
        if login and not login.user:
            form = query | {"grant_type": "refresh_token", "refresh_token": login.secret, "client_id": "turnout"}
            kind = {"Content-Type": "application/x-www-form-urlencoded"}
            answer = web.ask("", method="POST", body=urlencode(form).encode(), headers=kind)
        else:
            query |= dict(pair.partition("=")[::2] for pair in realm.query.split("&") if pair)
            answer = web.ask(f"?{urlencode(query)}")
        found = answer.json(web.name) if answer.status == 200 else {}
        token = found.get("token") or found.get("access_token") if isinstance(found, dict) else None
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise SourceFailed(f"{web.name} gave no token: {answer.status}{said(answer)}. {_DENIED}")
        return token


def _choose(index: Mapping[str, Any], at: str) -> str:
    """The digest in an index that is for this machine. A model is for any, mostly, and then the only one."""
    entries = [one for one in index.get("manifests", []) if isinstance(one, dict)]
    real = [one for one in entries if (one.get("platform") or {}).get("architecture") != "unknown"]
    mine = _MACHINES.get(platform.machine(), platform.machine())
    fitting = [one for one in real if (one.get("platform") or {}).get("architecture") == mine] or real
    digest = str(fitting[0].get("digest", "")) if fitting else ""
    if not _DIGEST.fullmatch(digest):
        raise SourceFailed(f"{at}: the index names no manifest that could be fetched")
    return digest


def _basic(login: Login) -> str:
    return "Basic " + base64.b64encode(f"{login.user}:{login.secret}".encode()).decode()


def _login(host: str, repository: str) -> Login | None:
    """What `docker login` and its relatives have kept for a registry, the closest entry first; None if nothing."""
    keys = [_HUB_KEY, _HUB] if host == _HUB else []
    parts = repository.split("/")
    keys += [f"{host}/{'/'.join(parts[:count])}" for count in range(len(parts), 0, -1)]
    keys += [host, f"https://{host}", f"http://{host}"]
    for file in _files():
        try:
            found = json.loads(file.read_text())
        except (OSError, ValueError):
            continue
        if isinstance(found, dict) and (login := _kept(found, keys, host)):
            return login
    return None


def _files() -> list[Path]:
    if named := os.environ.get("REGISTRY_AUTH_FILE"):
        return [Path(named)]
    docker = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"
    running = os.environ.get("XDG_RUNTIME_DIR")
    return [*([Path(running) / "containers" / "auth.json"] if running else []), docker]


def _kept(found: Mapping[str, Any], keys: list[str], host: str) -> Login | None:
    auths = found.get("auths") if isinstance(found.get("auths"), dict) else {}
    for key in keys:
        one = auths.get(key) if auths else None
        if isinstance(one, dict) and one.get("identitytoken"):
            return Login("", str(one["identitytoken"]))
        if isinstance(one, dict) and one.get("auth"):
            try:
                user, _, secret = base64.b64decode(str(one["auth"]), validate=True).decode().partition(":")
            except ValueError:
                raise SourceFailed(f"the login kept for {key} is damaged; log in to {host} again") from None
            return Login(user, secret)
    server = _HUB_KEY if host == _HUB else host
    helper = (found.get("credHelpers") or {}).get(server) or found.get("credsStore")
    return _ask_helper(str(helper), server) if helper else None


def _ask_helper(name: str, server: str) -> Login | None:
    """What a credential helper (`docker-credential-NAME`) knows."""
    program = shutil.which(f"docker-credential-{name}") if re.fullmatch(r"[\w.-]+", name) else None
    if program is None:
        raise SourceFailed(f"the login for {server} is kept by docker-credential-{name}, which is not installed here")
    try:
        done = subprocess.run(
            [program, "get"], input=server.encode(), capture_output=True, timeout=_HELPER_SECONDS, check=False
        )
        found = json.loads(done.stdout) if done.returncode == 0 else {}
    except (OSError, ValueError, subprocess.TimeoutExpired):
        raise SourceFailed(f"docker-credential-{name} gave no login for {server}") from None
    user, secret = str(found.get("Username", "")), str(found.get("Secret", ""))
    return Login("" if user == "<token>" else user, secret) if secret else None
