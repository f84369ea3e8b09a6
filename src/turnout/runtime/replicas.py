"""The places of one version: which of them gets the next batch, and which are left out because they do badly."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from time import monotonic

from turnout.core.errors import DeadlineExceeded, Failure, Fault
from turnout.core.messages import Context
from turnout.runtime.batch import Batch, Item
from turnout.runtime.outlier import OutlierPolicy, Outliers, Verdict
from turnout.runtime.predict import Outcome
from turnout.runtime.replica import Place

logger = logging.getLogger("turnout")
#: Until a probe is late, and its place hangs.
_PROBE_SECONDS = 5.0


class Replicas:
    """`all` of them; `open` are those that are not left out as outliers, who is doubtful at the end.

    `suspects` are overdue with a batch and get no other until they answer. `due` were left out for long enough: a copy
    of the next batch's first request goes there, and the answer decides. `leaving` only end what they have begun.
    `resting` have just failed, and wait for a moment; `on_open` is called when one is back from that.
    """

    def __init__(self, title: str, outlier: OutlierPolicy | None, on_open: Callable[[], None]) -> None:
        self.all: list[Place] = []
        self.open: list[Place] = []
        self.due: list[Place] = []
        self.suspects: set[Place] = set()
        self.leaving: set[Place] = set()
        self.resting: dict[Place, asyncio.TimerHandle] = {}
        self.outliers = Outliers(outlier)
        self._title = title
        self._on_open = on_open
        self._done_at: dict[Place, float] = {}

    def add(self, place: Place) -> None:
        """From now on it may be picked."""
        self.all.append(place)
        self.open.append(place)

    def leave(self, place: Place) -> bool:
        """No further batch goes there; False where nobody else takes them, for then it stays as it is."""
        if place not in self.leaving:
            if not any(one is not place for one in self.open):
                return False
            self._leave_out(place)
            self.outliers.forget(place)
            self.leaving.add(place)
        return True

    def remove(self, place: Place) -> None:
        """It is gone. Where only those are left that did badly, they are better than nobody."""
        self.all.remove(place)
        self.suspects.discard(place)
        self.leaving.discard(place)
        self._leave_out(place)
        self.outliers.forget(place)
        self._done_at.pop(place, None)
        if not self.open:
            left = [one for one in self.all if one not in self.leaving] or list(self.all)
            for one in left:
                self._leave_out(one)
                self.outliers.forget(one)
            self.leaving.difference_update(left)
            self.open[:], self.due = left, []

    def pick(self, *, full: bool, avoid: Sequence[object] = ()) -> Place | None:
        """Where the next batch goes, if anywhere; one that is full may also be sent ahead to a busy place.

        To one of `avoid` it goes only where there is nobody else to wait for.
        """
        ahead: Place | None = None
        suspects = self.suspects
        if avoid and not any(place not in avoid and place not in suspects for place in self.open):
            avoid = ()
        for place in self.open:
            if place.free and place not in suspects and place not in avoid:
                if not place.busy_since:
                    return place
                ahead = place
        return ahead if full else None  # a second batch is sent ahead only when it could not grow any more

    def any_free(self) -> bool:
        """Whether any takes one more batch."""
        for place in self.open:  # noqa: SIM110  a generator costs five times this loop, and every request is here
            if place.free:
                return True
        return False

    def can_spare(self, place: Place) -> bool:
        """Whether somebody else could do a place's work."""
        return any(one is not place and one not in self.suspects for one in self.open)

    def wake(self, now: float) -> None:
        """Looks for those that were left out for long enough."""
        due = self.outliers.due(now)
        if due:
            self.due += [place for place in self.all if any(place is one for one in due)]

    def judge(self, place: Place, batch: Batch, outcome: Outcome, expected: float) -> Verdict:
        """Compares a place with the others by one batch, and leaves it out or takes it in again."""
        if place in self.leaving:
            return Verdict.FINE
        now = monotonic()
        seconds = now - max(batch.started, self._done_at.get(place, 0.0))  # one that was sent ahead had to wait
        self._done_at[place] = now
        failed = False
        if outcome.failures and any(outcome.failures):
            said = [one for one in outcome.failures if one is None or _is_its_own(one)]
            if not said:  # late, or their callers' mistakes: that says nothing of the place
                self.outliers.passed(place, now)
                return Verdict.FINE
            failed = None not in said
        peers = [one for one in self.all if one not in self.leaving] if self.leaving else self.all
        verdict = self.outliers.judge(place, peers, seconds, expected, now, failed=failed)
        if verdict is Verdict.FINE:
            return verdict
        self._leave_out(place)
        if verdict is Verdict.EJECT:
            left = self.outliers.seconds_out(place, now)
            logger.warning(
                "%s: replica %s does not do as the others do; left out for %.1f s", self._title, place.name, left
            )
        elif verdict is Verdict.REST and self.open:
            loop = asyncio.get_running_loop()
            self.resting[place] = loop.call_later(self.outliers.rest(place), self._rested, place)
        else:
            self.open.append(place)
        return verdict

    def _rested(self, place: Place) -> None:
        del self.resting[place]
        self.open.append(place)
        self._on_open()

    def probe(self, loop: asyncio.AbstractEventLoop, like: Batch) -> None:
        """Asks a place that is due with a copy of a request. Nobody waits for that answer."""
        place = self.due.pop()
        if place.busy_since or not place.free:
            self.due.insert(0, place)  # what it was given before is not answered yet
            return
        item = like.items[0]
        context = Context(item.id, like.started + _PROBE_SECONDS)
        copy = Item(loop, item.inputs, item.rows, item.nbytes, context, like.started, item.key)
        copy.waiting = False
        self.outliers.probe(place)
        place.run(Batch([copy], like.started))

    def _leave_out(self, place: Place) -> None:
        if place in self.resting:
            self.resting.pop(place).cancel()
        for places in (self.open, self.due):
            if place in places:
                places.remove(place)


def _is_its_own(failure: Failure) -> bool:
    """Whether a failure may be a place's own doing, and not the caller's or the clock's."""
    return failure.fault is not Fault.CALLER and not isinstance(failure, DeadlineExceeded)
