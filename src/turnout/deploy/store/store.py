"""The store of the control plane: what it does, whatever keeps it. All of it blocks: call it in a thread."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from turnout.deploy.store.records import Change, Document, Event, Lease, Revision

#: As many events are kept, and at most a tenth more.
EVENTS_KEPT = 10_000


class Reading(Protocol):
    """One consistent look at the store. Raises StoreUnavailable or StoreDamaged."""

    def current(self) -> Revision | None:
        """The revision that is in force; None before the first."""

    def revision(self, number: int) -> Revision:
        """Any revision. Raises RevisionNotFound."""

    def history(self, limit: int = 50, before: int | None = None) -> list[Change]:
        """The newest changes first; `before` is the seq of the oldest one seen so far."""

    def document(self, kind: str, key: str) -> Document | None:
        """A small document, None where there is none."""

    def documents(self, kind: str) -> list[Document]:
        """All of a kind, in the order of their keys."""

    def after(self, seq: int, limit: int = 1000) -> list[Event]:
        """The events that came after that one, oldest first. A first seq above seq + 1 says that some were dropped."""

    def position(self) -> int:
        """Grows with each transaction that changed a revision, a document or an event: whether to look again."""


class Transaction(Reading, Protocol):
    """One change: all of it is saved when the `with` block ends, or nothing of it."""

    def propose(
        self, document: str, *, author: str, reason: str = "", diff: str = "", base: int | None = None
    ) -> Revision:
        """Makes a new revision and makes it current.

        base: the number of the revision that the document was made from, 0 for none; raises Conflict, which says
        what was changed since, by whom and when, if another is current. A document that equals the current one
        changes nothing and gives that, so that a caller who got no answer may ask again.
        """

    def undo(self, *, author: str, reason: str = "", diff: str = "", base: int | None = None) -> Revision:
        """Moves the pointer to the parent of the current revision. Raises RevisionNotFound where there is none."""

    def move_to(
        self, number: int, *, author: str, reason: str = "", diff: str = "", base: int | None = None
    ) -> Revision:
        """Moves the pointer to any revision; to the current one it changes nothing. Raises RevisionNotFound."""

    def put(self, kind: str, key: str, value: str, version: int | None = None) -> Document:
        """Writes a small document. version: which one is to be replaced, 0 for none, None for any. Raises Conflict."""

    def delete(self, kind: str, key: str, version: int | None = None) -> None:
        """Removes a small document; none being there is no failure, unless a version is given. Raises Conflict."""

    def append(self, kind: str, subject: str, data: str = "{}") -> Event:
        """Adds an event, and drops the oldest where there are too many."""

    def lease(self, name: str, holder: str, seconds: float) -> Lease | None:
        """Gives a lease that is free, has run out, or is the holder's own; None while another has it.

        holder: what a controller is called across its restarts. Who asks for what is already theirs gets a new token,
        so that what is left of the process before cannot write any more.
        """

    def renew(self, lease: Lease) -> Lease:
        """Gives it for as long again, from now. Raises LeaseLost once another has taken it."""

    def release(self, lease: Lease) -> None:
        """Gives it back; nothing happens if another has it already."""


class Store(ABC):
    """A store. Its methods are transactions of one step; `transaction` makes one of several.

    Any method may raise StoreUnavailable or StoreDamaged. Threads may share a store.
    """

    @abstractmethod
    def reading(self) -> AbstractContextManager[Reading]:
        """One consistent look."""

    @abstractmethod
    def transaction(self, lease: Lease | None = None) -> AbstractContextManager[Transaction]:
        """One change. With a lease, it is made only while nobody else has got that one; else raises LeaseLost."""

    @abstractmethod
    def close(self) -> None:
        """Lets go of files and connections."""

    def current(self) -> Revision | None:
        """As `Reading.current`."""
        with self.reading() as reading:
            return reading.current()

    def revision(self, number: int) -> Revision:
        """As `Reading.revision`."""
        with self.reading() as reading:
            return reading.revision(number)

    def history(self, limit: int = 50, before: int | None = None) -> list[Change]:
        """As `Reading.history`."""
        with self.reading() as reading:
            return reading.history(limit, before)

    def document(self, kind: str, key: str) -> Document | None:
        """As `Reading.document`."""
        with self.reading() as reading:
            return reading.document(kind, key)

    def documents(self, kind: str) -> list[Document]:
        """As `Reading.documents`."""
        with self.reading() as reading:
            return reading.documents(kind)

    def after(self, seq: int, limit: int = 1000) -> list[Event]:
        """As `Reading.after`."""
        with self.reading() as reading:
            return reading.after(seq, limit)

    def position(self) -> int:
        """As `Reading.position`."""
        with self.reading() as reading:
            return reading.position()

    def propose(
        self,
        document: str,
        *,
        author: str,
        reason: str = "",
        diff: str = "",
        base: int | None = None,
        lease: Lease | None = None,
    ) -> Revision:
        """As `Transaction.propose`."""
        with self.transaction(lease) as change:
            return change.propose(document, author=author, reason=reason, diff=diff, base=base)

    def undo(
        self, *, author: str, reason: str = "", diff: str = "", base: int | None = None, lease: Lease | None = None
    ) -> Revision:
        """As `Transaction.undo`."""
        with self.transaction(lease) as change:
            return change.undo(author=author, reason=reason, diff=diff, base=base)

    def move_to(
        self,
        number: int,
        *,
        author: str,
        reason: str = "",
        diff: str = "",
        base: int | None = None,
        lease: Lease | None = None,
    ) -> Revision:
        """As `Transaction.move_to`."""
        with self.transaction(lease) as change:
            return change.move_to(number, author=author, reason=reason, diff=diff, base=base)

    def put(
        self, kind: str, key: str, value: str, version: int | None = None, *, lease: Lease | None = None
    ) -> Document:
        """As `Transaction.put`."""
        with self.transaction(lease) as change:
            return change.put(kind, key, value, version)

    def delete(self, kind: str, key: str, version: int | None = None, *, lease: Lease | None = None) -> None:
        """As `Transaction.delete`."""
        with self.transaction(lease) as change:
            change.delete(kind, key, version)

    def append(self, kind: str, subject: str, data: str = "{}", *, lease: Lease | None = None) -> Event:
        """As `Transaction.append`."""
        with self.transaction(lease) as change:
            return change.append(kind, subject, data)

    def lease(self, name: str, holder: str, seconds: float) -> Lease | None:
        """As `Transaction.lease`."""
        with self.transaction() as change:
            return change.lease(name, holder, seconds)

    def renew(self, lease: Lease) -> Lease:
        """As `Transaction.renew`."""
        with self.transaction() as change:
            return change.renew(lease)

    def release(self, lease: Lease) -> None:
        """As `Transaction.release`."""
        with self.transaction() as change:
            change.release(lease)


def open_store(url: str = "", *, clock: Callable[[], float] | None = None) -> Store:
    """Opens the store at a URL, "" for the default file; makes it and brings its schema up to date where needed.

    clock: Unix seconds; by default this machine's, or the database server's where there is one.
    Raises InvalidInput, MissingExtra, StoreUnavailable, StoreDamaged, StoreTooNew.
    """
    from turnout.deploy.store.database import DatabaseStore  # SQLAlchemy: a third of a second that no start waits for

    return DatabaseStore(url, clock)
