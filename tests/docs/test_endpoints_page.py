"""The pages on the document have a row for every key with its default, and for every place of a reference."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.docs.test_reference import REFERENCE, rows, section
from turnout.deploy.document import parse_document
from turnout.deploy.endpoint_spec import KEYS
from turnout.deploy.model_entry import SECTIONS
from turnout.deploy.references import PLACES
from turnout.deploy.variants import KINDS, POLICIES, RUN
from turnout.graph.cascade import CascadePolicy
from turnout.graph.last_good import LastGoodKey
from turnout.graph.pairs import PairPolicy
from turnout.graph.rules import MatchPolicy, RulePolicy, WhenPolicy
from turnout.graph.shadow import ShadowPolicy
from turnout.graph.sticky import StickyPolicy

PAGE = "endpoints.md"
PARTS: dict[str, type[msgspec.Struct]] = {
    "sticky": StickyPolicy,
    "rules[]": RulePolicy,
    "rules[].when": WhenPolicy,
    "a condition of a rule": MatchPolicy,
    "shadow.VERSION": ShadowPolicy,
    "shadow.VERSION.compare": PairPolicy,
    "fallback[].last_good.key": LastGoodKey,
    "cascade": CascadePolicy,
}


def part(name: str) -> str:
    """What stands under a heading of the third order."""
    text = (REFERENCE / PAGE).read_text()
    return re.split(r"^##+ ", text.split(f"### `{name}`\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def default_of(field: Any) -> str:
    """As the table has it."""
    value = field.default
    if field.default_factory is not msgspec.NODEFAULT:
        value = field.default_factory()
    if value is msgspec.NODEFAULT:
        return "required"
    if value is None:
        return "none"
    return "usual" if isinstance(value, msgspec.Struct) else f"`{json.dumps(value)}`"


def test_every_key_of_an_endpoint_has_its_row() -> None:
    assert set(rows(section(PAGE, "The endpoint"))) == set(KEYS)


def test_every_key_of_a_version_has_its_row_or_its_name() -> None:
    text = section(PAGE, "A version")
    assert set(rows(text)) == {*KINDS, *POLICIES}
    named = set(re.findall(r"`(\w+)`", text.split("these fields:")[1].split("\n\n")[0]))
    assert named == set(RUN)


@pytest.mark.parametrize("name", PARTS)
def test_every_setting_has_its_row_with_its_default(name: str) -> None:
    listed = rows(part(name))
    fields = {field.encode_name: field for field in msgspec.structs.fields(PARTS[name])}
    assert set(listed) == set(fields)
    for key, field in fields.items():
        assert listed[key][0] == default_of(field), key


def test_every_section_and_every_place_of_a_reference_has_its_row() -> None:
    assert set(rows(section("spec.md", "The file"))) == {*SECTIONS, "include"}
    assert set(rows(section("spec.md", "References"))) == set(PLACES)


def test_the_page_s_document_is_one() -> None:
    block = re.search(r"```yaml\n(.*?)```", (REFERENCE / PAGE).read_text(), re.DOTALL)
    assert block is not None
    assert parse_document(block[1], str(Path("/turnout.yaml"))).names == ["fraud"]
