"""What slow, greedy and broken clients get, and that nobody else notices."""

from __future__ import annotations

import contextlib
import gzip
import resource
import socket
import threading
import zlib
from pathlib import Path
from time import monotonic

import pytest
from running import Client, Running, chunked, get, post

from turnout.entrypoints.http import HttpLimits

OCTETS = {"Content-Type": "application/octet-stream"}


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (get("/", headers={"X-Long": "a" * 16_384}), 431),
        (get("/", headers={f"X-{number}": "a" for number in range(101)}), 431),
        (get("/", headers={f"X-{number}": "" for number in range(100_000)}), 431),
        (get("/" + "a" * 8_192), 414),
        (get("/" + "a" * 100_000), 414),
        (post("/echo", headers={"Content-Length": str(64 * 1024 * 1024 + 1)}), 413),
        (post("/echo", headers={"Content-Length": "9" * 15}), 413),
        (chunked("/echo", b"4000001\r\n"), 413),
        (chunked("/echo", b"1\r\na\r\nffffffff\r\n"), 413),
        (chunked("/echo", b"1;" + b"e" * 300 + b"\r\na\r\n0\r\n\r\n"), 400),
        (chunked("/echo", b"0\r\nX: " + b"e" * 5_000 + b"\r\n\r\n"), 431),
        (chunked("/echo", b"0\r\n" + b"X: e\r\n" * 1_000 + b"\r\n"), 431),
        (chunked("/echo", b"1\r\na\r\n" * 1_000_000 + b"0\r\n\r\n"), 400),
    ],
    ids=lambda value: None if isinstance(value, bytes) else str(value),
)
def test_what_is_too_large_is_refused_and_the_refusal_arrives(running: Running, raw: bytes, status: int) -> None:
    with running.connect() as client:
        sender = threading.Thread(target=_send_all, args=(client, raw + get("/")), daemon=True)
        sender.start()
        reply = client.reply()
        assert (reply.status, reply.closes) == (status, True)
        assert "at most" in (reply.json.get("error") or reply.json["failure"])
        assert client.ended()
        sender.join()


def _send_all(client: Client, raw: bytes) -> None:
    with contextlib.suppress(OSError):  # refused before all of it was sent
        client.send(raw)


def test_limits_hold_to_the_byte() -> None:
    limits = HttpLimits(header_bytes=200, target_bytes=50, header_count=3, body_bytes=1_000, chunk_count=5)
    with Running(limits) as running:
        head = get("/", headers={"X": ""})
        exact = get("/", headers={"X": "a" * (200 - len(head))})
        assert (len(exact), running.ask(exact).status) == (200, 200)
        assert running.ask(exact.replace(b"aa", b"aaa", 1)).status == 431
        assert running.ask(get("/?" + "a" * 48)).status == 200
        assert running.ask(get("/?" + "a" * 49)).status == 414
        assert running.ask(get("/", headers={"A": "", "B": ""})).status == 200
        assert running.ask(get("/", headers={"A": "", "B": "", "C": ""})).status == 431
        raw = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
        assert running.ask(raw % 1_000 + b"a" * 1_000).status == 200
        assert running.ask(raw % 1_001 + b"a" * 1_001).status == 413
        chunks = b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert running.ask(chunks + b"1\r\na\r\n" * 5 + b"0\r\n\r\n").body == b"aaaaa"
        assert running.ask(chunks + b"1\r\na\r\n" * 6 + b"0\r\n\r\n").status == 400
        assert running.ask(chunks + b"3e8\r\n" + b"a" * 1_000 + b"\r\n0\r\n\r\n").status == 200
        assert running.ask(chunks + b"3e8\r\n" + b"a" * 1_000 + b"\r\n1\r\na\r\n0\r\n\r\n").status == 413


def test_a_million_tiny_chunks_cost_no_memory(running: Running) -> None:
    raw = chunked("/echo", b"1\r\na\r\n" * 1_000_000 + b"0\r\n\r\n")
    for _ in range(3):
        _ask_whatever_it_takes(running, raw)
    before = _resident_bytes()
    for _ in range(10):
        assert _ask_whatever_it_takes(running, raw) == 400
    assert _resident_bytes() - before < 4 * 1024 * 1024


def _ask_whatever_it_takes(running: Running, raw: bytes) -> int:
    with running.connect() as client:
        sender = threading.Thread(target=_send_all, args=(client, raw), daemon=True)
        sender.start()
        status = client.reply().status
        client.sock.shutdown(socket.SHUT_RDWR)
        sender.join()
        return status


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads memory from /proc")
def test_announcing_much_reserves_nothing(running: Running) -> None:
    """A thousand clients announce 64 MiB each and send a little."""
    _need_files(2_500)
    before = _resident_bytes()
    head = post("/echo", headers={"Content-Length": str(64 * 1024 * 1024)})
    clients = [running.connect() for _ in range(1_000)]
    for client in clients:
        client.send(head + b"a" * 100)
    running.until(lambda: running.door._state.partial_bytes == 100_000)
    assert _resident_bytes() - before < 32 * 1024 * 1024
    for client in clients:
        client.close()
    running.until(lambda: running.door._state.partial_bytes == 0)


@pytest.mark.parametrize(
    ("coding", "bomb"),
    [("gzip", gzip.compress(bytes(50_000_000), 9)), ("deflate", zlib.compress(bytes(200_000_000), 9))],
)
def test_a_compressed_bomb_is_refused(running: Running, coding: str, bomb: bytes) -> None:
    with running.connect() as client:
        began = monotonic()
        client.send(post("/echo", bomb, headers={"Content-Encoding": coding}) + get("/"))
        reply = client.reply()
        assert reply.status == 413
        assert "decompressed body is too large" in reply.json["failure"]
        assert client.reply().status == 200
        assert monotonic() - began < 2


def test_all_unfinished_bodies_together_are_bounded() -> None:
    with Running(HttpLimits(bodies_bytes=1_000_000)) as running:
        head = post("/echo", headers={"Content-Length": "900000", **OCTETS})
        first, second = running.connect(), running.connect()
        first.send(head + b"a" * 700_000)
        running.until(lambda: running.door._state.partial_bytes == 700_000)
        second.send(head + b"a" * 700_000)
        reply = second.reply()
        assert (reply.status, reply.headers["retry-after"], reply.closes) == (503, "1", True)
        first.send(b"a" * 200_000)
        assert len(first.reply().body) == 900_000
        assert running.door._state.partial_bytes == 0
        first.close()
        second.close()


QUICK = HttpLimits(
    header_seconds=0.3,
    body_window_seconds=0.3,
    body_bytes_per_second=1_000,
    idle_seconds=0.6,
    write_window_seconds=0.4,
    linger_seconds=0.3,
    sweep_seconds=0.05,
)


def test_a_slow_head_is_408() -> None:
    with Running(QUICK) as running, running.connect() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-")
        _trickle(client, b"a")
        reply = client.reply()
        assert (reply.status, reply.closes) == (408, True)
        assert "head took too long" in reply.json["error"]


def test_a_slow_body_is_408() -> None:
    with Running(QUICK) as running:
        for raw in (
            post("/echo", headers={"Content-Length": "1000"}),
            chunked("/echo", b"1000\r\n"),
            post("/echo", b"a" * 300_000, headers={"Content-Length": "5000000"}),
        ):
            with running.connect() as client:
                client.send(raw)
                _trickle(client, b"a")
                reply = client.reply()
                assert (reply.status, reply.closes) == (408, True)
                assert "body came too slowly" in reply.json["error"]


def _trickle(client: Client, piece: bytes) -> None:
    """Sends a piece every 50 ms until the server has had enough."""
    client.sock.settimeout(0.05)
    end = monotonic() + 5
    while monotonic() < end:
        try:
            client.send(piece)
            data = client.sock.recv(1 << 16)
        except TimeoutError:
            continue
        client._left += data
        break
    client.sock.settimeout(5)


def test_a_slow_but_steady_body_is_taken() -> None:
    with Running(QUICK) as running, running.connect() as client:
        client.send(post("/echo", headers={"Content-Length": "2000"}))
        pause = threading.Event()
        for _ in range(20):
            client.send(b"a" * 100)
            assert not pause.wait(0.04)
        assert client.reply().body == b"a" * 2_000


def test_idle_and_silent_connections_are_closed() -> None:
    with Running(QUICK) as running:
        used, silent = running.connect(), running.connect()
        used.send(get("/"))
        assert used.reply().status == 200
        began = monotonic()
        assert silent.ended()
        assert monotonic() - began < 0.6
        assert used.ended()
        assert 0.4 < monotonic() - began < 3
        used.close()
        silent.close()


def test_a_request_in_flight_is_not_idle() -> None:
    with Running(QUICK) as running, running.connect() as client:
        client.send(post("/predict/held", {"key": "long"}))
        assert not threading.Event().wait(1.0)
        running.release("long")
        assert client.reply().json["key"] == "long"


def test_who_does_not_take_its_answer_is_cut_off() -> None:
    with Running(QUICK) as running, _narrow(running) as client:
        client.send(post("/predict/large", {"size": 20_000_000}))
        running.until(lambda: running.door.connections == 1)
        running.until(lambda: running.door.connections == 0)


def test_a_reader_that_is_slow_but_steady_gets_all() -> None:
    with Running(QUICK) as running, _narrow(running) as client:
        client.send(post("/predict/large", {"size": 3_000_000}))
        got = 0
        pause = threading.Event()
        while got < 3_000_000:
            pause.wait(0.005)
            got += len(client.sock.recv(6_000))


def test_nothing_is_read_from_who_takes_nothing() -> None:
    """Answers that nobody takes are bounded: beyond the bound further requests stay with the kernel."""
    with Running(HttpLimits(write_buffer_bytes=100_000)) as running, _narrow(running) as client:
        client.sock.settimeout(0.5)
        request = post("/predict/large", {"size": 50_000})
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 100_000:
                client.send(request * 10)
                sent += 10
        assert sent < 100_000
        answered = running.call(lambda: len(running.observer.records))
        assert answered * 50_000 < 30_000_000
        client.sock.settimeout(5)
        for _ in range(20):
            assert len(client.reply().body) == 50_000


def _narrow(running: Running) -> Client:
    """A client whose kernel takes little for it."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8_192)
    sock.settimeout(10)
    sock.connect(("127.0.0.1", running.port))
    return Client(sock)


def test_a_refused_client_that_never_stops_is_cut_off() -> None:
    with Running(HttpLimits(linger_bytes=1_000_000, linger_seconds=30)) as running, running.connect() as client:
        client.send(b"nonsense\r\n")
        sent = 0
        with contextlib.suppress(OSError):
            while sent < 100_000_000:
                client.send(b"a" * 100_000)
                sent += 100_000
        assert sent < 100_000_000
        running.until(lambda: running.door.connections == 0)


def test_good_requests_go_on_among_a_thousand_slow_connections() -> None:
    _need_files(2_500)
    limits = HttpLimits(header_seconds=2.0, body_window_seconds=2.0, sweep_seconds=0.1)
    with Running(limits) as running:
        slow: list[Client] = []
        for number in range(1_000):
            client = running.connect()
            client.send(
                (b"GET / HTTP/1.1\r\nHost: ", post("/echo", b"", headers={"Content-Length": "100"}))[number % 2]
            )
            slow.append(client)
        times = []
        with running.connect() as good:
            for number in range(300):
                began = monotonic()
                good.send(post("/predict/double", {"x": [number]}))
                assert good.reply().json == {"y": [2.0 * number]}
                times.append(monotonic() - began)
        assert sorted(times)[len(times) // 2] < 0.05
        began = monotonic()
        assert {client.reply().status for client in slow} == {408}
        assert monotonic() - began < 10
        for client in slow:
            client.close()
        running.until(lambda: running.door.connections == 0)


def _need_files(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        if hard != resource.RLIM_INFINITY and hard < count:
            pytest.skip(f"needs {count} file descriptors")
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
