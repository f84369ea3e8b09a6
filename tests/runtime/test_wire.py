"""Messages with descriptors arrive whole, in order, and anything else ends the wire."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from turnout.runtime.wire import Wire, pair

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture
def both() -> tuple[Wire, Wire]:
    left, right = pair()
    wires = Wire(left), Wire(right)
    yield wires
    for wire in wires:
        wire.close()


@given(st.lists(st.dictionaries(st.text(max_size=5).filter(lambda key: key != "_fds"), values), max_size=5), st.data())
def test_messages_come_in_order_however_the_bytes_are_cut(messages: list[dict], data: st.DataObject) -> None:
    made, taken = pair()
    collector = Wire(made)
    with taken:
        for message in messages:
            collector.send(message)
        collector.close()
        stream = b"".join(iter(lambda: taken.recv(1 << 20), b""))
    left, right = pair()
    right.setblocking(False)
    got = []
    with left, closing(Wire(right)) as wire:
        while stream:
            size = data.draw(st.integers(1, len(stream)))
            left.sendall(stream[:size])
            stream = stream[size:]
            got += [message for message, _ in wire.poll()]
    assert got == messages


def test_descriptors_travel(both: tuple[Wire, Wire]) -> None:
    read, write = os.pipe()
    both[0].send({"op": "first"})
    both[0].send({"op": "second"}, [write])
    os.close(write)
    assert both[1].receive() == ({"op": "first"}, [])
    message, (fd,) = both[1].receive()
    assert message == {"op": "second"}
    os.write(fd, b"through")
    os.close(fd)
    assert os.read(read, 10) == b"through"
    os.close(read)


def test_what_follows_a_message_is_left_for_others(both: tuple[Wire, Wire]) -> None:
    """A link says which way is used, and from there on carries frames."""
    both[0].send({"way": "socket"})
    both[0].sock.sendall(b"and now something else")
    assert both[1].receive_only() == ({"way": "socket"}, [])
    assert both[1].sock.recv(100) == b"and now something else"


def test_large_messages_pass(both: tuple[Wire, Wire]) -> None:
    text = "x" * 3_000_000
    thread = threading.Thread(target=both[0].send, args=({"text": text},))
    thread.start()
    assert both[1].receive()[0]["text"] == text
    thread.join()


def test_the_end_is_said(both: tuple[Wire, Wire]) -> None:
    both[0].send({"last": 1})
    both[0].close()
    assert both[1].receive() == ({"last": 1}, [])
    with pytest.raises(EOFError):
        both[1].receive()
    with pytest.raises(EOFError):
        list(both[1].poll())


def test_what_was_said_before_the_end_is_heard(both: tuple[Wire, Wire]) -> None:
    near, far = both
    for number in range(3):
        far.send({"number": number})
    near.receive()
    far.close()
    heard = near.poll()
    assert [next(heard)[0]["number"], next(heard)[0]["number"]] == [1, 2]
    with pytest.raises(EOFError):
        next(heard)


def test_who_goes_on_talking_is_not_all_that_is_heard(both: tuple[Wire, Wire]) -> None:
    near, far = both
    near.sock.setblocking(False)
    heard = 0
    far.send({"text": "x" * 100_000})
    for _ in near.poll():
        heard += 1
        assert heard < 1000, "it would have gone on for ever"
        far.send({"text": "x" * 100_000})
    assert heard > 1
    assert len(list(near.poll())) == 1, "the rest is heard the next time"


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
@pytest.mark.parametrize("said", [0, 1, 3])
def test_a_loop_hears_of_an_end_that_was_reset(run: Callable[..., object], said: int) -> None:
    """What the other end had not read makes its end an error, of which libuv tells only once."""

    async def main() -> int:
        loop = asyncio.get_running_loop()
        near, far = (Wire(sock) for sock in pair())
        near.sock.setblocking(False)
        ended = loop.create_future()
        heard = []

        def read() -> None:
            try:
                for message, _ in near.poll():
                    heard.append(message)
            except EOFError:
                loop.remove_reader(near.fileno())
                ended.set_result(True)

        loop.add_reader(near.fileno(), read)
        near.send({"is": "never read"})
        for _ in range(said):
            far.send({"is": "the last"})
        far.close()
        with closing(near):
            await asyncio.wait_for(ended, 5)
        return len(heard)

    assert run(main()) == said


def test_sending_to_nobody_says_so(both: tuple[Wire, Wire]) -> None:
    both[1].close()
    with pytest.raises(OSError):
        both[0].send({"op": "x"})


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<I", 2**32 - 1),
        struct.pack("<I", 4) + b"oops",
        struct.pack("<I", 2) + b"{}",
        struct.pack("<I", 2) + b"[]",
        struct.pack("<I", 10) + b'{"_fds":1}',
        struct.pack("<I", 10) + b'{"_fds":""}'[:10],
        struct.pack("<I", 12) + b'{"_fds":"a"}',
        struct.pack("<I", 100_000) + b"[" * 100_000,
    ],
)
def test_what_is_no_message_ends_the_wire(data: bytes) -> None:
    left, right = pair()
    wire = Wire(right)
    with left:
        left.sendall(data)
        with pytest.raises(EOFError):
            wire.receive()
    wire.close()


def test_untaken_descriptors_are_closed() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    left, right = pair()
    read, write = os.pipe()
    with left:
        Wire(left).send({"op": "x"}, [read, write])
        os.close(read)
        os.close(write)
        wire = Wire(right)
        wire._read()
        wire.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_pair_is_connected() -> None:
    left, right = pair()
    with left, right:
        assert left.family == socket.AF_UNIX
        left.sendall(b"x")
        assert right.recv(1) == b"x"
