"""Clients that mean harm: each is cut off or kept cheap, while a good one on another connection is answered."""

from __future__ import annotations

import gzip
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from grpc_door import CHAT, COUNT, ECHO, SLEEP, DoorThread, until
from hyperframe import frame as hf
from wire import PREFACE, Wire, block, call, data, fields, frame, headers, message

from turnout.entrypoints.grpc import GrpcLimits

CALM = 11
MIB = 1024 * 1024
#: What the whole process, the attacker in it included, may grow by.
GROWTH = 32 * MIB
QUICK = GrpcLimits(
    sweep_seconds=0.05,
    handshake_seconds=0.2,
    header_seconds=0.2,
    body_grace_seconds=0.2,
    stall_seconds=0.3,
    stream_stall_seconds=0.3,
    linger_seconds=0.2,
)
IMPATIENT = replace(QUICK, idle_seconds=0.2)


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@contextmanager
def good_client(door: DoorThread) -> Iterator[list[float]]:
    """Calls one after another on a connection of its own; gives the time each took (seconds)."""
    times: list[float] = []
    stop = threading.Event()
    problems: list[BaseException] = []

    def work() -> None:
        try:
            with Wire(door.port) as wire:
                stream = 1
                wire.send(frame(8, 0, 0, struct.pack(">I", 2**30)))
                while not stop.is_set() or len(times) < 20:
                    start = time.perf_counter()
                    wire.send(call(stream, b"good %d" % stream))
                    assert wire.answer(stream) == (message(b"good %d" % stream), {"grpc-status": "0"})
                    times.append(time.perf_counter() - start)
                    stream += 2
        except BaseException as problem:
            problems.append(problem)

    thread = threading.Thread(target=work)
    thread.start()
    before = resident()
    try:
        yield times
    finally:
        grown = resident() - before
        stop.set()
        thread.join(20)
        assert not problems, problems
    assert grown < GROWTH, f"{grown / MIB:.0f} MiB"
    assert max(times) < 3.0


def goaway(wire: Wire) -> int | None:
    """The code that the connection ends with."""
    code = None
    while (got := wire.read()) is not None:
        if isinstance(got, hf.GoAwayFrame):
            code = got.error_code
    return code


RESET = struct.pack(">I", 8)
FLOODS: dict[str, Callable[[int], bytes]] = {
    "rapid reset": lambda n: headers(2 * n + 1) + frame(3, 0, 2 * n + 1, RESET),
    "resets we are made to send": lambda n: headers(2 * n + 1) + frame(8, 0, 2 * n + 1, bytes(4)),
    "malformed calls": lambda n: headers(2 * n + 1, block(fields(te="gzip")), end=True),
    "refused streams": lambda n: headers(2 * n + 1),
    "PING": lambda n: frame(6, 0, 0, b"12345678"),
    "PING acknowledged": lambda n: frame(6, 1, 0, b"12345678"),
    "SETTINGS": lambda n: frame(4, 0, 0, b""),
    "SETTINGS with entries": lambda n: frame(4, 0, 0, struct.pack(">HI", 4, n % 2 * 65_535)),
    "PRIORITY": lambda n: frame(2, 0, 2 * n + 1, b"\0\0\0\0\1"),
    "unknown frames": lambda n: frame(99, 0, 0, b"x"),
    "small window updates": lambda n: frame(8, 0, 0, b"\0\0\0\1"),
    "empty DATA": lambda n: headers(1) * (n == 0) + data(1, b""),
    "DATA of one byte": lambda n: headers(1) * (n == 0) + data(1, message(b"x" * 200_000)[n : n + 1]),
    "RST_STREAM of what is over": lambda n: call(1) * (n == 0) + frame(3, 0, 1, RESET),
    "DATA after a reset": lambda n: headers(1, block(fields("/a/b"))) * (n == 0) + data(1, b""),
    "empty CONTINUATION": lambda n: headers(1, flags=0) if n == 0 else frame(9, 0, 1),
    "long CONTINUATION": lambda n: headers(1, flags=0) if n == 0 else frame(9, 0, 1, block([("a", "b" * 10_000)])),
    "header lists far too long": lambda n: headers(2 * n + 1, block([("a", "b" * 700)] * 40)),
}


@pytest.mark.parametrize("name", FLOODS)
def test_floods(door: DoorThread, name: str) -> None:
    make = FLOODS[name]
    with good_client(door), Wire(door.port) as wire:
        reader: list[int | None] = []
        reading = threading.Thread(target=lambda: reader.append(goaway(wire)))
        reading.start()
        for start in range(0, 100_000, 500):
            wire.send(b"".join(make(n) for n in range(start, start + 500)))
            if not reading.is_alive():
                break
        reading.join(20)
        assert reader == [CALM]
    assert door.call(lambda: door.door._calls.held) == 0


def test_a_flood_by_a_client_that_reads_nothing(door: DoorThread) -> None:
    """What we owe it stays bounded: it is cut off although it never takes the GOAWAY."""
    with good_client(door), Wire(door.port) as wire:
        wire.socket.settimeout(5)
        for _ in range(200):
            wire.send(frame(6, 0, 0, b"12345678") * 500)
        assert goaway(wire) in {CALM, None}


def test_a_table_bomb(door: DoorThread) -> None:
    entry = b"\x40" + block([("a", "x" * 4000)])[1:]
    with good_client(door), Wire(door.port) as wire:
        wire.send(headers(1, entry + b"\xbe" * 30_000))
        assert goaway(wire) == CALM


def test_one_byte_windows(door: DoorThread) -> None:
    """A large answer asked for byte by byte: the first bytes go out, then the connection is ended."""
    with good_client(door), Wire(door.port, settings={4: 0}) as wire:
        wire.send(call(1, b"x" * 20_000))
        wire.until(lambda f: isinstance(f, hf.HeadersFrame))
        wire.send(frame(8, 0, 1, b"\0\0\0\1") * 10_000)
        assert goaway(wire) == CALM


@pytest.mark.parametrize(("path", "body"), [(ECHO, b"x" * 1000), (COUNT, b"1000 1000")])
def test_windows_that_stay_shut(new_door: Callable[..., DoorThread], path: str, body: bytes) -> None:
    door = new_door(limits=QUICK)
    with good_client(door), Wire(door.port, settings={4: 0}) as wire:
        wire.send(call(1, body, fields(path)))
        (*_, last) = wire.until(lambda f: isinstance(f, hf.RstStreamFrame))
        assert (last.stream_id, last.error_code) == (1, 8)
    until(lambda: door.streams.begun == door.streams.ended)


def test_answers_that_are_not_read(new_door: Callable[..., DoorThread]) -> None:
    """All windows open, and nobody reads: the transport's buffer is the bound, and time."""
    door = new_door(limits=QUICK)
    with good_client(door), Wire(door.port, settings={4: 2**31 - 1}) as wire:
        wire.send(frame(8, 0, 0, struct.pack(">I", 2**30)))
        for n in range(50):
            wire.send(call(2 * n + 1, b"100000 100000", fields(COUNT)))
        until(lambda: door.door.connections == 1)
        assert door.streams.produced < 2_000
    until(lambda: door.streams.begun == door.streams.ended > 0)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        PREFACE[:10],
        PREFACE,
        PREFACE + frame(4, 0, 0)[:5],
        PREFACE + frame(4, 0, 0),
        PREFACE + frame(4, 0, 0) + headers(1)[:20],
        PREFACE + frame(4, 0, 0) + headers(1, flags=0),
        PREFACE + frame(4, 0, 0) + b"\0\0",
    ],
)
def test_connections_that_do_not_go_on(new_door: Callable[..., DoorThread], sent: bytes) -> None:
    door = new_door(limits=IMPATIENT)
    with Wire(door.port, greet=False) as wire:
        wire.send(sent)
        start = time.monotonic()
        assert wire.rest() != [] or sent == b""
        assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    "sent",
    [
        headers(1),
        headers(1) + data(1, message(b"hello")[:3]),
        headers(1) + data(1, message(b"x" * 100_000)[:5_000]),
        headers(1) + data(1, message(b"hello")),
        headers(1, block(fields(CHAT))) + data(1, message(b"hello")[:7]),
    ],
)
def test_calls_that_do_not_go_on(new_door: Callable[..., DoorThread], sent: bytes) -> None:
    door = new_door(limits=QUICK)
    with good_client(door), Wire(door.port) as wire:
        wire.send(sent)
        assert wire.until(lambda f: isinstance(f, hf.HeadersFrame))[-1].fields["grpc-status"] == "4"
        assert [f.error_code for f in wire.rest() if isinstance(f, hf.GoAwayFrame)] == [0, 0]
    assert door.call(lambda: door.door._calls.held) == 0


def test_a_stream_may_be_silent_between_messages(new_door: Callable[..., DoorThread]) -> None:
    door = new_door(limits=QUICK)
    with Wire(door.port) as wire:
        wire.send(headers(1, block(fields(CHAT))) + data(1, message(b"one")))
        wire.until(lambda f: isinstance(f, hf.DataFrame))
        threading.Event().wait(0.6)
        wire.send(data(1, message(b"two"), end=True))
        assert wire.answer(1) == (message(b"two"), {"grpc-status": "0"})


def test_an_idle_connection_is_told_before_it_is_closed(new_door: Callable[..., DoorThread]) -> None:
    door = new_door(limits=IMPATIENT)
    with Wire(door.port) as wire:
        wire.send(call(1))
        wire.answer(1)
        seen = wire.rest()
        assert [f.error_code for f in seen if isinstance(f, hf.GoAwayFrame)] == [0, 0]


def test_too_many_connections(new_door: Callable[..., DoorThread]) -> None:
    door = new_door(limits=GrpcLimits(max_connections=3, sweep_seconds=0.05, linger_seconds=0.2))
    first = [Wire(door.port) for _ in range(3)]
    assert all(wire.alive() for wire in first)
    with Wire(door.port) as wire:
        assert goaway(wire) == CALM
    for wire in first:
        assert wire.alive()
        wire.socket.close()
    until(lambda: door.door.connections == 0)
    with Wire(door.port) as wire:
        assert wire.alive()


def test_promises_of_large_messages_are_bounded(new_door: Callable[..., DoorThread]) -> None:
    """A prefix that announces much takes no memory; what one connection may announce is bounded."""
    limits = GrpcLimits(max_message_bytes=8 * MIB, max_buffered_bytes=40 * MIB, sweep_seconds=0.05)
    door = new_door(limits=limits)
    with good_client(door), Wire(door.port) as wire:
        for n in range(100):
            wire.send(headers(2 * n + 1) + data(2 * n + 1, struct.pack(">BI", 0, 8 * MIB)))
        seen = []
        while len(seen) < 95:
            got = wire.read()
            if isinstance(got, hf.HeadersFrame):
                seen.append(got.fields["grpc-status"])
        assert seen == ["8"] * 95
        assert door.call(lambda: door.door._calls.held) == 40 * MIB
        wire.send(b"".join(frame(3, 0, 2 * n + 1, RESET) for n in range(5)))
        assert wire.alive()
        assert door.call(lambda: door.door._calls.held) == 0


@pytest.mark.parametrize("size", [9 * MIB, 200 * MIB])
def test_a_decompression_bomb(new_door: Callable[..., DoorThread], size: int) -> None:
    door = new_door(limits=GrpcLimits(max_message_bytes=8 * MIB, sweep_seconds=0.05))
    bomb = bomb_of(size)
    with good_client(door), Wire(door.port) as wire:
        wire.send(headers(1, block(fields(grpc_encoding="gzip"))))
        sent = message(bomb, 1)
        for at in range(0, len(sent), 16_000):
            wire.send(data(1, sent[at : at + 16_000], end=at + 16_000 >= len(sent)))
        (*_, last) = wire.until(lambda f: isinstance(f, hf.HeadersFrame))
        assert last.fields["grpc-status"] == "8"


def bomb_of(size: int) -> bytes:
    """A gzip of so many zeros, made without having them."""
    import zlib

    encoder = zlib.compressobj(9, zlib.DEFLATED, 31)
    zeros = bytes(MIB)
    return b"".join([*(encoder.compress(zeros) for _ in range(size // MIB)), encoder.flush()])


def test_the_bomb_is_one() -> None:
    assert len(bomb_of(9 * MIB)) < 20_000
    assert len(gzip.decompress(bomb_of(MIB))) == MIB


def test_a_thousand_slow_connections(new_door: Callable[..., DoorThread]) -> None:
    """Half of them stop in the middle of a header block, half in the middle of a message."""
    door = new_door(limits=QUICK)
    with good_client(door):
        wires = [Wire(door.port) for _ in range(1000)]
        for n, wire in enumerate(wires):
            wire.send(headers(1, flags=0) if n % 2 else headers(1) + data(1, message(b"hello")[:-1]))
        until(lambda: door.door.connections == 1)
        for wire in wires:
            wire.socket.close()


def test_a_method_that_never_ends_is_ended_with_its_client(door: DoorThread) -> None:
    for _ in range(20):
        with Wire(door.port) as wire:
            wire.send(call(1, b"x", fields(SLEEP)) + call(3, b"wait:"))
            wire.until(lambda f: isinstance(f, hf.DataFrame))
    until(lambda: (door.streams.ended, door.echo.cancelled) == (20, 20))
    assert not door.door._calls.tasks
