"""A store that forgets: what the real ones do, in memory, for tests and simulations of whatever uses one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from threading import RLock

from turnout.core.errors import Conflict
from turnout.deploy.store.failures import LeaseLost, RevisionNotFound
from turnout.deploy.store.records import Change, Document, Event, Lease, Revision, conflict, digest_of, exact, shown
from turnout.deploy.store.store import EVENTS_KEPT, Store


@dataclass
class Content:
    """All that a store holds, after one transaction. leases: by name, with the time each was given."""

    current: int | None = None
    position: int = 0
    seq: int = 0
    revisions: dict[int, Revision] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    documents: dict[tuple[str, str], Document] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    leases: dict[str, tuple[Lease, float]] = field(default_factory=dict)

    def copy(self) -> Content:
        """The same, to be changed without changing this."""
        return replace(
            self,
            revisions=dict(self.revisions),
            changes=list(self.changes),
            documents=dict(self.documents),
            events=list(self.events),
            leases=dict(self.leases),
        )


class MemoryReading:
    """One look at what a store holds."""

    def __init__(self, content: Content) -> None:
        self.content = content

    def current(self) -> Revision | None:
        number = self.content.current
        return None if number is None else self.content.revisions[number]

    def revision(self, number: int) -> Revision:
        if number not in self.content.revisions:
            msg = f"there is no revision {number}"
            raise RevisionNotFound(msg)
        return self.content.revisions[number]

    def history(self, limit: int = 50, before: int | None = None) -> list[Change]:
        newest_first = reversed(self.content.changes)
        return [change for change in newest_first if before is None or change.seq < before][:limit]

    def document(self, kind: str, key: str) -> Document | None:
        exact(kind + key, "key")
        return self.content.documents.get((kind, key))

    def documents(self, kind: str) -> list[Document]:
        return [document for name, document in sorted(self.content.documents.items()) if name[0] == kind]

    def after(self, seq: int, limit: int = 1000) -> list[Event]:
        return [event for event in self.content.events if event.seq > seq][:limit]

    def position(self) -> int:
        return self.content.position


class MemoryTransaction(MemoryReading):
    """Changes a copy, which takes the place of the original when all went well."""

    def __init__(self, content: Content, now: Callable[[], float], events_kept: int) -> None:
        super().__init__(content)
        self._now = now
        self._events_kept = events_kept
        self._position = content.position + 1

    def propose(
        self, document: str, *, author: str, reason: str = "", diff: str = "", base: int | None = None
    ) -> Revision:
        exact(document, "document")
        current, digest = self.current(), digest_of(document)
        if current is not None and current.digest == digest:
            return current
        self._start_from(base)
        number = len(self.content.revisions) + 1
        parent = self.content.current
        revision = Revision(number, parent, document, digest, shown(author), shown(reason), shown(diff), self._now())
        self.content.revisions[number] = revision
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
        if number != self.content.current:
            self._start_from(base)
            self._point("move", revision, author, reason, diff, self._now())
        return revision

    def _start_from(self, base: int | None) -> None:
        if base is None or base == (self.content.current or 0):
            return
        since: list[Change] = []
        for change in reversed(self.content.changes):
            if change.revision == base:
                break
            since.append(change)
        raise conflict(base, self.content.current, since)

    def _point(self, act: str, revision: Revision, author: str, reason: str, diff: str, at: float) -> None:
        seq, before = len(self.content.changes) + 1, self.content.current
        told = (shown(author), shown(reason), shown(diff))
        self.content.changes.append(Change(seq, act, revision.number, before, *told, at))
        self.content.current, self.content.position = revision.number, self._position

    def put(self, kind: str, key: str, value: str, version: int | None = None) -> Document:
        self._expect(kind, key, version)
        document = Document(kind, key, exact(value, "value"), self._position, self._now())
        self.content.documents[kind, key] = document
        self.content.position = self._position
        return document

    def delete(self, kind: str, key: str, version: int | None = None) -> None:
        self._expect(kind, key, version)
        if self.content.documents.pop((kind, key), None) is not None:
            self.content.position = self._position

    def _expect(self, kind: str, key: str, version: int | None) -> None:
        found = self.document(kind, key)
        there = 0 if found is None else found.version
        if version is not None and version != there:
            msg = f"{kind} {key} was written in the meantime: {there} is there, and this change starts from {version}"
            raise Conflict(msg)

    def append(self, kind: str, subject: str, data: str = "{}") -> Event:
        exact(kind + subject, "event")
        event = Event(self.content.seq + 1, kind, subject, exact(data, "data"), self._now())
        self.content.events.append(event)
        self.content.seq, self.content.position = event.seq, self._position
        if event.seq % max(1, self._events_kept // 10) == 0:
            self.content.events = self.content.events[-self._events_kept :]
        return event

    def lease(self, name: str, holder: str, seconds: float) -> Lease | None:
        now = self._now()
        found, since = self.content.leases.get(name, (Lease(name, holder, 0, 0.0), now))
        if found.holder != holder and 0 <= now - since < found.seconds:
            return None
        given = Lease(name, holder, found.token + 1, seconds)
        self.content.leases[name] = (given, now)
        return given

    def renew(self, lease: Lease) -> Lease:
        self.hold(lease)
        self.content.leases[lease.name] = (lease, self._now())
        return lease

    def release(self, lease: Lease) -> None:
        found, since = self.content.leases.get(lease.name, (None, 0.0))
        if found is not None and found.token == lease.token:
            self.content.leases[lease.name] = (Lease(lease.name, "", lease.token + 1, 0.0), since)

    def hold(self, lease: Lease) -> None:
        """Raises LeaseLost unless nobody has got this lease since."""
        found, _ = self.content.leases.get(lease.name, (None, 0.0))
        if found is None or found.token != lease.token:
            who = found.holder if found is not None and found.holder else "nobody"
            msg = f"{lease.holder} does not lead any more ({lease.name} is held by {who}); nothing was changed"
            raise LeaseLost(msg)


class MemoryStore(Store):
    """A store in memory. clock: Unix seconds. `save` is where a simulation lets saving fail."""

    def __init__(self, clock: Callable[[], float] = time.time, *, events_kept: int = EVENTS_KEPT) -> None:
        self.content = Content()
        self._clock = clock
        self._events_kept = events_kept
        self._lock = RLock()

    def __repr__(self) -> str:
        return f"MemoryStore(revision {self.content.current})"

    @contextmanager
    def reading(self) -> Iterator[MemoryReading]:
        yield MemoryReading(self.content)

    @contextmanager
    def transaction(self, lease: Lease | None = None) -> Iterator[MemoryTransaction]:
        with self._lock:
            change = MemoryTransaction(self.content.copy(), self._clock, self._events_kept)
            if lease is not None:
                change.hold(lease)
            yield change
            self.save(change.content)

    def save(self, content: Content) -> None:
        """Makes a transaction's outcome what the store holds."""
        self.content = content

    def close(self) -> None:
        """Nothing is open."""
