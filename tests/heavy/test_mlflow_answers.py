"""Models that a real MLflow has logged answer what its scoring server answers, with and without MLflow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from turnout.deploy.environments.worker_path import worker_path

pytestmark = [pytest.mark.formats, pytest.mark.timeout(900)]
HERE = Path(__file__).parent
NATIVE = ("catboost_c", "catboost_reg", "lightgbm", "onnx", "sklearn", "xgboost")


def compared(python, path):
    """The differences of each model's answers from those of MLflow's scoring server."""
    variables = {**os.environ, "PYTHONPATH": str(worker_path())}
    argv = [str(python), "-W", "ignore", str(HERE / "compare_mlflow.py"), str(path)]
    ended = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=500, env=variables, cwd=path)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return json.loads(ended.stdout)


def test_answers_are_those_of_mlflow_without_mlflow(made):
    """Native libraries read the files of their flavors; nothing here has MLflow."""
    report = compared(sys.executable, made("mlflow", "mlflow"))
    native = {name: said for name, said in report.items() if name.startswith(NATIVE) and name != "sklearn_log"}
    assert len(native) > 20
    for name, said in native.items():
        assert said["found"] == [], name
        assert said["calls"] >= 3
    assert "turnout[mlflow]" in report["own"]["found"]


def test_answers_are_those_of_mlflow_in_the_models_environment(made, environment):
    path = made("mlflow", "mlflow")
    report = compared(environment("mlflow").python, path)
    assert {name: said["found"] for name, said in report.items() if said["found"]} == {}
    through = {name for name, said in report.items() if said["mlflow"]}
    assert {"own", "own_days", "own_parameters", "own_whole", "sklearn_log", "statsmodels", "catboost_raw"} <= through
    assert not {name for name in through if name.startswith("xgboost")}
    assert {entry.name for entry in path.iterdir()} == {*report, "calls.json", "done", "own_nested"}
