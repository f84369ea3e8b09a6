"""More requests than can be served: what can be answered in time is, and the rest is refused at once."""

from __future__ import annotations

import asyncio
import gc
import socket
import statistics
import time
from dataclasses import dataclass, field

import pytest

from tests.faults.load import FOLDER, ask, body, check_clean, outputs
from turnout.testing.server import Server, serving

DEADLINE = 0.5
#: 60 ms and 1 ms a row, 20 rows at most: 250 rows a second. The client, the router and the model's worker share two
#: cores, so the model has to be slow enough for the others to cost it nothing.
BASE, ROW, MOST = 0.06, 0.001, 20
CAPACITY = MOST / (BASE + ROW * MOST)


@dataclass
class Tally:
    """What an open loop saw. Times count from when a request was due, so a slow client hides nothing.

    first, last: when the first request was due, and the last answer came (monotonic seconds). Before that the client
    connects and collects its garbage, which after a long run of tests takes it a third of a second.
    """

    good: int = 0
    late: int = 0
    refused: list[float] = field(default_factory=list)
    accepted: list[float] = field(default_factory=list)
    other: list[str] = field(default_factory=list)
    without_retry: int = 0
    first: float = 0.0
    last: float = 0.0


async def open_loop(server: Server, rate: float, seconds: float, connections: int) -> Tally:
    """Sends `rate` requests a second whatever comes back, each over the least busy connection."""
    tally = Tally()
    request = (
        f"POST /v2/models/m/infer HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
        f"X-Request-Deadline-Ms: {DEADLINE * 1e3:.0f}\r\nContent-Length: {len(body(1.0))}\r\n\r\n"
    ).encode() + body(1.0)
    idle: asyncio.LifoQueue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.LifoQueue()
    writers = []
    for _ in range(connections):
        pair = await asyncio.open_connection(server.host, server.port)
        writers.append(pair[1])
        idle.put_nowait(pair)
    loop = asyncio.get_running_loop()
    gc.collect()
    gc.freeze()  # a collection of all that a long run of tests has left would hold up this client, not the server

    async def one(due: float) -> None:
        reader, writer = await idle.get()
        writer.write(request)
        sent = loop.time()
        head = await reader.readuntil(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length:")[2].partition(b"\r")[0])
        await reader.readexactly(size)
        idle.put_nowait((reader, writer))
        status = int(head[9:12])
        took = loop.time() - due
        if status == 200:
            tally.accepted.append(took)
            tally.last = time.monotonic()
            if took <= DEADLINE + 0.05:
                tally.good += 1
            else:
                tally.late += 1
        elif status == 503:
            tally.refused.append(loop.time() - sent)
            tally.without_retry += b"retry-after" not in head.lower()
        else:
            tally.other.append(head.decode())

    start = loop.time()
    tally.first = time.monotonic()
    tasks = []
    for i in range(int(rate * seconds)):
        due = start + i / rate
        if (wait := due - loop.time()) > 0:
            await asyncio.sleep(wait)
        tasks.append(asyncio.ensure_future(one(due)))
    await asyncio.gather(*tasks)
    gc.unfreeze()
    for writer in writers:
        writer.close()
    return tally


@pytest.fixture(scope="module")
def server():
    env = {"TRIAL_BASE_SECONDS": str(BASE), "TRIAL_ROW_SECONDS": str(ROW)}
    words = (f"m={FOLDER}", "--access-log", "off", "--max-batch-rows", str(MOST))
    with serving(*words, env=env) as found:
        for rows in (1, MOST, 5, MOST):
            ask(found, 1, 0, rows)
        yield found


@pytest.mark.parametrize("times", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_overload_costs_nobody_who_was_accepted(server: Server, times: int) -> None:
    """R3: at a multiple of capacity, answers in time stay at capacity, and a refusal is quick and says when."""
    seconds = 4.0
    asyncio.run(open_loop(server, CAPACITY, 1.0, 400))  # to the full, before it counts
    tally = asyncio.run(open_loop(server, CAPACITY * times, seconds, 400))
    # Until the last answer: a refused connection is not read from for up to a second, when nobody asks any more.
    goodput = tally.good / (tally.last - tally.first)
    print(f"{times}x: goodput {goodput:.0f}/s of {CAPACITY:.0f}, refused {len(tally.refused)}, other {tally.other[:2]}")
    # Benchmarks measure the 0.95. A server that reads all gets 0.44 at 4x.
    assert goodput >= 0.9 * CAPACITY
    assert tally.late <= 0.02 * tally.good
    assert len(tally.other) <= 0.02 * len(tally.accepted), tally.other[:3]
    assert tally.refused
    assert not tally.without_retry
    assert statistics.quantiles(tally.refused, n=100)[98] < 0.1, "on shared cores; benchmarks measure the 10 ms"
    answer = ask(server, 3)
    assert (answer.status, answer.seconds < 2.0) == (200, True), "it did not recover"


def test_late_and_abandoned_work_is_not_run(server: Server) -> None:
    """The model counts its rows: those of callers who left or whose time ran out in the queue are not among them."""
    before = outputs(ask(server, 1))["rows"][0]
    sockets = []
    for _ in range(400):  # twenty batches, 0.8 s of work; everybody leaves at once
        sock = socket.create_connection((server.host, server.port))
        data = body(1.0)
        head = "POST /v2/models/m/infer HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
        sock.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        sockets.append(sock)
    for sock in sockets:
        sock.close()
    after = outputs(ask(server, 2))["rows"][0]
    assert after - before <= 200, f"{after - before} of 400 rows were run for nobody"


def test_a_deadline_that_cannot_be_met_is_refused_or_ended_in_time(server: Server) -> None:
    answer = ask(server, 1, 0, 2000, x_request_deadline_ms="300")  # 4 s of work
    assert answer.status in (503, 504)
    assert answer.seconds < 0.6
    check_clean(answer)
    assert ask(server, 1, x_request_deadline_ms="2000").status == 200
    answer = ask(server, 1, x_request_deadline_ms="1")
    assert answer.status in (503, 504)
    assert answer.seconds < 0.3
    check_clean(answer)


def test_a_full_queue_refuses_by_rows() -> None:
    env = {"TRIAL_BASE_SECONDS": "0.1"}
    with serving(f"m={FOLDER}", "--access-log", "off", "--queue-rows", "8", "--max-batch-rows", "4", env=env) as one:
        tally = asyncio.run(open_loop(one, 200, 0.5, 100))
        assert len(tally.refused) > 20
        assert len(tally.accepted) >= 8
        assert not tally.without_retry
        assert not tally.other


def test_a_request_after_a_pause_is_no_overload() -> None:
    """A server that had nothing to do is not behind, whoever connects first and however long it was idle."""
    with serving(f"m={FOLDER}", "--access-log", "off", "--deadline", "1") as one:
        for pause in (0.0, 0.0, 0.4, 1.2):
            time.sleep(pause)
            assert ask(one, 1).status == 200
