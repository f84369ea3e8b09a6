"""What can go wrong with the store. Whatever does: a change is there whole or not at all, and what serves goes on."""

from __future__ import annotations

from turnout.core.errors import Code, Failure, Fault


class StoreUnavailable(Failure):
    """The store cannot be asked now: its database is down, locked, or the way to it is cut. Trying again may help.

    uncertain: the connection was lost while the change was being committed, so it may have been saved all the same.
    """

    code = Code.UNAVAILABLE
    retryable = True

    def __init__(self, message: str, *, retry_after: float | None = None, uncertain: bool = False) -> None:
        super().__init__(message, retry_after=retry_after)
        self.uncertain = uncertain


class StoreFull(StoreUnavailable):
    """There is no space left for a change; it was not made. Reading goes on."""


class StoreReadOnly(StoreUnavailable):
    """The store can be read but not written; the change was not made."""

    retryable = False


class StoreRefused(StoreUnavailable):
    """The store's database is there but does not let us in, or lacks what is needed; the text says what."""

    retryable = False


class StoreDamaged(Failure):
    """What is stored is not what was written. Nothing is served from it."""

    code = Code.INTERNAL


class StoreTooNew(Failure):
    """A newer Turnout has written this store; this one would not understand it."""

    code = Code.UNIMPLEMENTED


class LeaseLost(Failure):
    """Another controller leads now, so this one may not write any more; the text says which."""

    code = Code.UNAVAILABLE
    retryable = True


class RevisionNotFound(Failure):
    """There is no revision of that number, or none before the first."""

    code = Code.NOT_FOUND
    fault = Fault.CALLER
