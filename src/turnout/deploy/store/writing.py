"""The changes that the store makes, on one connection whose transaction ends with all of them or none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from turnout.core.errors import Conflict
from turnout.deploy.store.failures import LeaseLost, RevisionNotFound
from turnout.deploy.store.reading import DatabaseReading
from turnout.deploy.store.records import (
    Change,
    Document,
    Event,
    Lease,
    Revision,
    conflict,
    digest_of,
    exact,
    shown,
)
from turnout.deploy.store.tables import CHANGES, DOCUMENTS, EVENTS, LEASES, REVISIONS, STATE

_CHANGES_LOOKED_AT = 100


class DatabaseTransaction(DatabaseReading):
    """Holds the one row that every change locks, so what it reads stays true until it ends."""

    def __init__(self, connection: Connection, now: Callable[[], float], events_kept: int) -> None:
        super().__init__(connection)
        self._state: dict[str, Any] = dict(connection.execute(select(STATE).with_for_update()).one()._mapping)  # noqa: SLF001  SQLAlchemy's own name for a row's public form
        self._position = int(self._state["position"]) + 1
        self._now = now
        self._events_kept = events_kept

    # -- revisions ----------------------------------------------------------------------------------------

    def propose(
        self, document: str, *, author: str, reason: str = "", diff: str = "", base: int | None = None
    ) -> Revision:
        exact(document, "document")
        digest = digest_of(document)
        current = self.current()
        if current is not None and current.digest == digest:
            return current
        self._start_from(base)
        number = int(self._state["revisions"]) + 1
        parent = None if current is None else current.number
        revision = Revision(number, parent, document, digest, shown(author), shown(reason), shown(diff), self._now())
        self._insert(REVISIONS, revision)
        self._point("apply", revision, author, reason, diff, revision.at)
        return revision

    def undo(self, *, author: str, reason: str = "", diff: str = "", base: int | None = None) -> Revision:
        self._start_from(base)
        current = self.current()
        if current is None or current.parent is None:
            msg = "there is nothing to undo: " + ("nothing was applied yet" if current is None else "this is the first")
            raise RevisionNotFound(msg)
        revision = self.revision(current.parent)
        self._point("undo", revision, author, reason, diff, self._now())
        return revision

    def move_to(
        self, number: int, *, author: str, reason: str = "", diff: str = "", base: int | None = None
    ) -> Revision:
        revision = self.revision(number)
        if number != self._state["current"]:
            self._start_from(base)
            self._point("move", revision, author, reason, diff, self._now())
        return revision

    def _start_from(self, base: int | None) -> None:
        current = self._state["current"]
        if base is None or base == (current or 0):
            return
        since: list[Change] = []
        for change in self.history(_CHANGES_LOOKED_AT):
            if change.revision == base:
                break
            since.append(change)
        raise conflict(base, current, since)

    def _point(self, act: str, revision: Revision, author: str, reason: str, diff: str, at: float) -> None:
        seq, before = int(self._state["changes"]) + 1, self._state["current"]
        number = revision.number
        self._insert(CHANGES, Change(seq, act, number, before, shown(author), shown(reason), shown(diff), at))
        self._set(current=number, revisions=max(number, int(self._state["revisions"])), changes=seq)

    # -- small documents ----------------------------------------------------------------------------------

    def put(self, kind: str, key: str, value: str, version: int | None = None) -> Document:
        found = self._expect(kind, key, version)
        document = Document(kind, key, exact(value, "value"), self._position, self._now())
        if found is None:
            self._insert(DOCUMENTS, document)
        else:
            row = update(DOCUMENTS).where(DOCUMENTS.c.kind == kind, DOCUMENTS.c.key == key)
            self._connection.execute(row.values(value=value, version=document.version, at=document.at))
        self._set()
        return document

    def delete(self, kind: str, key: str, version: int | None = None) -> None:
        if self._expect(kind, key, version) is not None:
            self._connection.execute(delete(DOCUMENTS).where(DOCUMENTS.c.kind == kind, DOCUMENTS.c.key == key))
            self._set()

    def _expect(self, kind: str, key: str, version: int | None) -> Document | None:
        found = self.document(kind, key)
        there = 0 if found is None else found.version
        if version is not None and version != there:
            state = "is not there any more" if found is None else "was written in the meantime"
            msg = f"{kind} {key} {state}: version {there} is there, and this change starts from {version}"
            raise Conflict(msg)
        return found

    # -- events -------------------------------------------------------------------------------------------

    def append(self, kind: str, subject: str, data: str = "{}") -> Event:
        exact(kind + subject, "event")
        event = Event(int(self._state["events"]) + 1, kind, subject, exact(data, "data"), self._now())
        self._insert(EVENTS, event)
        self._set(events=event.seq)
        if event.seq % max(1, self._events_kept // 10) == 0:
            self._connection.execute(delete(EVENTS).where(EVENTS.c.seq <= event.seq - self._events_kept))
        return event

    # -- leases -------------------------------------------------------------------------------------------

    def lease(self, name: str, holder: str, seconds: float) -> Lease | None:
        found = self._connection.execute(select(LEASES).where(LEASES.c.name == name)).one_or_none()
        now = self._now()
        # A time before it was given is the clock's doing: such a lease has run out too, or it might last for hours.
        if found is not None and found.holder != holder and 0 <= now - found.since < found.seconds:
            return None
        given = Lease(name, holder, 1 if found is None else int(found.token) + 1, seconds)
        values = {"holder": holder, "token": given.token, "since": now, "seconds": seconds}
        if found is None:
            self._connection.execute(insert(LEASES).values(name=name, **values))
        else:
            self._connection.execute(update(LEASES).where(LEASES.c.name == name).values(**values))
        return given

    def renew(self, lease: Lease) -> Lease:
        self.hold(lease)
        self._connection.execute(
            update(LEASES).where(LEASES.c.name == lease.name).values(since=self._now(), seconds=lease.seconds)
        )
        return lease

    def release(self, lease: Lease) -> None:
        own = update(LEASES).where(LEASES.c.name == lease.name, LEASES.c.token == lease.token)
        # The next token belongs to nobody: what the holder still has on its way is refused from now on.
        self._connection.execute(own.values(holder="", token=lease.token + 1, seconds=0.0))

    def hold(self, lease: Lease) -> None:
        """Raises LeaseLost unless nobody has got this lease since."""
        found = self._connection.execute(select(LEASES).where(LEASES.c.name == lease.name)).one_or_none()
        if found is None or found.token != lease.token:
            who = found.holder if found is not None and found.holder else "nobody"
            msg = f"{lease.holder} does not lead any more ({lease.name} is held by {who}); nothing was changed"
            raise LeaseLost(msg)

    # -- rows ---------------------------------------------------------------------------------------------

    def _insert(self, table: Any, record: Any) -> None:
        self._connection.execute(insert(table).values({name: getattr(record, name) for name in record.__slots__}))

    def _set(self, **values: int) -> None:
        self._state.update(values)
        self._connection.execute(update(STATE).values(position=self._position, **values))
