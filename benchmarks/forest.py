"""A random forest as people save it, and what `turnout compile` makes of it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import joblib
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier

from benchmarks.places import MODEL_FILES, ROOT, WORK

FOREST = "forest"
PICKLE = MODEL_FILES / f"{FOREST}.joblib"
COMPILED = WORK / f"{FOREST}.compiled"


def write_forest() -> None:
    """Trains 100 trees on 20 features, with scikit-learn's own settings, and compiles them; once."""
    if not PICKLE.exists():
        features, classes = make_classification(1000, 20, n_informative=8, random_state=0)
        PICKLE.parent.mkdir(parents=True, exist_ok=True)
        joblib.dump(RandomForestClassifier(100, random_state=0).fit(features, classes), PICKLE)
    if not COMPILED.exists():
        command = [ROOT / ".venv" / "bin" / "turnout", "compile", PICKLE, "--trust-pickle", "--output", COMPILED]
        subprocess.run(command, check=True, capture_output=True)


def write_mlserver_forest(directory: Path, port: int, grpc_port: int) -> None:
    """A repository for MLServer: the same pickle, its own scikit-learn runtime, and its own process for it."""
    model = directory / FOREST
    model.mkdir(parents=True, exist_ok=True)
    settings = {"http_port": port, "grpc_port": grpc_port, "parallel_workers": 0, "host": "127.0.0.1", "debug": False}
    (directory / "settings.json").write_text(json.dumps(settings))
    described = {
        "name": FOREST,
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {"uri": str(PICKLE), "version": "1"},
    }
    (model / "model-settings.json").write_text(json.dumps(described))
