"""The measurement: rounds over all servers, each started afresh, alone on its core, and ended.

A server is started anew in every round, and not kept waiting beside the others: several of the peers use their core
even when nobody calls, which would be taken from the one that is measured. Every second round goes backwards through
the servers, so that a machine that warms up or slows down treats all alike.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from benchmarks import generator
from benchmarks.cells import Cell, Overload
from benchmarks.environments import prepare, python_of
from benchmarks.models import MODELS
from benchmarks.peers import IN_PROCESS, PEERS, Peer, environment_variables
from benchmarks.places import SERVER_CORE, SERVERS
from benchmarks.processes import ON_ITS_CORE, NotStarted, Running, running
from benchmarks.requests import request_file

MEBIBYTE = 1 << 20
GROWTH_REQUESTS = 1_000_000
BUSY_CORE = 0.85  # a server under full load that had less of its core shared it with something else


@dataclass
class Session:
    """What has been measured so far.

    `runs`: cell -> server -> the generator's reports, one per round. `ready`: server -> seconds to the first answer.
    `memory`: server -> the processes after the load of the last round. `problems`: what did not work.
    """

    seconds: float
    rounds: int
    runs: dict[str, dict[str, list[dict[str, Any]]]] = field(default_factory=lambda: defaultdict(dict))
    ready: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    memory: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    growth: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def add(self, cell: str, server: str, report: dict[str, Any]) -> None:
        """Keeps one report and says it on one line."""
        self.runs[cell].setdefault(server, []).append(report)
        latency = report.get("latency", {})
        p50, p99 = (1000 * latency.get(key, 0) for key in ("p50", "p99"))
        line = f"  {server:15s} {cell:22s} {report['rate']:>10,.1f}/s   p50 {p50:8.3f} ms   p99 {p99:8.3f} ms"
        wrong = sum(report.get(key, 0) for key in ("failed", "mismatched", "disconnected"))
        counts = {key: report.get(key, 0) for key in ("rejected", "expired", "gave_up", "unsent") if report.get(key)}
        if wrong:
            counts["WRONG"] = wrong
        if counts:
            line += "   " + ", ".join(f"{key} {value:,}" for key, value in counts.items())
        if wrong:
            line += f"   ({report['problem']})"
        if report.get("core_share", 1) < BUSY_CORE and report["latency"]["count"] and "-1" not in cell[-2:]:
            line += f"   (had {report['core_share']:.0%} of its core)"
        print(line, flush=True)


def closed_loop(server: Running, cell: Cell, seconds: float) -> dict[str, Any]:
    """All callers of one cell, each sending its next request when it has its answer."""
    requests = request_file(server.peer.forms[cell.kind], cell.model, cell.rows)
    grpc = cell.kind == "grpc"
    port, connections = server.port(cell.kind), 1 if grpc else cell.callers
    run = partial(generator.run, port, requests, grpc=grpc, connections=connections, streams=cell.callers)
    began, used = time.monotonic(), server.cpu_seconds()
    report = run(seconds=seconds)
    used, took = server.cpu_seconds() - used, time.monotonic() - began
    report["core_share"] = used / took
    report["cpu_per_request"] = used / max(report["finished"], 1)
    if report["answered"] == 0 and not report["problem"]:  # slower than the time it was given
        report = run(seconds=20, count=cell.callers)
        report["slow"] = True
    return report


def open_loop(server: Running, overload: Overload, capacity: float, seconds: float) -> dict[str, Any]:
    """Arrivals at random (Poisson) at a multiple of the capacity, whatever the server does."""
    cell = overload.capacity
    grpc = cell.kind == "grpc"
    requests = request_file(server.peer.forms[cell.kind], cell.model, cell.rows, overload.objective)
    report = generator.run(
        server.port(cell.kind), requests, grpc=grpc, rate=capacity * overload.factor,
        give_up=overload.give_up, objective=overload.objective,
        warmup=0.5, seconds=seconds, timeout_ms=int(overload.objective * 1000),
    )  # fmt: skip
    report["capacity"] = capacity
    return report


def settle(server: Running) -> None:
    """Waits, at most 10 s, until the server is done with what nobody waits for any more: until a request is quick."""
    kind = next(iter(server.peer.forms))
    model = server.start.model or "tiny"
    requests = request_file(server.peer.forms[kind], model, 1)
    until = time.monotonic() + 10
    while time.monotonic() < until:
        report = generator.run(
            server.port(kind), requests, grpc=kind == "grpc", warmup=0, seconds=5, count=3, connections=1
        )
        if report["answered"] and report["latency"]["max"] < (0.2 if model == "heavy" else 0.05):
            return
        time.sleep(0.2)


def measure_server(
    session: Session, peer: Peer, model: str | None, cells: list[Cell], overloads: list[Overload]
) -> None:
    """One server in one round: its cells, its memory, and then what happens when too much comes."""
    with running(peer, model) as server:
        session.ready[peer.name].append(server.ready_after)
        capacity: dict[str, float] = {}
        for cell in cells:
            if any(report.get("slow") for report in session.runs[cell.name].get(peer.name, [])):
                continue  # once is enough for what takes half a minute
            report = closed_loop(server, cell, session.seconds)
            session.add(cell.name, peer.name, report)
            capacity[cell.name] = report["rate"]
        found = server.processes()
        stray = [process for process in found if process.cores != {SERVER_CORE}]
        if stray:
            session.problems.append(f"{peer.name}: {len(stray)} processes are not on core {SERVER_CORE}")
        session.memory[peer.name] = [
            {"command": each.command, "resident": each.resident, "anonymous": each.anonymous} for each in found
        ]
        for overload in overloads:
            settle(server)
            if capacity.get(overload.capacity.name):
                report = open_loop(server, overload, capacity[overload.capacity.name], max(session.seconds, 2))
                session.add(overload.name, peer.name, report)


def measure_in_process(session: Session, cells: list[Cell]) -> None:
    """The limit: the model called in a loop, for each model and number of rows among the cells."""
    cells = [cell for cell in cells if cell.model in MODELS]
    wanted = {f"{cell.model}:{cell.rows}": cell for cell in cells}
    program = [str(python_of("fastapi")), str(SERVERS / "in_process.py"), str(session.seconds), *wanted]
    done = subprocess.run(
        [*ON_ITS_CORE, *program], check=True, capture_output=True, text=True,
        env=environment_variables({}),
    )  # fmt: skip
    rates = json.loads(done.stdout)
    for cell in cells:
        rate = rates[f"{cell.model}:{cell.rows}"]
        session.runs[cell.name].setdefault(IN_PROCESS, []).append({"rate": rate, "latency": {"p50": 1 / rate}})


def measure_growth(session: Session, requests: int = GROWTH_REQUESTS) -> None:
    """A million requests to Turnout with one small model: time until ready, and what its router grows by."""
    turnout = next(peer for peer in PEERS if peer.name == "turnout")
    ready = []
    for _ in range(3):
        with running(turnout, "tiny") as server:
            ready.append(server.ready_after)
    with running(turnout, "tiny") as server:
        file = request_file("v2", "tiny", 1)
        port = server.port("json")
        generator.run(port, file, count=100_000, connections=64, warmup=0, seconds=600)
        time.sleep(0.5)
        before = server.router()
        report = generator.run(port, file, count=requests, connections=64, warmup=0, seconds=600)
        time.sleep(0.5)
        after = server.router()
    session.growth = {
        "ready": ready, "requests": report["answered"], "seconds": report["seconds"],
        "before": before.resident, "after": after.resident, "same_process": before.pid == after.pid,
    }  # fmt: skip
    grown = (after.resident - before.resident) / MEBIBYTE
    router = f"{before.resident / 1e6:.1f} MB, {grown:+.2f} MiB over {report['answered']:,} requests"
    print(f"  turnout, tiny alone: ready after {min(ready):.2f} to {max(ready):.2f} s; router {router}", flush=True)


def measure_round(
    session: Session, number: int, peers: list[Peer], cells: list[Cell], overloads: list[Overload]
) -> None:
    """Every server once; the overloads in every round for Turnout, in the first for the others."""
    print(f"round {number + 1} of {session.rounds}", flush=True)
    for peer in reversed(peers) if number % 2 else peers:
        mine = [cell for cell in cells if peer.takes(cell)]
        flooded = overloads if peer.overload and (number == 0 or peer.name == "turnout") else []
        flooded = [overload for overload in flooded if peer.takes(overload.capacity)]
        models: list[str | None] = list(dict.fromkeys(cell.model for cell in mine)) if peer.one_model else [None]
        for model in models if mine else []:
            try:
                measure_server(
                    session, peer, model,
                    [cell for cell in mine if model in (None, cell.model)],
                    [overload for overload in flooded if model in (None, overload.capacity.model)],
                )  # fmt: skip
            except (NotStarted, RuntimeError, OSError) as problem:
                session.problems.append(f"{peer.name}: {problem}")
                print(f"  {peer.name}: {problem}", flush=True)


def prepare_all(peers: list[Peer], cells: list[Cell], overloads: list[Overload], session: Session) -> list[Peer]:
    """Environments and request files, so that no measurement waits for them; returns the peers that are there."""
    generator.build()
    prepare("fastapi")
    there = []
    for peer in peers:
        try:
            peer.prepare()
        except (subprocess.CalledProcessError, OSError) as problem:
            session.problems.append(f"{peer.name}: cannot be installed: {problem}")
            print(f"  {peer.name}: cannot be installed: {problem}", flush=True)
            continue
        there.append(peer)
        for cell in filter(peer.takes, cells):
            request_file(peer.forms[cell.kind], cell.model, cell.rows)
        for overload in overloads:
            if peer.overload and peer.takes(overload.capacity):
                kind = overload.capacity.kind
                request_file(peer.forms[kind], overload.capacity.model, overload.capacity.rows, overload.objective)
    return there
