"""Which replica is left out, for how long, and when it comes back: with given times, and in real batching."""

from __future__ import annotations

import asyncio
import math
from time import monotonic
from typing import Any

import pytest

from tests.runtime.test_batching import Held, ask, passes, run
from turnout.core.errors import Failure, InvalidInput, InvalidOutput, ModelFailed
from turnout.runtime import outlier
from turnout.runtime.batch_policy import BatchPolicy
from turnout.runtime.batching import Batching
from turnout.runtime.outlier import OutlierPolicy, Outliers, Verdict
from turnout.runtime.predict import Outcome
from turnout.testing.trials import Trial, check_trial, trial_inputs

FOUR = ("a", "b", "c", "d")


class Judging:
    """Outliers of some replicas, asked in seconds of a batch that is expected to take 10 ms."""

    def __init__(self, *places: str, **policy: Any) -> None:
        self.places = places or FOUR
        self.outliers = Outliers(OutlierPolicy(**policy))
        self.now = 100.0

    def one(self, place: str, seconds: float = 0.01, *, failed: bool = False) -> Verdict:
        return self.outliers.judge(place, self.places, seconds, 0.01, self.now, failed=failed)

    def all_well(self, but: str = "") -> None:
        for place in self.places:
            if place != but:
                assert self.one(place) is Verdict.FINE

    @property
    def out(self) -> list[str]:
        return [place for place in self.places if self.outliers.is_out(place)]


def test_five_failures_in_a_row_while_others_answer() -> None:
    judging = Judging()
    judging.all_well("a")
    assert [judging.one("a", failed=True) for _ in range(5)] == [Verdict.REST] * 4 + [Verdict.EJECT]
    assert judging.out == ["a"]


def test_a_success_between_begins_anew() -> None:
    judging = Judging()
    judging.all_well()
    for _ in range(3):
        for _ in range(4):
            judging.one("a", failed=True)
        assert judging.one("a") is Verdict.FINE
    assert judging.out == []


def test_where_all_fail_it_is_the_model_and_nobody_is_left_out() -> None:
    judging = Judging()
    judging.all_well()
    assert [judging.one(place, failed=True) for place in FOUR] == [Verdict.REST] * 3 + [Verdict.DOUBTFUL]
    for _ in range(50):
        for place in FOUR:
            assert judging.one(place, failed=True) is Verdict.DOUBTFUL
    assert judging.out == []


def test_a_rest_becomes_longer_and_never_long() -> None:
    judging = Judging(failures=100)
    judging.all_well("a")
    rests = []
    for _ in range(6):
        assert judging.one("a", failed=True) is Verdict.REST
        rests.append(judging.outliers.rest("a"))
    assert rests == [0.01, 0.02, 0.04, 0.08, 0.08, 0.08]
    judging.one("a")
    judging.one("a", failed=True)
    assert judging.outliers.rest("a") == 0.01
    unasked = Judging(share=0.0)
    unasked.all_well("a")
    assert unasked.one("a", failed=True) is Verdict.DOUBTFUL, "nobody is to be left out"


def test_slow_is_what_the_others_are_not() -> None:
    judging = Judging()
    judging.all_well()
    assert [judging.one("a", 0.2) for _ in range(3)] == [Verdict.DOUBTFUL, Verdict.DOUBTFUL, Verdict.EJECT]
    everybody = Judging()
    everybody.all_well()
    for _ in range(20):
        for place in FOUR:
            everybody.one(place, 0.2)
    assert everybody.out == [], "all became slower: that is load, or larger rows"
    twice = Judging()
    twice.all_well()
    assert [twice.one("a", 0.03) for _ in range(10)] == [Verdict.FINE] * 10, "three times as slow is no outlier"


def test_nobody_is_slow_beside_nobody() -> None:
    judging = Judging()
    assert [judging.one("a", 0.5) for _ in range(10)] == [Verdict.DOUBTFUL] * 10
    judging.one("b", 0.5)
    assert judging.one("a", 0.5) is Verdict.FINE, "the first peer that was asked is as slow"


@pytest.mark.parametrize(
    ("count", "share", "most"), [(1, 1.0, 0), (2, 0.5, 1), (2, 0.0, 0), (4, 0.5, 2), (4, 1.0, 3), (3, 0.1, 1)]
)
def test_only_a_share_is_left_out_and_never_the_last(count: int, share: float, most: int) -> None:
    places = FOUR[:count]
    judging = Judging(*places, share=share)
    judging.all_well()
    for place in places:
        for _ in range(10):
            judging.one(place, failed=True)
            judging.one(places[-1]) if place != places[-1] else None
    assert len(judging.out) == most


def test_it_is_out_for_ever_longer_and_back_when_a_probe_is_well() -> None:
    judging = Judging(seconds=1.0, max_seconds=5.0)
    judging.all_well()
    for _ in range(5):
        judging.one("a", failed=True)
    outliers, waits = judging.outliers, []
    for _ in range(4):
        waits.append(outliers.seconds_out("a", judging.now))
        assert outliers.due(judging.now + waits[-1] - 0.01) == []
        judging.now += waits[-1]
        assert outliers.due(judging.now) == ["a"]
        assert outliers.due(judging.now + 99) == [], "it is named once"
        assert judging.one("a") is Verdict.FINE, "what it was given before says nothing"
        assert judging.out == ["a"]
        outliers.probe("a")
        assert judging.one("a", failed=True) is Verdict.EJECT
    assert waits == [1.0, 2.0, 4.0, 5.0]
    judging.now += 5.0
    outliers.due(judging.now)
    outliers.probe("a")
    assert judging.one("a", 0.2) is Verdict.EJECT, "well is not slow either"
    judging.now += 5.0
    outliers.due(judging.now)
    outliers.probe("a")
    assert judging.one("a") is Verdict.READMIT
    assert judging.out == []
    for _ in range(100):
        judging.one("a")
    for _ in range(5):
        judging.one("a", failed=True)
    assert outliers.seconds_out("a", judging.now) == 1.0, "it was well for long enough"


def test_after_a_probe_that_says_nothing_the_next_one_follows() -> None:
    judging = Judging()
    judging.all_well()
    for _ in range(5):
        judging.one("a", failed=True)
    judging.now += 1.0
    assert judging.outliers.due(judging.now) == ["a"]
    judging.outliers.probe("a")
    judging.outliers.passed("a", judging.now)
    judging.outliers.passed("b", judging.now)
    assert judging.out == ["a"]
    assert judging.outliers.due(judging.now) == ["a"]


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"failures": 0}, "failures"),
        ({"slow": 1.0}, "slow"),
        ({"seconds": 9.0, "max_seconds": 2.0}, "seconds"),
        ({"share": 2.0}, "share"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        OutlierPolicy(**settings)
    assert caught.value.field == field


# -- in batching ------------------------------------------------------------------------------------------------------


def served(count: int) -> tuple[Batching, list[Held]]:
    """Real time passes here, and a busy machine makes anything slow: only failures count."""
    batching = Batching(
        "m", "1", Trial.signature, BatchPolicy(max_rows=1), outlier=OutlierPolicy(seconds=0.01, slow=1e6)
    )
    for _ in range(10):
        batching.learn(1, 0.001)
    return batching, [Held(batching, 1) for _ in range(count)]


def fail(place: Held, failure: Failure) -> None:
    """The oldest batch of a place fails as a whole."""
    batch = place.batches.pop(0)
    place.free += 1
    place.busy_since = monotonic() if place.batches else 0.0
    place._batching.done(place, batch, Outcome({}, [failure] * len(batch.items), 0.001))


async def one(batching: Batching, places: list[Held], bad: Held, failure: Failure, nonce: int = 1) -> Held:
    """One request, and the place that it came to; the bad one fails it."""
    task = ask(batching, nonce)
    await passes()
    place = next(place for place in places if place.batches)
    if place is bad:
        fail(place, failure)
    else:
        place.answer()
    found = (await asyncio.gather(task, return_exceptions=True))[0]
    assert isinstance(found, Failure) == (place is bad)
    return place


@pytest.mark.parametrize("failure", [ModelFailed("no"), InvalidOutput("bent")])
def test_after_one_failure_the_others_are_asked_first(failure: Failure) -> None:
    async def main() -> None:
        batching, places = served(4)
        came = [await one(batching, places, places[0], failure, n) for n in range(20)]
        await rested(batching)
        came += [await one(batching, places, places[0], failure, n) for n in range(20)]
        assert came.count(places[0]) == 1, "one request at a time comes to who did well"
        assert batching.replicas.open[-1] is places[0]

    run(main)


async def full_round(batching: Batching, places: list[Held], bad: Held) -> int:
    """As many requests at once as there are places; how many of them failed."""
    tasks = [ask(batching, nonce) for nonce in range(len(places))]
    await passes()
    for _ in range(3):
        for place in places:
            while place.batches:
                if place is bad:
                    fail(place, ModelFailed("no"))
                else:
                    place.answer()
        await passes()
    failures = sum(isinstance(found, Failure) for found in await asyncio.gather(*tasks, return_exceptions=True))
    await rested(batching)
    return failures


async def rested(batching: Batching) -> None:
    now = asyncio.get_running_loop().time()
    for end in [timer.when() for timer in batching.replicas.resting.values()]:
        await asyncio.sleep(max(0.0, end - now) + 0.001)
    assert not batching.replicas.resting


def test_under_load_five_requests_fail_and_then_none_while_copies_probe() -> None:
    async def main() -> None:
        batching, places = served(4)
        bad = places[1]
        failures = [await full_round(batching, places, bad) for _ in range(30)]
        assert sum(failures) <= 5
        assert sum(failures[10:]) == 0
        assert bad not in batching.replicas.open
        assert len(batching.places) == 4, "it is still one of them, and looked after"
        for _ in range(3):
            before = bad._model.calls
            batching.watch(monotonic() + 10.0)
            assert await full_round(batching, places, bad) == 0, "nobody waits for a probe"
        assert batching.replicas.outliers.ejections == 4
        assert before == 0
        batching.watch(monotonic() + 10.0)
        task = ask(batching, 7)
        await passes()
        assert len(bad.batches) == 1, "a copy"
        bad.answer()
        assert bad in batching.replicas.open, "well again"
        next(place for place in places if place.batches).answer()
        check_trial(trial_inputs([7]), (await task).outputs)
        assert await full_round(batching, places, None) == 0  # type: ignore[arg-type]  # nobody is bad any more

    run(main)


def test_a_retry_waits_for_another_replica_while_the_one_that_failed_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr(outlier, "_REST", 0.25)  # seconds that no busy machine needs for a pass of the loop
        batching, places = served(2)
        good, bad = places
        for _ in range(2):
            await one(batching, places, bad, ModelFailed("no"))
        busy, first = ask(batching, 1), ask(batching, 2)
        await passes()
        fail(bad, ModelFailed("no"))
        again = ask(batching, 2)
        await passes()
        assert not bad.batches, "it is free, and rests"
        good.answer()
        await passes()
        assert good.nonces() == [[2]]
        good.answer()
        assert not isinstance(await again, Failure)
        assert not isinstance(await busy, Failure)
        assert isinstance((await asyncio.gather(first, return_exceptions=True))[0], ModelFailed)
        third = ask(batching, 3), ask(batching, 4)
        await passes()
        assert [place.nonces() for place in places] == [[[3]], []]
        await rested(batching)
        await passes()
        assert bad.nonces() == [[4]], "nobody has to come for what waits to be sent there"
        good.answer()
        bad.answer()
        assert not any(isinstance(found, Failure) for found in await asyncio.gather(*third))

    run(main)


def test_callers_mistakes_and_late_items_are_no_reason() -> None:
    async def main() -> None:
        batching, places = served(2)
        for _ in range(20):
            came = await one(batching, places, places[0], InvalidInput("yours"))
            assert came is places[0]
        assert batching.replicas.outliers.ejections == 0

    run(main)


def test_a_probe_with_a_row_that_its_caller_got_wrong_decides_nothing() -> None:
    async def main() -> None:
        batching, places = served(4)
        bad = places[1]
        for _ in range(10):
            await full_round(batching, places, bad)
        for _ in range(2):
            batching.watch(monotonic() + 10.0)
            task = ask(batching, 7)
            await passes()
            assert len(bad.batches) == 1
            fail(bad, InvalidInput("yours"))
            assert bad not in batching.replicas.open
            next(place for place in places if place.batches).answer()
            await task

    run(main)


def test_when_those_that_do_well_die_who_is_left_is_taken_in_again() -> None:
    async def main() -> None:
        batching, places = served(2)
        bad = places[0]
        for _ in range(10):
            await full_round(batching, places, bad)
        assert batching.replicas.open == [places[1]]
        places[1].die()
        assert batching.replicas.open == [bad]
        task = ask(batching, 3)
        await passes()
        bad.answer()
        check_trial(trial_inputs([3]), (await task).outputs)
        bad.die()
        assert (batching.places, batching.replicas.open) == ([], [])

    run(main)


def test_one_replica_alone_is_never_judged() -> None:
    async def main() -> None:
        batching, places = served(1)
        for _ in range(20):
            await one(batching, places, places[0], ModelFailed("no"))
        assert batching.replicas.open == places
        assert math.isinf(batching.replicas._done_at.get(places[0], math.inf)), "not even looked at"

    run(main)
