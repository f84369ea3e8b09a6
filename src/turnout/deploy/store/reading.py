"""The questions that the store answers, as queries on one connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import Connection, Row, Select, select

from turnout.deploy.store.failures import RevisionNotFound, StoreDamaged
from turnout.deploy.store.records import Change, Document, Event, Revision, digest_of, exact
from turnout.deploy.store.tables import CHANGES, DOCUMENTS, EVENTS, REVISIONS, STATE

_T = TypeVar("_T")


class DatabaseReading:
    """One look, for as long as its transaction lasts."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def current(self) -> Revision | None:
        query = select(REVISIONS).join(STATE, STATE.c.current == REVISIONS.c.number)
        found = self._connection.execute(query).one_or_none()
        return None if found is None else _revision(found)

    def revision(self, number: int) -> Revision:
        found = self._connection.execute(select(REVISIONS).where(REVISIONS.c.number == number)).one_or_none()
        if found is None:
            msg = f"there is no revision {number}"
            raise RevisionNotFound(msg)
        return _revision(found)

    def history(self, limit: int = 50, before: int | None = None) -> list[Change]:
        query = select(CHANGES).order_by(CHANGES.c.seq.desc()).limit(limit)
        if before is not None:
            query = query.where(CHANGES.c.seq < before)
        return self._all(query, Change)

    def document(self, kind: str, key: str) -> Document | None:
        exact(kind + key, "key")
        query = select(DOCUMENTS).where(DOCUMENTS.c.kind == kind, DOCUMENTS.c.key == key)
        found = self._connection.execute(query).one_or_none()
        return None if found is None else Document(*found)

    def documents(self, kind: str) -> list[Document]:
        # Sorted here: PostgreSQL would sort by the rules of some language.
        found = self._all(select(DOCUMENTS).where(DOCUMENTS.c.kind == kind), Document)
        return sorted(found, key=lambda document: document.key)

    def after(self, seq: int, limit: int = 1000) -> list[Event]:
        return self._all(select(EVENTS).where(EVENTS.c.seq > seq).order_by(EVENTS.c.seq).limit(limit), Event)

    def position(self) -> int:
        return int(self._connection.execute(select(STATE.c.position)).scalar_one())

    def _all(self, query: Select[Any], kind: Callable[..., _T]) -> list[_T]:
        return [kind(*found) for found in self._connection.execute(query)]


def _revision(found: Row[Any]) -> Revision:
    revision = Revision(*tuple(found))
    if digest_of(revision.document) != revision.digest:
        msg = f"revision {revision.number} is not what was written: its digest is another"
        raise StoreDamaged(msg)
    return revision
