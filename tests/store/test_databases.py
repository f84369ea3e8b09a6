"""What is particular to a store in a database: its place, who may read it, its schema, what it says when it cannot."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect, text

from tests.store.postgres import Postgres
from turnout.core.errors import Failure, InvalidInput
from turnout.deploy.store import connections, database, migrations, url
from turnout.deploy.store.database import DatabaseStore
from turnout.deploy.store.failures import (
    LeaseLost,
    StoreDamaged,
    StoreFull,
    StoreReadOnly,
    StoreRefused,
    StoreTooNew,
    StoreUnavailable,
)
from turnout.deploy.store.store import open_store
from turnout.deploy.store.tables import METADATA
from turnout.deploy.store.url import default_file, default_url, sqlite_file, without_password


def plain(where: str) -> str:
    """The URL as SQLAlchemy wants it."""
    return where.replace("postgresql://", "postgresql+psycopg://")


def run(where: str, statement: str) -> None:
    engine = create_engine(plain(where))
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


# -- where it is ------------------------------------------------------------------------------------------------------


def test_the_default_is_a_file_of_the_user_s_own_and_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURNOUT_HOME", str(tmp_path / "home"))
    assert default_file("8080") == tmp_path / "home" / "store" / "8080.db"
    monkeypatch.delenv("TURNOUT_HOME")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert default_file() == tmp_path / "state" / "turnout" / "store" / "store.db"
    assert sqlite_file("") == sqlite_file(default_url()) == default_file()
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_file() == tmp_path / ".local" / "state" / "turnout" / "store" / "store.db"


def test_only_its_owner_may_read_the_file(tmp_path: Path) -> None:
    file = tmp_path / "new" / "store" / "store.db"
    before = os.umask(0)
    try:
        store = open_store(f"sqlite:///{file}")
        store.append("k", "k")
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [file.parent, *file.parent.iterdir()]}
        store.close()
        file.chmod(0o644)
        open_store(f"sqlite:///{file}").close()
    finally:
        os.umask(before)
    assert modes == {"store": 0o700, "store.db": 0o600, "store.db-wal": 0o600, "store.db-shm": 0o600}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "where", ["mysql://host/db", "sqlite://", "sqlite:///:memory:", "sqlite:///a?mode=ro", "store.db", "postgresql://"]
)
def test_a_url_that_names_no_lasting_store_is_refused_with_one_that_does(where: str) -> None:
    with pytest.raises(
        InvalidInput, match=r"Example that works: sqlite:////var/lib/turnout/store\.db or postgresql://"
    ):
        open_store(where)


def test_a_password_is_never_shown() -> None:
    for where in (
        "postgresql://me:secret@127.0.0.1:1/db",
        "postgresql://me:se:cr@et@127.0.0.1:1/db",
        "postgresql://127.0.0.1:1/db?user=me&password=secret&connect_timeout=1",
        "postgresql://me:secret@[broken",
    ):
        assert "secret" not in without_password(where)
        assert "cr@et" not in without_password(where)
        with pytest.raises(Failure) as raised:
            open_store(where)
        assert "secret" not in raised.value.message
        assert "cr@et" not in raised.value.message


def test_a_server_that_is_not_there_is_said_so_and_may_be_tried_again() -> None:
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:1/db cannot be reached") as raised:
        open_store("postgresql://127.0.0.1:1/db")
    assert raised.value.retryable
    assert not raised.value.uncertain


def test_nothing_is_imported_before_a_store_is_opened() -> None:
    script = (
        "import json, sys; import turnout.deploy.store.store, turnout.deploy.store.records, "
        "turnout.deploy.store.failures, turnout.deploy.store.url; print(json.dumps(list(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"sqlalchemy", "psycopg", "sqlite3"} & set(json.loads(ended.stdout))


def test_one_place_speaks_to_sqlalchemy() -> None:
    source = Path(url.__file__).parents[2]
    speakers = {path.parent.name for path in source.rglob("*.py") if "sqlalchemy" in path.read_text()}
    assert speakers == {"store"}


# -- its schema -------------------------------------------------------------------------------------------------------


def test_the_queries_know_the_tables_that_the_migrations_make(url: str) -> None:
    open_store(url).close()
    engine = create_engine(plain(url))
    found = inspect(engine)
    assert set(found.get_table_names()) == {*METADATA.tables, "turnout_schema"}
    for name, table in METADATA.tables.items():
        columns = {column["name"]: column for column in found.get_columns(name)}
        assert list(columns) == [column.name for column in table.columns], name
        assert found.get_pk_constraint(name)["constrained_columns"] == [column.name for column in table.primary_key]
        for column in table.columns:
            there = columns[column.name]
            assert str(there["type"]) in {str(column.type), "REAL", "DOUBLE PRECISION"}
            assert (str(there["type"]) in {"REAL", "DOUBLE PRECISION"}) == (str(column.type) == "DOUBLE")
            assert there["nullable"] == column.nullable or column.primary_key, f"{name}.{column.name}"
    engine.dispose()


def test_an_older_schema_is_brought_up_to_date_with_all_that_is_in_it(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(url)
    made = [store.propose(json.dumps({"n": number}), author="ann") for number in range(3)]
    store.put("rollout", "fraud", "{}")
    store.close()
    more = (
        *migrations.STEPS,
        ("ALTER TABLE turnout_events ADD COLUMN note TEXT NOT NULL DEFAULT 'none'",),
        ("CREATE TABLE turnout_more (id BIGINT PRIMARY KEY)", "INSERT INTO turnout_more VALUES (7)"),
    )
    engine = create_engine(plain(url))
    for _ in range(2):  # the second finds nothing to do
        with engine.begin() as connection:
            migrations.migrate(connection, more)
            assert migrations.version_of(connection) == len(more)
            assert connection.execute(text("SELECT id FROM turnout_more")).scalars().all() == [7]
    engine.dispose()
    monkeypatch.setattr(migrations, "STEPS", more)
    monkeypatch.setattr(database, "STEPS", more)
    monkeypatch.setattr(database, "refuse_newer", lambda version: migrations.refuse_newer(version, len(more)))
    store = open_store(url)
    assert [store.revision(number) for number in (1, 2, 3)] == made
    assert store.document("rollout", "fraud") is not None
    store.close()


def test_a_migration_that_fails_leaves_the_schema_as_it_was(url: str) -> None:
    store = open_store(url)
    store.propose("{}", author="ann")
    store.close()
    engine = create_engine(plain(url))
    if engine.dialect.name == "sqlite":
        engine.dispose()
        engine = connections._sqlite(Path(url.removeprefix("sqlite:///")))
    broken = (*migrations.STEPS, ("CREATE TABLE turnout_more (id BIGINT)", "INSERT INTO turnout_nowhere VALUES (1)"))
    with pytest.raises(Exception, match="turnout_nowhere"), engine.connect() as raw:
        connection = connections.begin(raw, writing=True)
        with connection.begin():
            migrations.migrate(connection, broken)
    with engine.begin() as connection:
        assert migrations.version_of(connection) == len(migrations.STEPS)
        assert not inspect(connection).has_table("turnout_more")
    engine.dispose()
    store = open_store(url)
    assert len(store.history()) == 1
    store.close()


def test_a_newer_schema_is_refused_and_left_alone(url: str) -> None:
    open_store(url).close()
    run(url, "UPDATE turnout_schema SET version = 99")
    with pytest.raises(StoreTooNew, match="has schema version 99, and this Turnout knows 1 at most: a newer Turnout"):
        open_store(url)
    run(url, "UPDATE turnout_schema SET version = 1")
    open_store(url).close()


def test_controllers_that_start_at_once_make_one_schema(url: str) -> None:
    starting = threading.Barrier(6)

    def start(number: int) -> None:
        starting.wait(10)
        store = DatabaseStore(url)
        store.append("started", str(number))
        store.close()

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(start, range(6)))
    store = open_store(url)
    assert [event.seq for event in store.after(0)] == [1, 2, 3, 4, 5, 6]
    store.close()


# -- when it cannot ---------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def store(file: Path) -> Iterator[DatabaseStore]:
    made = DatabaseStore(f"sqlite:///{file}")
    made.propose('{"n": 0}', author="ann")
    yield made
    made.close()


def database_of(where: str) -> str:
    """The name of the database in a PostgreSQL's URL."""
    return where.partition("@/")[2].partition("?")[0]


def fill(store: DatabaseStore) -> int:
    """Writes until there is no room; how often that went well."""
    for number in range(10_000):
        try:
            store.propose(json.dumps({"n": number, "more": "x" * 20_000}), author="ann")
        except StoreFull:
            return number
    raise AssertionError("the disk was never full")


def test_a_full_disk_refuses_changes_whole_and_goes_on_reading(store: DatabaseStore, file: Path) -> None:
    with store._connections.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 40}")
    written = fill(store)
    with pytest.raises(StoreFull, match="no space left for the store; the change was not made"):
        store.propose("x" * 50_000, author="ann")
    current = store.current()
    assert current is not None
    assert current.number == written + 1
    assert [change.revision for change in store.history(100)] == list(range(written + 1, 0, -1))
    assert len(store.after(0)) == 0
    store.close()
    again = open_store(f"sqlite:///{file}")
    assert again.current() == current
    assert again.propose("{}", author="ann").number == written + 2, "with space again, it goes on where it was"
    again.close()


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    """A file system of two megabytes, where one may be mounted."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no file system may be mounted here")
    try:
        store = DatabaseStore(f"sqlite:///{place / 'store.db'}")
        (place / "ballast").write_bytes(b"x" * 300_000)
        written = fill(store)
        assert written
        current = store.current()
        store.close()
        again = DatabaseStore(f"sqlite:///{place / 'store.db'}")
        assert again.current() == current
        (place / "ballast").unlink()
        assert again.propose("{}", author="ann").number == written + 1
        again.close()
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        reading = DatabaseStore(f"sqlite:///{place / 'store.db'}")
        assert reading.revision(written + 1).document == "{}"
        with pytest.raises(StoreReadOnly, match="can be read but not written"):
            reading.append("k", "k")
        reading.close()
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_store_that_may_only_be_read_says_so(url: str, postgres: Postgres) -> None:
    made = DatabaseStore(url)
    made.propose("{}", author="ann")
    if url.startswith("postgresql"):
        name = database_of(url)
        postgres.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        made.close()
        made = DatabaseStore(url)
    else:
        with made._connections.connect() as connection:
            connection.exec_driver_sql("PRAGMA query_only = 1")
    with pytest.raises(StoreReadOnly, match="can be read but not written; the change was not made") as raised:
        made.append("k", "k")
    assert not raised.value.retryable
    current = made.current()
    assert current is not None
    assert current.number == 1
    made.close()


def test_a_store_that_another_holds_is_said_to_be_locked(
    store: DatabaseStore, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "LOCK_SECONDS", 0.05)
    late = DatabaseStore(f"sqlite:///{file}")
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="locked by another process") as raised:
        late.append("k", "k")
    assert raised.value.retryable
    assert late.position() == 1, "reading waits for nobody"
    other.execute("COMMIT")
    other.close()
    assert late.append("k", "k").seq == 1
    late.close()


def test_a_file_that_is_gone_takes_no_change_and_is_found_again(store: DatabaseStore, file: Path) -> None:
    before = store.propose("one", author="a")
    moved = {path: path.with_name(f"{path.name}.moved") for path in file.parent.glob(f"{file.name}*")}
    for path, other in moved.items():
        path.rename(other)
    for _ in range(3):
        with pytest.raises(StoreRefused, match=r"gone|cannot be opened"):
            store.propose("two", author="a")
    threads = [
        threading.Thread(target=lambda: suppressed(store)) for _ in range(4)
    ]  # more than the connections that there are
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not file.exists(), "an empty store would hide what is lost"
    for path, other in moved.items():
        other.rename(path)
    assert store.current() == before
    assert store.propose("two", author="a").parent == before.number


def suppressed(store: DatabaseStore) -> None:
    with contextlib.suppress(StoreRefused):
        store.current()


def test_a_file_that_is_no_store_is_not_written_over(file: Path) -> None:
    file.write_bytes(b"my only copy of something" * 1000)
    with pytest.raises(StoreDamaged, match="damaged"):
        open_store(f"sqlite:///{file}")
    assert file.read_bytes() == b"my only copy of something" * 1000


def test_a_revision_that_was_altered_is_not_served(url: str) -> None:
    store = open_store(url)
    store.propose('{"traffic": {"v7": 100}}', author="ann")
    run(url, 'UPDATE turnout_revisions SET document = \'{"traffic": {"v6": 100}}\'')
    with pytest.raises(StoreDamaged, match="revision 1 is not what was written"):
        store.current()
    store.close()


def test_a_place_that_cannot_be_made_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreRefused, match="cannot be made: "):
        open_store(f"sqlite:///{tmp_path}/file/store.db")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreRefused):
        open_store(f"sqlite:///{tmp_path}/link")
    assert not (tmp_path / "elsewhere").exists()


# -- PostgreSQL -------------------------------------------------------------------------------------------------------


def test_a_server_that_is_started_again_is_found_again() -> None:
    server = Postgres()
    try:
        store = open_store(server.new_database())
        made = store.propose("{}", author="ann")
        lease = store.lease("leader", "a", 60)
        server.kill()
        for act in (store.current, lambda: store.append("k", "k"), store.position):
            with pytest.raises(StoreUnavailable, match="cannot be reached"):
                act()
        server.start()
        assert store.current() == made
        assert store.append("k", "k", lease=lease).seq == 1
        store.close()
    finally:
        server.close()


def test_what_was_acknowledged_is_on_the_disk_whatever_the_server_s_default_is(postgres: Postgres) -> None:
    where = postgres.new_database()
    name = database_of(where)
    postgres.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
    store = DatabaseStore(where)
    with store._begun(writing=True) as connection:
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar_one() == "on"
        assert connection.exec_driver_sql("SHOW transaction_isolation").scalar_one() == "read committed"
        assert connection.exec_driver_sql("SHOW lock_timeout").scalar_one() == "5s"
    store.close()


def test_a_lease_runs_by_the_server_s_clock(postgres: Postgres) -> None:
    where = postgres.new_database()
    store = open_store(where)
    lease = store.lease("leader", "a", 0.0)
    assert store.lease("leader", "b", 60) is not None
    assert store.lease("leader", "c", 60) is None
    assert lease is not None
    with pytest.raises(LeaseLost):
        store.append("k", "k", lease=lease)
    store.close()


def test_a_writer_that_hangs_holds_nobody_up_for_ever(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "LOCK_SECONDS", 0.2)
    store = DatabaseStore(postgres.new_database())
    with store.transaction() as change:
        change.append("k", "first")
        with pytest.raises(StoreUnavailable, match="locked by another process"):
            store.append("k", "second")
    assert [event.subject for event in store.after(0)] == ["first"]
    store.close()
