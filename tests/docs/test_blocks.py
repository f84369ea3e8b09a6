"""Whoever types in what the pages show gets what they say."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.docs.blocks import Reader, blocks, commands, fits

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs" / "tutorials").glob("*.md")),
    *sorted((ROOT / "docs" / "how-to").glob("*.md")),
]
KINDS = ("run", "file", "output", "server", "interrupt", "not run")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_block_says_what_a_reader_does_with_it(page: Path) -> None:
    for block in blocks(page.read_text()):
        kind, _, argument = block.mark.partition(": ")
        assert kind in KINDS, f"{name(page)}:{block.line}: the mark above the block is {block.mark!r}"
        assert kind != "not run" or argument, f"{name(page)}:{block.line}: why is it not run?"


def follow(page: Path, place: Path) -> None:
    reader = Reader(name(page), place)
    try:
        for block in blocks(page.read_text()):
            reader.follow(block)
    finally:
        reader.close()


@pytest.fixture(scope="module")
def followed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[Path, Future[None]]]:
    """Each page that is asked for, two at a time: most of the time is model libraries being imported."""
    asked = [
        item.callspec.params["page"]
        for item in request.session.items
        if hasattr(item, "callspec") and "followed" in item.fixturenames
    ]
    with ThreadPoolExecutor(2) as readers:
        yield {page: readers.submit(follow, page, tmp_path_factory.mktemp("page")) for page in asked}


@pytest.mark.skipif(shutil.which("curl") is None, reason="the pages use curl")
@pytest.mark.parametrize("page", PAGES, ids=name)
def test_what_a_page_shows_is_what_happens(page: Path, followed: dict[Path, Future[None]]) -> None:
    followed[page].result()


def test_a_tutorial_leaves_nothing_out() -> None:
    for page in PAGES:
        if page.parent.name == "tutorials":
            left_out = [block.line for block in blocks(page.read_text()) if block.mark.startswith("not run")]
            assert not left_out, name(page)


@pytest.mark.parametrize(
    ("expected", "printed", "fit"),
    [
        ("a", "a\n", True),
        ("a", "a\nb\n", False),
        ("a\n...", "a\nb\nc\n", True),
        ("a\n...\nd", "a\nb\nc\n", False),
        ('{"x": ...}', '{"x": [1, 2]}\n', True),
        ('{"x": ...}', '{"x": [1,\n2]}\n', False),
        ("1.5", "1x5\n", False),
    ],
)
def test_three_dots_stand_for_anything(expected: str, printed: str, fit: bool) -> None:
    assert fits(expected, printed) is fit


def test_commands_are_taken_apart() -> None:
    assert commands("$ one\nline\n$ two \\\n    more\n") == [("one", "line"), ("two \\\n    more", "")]
