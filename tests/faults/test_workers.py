"""Workers that are killed, stopped and left behind while clients keep asking."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.load import FOLDER, Load, ask, body, check, check_clean
from tests.faults.models import model
from turnout.entrypoints.remote import ask_here
from turnout.testing.server import Server, alive, children, serving

WORDS = (f"m={FOLDER}", "--access-log", "off")


def kill_one(server: Server, which: int) -> None:
    workers = server.workers()
    os.kill(workers[which % len(workers)], signal.SIGKILL)


SIXTEEN = pytest.param(16, marks=[pytest.mark.slow, pytest.mark.timeout(600)])


@pytest.mark.parametrize("count", [10, SIXTEEN])
def test_killed_workers_of_two_are_noticed_by_nobody(count: int) -> None:
    """R2: no excluded window. Every request of every client is answered, and with its own answer."""
    with serving(*WORDS, "--replicas", "2") as server, Load(server) as load:
        load.wait_for(50)
        for kills in range(count):
            server.wait_until(lambda: settled(server, kills), seconds=40.0, what="two workers")  # noqa: B023  waited for here
            os.kill(server.workers()[0], signal.SIGKILL)  # the older one, so each in turn
        server.wait_until(lambda: settled(server, count), seconds=40.0, what="two workers at the end")
        load.stop()
        assert (dict(load.statuses()), load.broken, load.wrong) == ({200: len(load.answers)}, [], [])
        assert server.is_ready()


@pytest.mark.soak
@pytest.mark.timeout(3000)
def test_five_hundred_killed_workers_are_noticed_by_nobody() -> None:
    """R2: of ten models with two workers each, for a worker that dies again and again is started again ever later."""
    models = [f"m{number}" for number in range(10)]
    words = (*(f"{name}={FOLDER}" for name in models), "--access-log", "off", "--replicas", "2")
    killed: Counter[str] = Counter()
    with serving(*words) as server, Load(server, clients=10, rate=200.0, models=models) as load:
        load.wait_for(50)
        while killed.total() < 500:
            whole = {name: pids for name, pids in ready(server).items() if len(pids) == 2 and name in models}
            for name in sorted(whole, key=lambda name: killed[name]):
                pid = min(whole[name])
                os.kill(pid, signal.SIGKILL)
                killed[name] += 1
                server.wait_until(lambda: pid not in ready(server)[name], 10.0)  # noqa: B023  waited for here
            time.sleep(0.1)
        server.wait_until(lambda: all(len(pids) == 2 for pids in ready(server).values()), seconds=60.0)
        load.stop()
        slowest = max(answer.seconds for answer in load.answers)
        print(f"{killed.total()} kills, {len(load.answers)} requests, the slowest {slowest:.3f} s")
        assert (dict(load.statuses()), load.broken, load.wrong) == ({200: len(load.answers)}, [], [])


def ready(server: Server) -> dict[str, list[int]]:
    """The workers of each model that take requests."""
    return {
        model["name"]: [
            worker["pid"]
            for version in model["versions"]
            for worker in version["workers"]
            if worker["state"] == "READY"
        ]
        for model in ask_here(server.port, {"do": "status"})["models"]
    }


def settled(server: Server, restarts: int) -> bool:
    """Whether every worker is ready again after so many restarts, by the server's own metrics."""
    text = server.request("GET", "/metrics").body.decode()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    states = [line for line in lines if line.startswith("turnout_worker_state{")]
    counts = [float(line.split()[-1]) for line in lines if line.startswith("turnout_worker_restarts_total{")]
    return bool(states) and all('state="READY"' in line for line in states) and sum(counts) == restarts


def test_a_lone_worker_killed_gives_typed_refusals_and_comes_back() -> None:
    """R2 with one worker: 503 with Retry-After at once, not ready meanwhile, nothing leaks."""
    with serving(*WORDS) as server:
        client = server.client()
        check(ask(client, 1), 1)
        router = server.routers()[0]
        before = descriptors(router)
        for _ in range(5):
            server.wait_until(server.is_ready)
            (worker,) = server.workers()
            os.kill(worker, signal.SIGKILL)
            refusals, quickest = 0, 1.0
            until = time.monotonic() + 10
            while time.monotonic() < until:
                answer = ask(client, 5)
                assert answer.seconds < 1.0
                if answer.status == 200 and refusals:
                    break
                if answer.status == 503:
                    refusals += 1
                    quickest = min(quickest, answer.seconds)
                    assert int(answer.headers["retry-after"]) >= 1
                    check_clean(answer)
                    if refusals == 3:
                        assert server.request("GET", "/v2/models/m/ready").status != 200
                        assert server.request("GET", "/v2/health/live").status == 200
            assert refusals, "nobody noticed"
            assert quickest < 0.1, "a refusal takes no time"  # any one of them may meet a busy machine
            assert answer.status == 200, "it did not come back"
        client.close()
        server.wait_until(server.is_ready)
        server.wait_until(lambda: descriptors(router) <= before, 5, "as many descriptors as before")
        assert len(server.family()) == 3, "controller, router and worker"
        assert not zombies(server.process.pid)
        assert not zombies(server.controller)


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def zombies(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == parent and fields[0] == "Z":
                found.append(int(entry.name))
    return found


def test_a_request_inside_a_killed_lone_worker_ends_at_once() -> None:
    with serving(*WORDS) as server:
        found: list = []
        thread = threading.Thread(target=lambda: found.append(ask(server, 1, model.HANG)))
        thread.start()
        time.sleep(0.3)
        os.kill(server.workers()[0], signal.SIGKILL)
        killed = time.monotonic()
        thread.join(10)
        assert time.monotonic() - killed < 0.5
        assert found[0].status == 503
        assert "retry-after" in found[0].headers
        check_clean(found[0])


def test_a_stopped_worker_is_gone_round_killed_and_replaced() -> None:
    """SIGSTOP: the others answer, what was inside is answered by another, the stopped one is killed."""
    with serving(*WORDS, "--replicas", "2", "--deadline", "2") as server:
        with Load(server, clients=6, deadline_ms=1500) as load:
            load.wait_for(100)
            victim = server.workers()[0]
            os.kill(victim, signal.SIGSTOP)
            load.wait_for(100)
            server.wait_until(lambda: not alive(victim), 8, "the stopped worker is killed")
            server.wait_until(lambda: len(server.workers()) == 2, 10)
            load.wait_for(100)
        assert dict(load.statuses()) == {200: len(load.answers)}
        assert (load.broken, load.wrong) == ([], [])
        assert max(answer.seconds for answer in load.answers) < 1.5


def test_what_a_model_forked_hides_no_death_and_is_no_orphan() -> None:
    """A forked process keeps the worker's sockets open; the end of the worker is seen all the same."""
    with serving(*WORDS) as server:
        check(ask(server, 1, model.FORK), 1)
        (worker,) = server.workers()
        helpers = children(worker)
        assert len(helpers) == 2
        os.kill(worker, signal.SIGKILL)
        killed = time.monotonic()
        server.wait_until(lambda: ask(server, 2).status == 503, 2, "the death is noticed")
        assert time.monotonic() - killed < 0.5
        server.wait_until(lambda: ask(server, 2).status == 200, 10)
        server.wait_until(lambda: not any(alive(pid) for pid in helpers), 5, "the helpers are gone")


def test_a_long_request_survives_the_death_of_a_worker() -> None:
    """A request of many batches is answered whole although a worker dies under it."""
    with serving(*WORDS, "--replicas", "2", "--max-batch-rows", "16", env={"TRIAL_BASE_SECONDS": "0.02"}) as server:
        found: list = []
        thread = threading.Thread(target=lambda: found.append(ask(server, 1, 0, 1600)))
        thread.start()
        time.sleep(0.3)
        kill_one(server, 0)
        thread.join(20)
        check(found[0], 1, 1600)
        assert len(body(1, 0, 1600)) > 10_000
