"""How the store's database is opened: the file and who may read it, and what is promised when it says "saved".

With the queries beside it, this is what speaks to SQLAlchemy, and through it to SQLite and PostgreSQL.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import make_url

from turnout.core.errors import InvalidInput, MissingExtra
from turnout.deploy.store.failures import StoreReadOnly, StoreRefused
from turnout.deploy.store.url import sqlite_file, without_password

#: How long one waits for another that writes, in seconds.
LOCK_SECONDS = 5.0
_CONNECT_SECONDS = 5
#: What a transaction may take altogether at a server, so that one that hangs is a failure and not a hung controller.
_STATEMENT_SECONDS = 15.0
_WRITING = "turnout_writing"
_FILE = "turnout_file"


def connect(url: str) -> tuple[Engine, str]:
    """The connections to a store, none of them made yet, and what the store is called in messages."""
    file = sqlite_file(url)
    if file is None:
        return _postgresql(url), without_password(url)
    _make_private(file)
    return _sqlite(file), str(file)


def begin(connection: Connection, *, writing: bool) -> Connection:
    """Says what the transaction is for, before it begins: a writer is alone from its first statement on."""
    if connection.dialect.name == "postgresql":
        # A writer waits for the row that all lock, and has to see then what the one before it has written; a reader
        # sees one moment.
        level = "READ COMMITTED" if writing else "REPEATABLE READ"
        return connection.execution_options(isolation_level=level, turnout_writing=writing)
    return connection.execution_options(turnout_writing=writing)


def _make_private(file: Path) -> None:
    """The file, which only its owner may read, in a directory that is made as private where there is none."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if file.exists():
            if not os.access(file, os.W_OK):
                return  # what is there can still be read
            with contextlib.suppress(PermissionError):  # another user's, who let us write
                file.chmod(0o600)
            return
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        directory = os.open(file.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(directory)  # the name has to survive a power cut as what is written under it does
        finally:
            os.close(directory)
    except OSError as error:
        kind = StoreReadOnly if isinstance(error, PermissionError) else StoreRefused
        msg = f"the store's file {file} cannot be made: {error.strerror}"
        raise kind(msg) from None


def _sqlite(file: Path) -> Engine:
    import sqlite3

    def connected() -> sqlite3.Connection:
        # Not made anew where it is gone: an empty store is none.
        place = f"{file.absolute().as_uri()}?mode=rw"
        return sqlite3.connect(place, timeout=LOCK_SECONDS, check_same_thread=False, uri=True)

    made = sqlalchemy.create_engine(
        sqlalchemy.URL.create("sqlite", database=str(file)),
        creator=connected,
        pool_size=4,
        max_overflow=12,
        pool_timeout=LOCK_SECONDS,
    )

    @event.listens_for(made, "connect")
    def opened(raw: Any, _record: Any) -> None:
        raw.isolation_level = None  # the module would begin transactions by itself, and later than we need
        cursor = raw.cursor()
        with contextlib.suppress(sqlite3.OperationalError):  # of one that may only be read
            cursor.execute("PRAGMA journal_mode=WAL")
        # FULL: what was acknowledged is on the disk, also when the power goes. The other is the same for macOS.
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA fullfsync=1")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    @event.listens_for(made, "checkout")
    def taken(_raw: Any, record: Any, _proxy: Any) -> None:
        """What is written to a file that has no name any more would be acknowledged, and gone with this process."""
        there = _identity(file)
        if there is None:
            msg = f"the store's file {file} is gone; nothing was changed. Put it back, or start the server again"
            raise StoreRefused(msg)
        if record.info.setdefault(_FILE, there) != there:
            raise sqlalchemy.exc.DisconnectionError  # another file has its place: a new connection is made

    @event.listens_for(made, "begin")
    def began(connection: Connection) -> None:
        writing = connection.get_execution_options().get(_WRITING)
        # Not DEFERRED: a reader that becomes a writer would be refused, without waiting, if another wrote meanwhile.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")

    return made


def _identity(file: Path) -> tuple[int, int] | None:
    """Tells a file from another of its name."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _postgresql(url: str) -> Engine:
    try:
        address = make_url(url)
    except sqlalchemy.exc.ArgumentError:
        raise InvalidInput(
            "this is no URL", field="store", got=without_password(url), example="postgresql://user@host:5432/database"
        ) from None
    try:
        made = sqlalchemy.create_engine(
            address.set(drivername="postgresql+psycopg"),
            connect_args={
                "connect_timeout": _CONNECT_SECONDS,
                "application_name": "turnout",
                # A server that is cut off without a word is noticed in seconds, not in hours.
                "tcp_user_timeout": int(_STATEMENT_SECONDS * 1000),
                "keepalives_idle": 5,
                "keepalives_interval": 2,
                "keepalives_count": 3,
                "prepare_threshold": None,  # a pooler in front may give the next transaction another session
            },
            pool_pre_ping=True,
            pool_size=4,
            max_overflow=4,
            pool_timeout=LOCK_SECONDS,
        )
    except ModuleNotFoundError:
        raise MissingExtra(
            "a store in PostgreSQL needs psycopg. Install it with: pip install 'turnout[postgres]'"
        ) from None

    @event.listens_for(made, "begin")
    def began(connection: Connection) -> None:
        # For this transaction only, so that it holds behind a pooler too, whatever the server's defaults are.
        if connection.get_execution_options().get(_WRITING):
            connection.exec_driver_sql(
                "SELECT set_config('synchronous_commit', CASE current_setting('synchronous_commit') "
                "WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, true), "
                f"set_config('lock_timeout', '{LOCK_SECONDS:g}s', true), "
                f"set_config('statement_timeout', '{_STATEMENT_SECONDS:g}s', true), "
                f"set_config('idle_in_transaction_session_timeout', '{_STATEMENT_SECONDS:g}s', true)"
            )

    return made
