"""The store in a database: SQLite or PostgreSQL, by the same queries."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, func, select
from sqlalchemy.exc import SQLAlchemyError

from turnout.deploy.store.connections import begin, connect
from turnout.deploy.store.migrations import STEPS, migrate, refuse_newer, version_of
from turnout.deploy.store.reading import DatabaseReading
from turnout.deploy.store.records import Lease
from turnout.deploy.store.store import EVENTS_KEPT, Store
from turnout.deploy.store.translate import failure_of
from turnout.deploy.store.writing import DatabaseTransaction


class DatabaseStore(Store):
    """Opens the store, and brings its schema up to date. As `open_store`."""

    def __init__(
        self, url: str = "", clock: Callable[[], float] | None = None, *, events_kept: int = EVENTS_KEPT
    ) -> None:
        self._connections, self._where = connect(url)
        self._clock = clock
        self._events_kept = events_kept
        try:
            with self._begun(writing=False) as connection:
                version = version_of(connection)
            refuse_newer(version)
            if version < len(STEPS):
                with self._begun(writing=True) as connection:
                    migrate(connection)
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"DatabaseStore({self._where})"

    @contextmanager
    def reading(self) -> Iterator[DatabaseReading]:
        with self._begun(writing=False) as connection:
            yield DatabaseReading(connection)

    @contextmanager
    def transaction(self, lease: Lease | None = None) -> Iterator[DatabaseTransaction]:
        with self._begun(writing=True) as connection:
            change = DatabaseTransaction(connection, lambda: self._now(connection), self._events_kept)
            if lease is not None:
                change.hold(lease)
            yield change

    def close(self) -> None:
        self._connections.dispose()

    @contextmanager
    def _begun(self, *, writing: bool) -> Iterator[Connection]:
        """One transaction, saved at its end. Whatever the database says against it becomes a failure of ours."""
        committing = False
        try:
            with begin(self._connections.connect(), writing=writing) as connection, connection.begin() as change:
                yield connection
                committing = writing
                change.commit()
        except SQLAlchemyError as error:
            failure = failure_of(error, self._where, committing=committing)
            if failure is None:
                raise
            raise failure from error

    def _now(self, connection: Connection) -> float:
        if self._clock is not None:
            return self._clock()
        if connection.dialect.name == "postgresql":  # one clock for all controllers, wherever they are
            return float(connection.execute(select(func.extract("epoch", func.clock_timestamp()))).scalar_one())
        return time.time()
