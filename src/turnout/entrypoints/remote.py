"""How the command line reaches a running server: the socket of its user on this machine, else the admin API."""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

from turnout.core.errors import InvalidInput, NotReady
from turnout.deploy.home import socket_path

if TYPE_CHECKING:
    from urllib.error import HTTPError

URL = "http://127.0.0.1:8080"
TOKEN = "TURNOUT_TOKEN"  # noqa: S105  the name of a variable, not what is in it
_PATIENCE = 3600.0
_HERE = ("127.0.0.1", "localhost", "::1")


def ask(url: str, question: dict[str, Any]) -> Any:
    """What the server at that address answers. Raises the failure that it answers with; NotReady if none is there."""
    place = urlsplit(url)
    if place.scheme not in {"http", "https"} or not place.hostname:
        raise InvalidInput("not an address of a server", field="--url", expected=URL, got=repr(url))
    port = place.port or (443 if place.scheme == "https" else 80)
    if place.hostname in _HERE and TOKEN not in os.environ:
        return ask_here(port, question)
    return _ask_there(url.rstrip("/"), question)


def ask_here(port: int, question: dict[str, Any]) -> Any:
    """What the server of this user on that HTTP port answers; the socket lets nobody else in."""
    path = socket_path(port)
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect(str(path))  # before the time limit: with one, a crowd that waits would be an error at once
            sock.settimeout(_PATIENCE)
            sock.sendall(json.dumps(question).encode() + b"\n")
            found = json.loads(sock.makefile("rb").readline() or b"null")
        except OSError as problem:
            if problem.errno is None:  # what Python itself refuses: no system has paths of that length for sockets
                raise NotReady(f"{path}: {problem}; choose a shorter TURNOUT_HOME") from None
            found = None
    if found is None:
        from turnout.deploy.run_file import away

        raise NotReady(away(port) or f"no server of yours runs on HTTP port {port}; --url names another")
    if "failed" in found:
        from turnout.entrypoints.questions import failure_of

        raise failure_of(found)
    return found["answer"]


def _ask_there(url: str, question: dict[str, Any]) -> Any:
    """Over the admin API, with the token that the environment holds."""
    import urllib.error  # with TLS and all that: most words never leave this machine
    import urllib.request

    from turnout.entrypoints.admin import ACTS
    from turnout.protocols.http import JSON

    said = dict(question)
    do = said.pop("do")
    form = said.pop("form", JSON)
    method = "GET" if do == "rollout" and said.get("act") == "status" else None
    found = [act for act in ACTS if (act.do, act.form) == (do, form) and method in (None, act.method)]
    if not found:
        raise InvalidInput(f"`{do}` works only beside the server, without {TOKEN}", field="--url", got=repr(url))
    act = found[0]
    path = act.path.replace("{name}", quote(str(said.pop("endpoint", "")), safe=""))
    fields = {key: value for key, value in said.items() if key in act.fields}
    query = f"?{urlencode(fields)}" if act.method == "GET" and fields else ""
    body = json.dumps(fields).encode() if act.method == "POST" else None
    headers = {"Authorization": f"Bearer {os.environ.get(TOKEN, '')}", "Content-Type": JSON}
    request = urllib.request.Request(f"{url}{path}{query}", body, headers, method=act.method)  # noqa: S310  the scheme was checked
    try:
        with urllib.request.urlopen(request, timeout=_PATIENCE) as response:  # noqa: S310  as above
            text = response.read()
            return json.loads(text) if form == JSON else text.decode()
    except urllib.error.HTTPError as problem:
        raise _refusal(problem) from None
    except OSError as problem:
        raise NotReady(f"{url} does not answer ({getattr(problem, 'reason', problem)})") from None


def _refusal(problem: HTTPError) -> Exception:
    try:
        message = str(json.loads(problem.read())["error"])
    except (ValueError, KeyError, TypeError, OSError):
        message = f"the server answers with status {problem.code}"
    return NotReady(message) if problem.code >= 500 else InvalidInput(message)
