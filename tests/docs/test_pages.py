"""Links lead somewhere, decisions are listed, and the glossary has one sentence for each word."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted({*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")})
LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")


def slug(heading: str) -> str:
    """The anchor of a heading, as the usual renderers make it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def prose(page: Path) -> str:
    return re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(prose(page)):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{page.name} links to {target}"
        assert ROOT in found.parents, f"{target} leads out of the project"
        if anchor and found.suffix == ".md":
            headings = {slug(heading) for heading in re.findall(r"^#+ (.+)$", prose(found), re.MULTILINE)}
            assert anchor in headings, f"{page.name} links to {target}"


def test_every_page_can_be_reached_from_the_index() -> None:
    seen: set[Path] = set()
    waiting = [ROOT / "docs" / "index.md"]
    while waiting:
        page = waiting.pop()
        if page in seen:
            continue
        seen.add(page)
        targets = [(page.parent / target.partition("#")[0]).resolve() for target in LINK.findall(prose(page))]
        waiting += [target for target in targets if target.suffix == ".md" and target.exists()]
    assert [
        str(page.relative_to(ROOT)) for page in PAGES if page.is_relative_to(ROOT / "docs") and page not in seen
    ] == []


def test_every_decision_is_listed() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = set(LINK.findall((folder / "README.md").read_text()))
    assert {page.name for page in folder.glob("*.md")} - {"README.md"} <= listed


def test_the_glossary_has_one_sentence_for_each_word_in_order() -> None:
    text = (ROOT / "GLOSSARY.md").read_text()
    for section in text.split("\n## ")[1:]:
        entries = re.findall(r"^- \*\*(.+?)\*\*: (.+)$", section, re.MULTILINE)
        assert entries, section
        words = [word for word, _ in entries]
        assert words == sorted(words, key=str.lower)
        for word, meaning in entries:
            assert len(re.findall(r"[.!?](?: |$)", meaning)) == 1, f"{word}: one sentence"
            assert meaning.endswith("."), word
    every = re.findall(r"^- \*\*(.+?)\*\*: ", text, re.MULTILINE)
    assert len(every) == len(set(every)), "a word has one meaning, wherever it stands"


def test_the_changelog_begins_with_what_is_unreleased() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", heading) for heading in headings[1:])
