"""What every store does: the same in SQLite, in PostgreSQL and in memory."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.store.conftest import Clock, Open
from turnout.core.errors import Conflict, InvalidInput
from turnout.deploy.store.failures import LeaseLost, RevisionNotFound
from turnout.deploy.store.records import Change, digest_of


def text(number: int) -> str:
    return json.dumps({"endpoints": {"fraud": {"traffic": {"v7": 100 - number, "v8": number}}}})


# -- revisions --------------------------------------------------------------------------------------------------------


def test_an_empty_store_has_no_revision(opened: Open) -> None:
    store = opened()
    assert store.current() is None
    assert store.history() == []
    assert store.position() == 0
    with pytest.raises(RevisionNotFound, match="nothing was applied yet"):
        store.undo(author="ann")
    with pytest.raises(RevisionNotFound, match="no revision 1"):
        store.revision(1)


def test_a_revision_is_what_was_proposed_and_stays_so(opened: Open, clock: Clock) -> None:
    store = opened(clock)
    first = store.propose(text(1), author="ann", reason="begin", diff="all of it", base=0)
    clock.now += 60
    second = store.propose(text(2), author="bob", reason="more", diff="v8: 1 -> 2", base=1)
    assert (first.number, first.parent, first.author, first.at) == (1, None, "ann", 1_800_000_000.0)
    assert (second.number, second.parent, second.digest) == (2, 1, digest_of(text(2)))
    again = opened(clock)
    assert again.current() == second
    assert [again.revision(1), again.revision(2)] == [first, second]


def test_undo_moves_the_pointer_and_makes_no_revision(opened: Open, clock: Clock) -> None:
    store = opened(clock)
    for number in (1, 2, 3):
        store.propose(text(number), author="ann")
    assert store.undo(author="bob", reason="too slow").number == 2
    assert store.undo(author="bob").number == 1
    with pytest.raises(RevisionNotFound, match="this is the first"):
        store.undo(author="bob")
    assert store.move_to(3, author="cy").number == 3
    assert store.undo(author="cy").number == 2
    fourth = store.propose(text(4), author="ann")
    assert (fourth.number, fourth.parent) == (4, 2), "its line goes on from where it was made"
    assert store.undo(author="ann").number == 2
    told = [(change.act, change.before, change.revision) for change in reversed(store.history())]
    assert told == [
        ("apply", None, 1),
        ("apply", 1, 2),
        ("apply", 2, 3),
        ("undo", 3, 2),
        ("undo", 2, 1),
        ("move", 1, 3),
        ("undo", 3, 2),
        ("apply", 2, 4),
        ("undo", 4, 2),
    ]
    assert store.history()[5] == Change(4, "undo", 2, 3, "bob", "too slow", "", clock.now)


def test_history_is_read_in_pages_newest_first(opened: Open) -> None:
    store = opened()
    for number in range(7):
        store.propose(text(number), author="ann")
    first = store.history(3)
    second = store.history(3, before=first[-1].seq)
    assert [change.seq for change in first + second] == [7, 6, 5, 4, 3, 2]
    assert [change.seq for change in store.history(3, before=second[-1].seq)] == [1]


def test_who_starts_from_what_is_not_current_is_told_what_changed(opened: Open, clock: Clock) -> None:
    store = opened(clock)
    store.propose(text(1), author="ann")
    store.propose(text(2), author="bob", reason="canary", diff="fraud.traffic.v8: 1 -> 2\n")
    store.undo(author="cy", reason="errors")
    store.propose(text(3), author="dee")
    with pytest.raises(Conflict) as raised:
        store.propose(text(4), author="eve", base=2)
    assert raised.value.message == (
        "revision 3 is current, and this change starts from 2. Since then: "
        "cy went back to revision 1 at 2027-01-15 08:00:00 UTC (errors); "
        "dee applied revision 3 at 2027-01-15 08:00:00 UTC. Look at what is current and start from there"
    )
    with pytest.raises(Conflict, match=r"bob applied revision 2 at .* \(canary\): fraud.traffic.v8: 1 -> 2;"):
        store.propose(text(4), author="eve", base=0)
    for act in (store.undo, lambda **more: store.move_to(1, **more)):
        with pytest.raises(Conflict, match="starts from 1"):
            act(author="eve", base=1)
    current = store.current()
    assert current is not None
    assert current.number == 3
    assert len(store.history()) == 4, "what was refused left nothing"


def test_the_same_document_again_changes_nothing(opened: Open) -> None:
    store = opened()
    store.propose(text(1), author="ann")
    second = store.propose(text(2), author="ann", base=1)
    before = store.position()
    assert store.propose(text(2), author="ann", base=1) == second, "no answer came the first time"
    assert store.move_to(2, author="ann", base=1) == second
    assert (store.position(), len(store.history())) == (before, 2)
    assert store.propose(text(1), author="ann").number == 3, "to apply what once was is a new revision"


def test_of_two_at_once_one_wins(opened: Open) -> None:
    store = opened()
    store.propose(text(0), author="ann")
    starting = threading.Barrier(8)

    def apply(number: int) -> str:
        starting.wait(10)
        try:
            store.propose(text(number), author=f"a{number}", base=1)
        except Conflict as refused:
            return refused.message
        return ""

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(apply, range(1, 9)))
    assert answers.count("") == 1
    winner = answers.index("") + 1
    assert all(f"a{winner} applied revision 2" in answer for answer in answers if answer)


@pytest.mark.parametrize("word", ["Zürich 東京 🚂", 'it\'s "quoted" -- ; DROP TABLE', "x" * 100_000, "", "{}%s:name"])
def test_any_text_comes_back(opened: Open, word: str) -> None:
    store = opened()
    made = store.propose(json.dumps({"a": word}), author=word, reason=word, diff=word)
    assert (made.author, made.reason, made.diff) == (word, word, word)
    assert store.current() == made
    store.put(f"k{word}", word, word)
    (found,) = store.documents(f"k{word}")
    assert (found.key, found.value) == (word, word)


def test_what_no_database_could_hold_is_refused_or_shown_otherwise(opened: Open) -> None:
    store = opened()
    made = store.propose("{}", author="a\0b", reason="\ud800")
    assert (made.author, made.reason) == ("a\N{REPLACEMENT CHARACTER}b", "?")
    assert store.current() == made
    for act in (
        lambda: store.propose('"\0"', author="ann"),
        lambda: store.put("k", "k\0", "{}"),
        lambda: store.put("k", "k", "\ud800"),
        lambda: store.append("k", "\0"),
    ):
        with pytest.raises(InvalidInput):
            act()
    assert store.position() == 1


# -- small documents --------------------------------------------------------------------------------------------------


def test_a_document_is_replaced_only_by_who_knows_it(opened: Open) -> None:
    store = opened()
    first = store.put("rollout", "fraud", '{"step": 1}', 0)
    with pytest.raises(Conflict, match="rollout fraud was written in the meantime"):
        store.put("rollout", "fraud", "{}", 0)
    second = store.put("rollout", "fraud", '{"step": 2}', first.version)
    assert second.version > first.version
    with pytest.raises(Conflict):
        store.put("rollout", "fraud", "{}", first.version)
    with pytest.raises(Conflict):
        store.delete("rollout", "fraud", first.version)
    assert store.document("rollout", "fraud") == second
    third = store.put("rollout", "fraud", "{}")
    store.delete("rollout", "fraud", third.version)
    assert store.document("rollout", "fraud") is None
    store.delete("rollout", "fraud")
    with pytest.raises(Conflict):
        store.put("rollout", "fraud", "{}", third.version)
    assert store.put("rollout", "fraud", "{}", 0).version > third.version, "no version is used twice"


def test_documents_of_a_kind_come_in_the_order_of_their_keys(opened: Open) -> None:
    store = opened()
    for key in ("b", "a-2", "B", "a_1", "ä", "a"):
        store.put("receipt", key, "{}")
    store.put("other", "a", "{}")
    assert [document.key for document in store.documents("receipt")] == ["B", "a", "a-2", "a_1", "b", "ä"]
    assert store.documents("none") == []


# -- events -----------------------------------------------------------------------------------------------------------


def test_events_are_read_on_from_where_one_was(opened: Open, clock: Clock) -> None:
    store = opened(clock)
    made = [store.append("loaded", f"v{number}", json.dumps({"n": number})) for number in range(5)]
    assert [event.seq for event in made] == [1, 2, 3, 4, 5]
    assert store.after(0) == made
    assert store.after(3) == made[3:]
    assert store.after(1, limit=2) == made[1:3]
    assert store.after(5) == []


def test_the_oldest_events_go_and_a_reader_sees_that(opened: Open) -> None:
    store = opened(events_kept=20)
    for number in range(100):
        store.append("e", str(number))
        assert len(store.after(0)) <= 22
    found = store.after(3)
    assert found[0].seq > 4
    assert [event.seq for event in found] == list(range(found[0].seq, 101))
    assert len(found) >= 20


def test_position_says_whether_to_look_again(opened: Open) -> None:
    store = opened()
    seen = [store.position()]
    for act in (
        lambda: store.propose(text(1), author="ann"),
        lambda: store.propose(text(2), author="ann"),
        lambda: store.undo(author="ann"),
        lambda: store.put("k", "a", "{}"),
        lambda: store.append("k", "a"),
        lambda: store.delete("k", "a"),
    ):
        act()
        seen.append(store.position())
    assert seen == sorted(set(seen))
    lease = store.lease("leader", "a", 5)
    assert lease is not None
    store.renew(lease)
    store.delete("k", "a")
    assert store.position() == seen[-1], "a lease that goes on is no news"


# -- transactions -----------------------------------------------------------------------------------------------------


def test_a_transaction_is_saved_whole_and_reads_what_it_wrote(opened: Open) -> None:
    store = opened()
    with store.transaction() as change:
        revision = change.propose(text(1), author="ann")
        change.put("rollout", "fraud", "{}", 0)
        change.append("applied", "fraud")
        assert change.current() == revision
        assert change.documents("rollout")
        assert [event.seq for event in change.after(0)] == [1]
    assert store.current() == revision
    assert store.position() == 1


def test_of_a_transaction_that_fails_nothing_is_saved(opened: Open) -> None:
    store = opened()
    store.put("rollout", "fraud", "1")
    before = store.position()
    with pytest.raises(ZeroDivisionError), store.transaction() as change:
        change.propose(text(1), author="ann")
        change.put("rollout", "fraud", "2")
        change.append("applied", "fraud")
        change.lease("leader", "a", 5)
        _ = 1 / 0
    assert store.current() is None
    found = store.document("rollout", "fraud")
    assert found is not None
    assert found.value == "1"
    assert (store.position(), store.after(0), store.history()) == (before, [], [])
    assert store.lease("leader", "b", 5) is not None
    assert store.propose(text(2), author="ann").number == 1, "and no number is lost"


def test_a_look_shows_one_moment(opened: Open) -> None:
    store, other = opened(), opened()
    store.propose(text(1), author="ann")
    with store.reading() as look:
        before = look.position()
        other.propose(text(2), author="bob")
        current = look.current()
        assert current is not None
        assert (current.number, look.position()) == (1, before)
        assert len(look.history()) == 1


def test_many_writers_lose_nothing(opened: Open) -> None:
    stores = [opened(), opened()]

    def write(number: int) -> None:
        store = stores[number % 2]
        for each in range(10):
            store.append("e", f"{number}.{each}")
            while True:
                found = store.document("count", "all")
                try:
                    value = int(found.value) + 1 if found else 1
                    store.put("count", "all", str(value), found.version if found else 0)
                    break
                except Conflict:
                    continue

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write, range(4)))
    found = stores[0].document("count", "all")
    assert found is not None
    assert found.value == "40"
    events = stores[1].after(0)
    assert [event.seq for event in events] == list(range(1, 41))
    assert len({event.subject for event in events}) == 40


# -- leases -----------------------------------------------------------------------------------------------------------


def test_one_holds_a_lease_until_it_runs_out(opened: Open, clock: Clock) -> None:
    store = opened(clock)
    lease = store.lease("leader", "a", 5)
    assert lease is not None
    clock.now += 4.9
    assert store.lease("leader", "b", 5) is None
    assert store.renew(lease) == lease
    clock.now += 4.9
    assert store.lease("leader", "b", 5) is None
    assert store.lease("other", "b", 5) is not None, "it is another right"
    clock.now += 0.2
    taken = store.lease("leader", "b", 5)
    assert taken is not None
    assert taken.token > lease.token
    with pytest.raises(LeaseLost, match=r"a does not lead any more \(leader is held by b\)"):
        store.renew(lease)


def test_who_lost_the_lease_writes_nothing(opened: Open, clock: Clock) -> None:
    store = opened(clock)
    lease = store.lease("leader", "a", 5)
    assert lease is not None
    store.propose(text(1), author="a", lease=lease)
    clock.now += 6
    store.put("k", "k", "{}", lease=lease)  # nobody has taken it: there is nobody to be in the way of
    taken = store.lease("leader", "b", 5)
    before = store.position()
    for act in (
        lambda: store.propose(text(2), author="a", lease=lease),
        lambda: store.undo(author="a", lease=lease),
        lambda: store.move_to(1, author="a", lease=lease),
        lambda: store.put("k", "k", "{}", lease=lease),
        lambda: store.delete("k", "k", lease=lease),
        lambda: store.append("k", "k", lease=lease),
    ):
        with pytest.raises(LeaseLost):
            act()
    assert store.position() == before
    store.propose(text(3), author="b", lease=taken)


def test_a_controller_that_comes_back_takes_its_own_lease_at_once(opened: Open, clock: Clock) -> None:
    store = opened(clock)
    before = store.lease("leader", "a", 5)
    after = store.lease("leader", "a", 5)
    assert before is not None
    assert after is not None
    with pytest.raises(LeaseLost):
        store.append("k", "k", lease=before)
    store.append("k", "k", lease=after)


def test_what_is_given_back_is_free_and_its_holder_is_out(opened: Open, clock: Clock) -> None:
    store = opened(clock)
    lease = store.lease("leader", "a", 5)
    assert lease is not None
    store.release(lease)
    with pytest.raises(LeaseLost, match="held by nobody"):
        store.append("k", "k", lease=lease)
    taken = store.lease("leader", "b", 5)
    assert taken is not None
    store.release(lease)
    store.append("k", "k", lease=taken)


@pytest.mark.parametrize("jump", [-3600.0, 3600.0])
def test_a_clock_that_jumps_blocks_nobody_for_long(opened: Open, clock: Clock, jump: float) -> None:
    store = opened(clock)
    lease = store.lease("leader", "a", 5)
    clock.now += jump
    assert store.lease("leader", "b", 5) is not None
    assert lease is not None
    with pytest.raises(LeaseLost):
        store.append("k", "k", lease=lease)


def test_of_many_who_ask_at_once_one_leads(opened: Open) -> None:
    stores = [opened(), opened()]
    starting = threading.Barrier(6)

    def ask(number: int) -> object:
        starting.wait(10)
        return stores[number % 2].lease("leader", f"c{number}", 60)

    with ThreadPoolExecutor(6) as threads:
        given = list(threads.map(ask, range(6)))
    assert len([lease for lease in given if lease is not None]) == 1
