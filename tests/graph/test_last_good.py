"""The last good answer for the same key: whose it is, how old it may be, and how much is kept."""

from __future__ import annotations

from typing import Any

import pytest

from tests.graph.steps import SIGNATURE, Answers, Clock, asking, failing, run
from turnout.core.errors import InvalidInput, NotReady
from turnout.graph.last_good import LastGood, LastGoodKey, LastGoodMemory, LastGoodPolicy

HEADER = LastGoodKey(header="x-account-id")


def node(clock: Clock | None = None, key: LastGoodKey = HEADER, **settings: Any) -> LastGood:
    return LastGood(LastGoodPolicy(key=key, **settings), LastGoodMemory(), SIGNATURE, clock=clock or Clock())


def of(account: str, *values: float, **how: Any) -> Any:
    return asking(*values or (1.0,), headers={"x-account-id": account}, **how)


def test_each_key_has_its_own_and_the_newest_one() -> None:
    async def main() -> None:
        last = node()
        for account, score in (("a", 0.1), ("b", 0.2), ("a", 0.3)):
            last.remember(of(account), Answers(score=score).answer())
        assert (await last.infer(of("a"))).outputs["score"][0] == pytest.approx(0.3)
        assert (await last.infer(of("b"))).outputs["score"][0] == pytest.approx(0.2)
        for unknown in (of("c"), asking(1.0)):
            assert isinstance(await failing(last, unknown), NotReady)

    run(main)


def test_a_column_can_be_the_key() -> None:
    async def main() -> None:
        last = node(key=LastGoodKey(column="age"))
        last.remember(asking(41.0), Answers(score=0.4).answer())
        assert (await last.infer(asking(41.0))).outputs["score"][0] == pytest.approx(0.4)
        assert isinstance(await failing(last, asking(42.0)), NotReady)

    run(main)
    with pytest.raises(InvalidInput, match="no input column 'agee'"):
        node(key=LastGoodKey(column="agee"))


def test_it_is_not_older_than_allowed() -> None:
    async def main() -> None:
        clock = Clock()
        last = node(clock, max_age=60.0)
        last.remember(of("a"), Answers().answer())
        clock.now += 60.0
        assert await last.infer(of("a"))
        clock.now += 0.1
        assert "too old" in (await failing(last, of("a"))).message

    run(main)


def test_another_number_of_rows_or_another_output_is_another_question() -> None:
    async def main() -> None:
        last = node()
        last.remember(of("a", 1.0, 2.0), Answers().answer(2))
        assert await last.infer(of("a", 3.0, 4.0))
        assert isinstance(await failing(last, of("a", 1.0)), NotReady)
        assert isinstance(await failing(last, of("a", 1.0, 2.0, outputs=("other",))), NotReady)

    run(main)


def test_its_size_is_bounded_and_the_oldest_goes() -> None:
    async def main() -> None:
        last = node(max_bytes=10_000)
        for i in range(200):
            last.remember(of(str(i)), Answers().answer())
        memory = last.memory
        assert memory.nbytes <= 10_000
        assert memory.nbytes == sum(kept[3] for kept in memory.answers.values())
        assert await last.infer(of("199"))
        assert isinstance(await failing(last, of("0")), NotReady)
        last.remember(of("199", *range(2000)), Answers().answer(2000))
        assert isinstance(await failing(last, of("199")), NotReady), (
            "what is too large is not kept, nor what was before"
        )

    run(main)


def test_what_is_kept_cannot_be_changed() -> None:
    async def main() -> None:
        last, response = node(), Answers(score=0.5).answer()
        last.remember(of("a"), response)
        response.outputs["score"][0] = 9.0
        kept = (await last.infer(of("a"))).outputs["score"]
        assert kept[0] == 0.5
        with pytest.raises(ValueError, match="read-only"):
            kept[0] = 1.0

    run(main)


@pytest.mark.parametrize("wrong", [{}, {"header": "a", "cookie": "b"}])
def test_a_key_is_exactly_one_thing(wrong: dict[str, str]) -> None:
    with pytest.raises(InvalidInput, match="exactly one of"):
        LastGoodKey(**wrong)


@pytest.mark.parametrize("settings", [{"max_age": 0.0}, {"max_bytes": 1}])
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        LastGoodPolicy(key=HEADER, **settings)
