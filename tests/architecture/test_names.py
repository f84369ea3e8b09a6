"""Words this code base does not use for its parts: each says nothing of what a part does."""

from __future__ import annotations

import ast
from pathlib import Path

import turnout

SOURCE = Path(turnout.__file__).parent
REFUSED = {
    *("base", "common", "engine", "filter", "handler", "handlers", "helper", "helpers", "impl", "layer"),
    *("manager", "misc", "pipeline", "util", "utils"),
}


def test_modules_are_named_for_what_they_do() -> None:
    for path in SOURCE.rglob("*.py"):
        assert not REFUSED & set(path.stem.split("_")), f"{path.relative_to(SOURCE)}: choose a word that says more"


def test_nothing_is_left_for_later() -> None:
    marks = ("TO" + "DO", "FIX" + "ME", "XX" + "X")
    for path in SOURCE.rglob("*.py"):
        text = path.read_text()
        assert not [mark for mark in marks if mark in text], path.relative_to(SOURCE)
        raised = [node.exc for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Raise)]
        assert not [node for node in raised if node and "NotImplemented" in ast.dump(node)], path.relative_to(SOURCE)
