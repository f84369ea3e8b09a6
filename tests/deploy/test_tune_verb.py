"""`turnout tune` over models in plain Python: what it prints, what it writes, what it refuses."""

from __future__ import annotations

import json
import random
from html.parser import HTMLParser
from pathlib import Path

import pytest

from turnout.deploy.document import parse_document
from turnout.entrypoints.cli import main

#: The cheap one knows the sign and not much near 0; the dear one knows the rule.
SMALL = """
import numpy as np

example = {"amount": np.array([1.0])}


def predict(inputs):
    p = 1 / (1 + np.exp(-inputs["amount"]))
    return {"probabilities": np.stack([1 - p, p], axis=1), "name": np.where(p > 0.5, "bad", "good").astype(object)}
"""
LARGE = """
import numpy as np

example = {"amount": np.array([1.0])}


def predict(inputs):
    p = (inputs["amount"] > 0.5).astype(float)
    return {"probabilities": np.stack([1 - p, p], axis=1), "name": np.where(p > 0.5, "bad", "good").astype(object)}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "small.py").write_text(SMALL)
    (tmp_path / "large.py").write_text(LARGE)
    chance = random.Random(1)
    amounts = [round(chance.uniform(-5, 5), 2) for _ in range(400)]
    lines = [f"{amount},{int(amount > 0.5)},{'bad' if amount > 0.5 else 'good'}" for amount in amounts]
    (tmp_path / "rows.csv").write_text("\n".join(["amount,fraud,verdict", *lines]) + "\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


WORDS = ["tune", "small.py", "large.py", "--rows", "rows.csv", "--label"]


def test_the_threshold_is_found_and_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong is the small one between 0 and 0.5: there it is less than 0.63 sure, and few rows are."""
    reports = ["--report", "tuned.json", "--report", "tuned.html"]
    assert main([*WORDS, "fraud", *reports]) == 0
    said = json.loads((folder / "tuned.json").read_text())
    printed = capsys.readouterr().out
    assert said["best"]["accuracy"] == 1.0
    assert 0.55 < said["chosen"]["thresholds"][0] < 0.65
    assert 0.05 < said["chosen"]["asked"][1] < 0.2
    assert said["alone"]["large"]["accuracy"] == 1.0 > said["alone"]["small"]["accuracy"]
    assert said["spec"] == {
        "steps": ["small", "large"], "output": "probabilities", "threshold": said["chosen"]["thresholds"][0]
    }  # fmt: skip
    assert f"In the spec: {{cascade: {json.dumps(said['spec'])}}}" in printed
    assert [line.split()[0] for line in printed.splitlines() if line.startswith(("only", "chosen"))] == [
        "only", "chosen", "only"
    ]  # fmt: skip
    versions = {name: {"model": f"{name}.py"} for name in ("small", "large")} | {"fast": {"cascade": said["spec"]}}
    document = parse_document({"endpoints": {"fraud": {"versions": versions, "traffic": {"fast": 100}}}}, str(folder))
    assert document.endpoint("fraud").version("fast")
    page = (folder / "tuned.html").read_text()
    tags: list[str] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.append(tag)  # type: ignore[method-assign]
    parser.feed(page)
    assert {"svg", "polyline", "table"} <= set(tags)
    assert not {"script", "link", "img"} & set(tags), "it needs nothing else"
    assert "0.5</th>" not in page.split("<svg")[0]


def test_text_is_compared_with_text_and_names_are_given(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["tune", "a=small.py", "b=large.py", "--rows", "rows.csv", "--label", "verdict", "--answer", "name"]
    assert main([*words, "--target", "0.99", "--sure", "--measure", "margin"]) == 0
    printed = capsys.readouterr().out
    assert "only a" in printed
    assert '"steps": ["a", "b"], "output": "probabilities", "measure": "margin"' in printed


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([*WORDS, "frod"], ["--label: there is no such column", "amount, fraud, verdict", "'frod'"]),
        ([*WORDS, "verdict"], ["--label: the labels are text and the answers are numbers", "--answer"]),
        ([*WORDS, "fraud", "--answer", "label"], ["--answer: there is no such output", "probabilities, name"]),
        ([*WORDS, "fraud", "--confidence", "p"], ["output: no such output", "probabilities, name", "'p'"]),
        ([*WORDS, "fraud", "--target", "2"], ["target: no threshold is as right as that", "at most 1.0000", "got 2"]),
        ([*WORDS, "fraud", "--report", "x.pdf"], ["--report: unknown kind of file", ".json or .html", "'x.pdf'"]),
        (["tune", "small.py", "small.py", "--rows", "rows.csv", "--label", "fraud"], ["two models are called 'small'"]),
        (
            ["tune", "small.py", "--rows", "rows.csv", "--label", "fraud"],
            ["steps: nowhere to go on to", "at least two"],
        ),
        (["tune", "small.py", "large.py", "--rows", "no.csv", "--label", "fraud"], ["no.csv: there is no such file"]),
    ],
)
@pytest.mark.usefixtures("folder")
def test_what_cannot_be_tuned_is_said(words: list[str], said: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    for part in said:
        assert part in error
