"""YAML that people write is read; what would be misread is refused with its line."""

from __future__ import annotations

import pytest

from turnout.core.errors import InvalidInput
from turnout.deploy.yaml_text import MAX_BYTES, read_yaml


def test_folded_text_flow_lists_anchors_and_merges() -> None:
    found = read_yaml(
        b"a: &a {x: 1, y: [1, 2]}\nb: {<<: *a, x: 2}\nc: >-\n  one\n  two\nd: 'it''s'\ne: 3.10\nf: '3.10'\n", "x.yaml"
    )
    assert found == {
        "a": {"x": 1, "y": [1, 2]},
        "b": {"x": 2, "y": [1, 2]},
        "c": "one two",
        "d": "it's",
        "e": 3.1,
        "f": "3.10",
    }


def test_nothing_is_none() -> None:
    assert read_yaml(b"", "x.yaml") is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a: 1\nb: 2\na: 3\n", r"x\.yaml:3: not YAML \('a' stands twice\)"),
        (b"a: [1, 2\n", r"x\.yaml:2: not YAML \(expected ',' or ']'"),
        (b"a: !!python/object/apply:os.system ['true']\n", r"x\.yaml:1: not YAML \(could not determine a constructor"),
        (b"a: 1\n---\nb: 2\n", r"x\.yaml:2: not YAML"),
        (b"a: 2024-99-99\n", r"x\.yaml: not YAML \(month must be in 1\.\.12"),
        (b"\xff\xfe\xff", r"x\.yaml: not YAML \('utf-8' codec"),
        (b"a: \x00\n", r"x\.yaml: not YAML"),
        (b"[" * 5000, r"x\.yaml: .*nested too deeply"),
        (b" " * (MAX_BYTES + 1), r"x\.yaml: too large; expected at most 1048576 bytes; got 1048577 bytes"),
        (b"a: &a [*a]\n", r"x\.yaml: its aliases unfold into too much"),
    ],
)
def test_what_is_refused(content: bytes, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        read_yaml(content, "x.yaml")


def test_a_document_that_grows_is_refused_before_it_has_grown() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    with pytest.raises(InvalidInput, match="aliases unfold"):
        read_yaml("\n".join(lines).encode(), "bomb.yaml")
