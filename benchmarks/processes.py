"""A running server: started on its core, asked until it answers, looked at, and ended with all its children."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks import generator
from benchmarks.peers import Peer, Start, environment_variables
from benchmarks.places import LOGS, SERVER_CORE, SERVERS, WORK
from benchmarks.requests import first_request, request_file

PATIENCE = 60.0
ON_ITS_CORE = ("taskset", "-c", str(SERVER_CORE))


class NotStarted(Exception):
    """A server that did not answer; the message has the end of its log."""


@dataclass
class Process:
    """One process of a server: resident memory in bytes, and of it what is anonymous (its own, not files or shared)."""

    pid: int
    command: str
    resident: int
    anonymous: int
    cores: set[int]


@dataclass
class Running:
    """A server that has answered. `ready_after`: seconds from its start to the first right answer."""

    peer: Peer
    start: Start
    process: subprocess.Popen[bytes]
    ready_after: float

    def port(self, kind: str) -> int:
        """Where a cell of this kind is sent."""
        return self.start.grpc_port if kind == "grpc" else self.start.port

    def processes(self) -> list[Process]:
        """All its processes that live now."""
        return [found for pid in _family(self.process.pid) if (found := _look(pid))]

    def cpu_seconds(self) -> float:
        """The processor time that its processes have used so far."""
        return sum(_cpu_ticks(pid) for pid in _family(self.process.pid)) / os.sysconf("SC_CLK_TCK")

    def router(self) -> Process:
        """The door's process: of those that hold the listening socket, the one that used most CPU."""
        sockets = _listening_sockets(self.start.port)
        holders = [found for found in self.processes() if _holds(found.pid, sockets)]
        if not holders:
            raise RuntimeError(f"no process of {self.peer.name} listens on port {self.start.port}")
        return max(holders, key=lambda found: _cpu_ticks(found.pid))


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


@contextlib.contextmanager
def running(peer: Peer, model: str | None) -> Iterator[Running]:
    """Starts the server and ends it afterwards; `NotStarted` where it does not answer within a minute."""
    port, grpc_port, metrics_port = free_ports(3)
    start = Start(port, grpc_port, model)
    LOGS.mkdir(parents=True, exist_ok=True)
    if peer.name == "mlserver":
        text = (
            f'{{"host": "127.0.0.1", "http_port": {port}, "grpc_port": {grpc_port}, "metrics_port": {metrics_port}, '
            '"parallel_workers": 0, "debug": false, "metrics_endpoint": null, "grpc_max_message_length": 67108864}'
        )
        (WORK / "mlserver" / "settings.json").write_text(text)
    log = LOGS / f"{peer.name}.log"
    began = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*ON_ITS_CORE, *peer.command(start)],
            cwd=SERVERS, env=environment_variables(peer.variables, peer.environment),
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        _await_answer(peer, start, process, log)
        yield Running(peer, start, process, time.monotonic() - began)
    finally:
        _end(process)


def _await_answer(peer: Peer, start: Start, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    kind = "json" if "json" in peer.forms else "grpc"
    requests = request_file(peer.forms[kind], start.model or "tiny", 1)
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        if kind == "json":
            answered = _ask(start.port, first_request(requests))
        else:
            answered = _listens(start.grpc_port) and bool(
                generator.run(start.grpc_port, requests, grpc=True, count=1, warmup=0, seconds=2)["answered"]
            )
        if answered:
            return
        time.sleep(0.005)
    tail = log.read_text(errors="replace")[-1500:]
    raise NotStarted(f"{peer.name} did not answer (exit status {process.poll()}); its log ends with:\n{tail}")


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _ask(port: int, request: bytes) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(request)
        return connection.recv(65536)[9:12] == b"200"
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    family = _family(process.pid)
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(5)
    for pid in family:  # whatever did not end by itself; all were started by us
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(5)


def _stat(pid: int) -> list[str]:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return []


def _family(root: int) -> list[int]:
    """The process, its descendants, and whatever else is in the session that was made for it."""
    parents: dict[int, tuple[int, int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            parents[int(entry.name)] = (int(fields[1]), int(fields[3]))
    found = {root}
    grown = True
    while grown:
        more = {pid for pid, (parent, session) in parents.items() if parent in found or session == root}
        grown = not more <= found
        found |= more
    return sorted(found)


def _look(pid: int) -> Process | None:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        if "VmRSS" not in status:  # a zombie
            return None
        sizes = [int(status[key].split()[0]) * 1024 for key in ("VmRSS", "RssAnon")]
        return Process(pid, words, sizes[0], sizes[1], os.sched_getaffinity(pid))
    except (OSError, KeyError):
        return None


def _cpu_ticks(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[11]) + int(fields[12]) if fields else 0


def _listening_sockets(port: int) -> set[str]:
    wanted = f":{port:04X}"
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(wanted) and fields[3] == "0A":
            found.add(f"socket:[{fields[9]}]")
    return found


def _holds(pid: int, sockets: set[str]) -> bool:
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if str(entry.readlink()) in sockets:
                    return True
    return False
