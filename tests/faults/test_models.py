"""Models that raise, hang, die, lie and chatter: the caller gets a typed answer, everybody else a good one."""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.load import FOLDER, Load, ask, check, check_clean, outputs
from tests.faults.models import model
from turnout.testing.server import Answer, Server, serving

GIB = 1 << 30


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Three workers under a limit of address space, which they inherit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (8 * GIB, hard))
    try:
        with serving(f"m={FOLDER}", "--access-log", "off", "--replicas", "3", "--deadline", "5") as found:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
            yield found
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.parametrize(
    "act", [model.RAISE, model.WRONG_ROWS, model.WRONG_SHAPE, model.WRONG_NAME, model.OOM, model.SYS_EXIT]
)
def test_a_model_that_fails(server: Server, act: int) -> None:
    workers = server.workers()
    answer = ask(server, 1, act)
    assert answer.status == 500
    check_clean(answer)
    assert "retry-after" not in answer.headers, "the same row would fail again"
    check(ask(server, 2), 2)
    assert server.workers() == workers, "it cost a worker"


def test_nan_is_an_answer(server: Server) -> None:
    assert [str(y).lower() for y in outputs(ask(server, 1, model.NAN))["y"]] == ["nan"]


def test_a_model_that_writes_to_standard_output(server: Server) -> None:
    check(ask(server, 1, model.GARBAGE), 1)
    check(ask(server, 2), 2)
    assert "garbage" in server.log


@pytest.mark.parametrize("act", [model.RAISE, model.WRONG_ROWS, model.OOM])
def test_only_the_guilty_of_a_batch_fails(server: Server, act: int) -> None:
    with Load(server, clients=8) as load:
        load.wait_for(20)
        for nonce in range(5):
            answer = ask(server, nonce, act)
            assert answer.status == 500
            check_clean(answer)
        load.wait_for(20)
    assert dict(load.statuses()) == {200: len(load.answers)}
    assert (load.broken, load.wrong) == ([], [])


@pytest.mark.parametrize("act", [model.EXIT, model.SEGFAULT, model.ABORT])
def test_only_the_guilty_fails_when_it_kills_its_worker(server: Server, act: int) -> None:
    """It gets a second try, alone, and kills a second worker; those who were with it are answered by the third."""
    server.wait_until(lambda: len(server.workers()) == 3 and all_connected(server), 20)
    with Load(server, clients=8, pause=0.002) as load:
        load.wait_for(20)
        answer = ask(server, 1, act)
        assert answer.status == 503
        assert "retry-after" in answer.headers
        check_clean(answer)
        load.wait_for(50)
        server.wait_until(lambda: len(server.workers()) == 3 and all_connected(server), 20)
    assert dict(load.statuses()) == {200: len(load.answers)}
    assert (load.broken, load.wrong) == ([], [])


def all_connected(server: Server) -> bool:
    """Whether the router has a link to every worker: three slow requests at once, each alone in a worker."""
    seen: list[Answer] = []
    threads = [threading.Thread(target=lambda: seen.append(ask(server, 1, model.SLOW))) for _ in range(3)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    return [one.status for one in seen] == [200] * 3 and time.monotonic() - started < 0.75


def test_a_model_that_hangs(server: Server) -> None:
    """The caller waits no longer than the deadline; the worker is killed and replaced; the others answer."""
    server.wait_until(lambda: len(server.workers()) == 3 and all_connected(server), 20)
    before = set(server.workers())
    with Load(server, clients=4, pause=0.005) as load:
        answer = ask(server, 1, model.HANG, x_request_deadline_ms="700")
        assert answer.status == 504
        assert 0.6 < answer.seconds < 1.2
        check_clean(answer)
        server.wait_until(lambda: len(before & set(server.workers())) < 3, 8, "the hung worker is killed")
        server.wait_until(lambda: len(server.workers()) == 3, 8)
    # The request was tried on a second worker, for it might have been the first worker's fault; the third went on.
    assert dict(load.statuses()) == {200: len(load.answers)}
    assert (load.broken, load.wrong) == ([], [])
    server.wait_until(lambda: ask(server, 3).status == 200, 10)


def test_a_worker_that_outgrows_its_memory_is_replaced() -> None:
    """The kernel's OOM killer is a SIGKILL to whoever it meets; here the worker's own limit says no."""
    with serving(f"m={FOLDER}", "--access-log", "off") as one:
        (worker,) = one.workers()
        used = int(Path(f"/proc/{worker}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.prlimit(worker, resource.RLIMIT_AS, (used + (64 << 20), used + (64 << 20)))
        answer = ask(one, 1, model.OOM)
        assert answer.status in (500, 503)
        check_clean(answer)
        one.wait_until(lambda: ask(one, 2).status == 200, 10)
