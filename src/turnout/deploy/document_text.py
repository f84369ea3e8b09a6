"""From the text of a document, and of the files that it includes, to plain values whose paths hold everywhere."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from turnout.core.errors import InvalidInput
from turnout.deploy.locations import located, located_values
from turnout.deploy.model_entry import SECTIONS
from turnout.deploy.problems import Problems, placed
from turnout.deploy.typed import known, mapping, shown

MAX_FILES = 100
_INCLUDE = "include"
_EXAMPLE = "include: [endpoints/fraud.yaml]"
_JSON = re.compile(rb"(\xef\xbb\xbf)?\s*\{")


@dataclass
class _File:
    """One text that was read. `lines` are looked for when something is wrong."""

    label: str
    path: Path
    content: bytes
    lines: dict[str, int] = field(default_factory=dict)

    def place(self, path: str) -> str:
        """The path behind the file's name and the line, as near as the line is known."""
        from turnout.deploy.yaml_text import lines_of

        self.lines = self.lines or lines_of(self.content)
        known_path = path
        while known_path and known_path not in self.lines:
            known_path = known_path[: max(known_path.rfind("."), known_path.rfind("["), 0)]
        line = f":{self.lines[known_path]}" if known_path else ""
        return f"{self.label}{line}: {path}" if path else f"{self.label}{line}"


class Text:
    """A document that was read: `said` are its plain values, `place` says where in which file a path stands."""

    def __init__(self, label: str, path: Path, *, may_include: bool) -> None:
        self.said: dict[str, Any] = {}
        self._origins: dict[str, tuple[_File, str]] = {}
        self._files: dict[Path, _File] = {}
        self._label = label
        self._may_include = may_include
        self._root = path.parent

    def place(self, path: str) -> str:
        """A path of the document with the file and the line that it comes from."""
        part = path
        while part and part not in self._origins:
            part = part[: max(part.rfind("."), part.rfind("["), 0)]
        if not part:
            first = next(iter(self._files.values()), None)
            return first.place(path) if first is not None else path
        file, own = self._origins[part]
        return file.place(own + path[len(part) :])

    def read(self, path: Path, content: bytes, chain: tuple[Path, ...] = ()) -> None:
        """Takes what a file says, and what it includes. Raises InvalidInput."""
        label = self._label if not chain else path.relative_to(self._root).as_posix() if _in(path, self._root) else path
        file = self._files[path] = _File(str(label), path, content)
        if len(self._files) > MAX_FILES:
            raise InvalidInput("too many files", field=_INCLUDE, expected=f"at most {MAX_FILES}")
        said = _values(content, file.label)
        if not isinstance(said, dict):
            raise InvalidInput(
                "not a mapping", field=file.label, expected="models or endpoints", got=shown(said), example=_FIRST
            )
        problems = Problems()
        problems.take(lambda: known(said, (*SECTIONS, _INCLUDE), ""), None)
        problems.take(lambda: _check_values(said), None)
        try:
            problems.check()
        except InvalidInput as problem:
            raise placed(problem, file.place) from None
        for key, value in located_values(said, path.parent).items():
            if key != _INCLUDE:
                self._take(key, value, file)
        for inner in self._included(said.get(_INCLUDE, []), path, file, (*chain, path)):
            self.read(inner, _content(inner, file), (*chain, path))

    def _included(self, said: Any, path: Path, file: _File, chain: tuple[Path, ...]) -> list[Path]:
        """The files that one names. Raises InvalidInput for a cycle, and for what lies outside without being told."""
        found: list[Path] = []
        if said and not self._may_include:
            raise InvalidInput("a document that is no file includes none", field=_INCLUDE, expected="all of it")
        for number, entry in enumerate(said if isinstance(said, list) else [said]):
            where = f"{_INCLUDE}[{number}]" if isinstance(said, list) else _INCLUDE
            name, outside = entry, False
            if isinstance(entry, dict):
                known(entry, ("file", "outside"), where)
                name, outside = entry.get("file"), entry.get("outside") is True
            if not isinstance(name, str) or not name:
                raise InvalidInput(
                    "not a file", field=file.place(where), expected="a relative path", got=shown(entry),
                    example=_EXAMPLE,
                )  # fmt: skip
            inner = Path(located(name, path.parent))
            if (Path(name).is_absolute() or not _in(inner.resolve(), self._root.resolve())) and not outside:
                raise InvalidInput(
                    "outside of the directory of the document", field=file.place(where), expected="a file in it",
                    got=name, example=f"include: [{{file: {name}, outside: true}}]",
                )  # fmt: skip
            if inner in chain:
                circle = " -> ".join(one.name for one in (*chain[chain.index(inner) :], inner))
                raise InvalidInput(
                    "files include each other in a circle", field=file.place(where), expected="no circle", got=circle
                )
            if inner in self._files or inner in found:
                raise InvalidInput("included twice", field=file.place(where), expected="each file once", got=name)
            found.append(inner)
        return found

    def _take(self, key: str, value: Any, file: _File) -> None:
        """Adds one section: lists are joined, mappings too, where each key stands in one file only."""
        if isinstance(value, list) and isinstance(self.said.get(key, []), list):
            there = self.said.setdefault(key, [])
            for number, entry in enumerate(value):
                self._origins[f"{key}[{len(there)}]"] = (file, f"{key}[{number}]")
                there.append(entry)
        elif isinstance(value, dict) and isinstance(self.said.get(key, {}), dict):
            there = self.said.setdefault(key, {})
            self._origins.setdefault(key, (file, key))
            for name, entry in value.items():
                path = f"{key}.{name}"
                if name in there:
                    raise InvalidInput("said twice", field=file.place(path), got=f"also in {self.place(path)}")
                self._origins[path] = (file, path)
                there[name] = entry
        elif key not in self.said:
            self.said[key] = value
            self._origins[key] = (file, key)
        else:
            raise InvalidInput("said twice", field=file.place(key), got=f"also in {self.place(key)}")


_FIRST = "endpoints: {fraud: {versions: {v1: {model: fraud.onnx}}}}"


def read_text(said: str | bytes, path: str = "", label: str = "") -> Text:
    """The values of a document, YAML or JSON; `path` is its file, from which what it includes counts.

    Raises InvalidInput with the file and the line.
    """
    content = said.encode() if isinstance(said, str) else said
    file = Path(located(path, Path.cwd())) if path else Path("/document")
    text = Text(label or (file.name if path else "the document"), file, may_include=bool(path))
    text.read(file, content)
    return text


def _in(path: Path, folder: Path) -> bool:
    return path.is_relative_to(folder)


def _content(path: Path, by: _File) -> bytes:
    try:
        return path.read_bytes()
    except OSError as problem:
        raise InvalidInput(
            f"{path.name} cannot be read ({problem.strerror})", field=by.place(_INCLUDE), expected="a file",
            got=str(path), example=_EXAMPLE,
        ) from None  # fmt: skip


def _values(content: bytes, label: str) -> Any:
    """JSON where it is that, else YAML. Raises InvalidInput."""
    if _JSON.match(content):
        try:
            return json.loads(content, object_pairs_hook=_once, parse_constant=_no_constant)
        except InvalidInput as problem:
            raise InvalidInput(problem.reason, field=label, got=problem.got) from None
        except (ValueError, RecursionError):
            pass  # YAML that begins with a brace
    from turnout.deploy.yaml_text import read_yaml  # brings PyYAML, which a server without such a file does not need

    return read_yaml(content, label, text_keys=True)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for number, (key, _) in enumerate(pairs) if key in dict(pairs[:number]))
        raise InvalidInput("stands twice", got=repr(twice))
    return found


def _no_constant(word: str) -> float:
    raise InvalidInput("not JSON", got=word)


def _check_values(said: Any) -> None:
    """Raises InvalidInput for what is no plain value (a date), no name (a list as a key) and no number (NaN)."""
    problems = Problems()
    waiting: list[tuple[str, Any]] = [("", said)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, dict):
            for key, inner in value.items():
                if isinstance(key, str):
                    waiting.append((f"{path}.{key}" if path else key, inner))
                else:
                    problems.add(InvalidInput("not a name", field=path, expected="a text", got=repr(key)[:60]))
        elif isinstance(value, list):
            waiting += [(f"{path}[{number}]", inner) for number, inner in enumerate(value)]
        elif isinstance(value, float) and not math.isfinite(value):
            problems.add(InvalidInput("not a number", field=path, expected="a finite number", got=str(value)))
        elif value is not None and not isinstance(value, str | int | float | bool):
            problems.add(
                InvalidInput("not a plain value", field=path, expected=f'a text: "{value}"', got=type(value).__name__)
            )
    problems.check()


def check_plain(said: Any) -> dict[str, Any]:
    """Values that came as JSON. Raises InvalidInput."""
    found = dict(mapping(said, "document", _FIRST))
    known(found, SECTIONS, "")
    _check_values(found)
    return found
