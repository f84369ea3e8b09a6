"""What is read out of a question to the control plane, and how its history is said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import localtime, strftime
from typing import Any

from turnout.core.errors import InvalidInput
from turnout.deploy.document import Document, parse_document
from turnout.deploy.store.records import Change

Question = Mapping[str, Any]


def document_in(question: Question) -> Document:
    """The document that somebody says. Raises InvalidInput."""
    said = question.get("document")
    if not isinstance(said, str | dict):
        raise InvalidInput("missing", field="document", expected="the whole desired state: YAML text or a JSON object")
    document = parse_document(said, str(question.get("path", "")))
    document.check_environment()
    return document


def whole(question: Question, key: str, default: int | None) -> int | None:
    """A whole number that somebody says, as such or as text. Raises InvalidInput."""
    said = question.get(key)
    if said is None or said == "":
        return default
    try:
        found = int(said) if isinstance(said, str | int) and not isinstance(said, bool) else None
    except ValueError:
        found = None
    if found is None or not -1 <= found < 1 << 62:
        raise InvalidInput("not a whole number", field=key, expected="0 or more", got=repr(said)[:60])
    return found


def who(question: Question) -> dict[str, str]:
    """Who changes something, and why."""
    return {"author": str(question.get("author", "api"))[:200], "reason": str(question.get("reason", ""))[:2000]}


def shown(found: Sequence[Change], *, newest: bool) -> list[dict[str, Any]]:
    """Changes as JSON values. newest: the first of them is what is in force."""
    return [
        {
            "number": one.revision, "seq": one.seq, "act": one.act, "author": one.author, "reason": one.reason,
            "change": one.diff.partition("\n")[0] or one.act, "diff": one.diff, "at": one.at,
            "at_text": strftime("%Y-%m-%d %H:%M:%S", localtime(one.at)), "current": newest and number == 0,
        }
        for number, one in enumerate(found)
    ]  # fmt: skip
