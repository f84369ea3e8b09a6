"""What the store holds, as plain frozen values. All texts that are documents are JSON; times are Unix seconds."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from turnout.core.errors import Conflict, InvalidInput

#: How many changes, and how much of each one's diff, a conflict tells of.
_TOLD = 3
_DIFF_SHOWN = 300


@dataclass(frozen=True, slots=True)
class Revision:
    """One whole desired state. It never changes; which one is current is said by the last `Change`.

    number: counts up from 1 and is never used twice. parent: what was current when it was proposed; None for the
    first. diff: what it changed against its parent, as text for people.
    """

    number: int
    parent: int | None
    document: str
    digest: str
    author: str
    reason: str
    diff: str
    at: float


@dataclass(frozen=True, slots=True)
class Change:
    """One line of the history: the pointer to the current revision was moved.

    act: "apply" for a new revision, "undo", or "move" to any other. before: what was current until then.
    """

    seq: int
    act: str
    revision: int
    before: int | None
    author: str
    reason: str
    diff: str
    at: float


@dataclass(frozen=True, slots=True)
class Document:
    """A small thing that belongs to no revision: a rollout's state, a receipt, an allocation.

    version: the position at which it was written; of two writes the later one has the greater, also when it was
    deleted in between.
    """

    kind: str
    key: str
    value: str
    version: int
    at: float


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. seq counts up by one, so whoever reads on sees whether some were dropped meanwhile."""

    seq: int
    kind: str
    subject: str
    data: str
    at: float


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to act for a while, shown with each write. seconds: for how long from when it was given or renewed.

    token: grows with each holder, so that a write under an older lease is known and refused.
    """

    name: str
    holder: str
    token: int
    seconds: float


def digest_of(document: str) -> str:
    """What tells one document from another: "sha256:" and 64 digits."""
    return "sha256:" + hashlib.sha256(document.encode()).hexdigest()


def exact(text: str, field: str) -> str:
    """A text that is stored as it is. Raises InvalidInput where a database could not."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidInput("this is no Unicode text", field=field) from None
    if "\0" in text:
        raise InvalidInput("a text with a zero byte cannot be stored", field=field)
    return text


def shown(text: str) -> str:
    """A text for people, without what a database could not store."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()


def conflict(base: int, current: int | None, since: Sequence[Change]) -> Conflict:
    """What is said to whoever started from a revision that is not current any more. since: the newest change first."""
    now = "there is no revision yet" if current is None else f"revision {current} is current"
    told = "; ".join(_sentence(change) for change in reversed(since[:_TOLD]))
    more = f" (and {len(since) - _TOLD} before)" if len(since) > _TOLD else ""
    history = f". Since then: {told}{more}" if told else ""
    return Conflict(f"{now}, and this change starts from {base}{history}. Look at what is current and start from there")


def _sentence(change: Change) -> str:
    at = datetime.fromtimestamp(change.at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    act = {"apply": "applied", "undo": "went back to"}.get(change.act, "moved to")
    reason = f" ({change.reason})" if change.reason else ""
    lines = [line.strip() for line in change.diff.splitlines() if line.strip()]
    shortened = ", ".join(lines)
    what = f": {shortened[:_DIFF_SHOWN]}{'...' if len(shortened) > _DIFF_SHOWN else ''}" if lines else ""
    return f"{change.author} {act} revision {change.revision} at {at}{reason}{what}"
