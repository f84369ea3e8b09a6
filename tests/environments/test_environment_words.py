"""`turnout env`: what it prints, what it refuses, and that its page says all of it."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from turnout.core.errors import Failure
from turnout.deploy.environments.store import Environments
from turnout.entrypoints import environments as verb

Do = Callable[[str], int]
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "environments.md"


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="turnout")
    verb.words(made.add_subparsers(dest="verb"))
    return made


@pytest.fixture
def do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environments: Environments) -> Do:
    """Types words in a directory with a model; environments are of a home of its own."""
    monkeypatch.setenv("TURNOUT_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    for name, wanted in {"new": "scores", "old": "old-scores"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "requirements.txt").write_text(wanted)
    (tmp_path / "bare").mkdir()
    words = f"--wheels {environments.policy.wheels[0]} --offline"

    def typed(text: str) -> int:
        return verb.run(parser().parse_args(["env", *text.replace("WHEELS", words).split()]))

    return typed


def test_from_nothing_to_nothing(do: Do, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert do("list") == 0
    assert capsys.readouterr().out == f"no environments in {tmp_path / 'home' / 'environments'}\n"
    assert do("build new WHEELS") == 0
    captured = capsys.readouterr()
    assert "turnout: Installed 2 packages" in captured.err
    new = captured.out.split()[0]
    assert Path(captured.out.split()[1]).is_dir()
    assert do("build --requirements old/requirements.txt WHEELS") == 0
    old = capsys.readouterr().out.split()[0]

    assert do("list") == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["DIGEST", "PACKAGES", "MIB", "SHARED", "LAST", "USED", "FROM"]
    assert [row.split()[:2] for row in rows] == [[old, "2"], [new, "2"]]
    assert rows[0].endswith("requirements.txt: old-scores")
    assert do("list --json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed[1]["packages"] == {"numpy": "2.4.0", "scores": "1.0"}

    assert do(f"remove {old[:8]}") == 0
    assert capsys.readouterr().out == f"removed {old}\n"
    assert do("evict --max-mb 0") == 0
    assert capsys.readouterr().out.startswith(f"removed {new}, ")
    assert do("list") == 0
    assert capsys.readouterr().out.startswith("no environments")


def test_the_bill_goes_to_a_file_or_to_standard_output(
    do: Do, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    do("build new WHEELS")
    digest = capsys.readouterr().out.split()[0]
    assert do(f"sbom {digest[:6]}") == 0
    printed = json.loads(capsys.readouterr().out)
    assert do(f"sbom {digest} --output bill.json") == 0
    assert json.loads((tmp_path / "bill.json").read_text()) == printed
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("build", "say what to build for: a MODEL, or --requirements FILE"),
        ("build new --requirements x", "say what to build for: a MODEL, or --requirements FILE"),
        ("build nothing", "there is no file or directory 'nothing'"),
        ("build bare", "bare brings no requirements .*; it runs in the server's own environment"),
        ("build --requirements none.txt", r"there is no requirements file 'none\.txt'"),
        ("build new --index-url http://127.0.0.1:1/simple --no-public-index", r"127\.0\.0\.1"),
        ("remove abc", "no environment begins with 'abc': none at all"),
        ("sbom abc", "no environment begins with 'abc'"),
        ("audit abc", "no environment begins with 'abc'"),
    ],
)
def test_what_cannot_be_done(do: Do, words: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with pytest.raises(Failure, match=said):
        do(words)


def test_a_beginning_that_two_have_is_refused(do: Do, tmp_path: Path) -> None:
    do("build new WHEELS")
    do("build old WHEELS")
    with pytest.raises(Failure, match="no environment begins with ''"):
        Environments(tmp_path / "home" / "environments").find("")


def test_one_in_use_is_not_removed(do: Do, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    do("build new WHEELS")
    digest = capsys.readouterr().out.split()[0]
    store = Environments(tmp_path / "home" / "environments")
    with store.hold(store.find(digest)), pytest.raises(Failure, match=f"{digest} is in use; it was not removed"):
        do(f"remove {digest}")


@pytest.mark.parametrize("words", ["evict", "evict --max-mb -1", "evict --max-mb nan", "list extra", "nothing"])
def test_words_that_mean_nothing(do: Do, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        do(words)
    assert ended.value.code == 2
    usage, complaint = capsys.readouterr().err.splitlines()
    assert usage.startswith("usage: turnout")
    assert re.match(r"turnout( env( \w+)?)?: error: ", complaint)


def acts() -> dict[str, argparse.ArgumentParser]:
    (verbs,) = [a for a in parser()._actions if isinstance(a, argparse._SubParsersAction)]
    (found,) = [a for a in verbs.choices["env"]._actions if isinstance(a, argparse._SubParsersAction)]
    return dict(found.choices)


def test_every_act_has_its_heading() -> None:
    assert re.findall(r"^## `turnout env (\w+)`$", PAGE.read_text(), re.MULTILINE) == list(acts())


@pytest.mark.parametrize("act", acts())
def test_every_option_stands_under_its_act(act: str) -> None:
    parts = re.split(r"^## (.+)\n", PAGE.read_text(), flags=re.MULTILINE)
    text = parts[parts.index(f"`turnout env {act}`") + 1]
    shared = parts[parts.index("From where packages come") + 1]
    listed = set(re.findall(r"^\| `(--[a-z-]+)", text, re.MULTILINE))
    known = {a.option_strings[-1] for a in acts()[act]._actions if a.option_strings and a.dest != "help"}
    if "(#from-where-packages-come)" in text:
        listed |= set(re.findall(r"^\| `(--[a-z-]+)", shared, re.MULTILINE))
    assert listed == known
