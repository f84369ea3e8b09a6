"""Random bytes and sessions with something wrong in them: nothing crashes, hangs or is left behind."""

from __future__ import annotations

import contextlib
import random
import struct
import time

import pytest
from grpc_door import CHAT, COUNT, ECHO, TOTAL, UPPER, DoorThread, until
from wire import PREFACE, Wire, block, call, data, fields, frame, headers, message

from turnout.entrypoints.grpc import GrpcLimits

SESSION = [
    call(1, b"one"),
    headers(3, b"\x20" + block(fields())),
    data(3, message(b"x" * 500)),
    frame(6, 0, 0, b"12345678"),
    data(3, b"", end=True),
    call(5, b"up", fields(UPPER)),
    headers(7, block(fields(CHAT))),
    data(7, message(b"a") + message(b"b" * 100)),
    frame(8, 0, 0, struct.pack(">I", 70_000)),
    frame(8, 0, 7, struct.pack(">I", 70_000)),
    headers(9, block(fields(TOTAL, grpc_encoding="gzip")))[:20],
    headers(9, block(fields(TOTAL, grpc_encoding="gzip")))[20:],
    data(9, message(b"", 0), end=True),
    headers(11, block(fields())[:30], flags=0),
    frame(9, 0, 11, block(fields())[30:60]),
    frame(9, 4, 11, block(fields())[60:]),
    frame(0, 9, 11, b"\x05" + message(b"padded") + bytes(5)),
    frame(4, 0, 0, struct.pack(">HIHI", 4, 100, 5, 20_000)),
    frame(3, 0, 7, b"\0\0\0\x08"),
    call(13, b"20 50", fields(COUNT)),
    call(15, b"wait:", fields(ECHO, grpc_timeout="50m")),
    headers(17, b"\x40" + block([("a", "b")])[1:] + block(fields())),
    headers(19, block(fields()) + b"\xbe", end=True),
    frame(2, 0, 19, bytes(5)),
    call(21, b"last"),
]


def mutated(choice: random.Random) -> bytes:
    """The session with some of its frames or bytes changed, lost, doubled or swapped."""
    frames = list(SESSION)
    for _ in range(choice.randint(0, 3)):
        at, other = choice.randrange(len(frames)), choice.randrange(len(frames))
        act = choice.randrange(4)
        if act == 0:
            frames[at], frames[other] = frames[other], frames[at]
        elif act == 1:
            frames.insert(at, frames[other])
        elif act == 2:
            del frames[at]
        else:
            body = bytearray(frames[at])
            body[choice.randrange(min(9, len(body)))] = choice.randrange(256)
            frames[at] = bytes(body)
    sent = bytearray(b"".join(frames))
    for _ in range(choice.choice((0, 0, 1, 1, 2, 20))):
        sent[choice.randrange(len(sent))] = choice.randrange(256)
    return bytes(sent[: choice.randrange(len(sent))] if choice.random() < 0.2 else sent)


def settled(door: DoorThread) -> None:
    """Every connection is gone, and with it all that ran or was held for it."""
    until(lambda: door.door.connections == 0)
    calls = door.door._calls
    until(lambda: not calls.tasks)
    assert calls.held == 0
    assert door.streams.begun == door.streams.ended
    door.call(door.echo.release)
    with Wire(door.port) as wire:
        wire.send(call(1, b"still here"))
        assert wire.answer(1) == (message(b"still here"), {"grpc-status": "0"})


@pytest.mark.parametrize("seed", range(4))
def test_mutated_sessions(door: DoorThread, seed: int, caplog: pytest.LogCaptureFixture) -> None:
    choice = random.Random(seed)
    for _ in range(250):
        sent = PREFACE + frame(4, 0, 0) + mutated(choice)
        with Wire(door.port, greet=False) as wire:
            at = 0
            while at < len(sent):
                step = choice.choice((len(sent), len(sent), 9, 100, 1000))
                wire.send(sent[at : at + step])
                at += step
            wire.socket.settimeout(0.05)
            with contextlib.suppress(TimeoutError):  # it may rightly wait for the rest of a frame
                wire.alive()
    settled(door)
    assert "unexpected" not in caplog.text


def test_random_bytes(new_door: type[DoorThread], caplog: pytest.LogCaptureFixture) -> None:
    door = new_door(limits=GrpcLimits(sweep_seconds=0.05, linger_seconds=0.1, handshake_seconds=0.2))
    choice = random.Random(7)
    for n in range(300):
        junk = choice.randbytes(choice.randrange(300))
        with Wire(door.port, greet=False) as wire:
            wire.send(junk if n % 3 == 0 else PREFACE + junk if n % 3 == 1 else PREFACE + frame(4, 0, 0) + junk)
    settled(door)
    assert "unexpected" not in caplog.text


def test_random_frames(door: DoorThread, caplog: pytest.LogCaptureFixture) -> None:
    """Frames of right shape and wrong sense."""
    choice = random.Random(11)
    for _ in range(300):
        with Wire(door.port) as wire:
            for _ in range(30):
                kind = choice.choice((0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 77))
                length = choice.choice((0, 4, 5, 6, 8, 12, 60))
                payload = choice.choice((choice.randbytes(length), bytes(length), block(fields()), message(b"x")))
                wire.send(frame(kind, choice.choice((0, 1, 4, 5, 8, 13, 37)), choice.choice((0, 1, 1, 3, 5)), payload))
    settled(door)
    assert "unexpected" not in caplog.text


@pytest.mark.parametrize("size", [1, 3, 10, 997])
def test_any_segments_give_the_same_answers(new_door: type[DoorThread], size: int) -> None:
    # Octet by octet, a busy machine takes longer than a slow client may: that is not what this is about.
    door = new_door(limits=GrpcLimits(handshake_seconds=60.0, header_seconds=60.0, body_grace_seconds=60.0))
    sent = PREFACE + frame(4, 0, 0) + b"".join(SESSION[:10]) + data(7, b"", end=True) + call(31, b"z" * 5000)
    with Wire(door.port, greet=False) as wire:
        for at in range(0, len(sent), size):
            wire.send(sent[at : at + size])
        bodies: dict[int, bytes] = {}
        statuses: dict[int, str] = {}
        seen: list[object] = []
        while len(statuses) < 5:
            got = wire.read()
            assert got is not None, f"the door hung up after {seen}"
            seen.append(got)
            if hasattr(got, "fields") and "grpc-status" in got.fields:
                statuses[got.stream_id] = got.fields["grpc-status"]
            elif type(got).__name__ == "DataFrame":
                bodies[got.stream_id] = bodies.get(got.stream_id, b"") + got.data
    assert set(statuses.values()) == {"0"}
    assert bodies == {
        1: message(b"one"),
        3: message(b"x" * 500),
        5: message(b"UP"),
        7: message(b"a") + message(b"b" * 100),
        31: message(b"z" * 5000),
    }


def test_a_frame_in_many_pieces_is_one_frame(new_door: type[DoorThread]) -> None:
    door = new_door(limits=GrpcLimits(overhead_burst=20, overhead_rate=1))
    sent = call(1, b"z" * 100)
    with Wire(door.port) as wire:
        for at in range(len(sent)):
            wire.send(sent[at : at + 1])
            time.sleep(0.001)  # so that the door reads most of them one by one
        frames = wire.until(lambda got: getattr(got, "fields", {}).get("grpc-status") is not None)
        assert frames[-1].fields["grpc-status"] == "0"
