"""How far behind the loop is believed to be: told by a clock of the test's own."""

from __future__ import annotations

import asyncio

from turnout.entrypoints.pace import Pace


class Passes:
    """A loop of which only `call_soon` is used; `over` ends the pass."""

    def __init__(self) -> None:
        self.soon: list[object] = []

    def call_soon(self, callback: object) -> None:
        """Keeps the callback."""
        self.soon.append(callback)

    def over(self) -> None:
        """Ends the pass."""
        waiting, self.soon = self.soon, []
        for callback in waiting:
            callback()  # type: ignore[operator]


def pace() -> tuple[Pace, Passes]:
    passes = Passes()
    return Pace(passes), passes  # type: ignore[arg-type]  # a loop of which only call_soon is used


def test_after_a_rest_nothing_is_behind() -> None:
    one, passes = pace()
    one.touch(1000.0)
    assert one.behind(1000.001) < 0.002
    passes.over()
    one.touch(1010.0)  # a connection, and its request a moment later
    assert one.behind(1010.001) < 0.002
    assert not one.too_late(1010.0011, 0.1)


def test_within_a_pass_the_later_ones_have_waited_longer() -> None:
    one, _ = pace()
    waited = [one.behind(1000.0 + 0.001 * n) for n in range(20)]
    assert waited == sorted(waited)
    assert 0.018 < waited[-1] < 0.02


def test_what_a_long_pass_kept_waiting_counts_in_the_next() -> None:
    one, passes = pace()
    for n in range(20):
        one.behind(1000.0 + 0.001 * n)
    passes.over()
    assert 0.019 < one.behind(1000.0200) < 0.021
    assert one.too_late(1000.0201, 0.1)
    assert not one.too_late(1000.0202, 30.0)


def test_it_works_on_the_loop_that_serves() -> None:
    async def ask() -> float:
        return Pace(asyncio.get_running_loop()).behind(5.0)

    assert asyncio.run(ask()) == 0.0


def test_a_wait_that_is_known_is_judged_by_what_it_leaves() -> None:
    one, _ = pace()
    one.behind(1000.0)
    assert not one.too_late(1000.0005, 0.05, known=True)
    assert one.too_late(1000.0005, -0.01, known=True)
    assert one.too_late(1000.002, 0.005, known=True)
    assert not one.too_late(1000.0021, 0.05, known=True)


def test_the_lag_is_forgotten_once_the_door_rests() -> None:
    one, passes = pace()
    for n in range(10):
        one.behind(1000.0 + 0.001 * n)
    passes.over()
    one.behind(1000.010)
    assert 0.009 < one.lag(1000.010) < 0.011
    assert one.lag(1000.020) == 0.0
