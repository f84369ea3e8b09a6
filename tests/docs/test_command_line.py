"""What the command line says to somebody who mistypes, and that it does what its page promises."""

from __future__ import annotations

import io
import json
import signal
import sys
from pathlib import Path

import pytest

from turnout.entrypoints.cli import main
from turnout.testing.server import serving

MODEL = """
import numpy as np

example = {"x": np.zeros((1, 2))}


def predict(inputs):
    return {"total": inputs["x"].sum(axis=1)}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "rows.csv").write_text("1,2\n3,4\n")
    (tmp_path / "short.csv").write_text("1\n")
    (tmp_path / "ragged.json").write_text("[[1, 2], [3]]")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("serve", "the following arguments are required: [NAME=]MODEL, or a spec file"),
        ("serve model.py --port 99999", "argument --port: expected a whole number from 0 to 65535; got '99999'"),
        ("serve model.py --port web", "argument --port: expected a whole number from 0 to 65535; got 'web'"),
        ("serve model.py --replicas 0", "argument --replicas: expected a whole number, 1 or more; got '0'"),
        ("serve model.py --deadline -1", "argument --deadline: expected seconds, above 0; got '-1'"),
        ("serve model.py --deadline nan", "argument --deadline: expected seconds, above 0; got 'nan'"),
        ("serve model.py --max-batch-wait -1", "argument --max-batch-wait: expected seconds, 0 or more; got '-1'"),
        ("serve model.py --repl 2", "unrecognized arguments: --repl 2 (did you mean --replicas?)"),
        ("cache list --jsn", "turnout cache list: error: unrecognized arguments: --jsn (did you mean --json?)"),
        ("status fraud too", "turnout status: error: unrecognized arguments: too"),
        ("predict model.py", "the following arguments are required: --input"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_words_that_mean_nothing(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words.split())
    assert ended.value.code == 2
    usage, complaint, *rest = capsys.readouterr().err.splitlines()
    assert usage.startswith("usage: turnout ")
    assert complaint.endswith(said)
    assert not rest


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("serve nothing.onnx", ["there is no file or directory 'nothing.onnx'"]),
        ("serve model.py model.py", ["two models are called 'model'", "turnout serve model=a.onnx other=b.onnx"]),
        ("serve model.py --format onnx", ["model.py is said to be onnx, but its content is python"]),
        ("serve model.py --host nowhere.invalid", ["--host", "127.0.0.1", "got 'nowhere.invalid'"]),
        ("serve model.py --access-log no/such/log", ["--access-log", "stderr, stdout, off", "got 'no/such/log'"]),
        ("serve model.py --signature none.json", ["none.json", '{"inputs": [{"name": "x"']),
        ("serve --spec t.yaml --replicas 2", ["--replicas: with --spec, the file says this", "only --host, --port"]),
        ("serve model.py --port 5000 --grpc-port 5000", ["grpc_port", "5000 for both"]),
        ("predict model.py --input none.csv", ["--input", "there is no such file", "got 'none.csv'"]),
        ("predict model.py --input short.csv", ["short.csv", "expected", "got", "Example that works"]),
        ("predict model.py --input ragged.json", ["ragged.json", "rows of equal length", "Example that works"]),
        ("predict model.py --input rows.csv --output out.txt", ["--output", ".json, .jsonl or .csv", "got .txt"]),
        ("predict model.py --input rows.csv --output no/out.csv", ["--output", "no such directory", "got no"]),
    ],
)
@pytest.mark.usefixtures("folder")
def test_what_cannot_work_is_one_line(words: str, said: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words.split()) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("turnout: ")
    for part in said:
        assert part in line


def test_standard_input_is_json(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("[[1, 2]]"))
    assert main(["predict", str(folder), "--input", "-"]) == 0
    assert capsys.readouterr().out == '{"total": 3.0}\n'


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        (".csv", "total\n3.0\n7.0\n"),
        (".json", '[{"total": 3.0}, {"total": 7.0}]\n'),
        (".jsonl", '{"total": 3.0}\n{"total": 7.0}\n'),
    ],
)
def test_predictions_are_written(folder: Path, suffix: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / f"out{suffix}"
    assert main(["predict", str(folder), "--input", "rows.csv", "--output", str(out)]) == 0
    assert out.read_text() == text
    assert capsys.readouterr().err == f"2 predictions written to {out}\n"


def test_a_server_from_start_to_end(folder: Path) -> None:
    """One server: what it prints works, SIGHUP opens the log anew, a taken port is said, SIGTERM ends it with 0."""
    with serving("sum=model.py", "--access-log", "access.log", folder=folder) as server:
        assert "turnout: loading sum (python) ..." in server.log
        path, body = server.log.split("curl -s ")[1].splitlines()[0].split(" -H 'content-type: application/json' -d ")
        answer = server.request("POST", path.partition(str(server.port))[2], json.loads(body.strip("'")))
        assert answer.json()["predictions"] == [{"total": 1.0}]

        log = folder / "access.log"
        server.wait_until(lambda: "sum" in log.read_text())
        log.rename(folder / "old.log")
        server.process.send_signal(signal.SIGHUP)
        server.wait_until(lambda: server.request("POST", "/predict/sum", [[1, 2]]).status == 200 and log.exists())

        words = ["sum=model.py", "--port", str(server.port)]
        with pytest.raises(RuntimeError, match=r"Address already in use"), serving(*words, folder=folder):
            pass
        assert server.stop() == 0
        assert "turnout: stopping: what is in flight is still answered" in server.log
        assert "Traceback" not in server.log
