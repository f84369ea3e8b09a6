"""What a database says went wrong, as a failure of ours. Nothing of its text with names or addresses goes on."""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from turnout.core.errors import Failure
from turnout.deploy.store.failures import StoreDamaged, StoreFull, StoreReadOnly, StoreRefused, StoreUnavailable

_AGAIN = 1.0
_FULL = "there is no space left for the store; the change was not made. Free some space on {where} and try again"
_READ_ONLY = "the store on {where} can be read but not written; the change was not made"
_DAMAGED = "the store on {where} is damaged. Stop, keep a copy of it, and put a backup in its place"
_DOWN = "the store on {where} cannot be reached: does its server run, and do address, database, user and password hold?"
_LOST = "the connection to the store on {where} was lost while a change was being saved: it may have been saved or not"
_BUSY = "the store on {where} is locked by another process for too long; nothing was changed"

#: By the beginning of SQLite's error names, and of PostgreSQL's SQLSTATEs.
_KINDS: tuple[tuple[str, type[StoreUnavailable | StoreDamaged], str], ...] = (
    ("SQLITE_FULL", StoreFull, _FULL),
    ("SQLITE_READONLY", StoreReadOnly, _READ_ONLY),
    ("SQLITE_PERM", StoreReadOnly, _READ_ONLY),
    ("SQLITE_BUSY", StoreUnavailable, _BUSY),
    ("SQLITE_LOCKED", StoreUnavailable, _BUSY),
    ("SQLITE_CORRUPT", StoreDamaged, _DAMAGED),
    ("SQLITE_NOTADB", StoreDamaged, _DAMAGED),
    ("SQLITE_CANTOPEN", StoreRefused, "the store's file {where} cannot be opened"),
    ("SQLITE_IOERR", StoreUnavailable, "the disk of the store on {where} fails; the change was not made"),
    ("53100", StoreFull, _FULL),
    ("53", StoreUnavailable, "the store's database on {where} is out of memory or connections"),
    ("25006", StoreReadOnly, _READ_ONLY),
    ("55P03", StoreUnavailable, _BUSY),
    ("57014", StoreUnavailable, _BUSY),
    ("40", StoreUnavailable, _BUSY),
    ("42501", StoreRefused, "this user may not make or change the store's tables on {where}"),
    ("XX", StoreDamaged, _DAMAGED),
    ("57P", StoreUnavailable, _DOWN),
    ("08", StoreUnavailable, _DOWN),
)


def failure_of(error: Exception, where: str, *, committing: bool = False) -> Failure | None:
    """The failure for what SQLAlchemy raised; None for a mistake of ours, which is no state of the store.

    where: the store, as it may be shown. committing: the change was on its way to the disk when it failed.
    """
    if isinstance(error, PoolTimeout):
        return StoreUnavailable(f"too many ask the store on {where} at once", retry_after=_AGAIN)
    original = error.orig if isinstance(error, DBAPIError) else None
    word = getattr(original, "sqlite_errorname", None) or getattr(original, "sqlstate", None) or ""
    for beginning, kind, sentence in _KINDS:
        if word.startswith(beginning):
            if kind is StoreDamaged:
                return StoreDamaged(sentence.format(where=where))
            lost = committing and sentence is _DOWN
            return _unavailable(kind, _LOST if lost else sentence, where, uncertain=lost)
    if not isinstance(error, OperationalError | InterfaceError):
        return None
    # Without a word of its own the server is not there at all, or was gone in the middle.
    return _unavailable(StoreUnavailable, _LOST if committing else _DOWN, where, uncertain=committing)


def _unavailable(kind: type[Failure], sentence: str, where: str, *, uncertain: bool) -> Failure:
    retry_after = _AGAIN if kind.retryable else None
    if issubclass(kind, StoreUnavailable):
        return kind(sentence.format(where=where), retry_after=retry_after, uncertain=uncertain)
    return kind(sentence.format(where=where))
