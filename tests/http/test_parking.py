"""Connections that were turned away are not read from for a while, and none is forgotten."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from time import monotonic

import pytest
import uvloop
from running import Running, get, post

from turnout.core.errors import Code
from turnout.entrypoints.http.parking import PARKED_SECONDS, Opening, Parking, opening, unread
from turnout.entrypoints.pace import Pace

REQUEST = post("/predict/double", {"x": [1]}, headers={"X-Request-Deadline-Ms": "300"})


def test_a_loop_that_is_behind_lets_in_only_those_who_waited_longest() -> None:
    assert opening(0.010, 64, 500, 0) == Opening(0, 0)
    assert opening(0.010, 64, 500, 3) == Opening(0, 3)
    assert opening(0.010, 64, 500, 300).overdue < 10


def test_where_there_is_room_ever_more_are_let_in() -> None:
    last, left, turns = 0, 1000, 0
    while left:
        found = opening(0.0, last, left, 0)
        assert found.latest >= min(left, 2 * last)
        last, left, turns = found.latest, left - found.latest, turns + 1
    assert turns < 12


def test_never_more_are_let_in_than_there_are() -> None:
    for waiting in range(20):
        for overdue in range(waiting + 1):
            found = opening(0.0, 50, waiting, overdue)
            assert found.latest >= 0 <= found.overdue
            assert found.latest + found.overdue <= waiting


async def until(condition: Callable[[], bool]) -> None:
    """Waits until a condition holds. Fails where it does not in time."""
    end = monotonic() + 5.0
    while not condition():
        assert monotonic() < end, "the condition never held"
        await asyncio.sleep(0.001)


class Waiter:
    """A connection that notes when it is read from again."""

    def __init__(self, order: list[Waiter]) -> None:
        self.order = order

    def unpark(self) -> None:
        """Notes it."""
        self.order.append(self)


class Behind(Pace):
    """A loop that is as late as the test says."""

    late = 0.0

    def lag(self, now: float) -> float:
        """As the test says."""
        del now
        return self.late


def test_the_latest_come_first_and_the_last_one_comes_too() -> None:
    async def run() -> tuple[list[Waiter], list[Waiter]]:
        loop = asyncio.get_running_loop()
        order: list[Waiter] = []
        parking = Parking(loop, Behind(loop))
        waiters = [Waiter(order) for _ in range(50)]
        for waiter in waiters:
            parking.park(waiter, monotonic())
        gone = waiters.pop(10)
        parking.forget(gone)
        await until(lambda: not parking)
        return order, waiters

    order, waiters = asyncio.run(run())
    assert order == waiters[::-1]


def test_who_waited_long_enough_is_let_in_although_there_is_no_room() -> None:
    async def run() -> tuple[list[Waiter], list[Waiter]]:
        loop = asyncio.get_running_loop()
        order: list[Waiter] = []
        pace = Behind(loop)
        pace.late = 1.0
        parking = Parking(loop, pace)
        waiters = [Waiter(order) for _ in range(30)]
        for waiter in waiters[:20]:
            parking.park(waiter, monotonic() - PARKED_SECONDS)
        for waiter in waiters[20:]:
            parking.park(waiter, monotonic() + 60.0)
        await until(lambda: len(parking) <= 10)
        left = len(parking)
        parking.empty()
        assert left == 10
        return order, waiters

    order, waiters = asyncio.run(run())
    assert order[:20] == waiters[:20]
    assert set(order) == set(waiters)


def test_the_kernel_says_what_waits_and_who_has_left() -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
            accepted, _ = server.accept()
            transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, accepted)
            transport.pause_reading()
            found = unread(transport)
            assert found is not None
            assert (found.left, found.size) == (False, 0)
            client.sendall(b"12345")
            await until(lambda: (now := unread(transport)) is not None and now.size == 5 and now.age >= 0.02)
            found = unread(transport)
            assert found is not None
            assert not found.left
            assert found.age < 5.0
            client.shutdown(socket.SHUT_WR)
            await until(lambda: (now := unread(transport)) is not None and now.left)
            transport.abort()

    uvloop.run(run())


class Busy(Pace):
    """A loop that is too late for fresh requests, until the test says otherwise."""

    busy = True

    def lag(self, now: float) -> float:
        """As the test says."""
        del now
        return 1.0 if self.busy else 0.0

    def too_late(self, now: float, left: float, *, known: bool = False) -> bool:
        """As the test says; a known wait is judged by what it leaves."""
        return left <= 0.0 if known else self.busy


@pytest.fixture
def running() -> Iterator[Running]:
    with Running() as one:
        one.pace = Busy(one.loop)  # type: ignore[attr-defined]
        one.door._state.pace = one.door._parking._pace = one.pace  # type: ignore[attr-defined]
        yield one


def test_who_was_turned_away_is_heard_again_once_there_is_room(running: Running) -> None:
    with running.connect() as client:
        client.send(REQUEST)
        refused = client.reply()
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        running.until(lambda: len(running.door._parking) == 1)
        client.send(REQUEST)
        running.pace.busy = False  # type: ignore[attr-defined]
        assert client.reply().json == {"y": [2.0]}
        assert len(running.door._parking) == 0


def test_what_waited_unread_for_its_whole_deadline_is_told_so_and_not_run(running: Running) -> None:
    with running.connect() as client:
        client.send(REQUEST)
        assert client.reply().status == 503
        client.send(REQUEST)
        late = client.reply()  # after PARKED_SECONDS, although there is no room
        assert (late.status, late.closes) == (504, False)
        assert [record.code for record in running.observer.records] == [Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED]


def test_health_is_answered_on_kept_and_on_new_connections_while_others_are_turned_away(running: Running) -> None:
    crowd = [running.connect() for _ in range(40)]
    with running.connect() as kept:
        for client in crowd:
            client.send(REQUEST)
        statuses = [client.reply().status for client in crowd]
        assert 503 in statuses
        assert set(statuses) <= {200, 503}  # one that came into the crowd is judged by its own wait
        for _ in range(20):
            kept.send(get("/"))
            assert kept.reply().json == {"live": True}
            assert running.ask(get("/")).json == {"live": True}
    for client in crowd:
        client.close()
    running.pace.busy = False  # type: ignore[attr-defined]
    running.until(lambda: running.door.connections == 0)


def test_a_drain_does_not_wait_for_those_who_are_parked(running: Running) -> None:
    with running.connect() as client:
        client.send(REQUEST)
        assert client.reply().status == 503
        running.run(running.door.drain())
        assert client.ended()
