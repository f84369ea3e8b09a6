"""Spark is for batches: predicted from the command line, refused by a server, and gone when its process is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.heavy.conftest import run_in
from tests.heavy.keeping import arrays, cases
from turnout.deploy.environments.environment import Environment
from turnout.deploy.environments.worker_path import worker_path
from turnout.testing.server import children

pytestmark = [pytest.mark.formats, pytest.mark.timeout(900)]
Made = Callable[[str, str], Path]
LOAD = """
import sys, time
from turnout import formats
formats.load(sys.argv[1])
print("loaded", flush=True)
time.sleep(600)
"""
REFUSE = """
import sys
from turnout import formats
try:
    formats.load(sys.argv[1])
except formats.LoadFailed as failure:
    print(type(failure).__name__, failure)
print("pyspark" in sys.modules)
"""


def test_predict_gives_the_pipeline_s_answers(
    made: Made, environment: Callable[[str], Environment], tmp_path: Path
) -> None:
    folder = made("spark", "spark")
    case = next(case for case in cases(folder) if case["name"] == "spark-pipeline")
    rows, expected = arrays(folder, case, "rows"), arrays(folder, case, "expected")
    lines = [
        "size,a,b",
        *(f"{s.decode()},{a!r},{b!r}" for s, a, b in zip(*(c.tolist() for c in rows.values()), strict=True)),
    ]
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "run.py").write_text("from turnout.entrypoints.cli import main\nmain()\n")
    words = ("predict", str(folder / "pipeline"), "--input", str(tmp_path / "rows.csv"))
    ended = run_in(environment("spark"), tmp_path / "run.py", *words)
    assert ended.returncode == 0, ended.stderr[-2000:]
    answers = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [answer["prediction"] for answer in answers] == expected["prediction"].tolist()
    assert [answer["said"].encode() for answer in answers] == expected["said"].tolist()
    assert [answer["probability"] for answer in answers] == expected["probability"].tolist()


def test_a_server_refuses_and_says_why(made: Made) -> None:
    command = [sys.executable, "-m", "turnout.entrypoints.cli", "serve", str(made("spark", "spark") / "pipeline")]
    ended = subprocess.run(
        [*command, "--port", "0", "--grpc-port", "0"], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode != 0
    assert "cannot be served" in ended.stderr
    assert "turnout predict" in ended.stderr


def test_a_stage_of_sql_needs_trust(made: Made, environment: Callable[[str], Environment], tmp_path: Path) -> None:
    (tmp_path / "refuse.py").write_text(REFUSE)
    ended = run_in(environment("spark"), tmp_path / "refuse.py", str(made("spark", "spark") / "sql"))
    assert ended.stdout.startswith("PickleRefused"), ended.stdout + ended.stderr
    assert "SQLTransformer" in ended.stdout
    assert ended.stdout.endswith("False\n"), "Spark was started to judge a model that is not trusted"


def test_java_ends_when_its_process_is_killed(
    made: Made, environment: Callable[[str], Environment], tmp_path: Path
) -> None:
    process = subprocess.Popen(
        [str(environment("spark").python), "-c", LOAD, str(made("spark", "spark") / "tree")],
        env={**os.environ, "PYTHONPATH": str(worker_path())},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"loaded\n"
        java = children(process.pid)
        assert java, "no Java process was started"
        process.send_signal(signal.SIGKILL)
        process.wait(10.0)
        until = time.monotonic() + 60.0
        while any(Path(f"/proc/{pid}").exists() for pid in java):
            assert time.monotonic() < until, "Java outlived the process that had started it"
            time.sleep(0.1)
    finally:
        process.kill()
        process.wait(10.0)
        process.stdout.close()
