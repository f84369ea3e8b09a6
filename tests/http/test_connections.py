"""Order, keep-alive, deadlines, leaving and draining."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from time import monotonic

import pytest
from running import PATIENCE, Running, get, post

from turnout.core.errors import Code
from turnout.entrypoints.http import HttpDoor, HttpLimits


def _held(key: str, **headers: str) -> bytes:
    return post("/predict/held", {"key": key}, headers=headers)


def test_answers_leave_in_the_order_of_their_requests(running: Running) -> None:
    with running.connect() as client:
        client.send(
            _held("a")
            + _held("b")
            + get("/")
            + post("/nowhere", b"{}")
            + _held("c")
            + post("/predict/double", {"x": [5]})
        )
        running.until(lambda: len(running.serving.held.waiting) == 3)
        for key in ("c", "b", "a"):
            running.release(key)
        assert [client.reply().json.get("key") for _ in range(2)] == ["a", "b"]
        assert client.reply().json == {"live": True}
        assert client.reply().status == 404
        assert client.reply().json["key"] == "c"
        assert client.reply().json == {"y": [10.0]}


def test_many_pipelined_requests_all_get_their_own_answer(running: Running) -> None:
    count = 3000
    with running.connect() as client:
        sender = threading.Thread(
            daemon=True,
            target=lambda: client.send(
                b"".join(
                    post(f"/predict/{('double', 'soon')[i % 2]}", {"x": [i]}, headers={"x-request-id": str(i)})
                    for i in range(count)
                )
            ),
        )
        sender.start()
        for number in range(count):
            assert client.reply().json == {"y": [2.0 * number], "id": str(number)}
        sender.join()


def test_reading_waits_while_too_many_are_in_flight() -> None:
    with Running(HttpLimits(pipelined=4)) as running, running.connect() as client:
        client.send(b"".join(_held(str(i)) for i in range(20)))
        running.until(lambda: len(running.serving.held.waiting) == 4)
        for number in range(20):
            running.release(str(number))
            assert running.call(lambda: len(running.serving.held.waiting)) <= 4
        assert [client.reply().json["key"] for _ in range(20)] == [str(i) for i in range(20)]


def test_leaving_cancels_what_is_in_flight(running: Running) -> None:
    with running.connect() as client:
        client.send(_held("gone1") + _held("gone2"))
        running.until(lambda: {"gone1", "gone2"} <= running.serving.held.waiting.keys())
    running.until(lambda: {"gone1", "gone2"} <= set(running.serving.held.cancelled))
    running.until(lambda: len(running.observer.records) == 2)
    assert {record.code for record in running.observer.records} == {Code.CANCELLED}


def test_a_reset_cancels_what_is_in_flight(running: Running) -> None:
    client = running.connect()
    client.send(_held("reset"))
    running.until(lambda: "reset" in running.serving.held.waiting)
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    running.until(lambda: "reset" in running.serving.held.cancelled)


def test_a_deadline_ends_the_request_and_not_the_connection(running: Running) -> None:
    with running.connect() as client:
        began = monotonic()
        client.send(_held("late", **{"X-Request-Deadline-Ms": "60"}) + get("/"))
        reply = client.reply()
        assert reply.status == 504
        assert 0.05 < monotonic() - began < 2
        assert client.reply().status == 200
        assert "late" in running.call(lambda: list(running.serving.held.cancelled))
        assert running.observer.records[0].code is Code.DEADLINE_EXCEEDED


def test_the_server_bounds_every_deadline() -> None:
    with Running(default_deadline=0.05) as running, running.connect() as client:
        for headers in ({}, {"X-Request-Deadline-Ms": "600000"}):
            client.send(_held("x", **headers))
            assert client.reply().status == 504


@pytest.mark.parametrize("value", ["-1", "soon", "1e3", "", "0x10", "1.", "+5", "9" * 13, "1,2"])
def test_a_deadline_that_is_no_duration_is_400(running: Running, value: str) -> None:
    with running.connect() as client:
        client.send(post("/predict/double", {"x": [1]}, headers={"X-Request-Deadline-Ms": value}) + get("/"))
        reply = client.reply()
        assert reply.status == 400
        assert reply.json["failure"].startswith("x-request-deadline-ms: not a duration; expected milliseconds")
        assert client.reply().status == 200


def test_a_deadline_of_nothing_has_passed(running: Running) -> None:
    assert running.ask(post("/predict/double", {"x": [1]}, headers={"X-Request-Deadline-Ms": "0"})).status == 504


def test_a_body_that_comes_late_counts_for_the_callers_deadline(running: Running) -> None:
    request = post("/predict/double", {"x": [1]}, headers={"X-Request-Deadline-Ms": "30"})
    with running.connect() as client:
        client.send(request[:-1])
        running.call(lambda: None)
        assert not threading.Event().wait(0.05)
        client.send(request[-1:])
        assert client.reply().status == 504


def test_draining_answers_what_is_in_flight_and_then_ends() -> None:
    with Running(HttpLimits(drain_idle_seconds=0.3, sweep_seconds=0.05)) as running:
        busy, idle, active = running.connect(), running.connect(), running.connect()
        idle.send(get("/"))
        assert idle.reply().status == 200
        active.send(get("/"))
        assert active.reply().status == 200
        busy.send(_held("last"))
        running.until(lambda: "last" in running.serving.held.waiting)
        drained = asyncio.run_coroutine_threadsafe(running.door.drain(), running.loop)
        running.until(lambda: repr(running.door).startswith("<HttpDoor [draining"))
        with pytest.raises(ConnectionRefusedError):
            running.connect()
        active.send(get("/"))
        reply = active.reply()
        assert (reply.status, reply.closes) == (200, True)
        assert active.ended()
        assert idle.ended()
        assert not drained.done()
        running.release("last")
        reply = busy.reply()
        assert (reply.json["key"], reply.closes) == ("last", True)
        assert busy.ended()
        drained.result(PATIENCE)
        for client in (busy, idle, active):
            client.close()
        assert repr(running.door) == "<HttpDoor [draining, 0 connections]>"


def test_nothing_in_flight_is_lost_when_draining_under_load() -> None:
    with Running(HttpLimits(drain_idle_seconds=0.3, sweep_seconds=0.05)) as running:
        answered, refused, failures = [0] * 8, [0] * 8, []
        draining = threading.Event()

        def work(number: int) -> None:
            try:
                while True:
                    try:
                        client = running.connect()
                    except ConnectionRefusedError:
                        refused[number] += 1
                        return
                    with client:
                        closing = False
                        while not closing:
                            client.send(post("/predict/soon", {"x": [number]}))
                            reply = client.reply()
                            assert reply.json == {"y": [2.0 * number]}
                            answered[number] += 1
                            closing = reply.closes
            except Exception as problem:
                failures.append(problem)

        threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(8)]
        for thread in threads:
            thread.start()
        running.until(lambda: len(running.observer.records) > 500)
        draining.set()
        running.run(running.door.drain())
        for thread in threads:
            thread.join(PATIENCE)
        assert not failures
        assert all(refused)
        assert sum(answered) == len(running.observer.records)


def test_too_many_connections_are_told_so() -> None:
    with Running(HttpLimits(connections=4, sweep_seconds=0.05, header_seconds=30)) as running:
        clients = [running.connect() for _ in range(4)]
        running.until(lambda: running.door.connections == 4)
        with running.connect() as fifth:
            reply = fifth.reply()
            assert (reply.status, reply.headers["retry-after"], reply.closes) == (503, "1", True)
        clients[0].send(get("/"))
        assert clients[0].reply().status == 200
        for client in clients:
            client.close()
        running.until(lambda: running.door.connections == 0)
        assert running.ask(get("/")).status == 200


def test_two_protocols_cannot_claim_one_path(running: Running) -> None:
    async def build() -> None:
        HttpDoor(running.serving, [running.protocol, running.protocol], running.observer)

    with pytest.raises(ValueError, match="POST /predict/\\{name\\}: claimed by 'tiny' and 'tiny'"):
        running.run(build())


@pytest.mark.parametrize("deadline", [0.0, -1.0, float("inf"), float("nan")])
def test_the_default_deadline_is_a_duration(running: Running, deadline: float) -> None:
    async def build() -> None:
        HttpDoor(running.serving, [], running.observer, default_deadline=deadline)

    with pytest.raises(ValueError, match="default_deadline"):
        running.run(build())


@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_limits_are_positive(value: float) -> None:
    with pytest.raises(ValueError, match="idle_seconds"):
        HttpLimits(idle_seconds=value)


def test_exchanges_end_without_the_collector(running: Running) -> None:
    """Exchanges go when their answers have gone, without waiting for the garbage collector."""
    import gc

    from turnout.entrypoints.http.exchange import Exchange

    def alive() -> int:
        return sum(isinstance(each, Exchange) for each in gc.get_objects())

    with running.connect() as client:
        running.call(lambda: gc.collect() and None)
        running.call(gc.disable)
        try:
            for _ in range(20):
                client.send(
                    post("/predict/soon", {"x": [1]}) + post("/predict/double", {"x": [1]}) + post("/predict/none", {})
                )
                assert [client.reply().status for _ in range(3)] == [200, 200, 404]
            running.until(lambda: alive() <= 1)
        finally:
            running.call(gc.enable)
