"""The YAML of an MLmodel file, as MLflow writes it: block mappings, sequences and scalars. Needs no YAML library.

A worker's environment has none. What MLflow never writes (anchors, tags, flow collections) stays text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from turnout.core.errors import LoadFailed

_KEY = re.compile(
    r"""(?P<key>'(?:[^']|'')*'|"(?:[^"\\]|\\.)*"|[^\s#'"\[\]{}&*!|>%@`-][^:#]*?|[^\s:]+):(?:[ ]+(?P<rest>.*))?\Z"""
)
_DEPTH = 20
_WORDS: Mapping[str, Any] = {"": None, "null": None, "~": None, "true": True, "false": False, "[]": [], "{}": {}}


def parse(text: str, label: str) -> dict[str, Any]:
    """The document's mapping; numbers stay text. Raises LoadFailed where it is none, or is damaged."""
    document = _Document(text, label)
    document.skip()
    found = document.block(0, 0) if document.more() else None
    if document.more() or not isinstance(found, dict):
        raise document.damaged("no mapping of keys")
    return found


class _Document:
    """The lines, and how far they are read."""

    def __init__(self, text: str, label: str) -> None:
        self._lines = text.replace("\r\n", "\n").split("\n")
        self._at = 0
        self._label = label

    def damaged(self, why: str) -> LoadFailed:
        return LoadFailed(f"{self._label} is damaged or cut off: {why} at line {self._at + 1}")

    def more(self) -> bool:
        return self._at < len(self._lines)

    def skip(self) -> None:
        """Over empty lines, comments and the document's start."""
        while self.more():
            line = self._lines[self._at].strip()
            if line and not line.startswith("#") and line != "---":
                return
            self._at += 1

    @property
    def _indent(self) -> int:
        line = self._lines[self._at]
        return len(line) - len(line.lstrip(" "))

    def block(self, indent: int, depth: int) -> Any:
        """The mapping or sequence whose entries are indented so far."""
        if depth > _DEPTH:
            raise self.damaged("nested too deeply")
        if self._lines[self._at].lstrip().startswith("- ") or self._lines[self._at].strip() == "-":
            return self._sequence(indent, depth)
        found: dict[str, Any] = {}
        while self.more() and self._indent == indent:
            entry = _KEY.match(self._lines[self._at].strip())
            if entry is None:
                break
            key = _scalar(entry["key"])
            if not isinstance(key, str) or key in found:
                raise self.damaged(f"the key {entry['key']!r}")
            found[key] = self._value(entry["rest"] or "", indent, depth, in_sequence=False)
            self.skip()
        if self.more() and self._indent > indent:
            raise self.damaged("an entry that belongs to nothing")
        return found

    def _sequence(self, indent: int, depth: int) -> list[Any]:
        found: list[Any] = []
        while self.more() and self._indent == indent and re.match(r"-( |$)", self._lines[self._at].lstrip()):
            rest = self._lines[self._at].strip()[1:].strip()
            if _KEY.match(rest) and not rest.startswith(("'", '"')):
                self._lines[self._at] = " " * (indent + 2) + rest
                found.append(self.block(indent + 2, depth + 1))
            else:
                found.append(self._value(rest, indent, depth, in_sequence=True))
            self.skip()
        return found

    def _value(self, rest: str, indent: int, depth: int, *, in_sequence: bool) -> Any:
        """What follows a key or a dash: a scalar, which may go on over more lines, or a block of its own."""
        if rest.startswith(("'", '"')):
            return self._quoted(rest)
        self._at += 1
        if rest[:1] in ("|", ">"):
            return "\n".join(self._deeper(indent))
        if rest:
            deeper = self._deeper(indent)
            if any(_KEY.match(line) for line in deeper):
                raise self.damaged("an entry below a value")
            return _scalar(" ".join([rest, *deeper]))
        self.skip()
        if self.more() and self._indent > indent:
            return self.block(self._indent, depth + 1)
        if (
            self.more()
            and self._indent == indent
            and not in_sequence
            and self._lines[self._at].lstrip()[:2] in ("- ", "-")
        ):
            return self._sequence(indent, depth + 1)
        return None

    def _deeper(self, indent: int) -> list[str]:
        found: list[str] = []
        while self.more() and self._lines[self._at].strip() and self._indent > indent:
            found.append(self._lines[self._at].strip())
            self._at += 1
        return found

    def _quoted(self, rest: str) -> str:
        mark, started = rest[0], self._at
        parts: list[str] = []
        marks = 0
        line = rest
        while True:
            parts.append(line)
            marks += (re.sub(r"\\.", "", line) if mark == '"' else line).count(mark)
            self._at += 1
            if marks % 2 == 0 and line.rstrip().endswith(mark):
                break
            if not self.more():
                self._at = started
                raise self.damaged("a text without its end")
            line = self._lines[self._at]
        return str(_scalar("\n".join(parts).rstrip()))


def _scalar(text: str) -> Any:
    if text.startswith("'"):
        return _unfold(text[1:-1]).replace("''", "'")
    if text.startswith('"'):
        joined = re.sub(r"\\\n[ \t]*(\\(?=[ \t]))?", "", text[1:-1])
        try:
            return str(json.loads('"' + re.sub(r"\\(x..|U.{8}|.)", _as_json, _unfold(joined)) + '"'))
        except ValueError:
            return joined
    return _WORDS.get(text, text)


def _as_json(escape: re.Match[str]) -> str:
    """An escape of YAML's double quotes as JSON writes it, where the two differ."""
    kind = escape[1][0]
    if kind == " ":
        return " "
    if kind in "xU":
        try:
            return json.dumps(chr(int(escape[1][1:], 16)))[1:-1]
        except (ValueError, OverflowError):
            return escape[0]
    return escape[0]


def _unfold(text: str) -> str:
    return re.sub(r"[ \t]*\n[ \t]*", lambda found: "\n" * (found[0].count("\n") - 1) or " ", text)
