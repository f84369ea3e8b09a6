"""The page of the admin API has every path, and every field of each act with the defaults that its summary says."""

from __future__ import annotations

import re

from tests.docs.test_reference import rows, section
from turnout.entrypoints.admin import ACTS, AdminRest
from turnout.entrypoints.questions import Questions

PAGE = "admin-api.md"


def test_every_path_has_its_row() -> None:
    nobody: Questions = object.__new__(Questions)
    known = {f"{route.method} {route.pattern}" for route in AdminRest(nobody).routes()}
    assert set(rows(section(PAGE, "Paths"))) == known


def test_every_field_of_every_act_has_its_row() -> None:
    parts = re.split(r"^`(\w+)`:\n", section(PAGE, "Fields"), flags=re.MULTILINE)
    listed = {act: set(rows(table)) for act, table in zip(parts[1::2], parts[2::2], strict=True)}
    known = {act.do.removesuffix("_document"): set(act.fields) for act in ACTS if act.fields}
    assert listed == known
