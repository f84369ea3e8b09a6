"""Whoever asks, and however: the answer is what the model's own library predicts for these rows."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import turnout
from tests.equality import ways
from tests.equality.models import WIDTH, Known
from tests.equality.ways import WAYS
from turnout.testing.server import Server, serving

SIZES = (1, 2, 7, 300)


def rows_of(count: int, seed: int) -> np.ndarray:
    """Rows that no two requests share; numbers that a float32 holds, for what some models take."""
    return np.random.default_rng(seed).uniform(0.0, 8.0, (count, WIDTH)).astype(np.float32).astype(np.float64)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("count", SIZES)
def test_served(server: Server, model: Known, way: str, count: int) -> None:
    rows = rows_of(count, count)
    model.check(rows, WAYS[way](server, model, rows))


@pytest.mark.parametrize("count", SIZES)
def test_in_process(model: Known, count: int) -> None:
    rows = rows_of(count, count)
    loaded = turnout.load(model.path)
    for given_rows in (rows, {model.input: rows.astype(model.dtype)}):
        model.check(rows, ways._text(loaded.predict(given_rows)[model.output]))


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_command_line(model: Known, tmp_path: Path, kind: str) -> None:
    if model.name != "net" and (kind == "csv") == model.path.suffix.startswith(".sk"):
        pytest.skip("each library takes seconds to import, so each kind of file is tried with half of them")
    rows = rows_of(5, 5)
    (tmp_path / "rows.json").write_text(json.dumps(rows.tolist()))
    (tmp_path / "rows.csv").write_text(ways.csv_text(rows))
    command = [sys.executable, "-m", "turnout.entrypoints.cli", "predict", str(model.path), "--input", f"rows.{kind}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    model.check(rows, ways._main(model, [json.loads(line) for line in done.stdout.splitlines()]))


def test_mlflow(model: Known) -> None:
    with serving(f"{model.name}={model.path}", "--access-log", "off") as alone:
        for count in SIZES:
            rows = rows_of(count, count)
            for way in (ways.mlflow_inputs, ways.mlflow_split):
                model.check(rows, way(alone, model, rows))


numbers = st.floats(-100, 100, width=32)
arrays = st.integers(1, 40).flatmap(lambda count: hnp.arrays(np.float64, (count, WIDTH), elements=numbers))
quick = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@quick
@given(rows=arrays, way=st.sampled_from(sorted(WAYS)))
def test_any_rows_by_any_way(server: Server, known: list[Known], rows: np.ndarray, way: str) -> None:
    for model in known:
        model.check(rows, WAYS[way](server, model, rows))


@quick
@given(rows=arrays, cut=st.integers(0, 40), way=st.sampled_from(["rest_json", "rest_binary", "grpc", "plain_json"]))
def test_rows_in_one_request_or_in_two(
    wide_server: Server, known: list[Known], rows: np.ndarray, cut: int, way: str
) -> None:
    model = next(one for one in known if one.name == "forest")
    whole = WAYS[way](wide_server, model, rows)
    parts = [part for part in (rows[:cut], rows[cut:]) if len(part)]
    apart = [value for part in parts for value in WAYS[way](wide_server, model, part)]
    assert whole == apart, "trees give the same bits however their rows are batched"
    model.check(rows, whole)


@pytest.mark.parametrize("which", ["server", "wide_server"])
def test_nobody_gets_another_s_answer(which: str, known: list[Known], request: pytest.FixtureRequest) -> None:
    """Sixteen clients by every way at once; the rows of each request are its own."""
    found: Server = request.getfixturevalue(which)
    models = [one for one in known if which == "server" or one.name in ("forest", "net")]
    problems: list[str] = []

    def ask(number: int) -> None:
        chance = random.Random(number)
        for turn in range(12):
            model, way = chance.choice(models), chance.choice(sorted(WAYS))
            rows = rows_of(chance.choice((1, 1, 2, 9, 40)), 1000 * number + turn)
            try:
                model.check(rows, WAYS[way](found, model, rows))
            except Exception as problem:
                problems.append(f"{model.name} by {way}: {problem!r}")

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert problems == []
