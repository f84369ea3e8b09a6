"""`turnout compile` as it is typed, what is served of its result, and what `compile: auto` does by itself."""

from __future__ import annotations

import json
from pathlib import Path
from time import monotonic

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tests.compile.compiled_models import TRUSTED, numbers, saved
from turnout import formats
from turnout.core.errors import Failure, InvalidInput
from turnout.deploy.compile import compile_auto
from turnout.entrypoints import compile as command
from turnout.entrypoints.cli import _parser
from turnout.testing.server import serving

X = numbers(300, 3)
Y = (X[:, 0] + X[:, 1] * X[:, 2] > 0).astype(int)
FOREST = RandomForestClassifier(20, random_state=0).fit(X, Y)
QUICK = ("--generated", "200", "--sizes", "1,64", "--seconds", "0.1")


def typed(*words: str) -> int:
    return command.run(_parser().parse_args(["compile", *words, *QUICK]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("compile")
    saved(FOREST, place, "forest.joblib")
    (place / "rows.csv").write_text("a,b,c\n" + "\n".join(",".join(map(str, row)) for row in X[:50].tolist()))
    bodies = [{"inputs": [{"name": "x", "datatype": "FP64", "shape": [1, 3], "data": row}]} for row in X[:5].tolist()]
    (place / "requests.jsonl").write_text("\n".join(map(json.dumps, [*bodies, {"instances": X[5:8].tolist()}])))
    return place


def test_a_model_is_compiled_with_real_rows_and_served(folder, capsys):
    """The report says what was found; the response and its headers say what answered."""
    out = folder / "fast"
    words = ["--rows", str(folder / "rows.csv"), "--requests", str(folder / "requests.jsonl")]
    report = folder / "report.json"
    words += ["--output", str(out), "--trust-pickle", "--report", str(report), "--try", "quantized,threads"]
    assert typed(str(folder / "forest.joblib"), *words) == 0
    said = capsys.readouterr().out
    assert "50 given, 8 recorded, 200 generated" in said
    assert "label: the same in all of" in said
    assert "not adopted: onnx-int8" in said
    assert "x: infinite values: refused, as by the original" in said
    assert f"written to {out}; serve it with: turnout serve forest={out}" in said
    figures = json.loads(report.read_text())
    assert figures["adopted"]
    assert figures["rows"]["recorded"] == 8

    with serving(f"forest={out}", "--access-log", "off") as server:
        body = {"inputs": [{"name": "x", "datatype": "FP64", "shape": [2, 3], "data": X[:2].ravel().tolist()}]}
        answer = server.request("POST", "/v2/models/forest/infer", body)
        assert answer.status == 200, answer.body
        label = answer.json()["outputs"][0]["data"]
        assert label == FOREST.predict(X[:2]).tolist()
        twin = answer.json()["parameters"]["twin"]
        assert twin.startswith("onnx")
        assert answer.headers["x-twin"] == twin
        plain = server.request("POST", "/predict/forest", X[:2].tolist())
        assert plain.headers["x-twin"].startswith("onnx")
        refused = server.request(
            "POST", "/v2/models/forest/infer", {"inputs": [{**body["inputs"][0], "data": [1e39] * 6}]}
        )
        assert refused.status == 400
        assert "no numbers so large" in refused.json()["error"]


def test_a_model_that_does_not_choose_says_nothing(folder):
    with serving(f"forest={folder / 'forest.joblib'}", "--trust-pickle", "--access-log", "off") as server:
        answer = server.request("POST", "/predict/forest", X[:2].tolist())
        assert answer.status == 200
        assert "x-twin" not in answer.headers


def test_what_is_not_adopted_ends_with_one(folder, capsys, tmp_path):
    path = saved(make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y), tmp_path)
    assert typed(str(path), "--trust-pickle", "--absolute", "0", "--relative", "0") == 1
    said = capsys.readouterr().out
    assert "not adopted: onnx (double): outside the tolerance" in said
    assert "not adopted; the model is as it was" in said
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["forest.joblib", "--requests", "none.jsonl"], "there is no such text file"),
        (["forest.joblib", "--requests", "rows.csv"], "line 1 is no request of this model"),
        (["nothing.joblib"], "there is no file or directory"),
        (["some.module:model"], "Python code has no converter"),
        ([".", "--output", "inside"], "inside is inside of what is compiled"),
        (["forest.joblib", "--output", "rows.csv"], r"rows\.csv is there already"),
    ],
)
def test_what_cannot_work_is_said(words, said, folder, monkeypatch):
    monkeypatch.chdir(folder)
    with pytest.raises((Failure, InvalidInput), match=said):
        typed(*words, "--trust-pickle")


def test_a_directory_is_compiled_beside_itself(folder, tmp_path, monkeypatch):
    """With all that lies in it: an example beside the model still counts."""
    inner = tmp_path / "forest"
    inner.mkdir()
    saved(FOREST, inner)
    (inner / "input_example.json").write_text(json.dumps(X[:2].tolist()))
    monkeypatch.chdir(inner)
    assert typed(".", "--trust-pickle") == 0
    held = {path.name for path in (tmp_path / "forest.compiled" / "original" / "forest").iterdir()}
    assert held == {"model.joblib", "input_example.json"}
    assert formats.load(tmp_path / "forest.compiled", TRUSTED).predict({"x": X[:3]})


@pytest.mark.slow
def test_auto_compiles_once_and_remembers(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TURNOUT_HOME", str(tmp_path / "home"))
    told: list[str] = []
    options = {"trust_pickle": True, "threads": 1, "format": None}
    made = compile_auto(folder / "forest.joblib", options, tell=told.append)
    assert made is not None
    assert "was compiled: onnx" in told[-1]
    rows = {"x": X[:5]}
    assert formats.load(made, TRUSTED).predict(rows)["label"].tolist() == FOREST.predict(X[:5]).tolist()
    told.clear()
    assert compile_auto(folder / "forest.joblib", options, tell=told.append) == made
    assert told == []


def test_auto_serves_as_it_is_what_it_cannot_compile(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TURNOUT_HOME", str(tmp_path / "home"))
    told: list[str] = []
    assert compile_auto(folder / "forest.joblib", {"trust_pickle": False}, tell=told.append) is None
    assert "is served as it is" in told[-1]
    assert "trust" in told[-1]
    assert compile_auto("some.module:model", {}, tell=told.append) is None
    assert compile_auto(folder / "forest.joblib", {"trust_pickle": True}, 0.01, tell=told.append) is None
    assert "was not compiled within 0.01 s" in told[-1]
    assert not np.any([path.suffix == ".onnx" for path in (tmp_path / "home").rglob("*")])


def test_auto_ends_with_its_time_and_so_does_all_that_it_has_started(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TURNOUT_HOME", str(tmp_path / "home"))
    fickle = tmp_path / "python"
    fickle.write_text(f"#!/bin/sh\nsleep 300 &\necho $! > {tmp_path}/pid\nwait\n")
    fickle.chmod(0o755)
    told: list[str] = []
    began = monotonic()
    assert (
        compile_auto(folder / "forest.joblib", {"trust_pickle": True}, 1.0, python=str(fickle), tell=told.append)
        is None
    )
    assert monotonic() - began < 60
    assert "was not compiled within 1 s" in told[-1]
    pid = int((tmp_path / "pid").read_text())
    while is_running(pid) and monotonic() - began < 60:
        pass
    assert not is_running(pid)


def is_running(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
