"""The published schema is the current one, takes every document that can be read, and refuses what it can tell."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from jsonschema import Draft202012Validator

from tests.deploy.documents import documents
from tests.deploy.test_document import WHOLE
from turnout.deploy.document import parse_document
from turnout.deploy.endpoint_spec import KEYS
from turnout.deploy.schema import meanings, schema
from turnout.entrypoints.cli import main

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "docs" / "reference" / "turnout.schema.json"
VALIDATOR = Draft202012Validator(schema())


def blocks() -> list[str]:
    """The spec files in the documentation."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    found = [block for page in pages for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)]
    return [block for block in found if re.search(r"^(models|endpoints|server|include):", block, re.MULTILINE)]


def test_the_published_schema_is_current() -> None:
    assert json.loads(PUBLISHED.read_text()) == schema(), "python tools/write_schema.py"


def test_it_is_a_schema() -> None:
    Draft202012Validator.check_schema(schema())


def test_the_command_line_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == schema()


@settings(max_examples=40)
@given(documents())
def test_it_takes_what_can_be_read(said: dict[str, Any]) -> None:
    VALIDATOR.validate(said)
    VALIDATOR.validate(parse_document(said).to_json())


@pytest.mark.parametrize("block", [WHOLE, *blocks()])
def test_it_takes_the_documentation(block: str) -> None:
    VALIDATOR.validate(yaml.safe_load(block.replace("on: [error]", '"on": [error]')))


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("traffic: {v7: 90", "trafic: {v7: 90"),
        ("v7: 90", "v7: 190"),
        ("v7: 90", "v7: many"),
        ("replicas: 2", "replica: 2"),
        ("replicas: 2", "replicas: two"),
        ('model: "models:/fraud/7", replicas: 2', "replicas: 2"),
        ('model: "models:/fraud/7", replicas: 2', "model: a, cascade: {steps: [v7, v8], output: y}"),
        ("{header: x-account-id}\n", "{heder: x-account-id}\n"),
        ("hedge: 0.9", "hedge: often"),
        ("attempts: 3", "attempts: x"),
        ("{default: {score: 0.0}}", "{constant: {score: 0.0}}"),
        ("steps: [v7, v8], output: score", "steps: [v7, v8]"),
        ("combine: mean, of", "combine: mean, off"),
        ("rollout: {to: v8, ", "rollout: {"),
        ("endpoints:", "endpoint:"),
    ],
)
def test_it_refuses_what_it_can_tell(good: str, bad: str) -> None:
    assert WHOLE.count(good) == 1
    assert not VALIDATOR.is_valid(yaml.safe_load(WHOLE.replace(good, bad).replace("on: [error]", '"on": [error]')))


def test_every_key_has_its_meaning() -> None:
    """An editor shows it. What is only a reference has its own."""
    found = schema()
    for name, one in {**found["$defs"], "server": found["properties"]["server"]}.items():
        for key, value in one["properties"].items():
            if name in {"server", "model", "batching"} and "$ref" not in value:
                assert value["description"], f"{name}.{key}"
    assert set(found["$defs"]["endpoint"]["properties"]) == set(KEYS)


def test_meanings_come_from_docstrings() -> None:
    assert meanings("What it is.\n\n    one: the first\n    of them. two, `three`: others; four: the last.") == {
        "one": "The first of them.", "two": "Others.", "three": "Others.", "four": "The last.",
    }  # fmt: skip
