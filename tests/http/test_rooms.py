"""Memory of long bodies that is used again: never while anybody can still see it, and never without bounds."""

from __future__ import annotations

import gc
import random
import threading
from collections.abc import Iterator
from time import monotonic
from typing import Any

import numpy as np
import pytest
from running import Running, post

from turnout.core.tensors import slice_rows, unpack
from turnout.entrypoints.http import HttpLimits
from turnout.entrypoints.http.body import RESERVE_BYTES, SizedBody
from turnout.entrypoints.http.rooms import LARGE_PAGE, MOST_ROOMS, SPARE_BYTES, SPARE_SECONDS, Rooms, held_bytes
from turnout.protocols.v2_binary import split

OCTETS = {"Content-Type": "application/octet-stream"}
LONG = 3_136_150


def address(view: Any) -> int:
    return np.frombuffer(view, np.uint8).ctypes.data


@pytest.fixture
def rooms() -> Iterator[Rooms]:
    """The rooms of one door, all of which come back."""
    yield Rooms()
    gc.collect()


def test_a_room_is_used_again_when_nobody_sees_it(rooms: Rooms) -> None:
    room = rooms.take(LONG)
    assert len(room) == LONG
    assert rooms.spare_bytes == 0
    place = address(room)
    assert place % LARGE_PAGE == 0
    del room
    assert rooms.spare_bytes == 2 * LARGE_PAGE
    again = rooms.take(LONG - 1000)
    assert (address(again), len(again), rooms.spare_bytes) == (place, LONG - 1000, 0)


@pytest.mark.parametrize(
    "view",
    [
        lambda room: room[5:6],
        lambda room: room.toreadonly()[1:].cast("B"),
        lambda room: np.frombuffer(room, np.uint8)[::7],
        lambda room: unpack("FP32", (1000, 784), room[150 : 150 + 3_136_000]).reshape(784, 1000).T[3:4],
        lambda room: room.obj[3:9],
        lambda room: slice_rows({"x": unpack("INT8", (-1, 10), room)}, 2, 3),
        lambda room: split("17", room)[0],
        lambda room: memoryview(unpack("FP64", (-1,), room[6:])[:1]),
        iter,
    ],
)
def test_whatever_views_it_keeps_it(rooms: Rooms, view: Any) -> None:
    room = rooms.take(LONG)
    place = address(room)
    room[:] = b"a" * LONG
    held = view(room)
    del room
    gc.collect()
    others = [rooms.take(LONG) for _ in range(3)]
    for other in others:
        assert address(other) != place
        other[:] = b"b" * LONG
    assert rooms.spare_bytes == 0
    found = next(held) if hasattr(held, "__next__") else np.asarray(held.get("x") if isinstance(held, dict) else held)
    assert b"b" not in (bytes([found]) if isinstance(found, int) else found.tobytes())
    del held, found
    assert rooms.spare_bytes == 2 * LARGE_PAGE


class Kept:
    """Part of a cycle; keeps a view when it is collected, as the end of a coroutine may."""

    found: list[memoryview]

    def __init__(self, view: memoryview, found: list[memoryview]) -> None:
        self.view = view
        self.found = found
        self.me = self

    def __del__(self) -> None:
        self.found.append(self.view)


def test_a_cycle_keeps_it_until_it_is_collected_and_gone(rooms: Rooms) -> None:
    found: list[memoryview] = []
    Kept(rooms.take(LONG), found)
    assert rooms.spare_bytes == 0
    gc.collect()
    assert len(found) == 1
    assert rooms.spare_bytes == 0, "what was collected has kept a view"
    found.clear()
    gc.collect()
    assert rooms.spare_bytes == 2 * LARGE_PAGE


def test_short_bodies_have_no_large_pages(rooms: Rooms) -> None:
    room = rooms.take(LARGE_PAGE // 2 - 1)
    del room
    assert rooms.spare_bytes == 0
    assert held_bytes(LARGE_PAGE // 2 - 1, 100) == 100


def test_what_is_kept_is_bounded_and_only_for_a_while(rooms: Rooms) -> None:
    taken = [rooms.take(size * LARGE_PAGE) for size in (1, 2, 3, 30, 4, 5, 6)]
    taken.clear()
    rooms.sweep(monotonic())
    assert 0 < rooms.spare_bytes <= SPARE_BYTES
    rooms.sweep(monotonic() + SPARE_SECONDS + 1)
    assert rooms.spare_bytes == 0


def test_rooms_of_ever_new_sizes_are_not_all_kept(rooms: Rooms) -> None:
    for size in range(1, 40):
        rooms.take(size * LARGE_PAGE)
        assert rooms.spare_bytes <= SPARE_BYTES + size * LARGE_PAGE


def test_only_so_many_rooms_are_looked_after(rooms: Rooms) -> None:
    taken = [rooms.take(LARGE_PAGE) for _ in range(MOST_ROOMS + 5)]
    assert len({address(room) for room in taken}) == MOST_ROOMS + 5
    taken.clear()
    assert rooms.spare_bytes == MOST_ROOMS * LARGE_PAGE
    rooms.sweep(monotonic())
    assert rooms.spare_bytes == SPARE_BYTES


def test_what_is_in_use_stays_however_long(rooms: Rooms) -> None:
    room = rooms.take(LONG)
    rooms.sweep(monotonic() + 100 * SPARE_SECONDS)
    place = address(room)
    other = rooms.take(LONG)
    assert address(other) != place
    del room
    assert address(rooms.take(LONG)) == place


def test_threads_may_let_go_of_rooms(rooms: Rooms) -> None:
    """The loop takes and fills rooms, and other threads drop them: nobody ever finds a stranger's bytes."""
    wrong: list[int] = []
    held: list[tuple[int, memoryview]] = []

    def check() -> None:
        while held or taking:
            try:
                number, room = held.pop(0)
            except IndexError:
                continue
            if room[0] != number or room[-1] != number:
                wrong.append(number)
            del room

    taking = True
    threads = [threading.Thread(target=check) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(400):
        room = rooms.take(LARGE_PAGE * (1 + number % 3))
        room[0] = room[-1] = number % 251
        held.append((number % 251, room))
        del room
        if number % 50 == 0:
            rooms.sweep(monotonic() + SPARE_SECONDS + 1)
    taking = False
    for thread in threads:
        thread.join(10)
    assert not wrong


def test_a_body_moves_into_its_room_once_much_of_it_is_there(rooms: Rooms) -> None:
    whole = random.Random(1).randbytes(LONG)
    body = SizedBody(LONG, rooms)
    first = RESERVE_BYTES - 1
    assert body.feed(b"before" + whole[:first], 6) == 6 + first
    assert (body.reserved, body.held) == (False, first)
    assert body.feed(whole[first : first + 1], 0) == 1
    assert (body.reserved, body.received, body.held) == (True, RESERVE_BYTES, LARGE_PAGE)
    room = body.room()
    room[:LARGE_PAGE] = whole[RESERVE_BYTES : RESERVE_BYTES + LARGE_PAGE]
    body.filled(LARGE_PAGE)
    assert (body.complete, body.held) == (False, 2 * LARGE_PAGE)
    assert body.feed(whole + b"after", body.received) == LONG
    assert (body.complete, body.held) == (True, 2 * LARGE_PAGE)
    assert body.content == whole


def test_the_memory_of_unfinished_bodies_is_counted_in_large_pages() -> None:
    with Running(HttpLimits(bodies_bytes=3 * LARGE_PAGE)) as running:
        head = post("/echo", headers={"Content-Length": str(LONG), **OCTETS})
        first, second = running.connect(), running.connect()
        first.send(head + b"a" * 2_500_000)
        running.until(lambda: running.door._state.partial_bytes == 2 * LARGE_PAGE)
        second.send(head + b"a" * 2_500_000)
        assert second.reply().status == 503
        running.until(lambda: running.door._state.partial_bytes == 2 * LARGE_PAGE)
        first.send(b"a" * (LONG - 2_500_000))
        assert len(first.reply().body) == LONG
        assert running.door._state.partial_bytes == 0
        first.close()
        second.close()


def test_nobody_gets_the_body_of_another(running: Running) -> None:
    """Many clients at once, again and again, each with its own bytes in bodies of the same few sizes."""
    wrong: list[int] = []

    def ask(number: int) -> None:
        with running.connect() as client:
            for turn in range(8):
                size = LONG + 1_000_000 * ((number + turn) % 3)
                body = random.Random(100 * number + turn).randbytes(1000) * (size // 1000)
                client.send(post("/echo", body, headers=OCTETS))
                if client.reply().body != body:
                    wrong.append(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong
    running.until(lambda: running.door._state.partial_bytes == 0)
    running.until(lambda: 0 < running.door._state.rooms.spare_bytes <= SPARE_BYTES)
