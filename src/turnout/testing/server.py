"""A real `turnout serve` process to test against: started, asked, looked into, and always ended.

Its routers and workers outlive it, if it is killed. What belongs to it is therefore found by a mark in the environment,
which every process has from the one that started it.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

_MARK = "TURNOUT_TESTING_SERVER"
_ADDRESSES = re.compile(r"REST\s+http://(\S+):(\d+).*?gRPC\s+\S+:(\d+)", re.DOTALL)


#: The mark of each process that was started here.
_MARKS: WeakKeyDictionary[subprocess.Popen[bytes], str] = WeakKeyDictionary()


class Answer(NamedTuple):
    """What came back over HTTP, header names in lower case, and how long it took (seconds)."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Client:
    """One keep-alive connection; not for several threads at once."""

    def __init__(self, host: str, port: int, timeout: float = 30.0) -> None:
        self._connection = http.client.HTTPConnection(host, port, timeout=timeout)

    def request(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        """Sends bytes as they are and anything else as JSON. Raises OSError or HTTPException without an answer."""
        sent = dict(headers or {})
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            sent.setdefault("content-type", "application/json")
        started = time.monotonic()
        try:
            self._connection.request(method, path, body, sent)
            response = self._connection.getresponse()
            data = response.read()
        except BaseException:
            self._connection.close()
            raise
        found = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, found, data, time.monotonic() - started)

    def close(self) -> None:
        """Closes the connection; the next request opens a new one."""
        self._connection.close()


class Server:
    """A running server. `log` is everything that it and its processes wrote to standard output and error."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log
        self.host = ""
        self.port = self.grpc_port = 0

    @property
    def log(self) -> str:
        """What was written so far."""
        return self._log.read_text(errors="replace")

    def client(self, timeout: float = 30.0) -> Client:
        """A connection of your own."""
        return Client(self.host, self.port, timeout)

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30.0,
    ) -> Answer:
        """One request over a connection of its own."""
        client = self.client(timeout)
        try:
            return client.request(method, path, body, headers)
        finally:
            client.close()

    def is_ready(self) -> bool:
        """What `/v2/health/ready` says; False also where nobody answers."""
        try:
            return self.request("GET", "/v2/health/ready", timeout=5.0).status == 200
        except OSError:
            return False

    def workers(self) -> list[int]:
        """Process ids of the living workers, oldest first."""
        return self._children("turnout.entrypoints.worker")

    def routers(self) -> list[int]:
        """Process ids of the living routers, oldest first."""
        return self._children("turnout.entrypoints.router")

    @property
    def controller(self) -> int:
        """The process id of the controller, which the started process has forked; 0 while there is none."""
        own = command_line(self.process.pid)
        return next((pid for pid in children(self.process.pid) if command_line(pid) == own), 0)

    def family(self) -> list[int]:
        """Process ids of everything that belongs to it and lives, but for the started process; oldest first."""
        return [pid for pid in family(self.process) if pid != self.process.pid]

    def _children(self, module: str) -> list[int]:
        """Those that were started as that module; what they have forked has the same command line, and is none."""
        found = [pid for pid in self.family() if module in command_line(pid)]
        forked = {child for pid in found for child in children(pid)}
        return [pid for pid in found if pid not in forked]

    def stop(self, timeout: float = 40.0) -> int:
        """SIGTERM, then the exit code. Raises TimeoutExpired."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)

    def wait_until(self, true: Any, seconds: float = 20.0, what: str = "") -> float:
        """Waits until `true()` is, and says how long that took. Raises TimeoutError with the log."""
        started = time.monotonic()
        while not true():
            if time.monotonic() - started > seconds:
                raise TimeoutError(f"{what or true} did not become true in {seconds} s; the log:\n{self.log[-3000:]}")
            time.sleep(0.01)
        return time.monotonic() - started


@contextmanager
def serving(
    *words: str, folder: Path | None = None, ready_seconds: float = 60.0, env: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """`turnout serve WORDS` on free ports, ready to answer; killed with all its processes at the end.

    Raises RuntimeError with the log where it ends or does not become ready.
    """
    with tempfile.TemporaryDirectory() as made:
        log = Path(made) / "log"
        server = Server(start(words, log, folder, env), log)
        try:
            _wait_for_addresses(server, ready_seconds)
            yield server
        finally:
            end(server.process)


def start(
    words: Sequence[str], log: Path, folder: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Starts `turnout serve WORDS` and does not wait for it."""
    command = [sys.executable, "-m", "turnout.entrypoints.cli", "serve", *words]
    if "--port" not in words:
        command += ["--port", "0"]
    if "--grpc-port" not in words:
        command += ["--grpc-port", "0"]
    mark = uuid.uuid4().hex
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=folder, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            env={**os.environ, **(env or {}), _MARK: mark},
        )  # fmt: skip
    _MARKS[process] = mark
    return process


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends a server and everything it started, whatever state that is in."""
    process.kill()  # first: or it would start another controller
    process.wait(10.0)
    until = time.monotonic() + 10.0
    while (left := family(process)) and time.monotonic() < until:
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _wait_for_addresses(server: Server, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = _ADDRESSES.search(server.log)
        if found:
            server.host = found[1].strip("[]")
            server.port, server.grpc_port = int(found[2]), int(found[3])
            return
        if server.process.poll() is not None:
            raise RuntimeError(f"the server ended with {server.process.returncode}:\n{server.log}")
        time.sleep(0.02)
    raise RuntimeError(f"the server was not ready in {seconds} s:\n{server.log}")


def family(process: subprocess.Popen[bytes]) -> list[int]:
    """Process ids of everything alive that comes from a process of `start`, oldest first (Linux)."""
    mark = f"{_MARK}={_MARKS[process]}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    after_name = (entry / "stat").read_text().rpartition(")")[2].split()
                    found.append((int(after_name[19]), int(entry.name)))
            except OSError:
                continue
    return [pid for _, pid in sorted(found) if alive(pid)]


def children(parent: int) -> list[int]:
    """Process ids of the living children of a process, zombies left out, oldest first (Linux)."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                after_name = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(after_name[1]) == parent and after_name[0] != "Z":
                found.append((int(after_name[19]), int(entry.name)))
    return [pid for _, pid in sorted(found)]


def command_line(pid: int) -> str:
    """The words that a process was started with; nothing if it is gone (Linux)."""
    try:
        return (Path("/proc") / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not (Linux)."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
