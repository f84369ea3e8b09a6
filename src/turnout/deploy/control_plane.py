"""What should be served, as revisions: planned, applied, undone, and changed by a rollout; one change at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from turnout.core.errors import Conflict, InvalidInput, ModelNotFound
from turnout.deploy.asked import document_in, shown, who, whole
from turnout.deploy.changes import Actual, Changes, changes
from turnout.deploy.converge import Converge, Staged, Wanted
from turnout.deploy.document import Document
from turnout.deploy.endpoint_spec import EndpointSpec
from turnout.deploy.happenings import Happenings
from turnout.deploy.revisions import STARTED, Applied, Revisions
from turnout.deploy.store.failures import StoreDamaged, StoreTooNew, StoreUnavailable
from turnout.deploy.store.records import Change, Lease, Revision, digest_of
from turnout.deploy.store.store import Transaction
from turnout.deploy.store.url import is_there
from turnout.graph.allocation import Allocation, allocate

logger = logging.getLogger("turnout")
Question = Mapping[str, Any]


class Rollouts(Protocol):
    """Of one server."""

    def let_go(self, document: Document) -> Mapping[str, Any]:
        """Carries on no rollout whose endpoint's traffic is to be other than it says; gives those, by endpoint."""

    def take_back(self, over: Mapping[str, Any]) -> None:
        """Goes on with them: nothing was changed."""

    def ended(self, over: Mapping[str, Any], author: str) -> None:
        """They are over."""


_MOST = 1000


class ControlPlane:
    """Of one server. `document` is what is in force, `revision` its number, 0 before the first."""

    def __init__(self, converge: Converge, document: Document) -> None:
        self.document = document
        self.revision = 0
        self.allocations: dict[str, Any] = {}
        self.revisions = Revisions(document.digest)
        self.happenings = Happenings(self.revisions.call)
        #: Says what is known of what runs, and whether a document fits in memory.
        self.actual: Callable[[Document], Actual] | None = None
        #: Who carries rollouts on, and is told when somebody else changes what is in force.
        self.rollouts: Rollouts | None = None
        #: Called once there is a first revision.
        self.on_first: Callable[[], Awaitable[None]] | None = None
        self._converge = converge
        self._changing = asyncio.Lock()

    # -- the beginning ------------------------------------------------------------------------------------

    async def begin(self, *, keep_going: bool) -> None:
        """Serves what the document says, or what became of it since it was applied to this store."""
        document = self.document
        if not document.endpoints and not is_there(self.revisions.url):
            return  # nothing is guided: no store is needed before something is to be changed
        async with self._changing:
            try:
                same = await self.revisions.have_same_source()
                current = await self.revisions.current()
            except (StoreUnavailable, StoreDamaged, StoreTooNew) as failure:
                if document.endpoints:
                    raise
                logger.warning("models are served as the server was told, for the store is away: %s", failure.message)
                return
            if current is not None and same:
                applied = await self.revisions.applied(current.number)
                found = Document.from_text(current.document)
                known = self._converge.is_in_force(Wanted.whole_of(found), current.number)
                staged = await self._converge.stage(
                    Wanted.endpoints_of(found) if known else Wanted.whole_of(found), applied.pins
                )
                await self._converge.use(staged, current.number, applied.allocations)
                self._is(found, current.number, applied.allocations)
                await self.revisions.remember_last()
                if current.digest != _digest(document):
                    logger.info("revision %d goes on, made of this document: %s", current.number, current.reason)
                return
            if not document.endpoints and current is None:
                return
            staged = (
                await self._converge.stage_what_loads(document.endpoints)
                if keep_going
                else await self._converge.stage(Wanted.endpoints_of(document))
            )

            await self._commit(
                staged,
                document,
                lambda change: change.propose(document.to_text(), author="serve", reason=STARTED),
            )

    async def follow(self) -> None:
        """Serves what another controller has put in force, where one has."""
        async with self._changing:
            current = await self.revisions.current()
            if current is None or current.number == self.revision:
                return
            document = Document.from_text(current.document)
            applied = await self.revisions.applied(current.number)
            staged = await self._converge.stage(Wanted.whole_of(document), applied.pins)
            await self._converge.use(staged, current.number, applied.allocations)
            self._is(document, current.number, applied.allocations)
            logger.info("revision %d is in force: %s has put it there", current.number, current.author)

    # -- what can be asked --------------------------------------------------------------------------------

    async def plan(self, question: Question) -> Any:
        """What applying a document would change."""
        document = document_in(question)
        return self._changes(document).to_json()

    async def apply(self, question: Question) -> Any:
        """Makes a document the desired state; what cannot be loaded leaves everything as it is."""
        document = document_in(question)
        whole(question, "base", None)  # also where nothing is to be done
        async with self._changing:
            diff = self._changes(document)
            if not diff.changed:
                return {"revision": self.revision, "changed": False, "text": f"nothing to do: revision {self.revision}"}
            await self.change(document, question)
        return {"revision": self.revision, "changed": True, "text": f"{diff.text}\nrevision {self.revision}"}

    async def traffic(self, question: Question) -> Any:
        """Changes an endpoint's weights."""
        endpoint, weights = str(question.get("endpoint", "")), question.get("weights")
        if not isinstance(weights, Mapping):  # without any, a document means the usual ones
            raise InvalidInput(
                "missing", field="weights", expected="percent by version", example='{"v7": 90, "v8": 10}'
            )
        async with self._changing:
            document = self.document.with_traffic(endpoint, weights)
            await self.change(document, question)
        said = ", ".join(f"{version} {percent:g} %" for version, percent in document.endpoint(endpoint).traffic.items())
        return {"revision": self.revision, "text": f"{endpoint}: {said}; revision {self.revision}"}

    async def undo(self, question: Question) -> Any:
        """Goes back to the revision before the current one."""
        async with self._changing:
            now = self.revision
            current = await self.revisions.current()
            if current is None or current.parent is None:
                raise InvalidInput("there is no revision before this one", field="undo", got=f"revision {now}")
            parent = await self.revisions.revision(current.parent)
            document = Document.from_text(parent.document)
            applied = await self.revisions.applied(parent.number)
            staged = await self._converge.stage(Wanted.whole_of(document), applied.pins)
            over = self._let_go(document)
            with self._or_as_before(staged, over):
                await self.revisions.undo(document, now=now, over=over, **who(question))
            await self._converge.use(staged, parent.number, applied.allocations)
            self._is(document, parent.number, applied.allocations)
            self._ended(over, question)
            self.happenings.tell("undo", "", f"back to revision {parent.number} from {now}", revision=parent.number)
        return {"revision": self.revision, "text": f"revision {parent.number} is in force again (it was {now})"}

    async def history(self, question: Question) -> Any:
        """The changes, newest first."""
        limit, before = whole(question, "limit", 20), whole(question, "before", None)
        found: list[Change] = await self.revisions.call(lambda store: store.history(min(limit or 1, _MOST), before))
        return {"current": self.revision, "revisions": shown(found, newest=before is None)}

    async def events(self, question: Question) -> Any:
        """What has happened after a number."""
        return await self.happenings.after(whole(question, "after", -1) or 0, whole(question, "wait", 25) or 0)

    # -- changes ------------------------------------------------------------------------------------------

    async def set_traffic(
        self,
        endpoint: str,
        weights: Mapping[str, float],
        *,
        author: str,
        reason: str,
        lease: Lease | None = None,
        holds: Callable[[], bool] = lambda: True,
    ) -> None:
        """Other weights, by whoever has decided that for good reasons. lease: what shows that nobody else decides.

        holds: whether the decision still does, once it is its turn.
        """  # fmt: skip
        async with self._changing:
            if not holds():
                return
            document = self.document.with_traffic(endpoint, dict(weights))
            diff = self._changes(document)
            if diff.changed:
                staged = await self._converge.stage(Wanted.whole_of(document))
                base = self.revision or None
                await self._commit(
                    staged,
                    document,
                    lambda change: change.propose(
                        document.to_text(), diff=diff.text, base=base, author=author, reason=reason
                    ),
                    lease,
                )

    async def change(self, document: Document, question: Question) -> None:
        """Carries out a document that nobody else may change meanwhile: `changing` is held."""
        diff = self._changes(document, has_to_fit=True)
        base = self._base(question)
        if not diff.changed:
            return
        staged = await self._converge.stage(Wanted.whole_of(document))
        over = self._let_go(document)
        await self._commit(
            staged,
            document,
            lambda change: change.propose(document.to_text(), diff=diff.text, base=base, **who(question)),
            over=over,
        )
        self._ended(over, question)

    @property
    def changing(self) -> asyncio.Lock:
        """Held while something is changed."""
        return self._changing

    def endpoint(self, name: str) -> EndpointSpec:
        """An endpoint of what is in force. Raises ModelNotFound."""
        for endpoint in self.document.endpoints:
            if endpoint.name == name:
                return endpoint
        known = ", ".join(one.name for one in self.document.endpoints) or "none"
        raise ModelNotFound(f"there is no endpoint {name!r}; there is {known}")

    def _let_go(self, document: Document) -> Mapping[str, Any]:
        return self.rollouts.let_go(document) if self.rollouts is not None else {}

    def _ended(self, over: Mapping[str, Any], question: Question) -> None:
        if self.rollouts is not None and over:
            self.rollouts.ended(over, str(question.get("author", "api")))

    async def _commit(
        self,
        staged: Staged,
        document: Document,
        commit: Callable[[Transaction], Revision],
        lease: Lease | None = None,
        over: Mapping[str, Any] | None = None,
    ) -> None:
        """Writes the revision down, then guides requests so; without the first there is no second."""
        over, first = over or {}, self.revision == 0
        # What a server of models was started with is a revision as soon as it is changed: a way back.
        start = self.document if first and document is not self.document and self.document.names else None
        allocations = {one.name: self._allocation(one) for one in document.endpoints}
        applied = Applied(staged.pins(), allocations)
        with self._or_as_before(staged, over):
            revision = await self.revisions.commit(
                document, applied, commit, now=self.revision, over=over, before=start, lease=lease
            )
        await self._converge.use(staged, revision.number, allocations)
        self._is(document, revision.number, allocations)
        said = f"{revision.number} by {revision.author}: {revision.diff.partition(chr(10))[0] or revision.reason}"
        self.happenings.tell("revision", "", said, revision=revision.number)
        if first:
            await self.revisions.remember_last()
            if self.on_first is not None:
                await self.on_first()

    @contextmanager
    def _or_as_before(self, staged: Staged, over: Mapping[str, Any]) -> Iterator[None]:
        """What is done within writes a revision down; where it cannot, all goes on as it was."""
        try:
            yield
        except BaseException:
            self._converge.unstage(staged.names)
            if self.rollouts is not None:
                self.rollouts.take_back(over)
            raise

    def _allocation(self, endpoint: EndpointSpec) -> Any:
        """Which buckets each version has: as few as possible move."""
        before = self.allocations.get(endpoint.name)
        return allocate(endpoint.traffic, Allocation.from_json(before) if before else None).to_json()

    def _is(self, document: Document, revision: int, allocations: Mapping[str, Any]) -> None:
        self.document, self.revision, self.allocations = document, revision, dict(allocations)
        self.revisions.remember(revision, document)

    def _changes(self, document: Document, *, has_to_fit: bool = False) -> Changes:
        """What a document would change. Raises InvalidInput where it has to fit in memory and does not."""
        actual = self.actual(document) if self.actual is not None else None
        if has_to_fit and actual is not None and actual.fit is not None:
            actual.fit.check()
        return changes(self.document, document, actual)

    def _base(self, question: Question) -> int | None:
        """What the caller has started from; raises Conflict at once where that is not what is in force."""
        base = whole(question, "base", None)
        if base is None:
            return self.revision or None
        if base != self.revision:
            raise Conflict(
                f"you started from revision {base}, and revision {self.revision} is in force: `turnout history` says "
                "who changed what; look at it, and apply again"
            )
        return base


def _digest(document: Document) -> str:
    return digest_of(document.to_text())
