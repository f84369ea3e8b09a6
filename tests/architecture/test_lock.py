"""What is locked is what pyproject.toml asks for, and says nothing about the machine that made it."""

from __future__ import annotations

import re
import tomllib
from itertools import chain
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK = (ROOT / "requirements.lock").read_text()
#: Name to the versions it is locked at: one, or one for each range of Python versions.
LOCKED: dict[str, list[str]] = {}
for name, version in re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", LOCK, re.MULTILINE):
    LOCKED.setdefault(canonicalize_name(name), []).append(version)


def locked_extras() -> set[str]:
    """The extras that requirements.lock has."""
    found = re.search(r"^EXTRAS := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert found is not None
    return set(found[1].split())


def test_everything_asked_for_is_locked_in_a_version_that_fits() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = [
        *PROJECT["project"]["dependencies"],
        *chain(*(extras[name] for name in locked_extras())),
        *chain(*PROJECT["dependency-groups"].values()),
    ]
    assert len(wanted) > 25
    for text in wanted:
        requirement = Requirement(text)
        versions = LOCKED.get(canonicalize_name(requirement.name))
        assert versions, f"{text} is not locked: make lock"
        assert all(version in requirement.specifier for version in versions), (
            f"{text} is locked at {versions}: make lock"
        )


def test_the_frameworks_that_are_not_locked_are_pinned_where_they_are_tested() -> None:
    """They are large, and some cannot live together: each is in an environment of its own (make test-formats)."""
    pinned: dict[str, list[str]] = {}
    for file in (ROOT / "tests" / "heavy" / "environments").glob("*.txt"):
        for name, version in re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", file.read_text(), re.MULTILINE):
            pinned.setdefault(canonicalize_name(name), []).append(version)
    extras = PROJECT["project"]["optional-dependencies"]
    for text in chain(*(extras[name] for name in set(extras) - locked_extras())):
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        versions = pinned.get(name) or LOCKED.get(name)
        assert versions, f"{text} is pinned in no tests/heavy/environments/*.txt"
        assert any(version in requirement.specifier for version in versions), f"{text} is pinned at {versions}"


def test_torch_is_chosen_by_the_machine_and_in_one_place() -> None:
    assert "torch" not in LOCKED
    pin = re.search(r"^TORCH := torch==(\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    (want,) = PROJECT["project"]["optional-dependencies"]["torch"]
    assert pin is not None
    assert pin[1] in Requirement(want).specifier


def test_every_package_has_its_hashes() -> None:
    for file in ("requirements.lock", "requirements-uv.lock"):
        text = (ROOT / file).read_text().replace("\\\n", "")
        for line in filter(None, text.splitlines()):
            assert "--hash=sha256:" in line, f"{file}: {line[:80]}"
            assert "://" not in line, f"{file}: {line[:80]}"


def test_every_dependency_has_its_reasons() -> None:
    reasons = (ROOT / "docs" / "decisions" / "dependencies.md").read_text()
    asked = PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"].values()
    for text in (text for group in asked for text in group):
        name = Requirement(text).name
        assert re.search(rf"(\*\*|\| ){re.escape(name)}\b", reasons), f"{name} has no entry"
