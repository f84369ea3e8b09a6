"""What a server has written down of its revisions: what each was made of, and which versions it had."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from turnout.deploy.document import Document
from turnout.deploy.store.failures import StoreUnavailable
from turnout.deploy.store.records import Lease, Revision
from turnout.deploy.store.store import Store, Transaction, open_store
from turnout.deploy.threads import in_thread

#: The kind of the documents in which rollouts are written down.
ROLLOUT = "rollout"
#: Why the first revision was made.
STARTED = "the server was started with it"
_APPLIED = "applied"
_SOURCE = "source"
_REMEMBERED = 100


class Applied(NamedTuple):
    """What belongs to a revision beside its document. pins: what was found of its versions, by endpoint and version.

    allocations: which buckets each version has, by endpoint.
    """

    pins: Mapping[str, Any]
    allocations: Mapping[str, Any]


class Revisions:
    """Over the store at `url`, which is opened once it is needed. Belongs to the running event loop.

    source: the digest of the document that the server was started with.
    """

    def __init__(self, source: str) -> None:
        self.url = ""
        self._source = source
        self._names: dict[int, dict[str, list[str]]] = {}
        self._store: Store | None = None
        self._opening = asyncio.Lock()
        self._loop = asyncio.get_running_loop()

    async def call(self, act: Callable[[Store], Any]) -> Any:
        """Runs something on the store in a thread; opens it first."""
        async with self._opening:
            if self._store is None:
                self._store = await in_thread(self._loop, lambda: open_store(self.url))
        store = self._store
        return await in_thread(self._loop, lambda: act(store))

    # -- what is there ------------------------------------------------------------------------------------

    async def current(self) -> Revision | None:
        """The revision that is in force."""
        found: Revision | None = await self.call(lambda store: store.current())
        return found

    async def revision(self, number: int) -> Revision:
        """One of them. Raises InvalidInput."""
        found: Revision = await self.call(lambda store: store.revision(number))
        return found

    async def have_same_source(self) -> bool:
        """Whether the revisions were made of the document that this server was started with."""
        found = await self.call(lambda store: store.document(_SOURCE, "digest"))
        return found is not None and found.value == self._source

    async def applied(self, revision: int) -> Applied:
        """What belongs to a revision."""
        found = await self.call(lambda store: store.document(_APPLIED, str(revision)))
        return Applied(**json.loads(found.value)) if found is not None else Applied({}, {})

    # -- what is written ----------------------------------------------------------------------------------

    async def commit(
        self,
        document: Document,
        applied: Applied,
        propose: Callable[[Transaction], Revision],
        *,
        now: int,
        over: Iterable[str] = (),
        before: Document | None = None,
        lease: Lease | None = None,
    ) -> Revision:
        """Writes a revision down with what belongs to it. now: the number of the one in force, 0 before the first.

        over: the endpoints whose rollouts end with it. before: what becomes the very first revision: a way back.
        """

        def act(store: Store) -> Revision:
            with store.transaction(lease) as change:
                _end(change, over)
                if not now:
                    change.put(_SOURCE, "digest", self._source)
                if before is not None:
                    begun = change.propose(before.to_text(), author="serve", reason=STARTED)
                    change.put(_APPLIED, str(begun.number), json.dumps(Applied({}, {})._asdict()))
                revision = propose(change)
                change.put(_APPLIED, str(revision.number), json.dumps(applied._asdict()))
                return revision

        return await self._written(act, document, now)

    async def undo(self, document: Document, *, now: int, over: Iterable[str], author: str, reason: str) -> Revision:
        """Makes the revision before the current one the current one; `document` is what it says."""

        def act(store: Store) -> Revision:
            with store.transaction() as change:
                _end(change, over)
                return change.undo(base=now, author=author, reason=reason)

        return await self._written(act, document, now)

    async def _written(self, act: Callable[[Store], Revision], document: Document, now: int) -> Revision:
        """What an act has written. Where the connection broke off while it was, the store is asked what came of it."""
        try:
            found: Revision = await self.call(act)
        except StoreUnavailable as failure:
            if not failure.uncertain:
                raise
            current = await self.current()
            if current is None or current.number == now or current.document != document.to_text():
                raise
            found = current
        return found

    # -- which versions there were ------------------------------------------------------------------------

    def remember(self, revision: int, document: Document) -> None:
        """Keeps which versions a revision has: a label may come long after its prediction."""
        self._names[revision] = {one.name: [version.name for version in one.versions] for one in document.endpoints}

    async def remember_last(self) -> None:
        """The same for the last revisions that there were."""

        def look(store: Store) -> list[Revision]:
            return [store.revision(number) for number in {one.revision for one in store.history(_REMEMBERED)}]

        for revision in await self.call(look):
            self.remember(revision.number, Document.from_text(revision.document))

    def versions_of(self, endpoint: str, revision: int) -> Sequence[str] | None:
        """The names of an endpoint's versions in a revision; None where that is not known any more."""
        return self._names.get(revision, {}).get(endpoint)


def _end(change: Transaction, over: Iterable[str]) -> None:
    for name in over:
        change.delete(ROLLOUT, name)
