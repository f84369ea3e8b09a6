"""Writers are killed with -9 at random moments, and now and then the database's server with them: nothing is lost."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from tests.store.postgres import Postgres
from turnout.core.errors import Failure
from turnout.deploy.store.database import DatabaseStore
from turnout.deploy.store.records import Revision, digest_of
from turnout.deploy.store.tables import REVISIONS

#: After so many kills a new store is begun: each time all of it is looked at.
_KILLS_OF_A_STORE = 20
_MOST_SECONDS = 0.03


class Writer:
    """The process that makes writers, and what they have said."""

    def __init__(self, url: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.store.writer", url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        assert self.hear() == {"began": True}
        self.acknowledged: list[dict[str, Any]] = []
        self.pid = 0

    def hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        found = json.loads(self._process.stdout.readline())
        assert isinstance(found, dict)
        return found

    def begin(self, name: str, seed: int) -> None:
        """Until it has written something for the first time."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{name} {seed}\n".encode())
        self._process.stdin.flush()
        self.pid = self.hear()["pid"]
        self.acknowledged.append(self.hear())

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def end(self) -> None:
        """All that it could still say."""
        while "over" not in (said := self.hear()):
            self.acknowledged.append(said)

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


@contextmanager
def writing(url: str, how_many: int) -> Iterator[list[Writer]]:
    writers = [Writer(url) for _ in range(how_many)]
    try:
        yield writers
    finally:
        for writer in writers:
            writer.close()


def check(url: str, acknowledged: list[dict[str, Any]], kills: int) -> None:
    """All that was acknowledged is there, what is there is whole, and nobody has written what nobody asked for."""
    if url.startswith("sqlite"):
        with sqlite3.connect(url.removeprefix("sqlite:///")) as raw:
            assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert raw.execute("PRAGMA foreign_key_check").fetchall() == []
        raw.close()
    store = DatabaseStore(url)
    with store.reading() as look:
        changes = list(reversed(look.history(1_000_000)))
        revisions = {one.number: one for one in look._all(select(REVISIONS), Revision)}
        events = look.after(0, 1_000_000)
        current = look.current()
        count = look.document("count", "all")
        wholes = look.documents("whole")
    store.close()
    for said in acknowledged:
        if "revision" in said:
            assert revisions[said["revision"]].digest == said["digest"], f"lost: {said}"
            assert events[said["event"] - 1].data == str(said["revision"]), f"lost: {said}"
        if "count" in said:
            assert count is not None
            assert int(count.value) >= said["count"], f"lost: {said}"
    # The pointer: one line of moves without a hole, whose end is what is current.
    assert [change.seq for change in changes] == list(range(1, len(changes) + 1))
    assert [change.before for change in changes] == [None, *(change.revision for change in changes)][:-1]
    assert (current.number if current else None) == (changes[-1].revision if changes else None)
    moves = Counter(change.act for change in changes)
    said_moves = Counter("undo" if "moved" in said else "apply" for said in acknowledged if "count" not in said)
    # Each kill may have saved one change that it had no time to acknowledge.
    assert 0 <= len(changes) - said_moves.total() <= kills
    assert moves["undo"] >= said_moves["undo"]
    # What was written together is there together.
    assert sorted(revisions) == list(range(1, len(revisions) + 1))
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert [int(event.data) for event in events] == sorted(revisions)
    for revision in revisions.values():
        assert digest_of(revision.document) == revision.digest
        assert revision.parent is None or revision.parent < revision.number
    assert {one.key: int(one.value) for one in wholes} == {
        revision.author: revision.number for _, revision in sorted(revisions.items())
    }


def crash(url: str, kills: int, seed: int, server: Postgres | None = None) -> Counter[str]:
    """So many kills, each at its own random moment; what came of them."""
    rng = random.Random(seed)
    came: Counter[str] = Counter()
    acknowledged: list[dict[str, Any]] = []
    with writing(url, 2) as writers:
        done = 0
        while done < kills:
            busy = writers if rng.random() < 0.3 and kills - done >= 2 else writers[:1]
            for number, writer in enumerate(busy):
                writer.begin(f"w{number}", rng.randrange(1 << 30))
            time.sleep(rng.uniform(0, _MOST_SECONDS))
            if server is not None and rng.random() < 0.15:
                server.kill()
                came["server kills"] += 1
            for writer in busy:
                writer.kill()
                writer.end()
                done += 1
            if server is not None and not server.alive:
                server.start()
            for writer in busy:
                came["acknowledged"] += sum("failed" not in said for said in writer.acknowledged)
                acknowledged += [said for said in writer.acknowledged if "failed" not in said]
                writer.acknowledged.clear()
            check(url, acknowledged, done)
    came["kills"] = done
    return came


def many(kills: int, tmp_path: Path, seed: int, server: Postgres | None = None) -> Counter[str]:
    total: Counter[str] = Counter()
    for store, done in enumerate(range(0, kills, _KILLS_OF_A_STORE)):
        url = f"sqlite:///{tmp_path / f'store{store}.db'}" if server is None else server.new_database()
        total += crash(url, min(_KILLS_OF_A_STORE, kills - done), seed + store, server)
    print("; ".join(f"{count} {what}" for what, count in total.items()) + "; 0 lost, 0 corrupt")
    return total


@pytest.fixture
def own_server() -> Iterator[Postgres]:
    """A server that may be killed."""
    server = Postgres()
    yield server
    server.close()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_writer_loses_nothing_in_sqlite(tmp_path: Path) -> None:
    assert many(60, tmp_path, 1)["kills"] == 60


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_writers_and_servers_lose_nothing_in_postgresql(tmp_path: Path, own_server: Postgres) -> None:
    assert many(40, tmp_path, 2, own_server)["server kills"] > 0


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_six_hundred_kills_lose_nothing_in_sqlite(tmp_path: Path) -> None:
    assert many(600, tmp_path, 3)["kills"] == 600


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_four_hundred_kills_lose_nothing_in_postgresql(tmp_path: Path, own_server: Postgres) -> None:
    assert many(400, tmp_path, 4, own_server)["kills"] == 400
    own_server.check()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_is_lost_would_be_found(tmp_path: Path, own_server: Postgres) -> None:
    """The positive control: one acknowledged row is taken away, or half of what belongs together."""
    for url, run in (
        (f"sqlite:///{tmp_path / 'lost.db'}", None),
        (own_server.new_database(), own_server),
    ):
        with writing(url, 1) as (writer,):
            writer.begin("w0", 1)
            time.sleep(0.2)
            writer.kill()
            writer.end()
        said = writer.acknowledged
        check(url, said, 1)
        for statement in (
            "UPDATE turnout_state SET current = 1 WHERE current <> 1",
            "DELETE FROM turnout_events WHERE seq = (SELECT max(seq) FROM turnout_events)",
            "DELETE FROM turnout_documents WHERE kind = 'whole'",
        ):
            if run is None:
                with sqlite3.connect(url.removeprefix("sqlite:///")) as raw:
                    raw.execute(statement)
                raw.close()
            else:
                run.execute(statement, url.partition("@/")[2].partition("?")[0])
            with pytest.raises((AssertionError, IndexError, KeyError, Failure)):
                check(url, said, 1)
