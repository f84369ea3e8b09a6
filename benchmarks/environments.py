"""A virtual environment for each peer, with pinned versions, made once under `.venvs/bench-NAME`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.places import ROOT

ONNXRUNTIME = "onnxruntime==1.32.0"
REQUIREMENTS: dict[str, tuple[str, ...]] = {
    "fastapi": (
        ONNXRUNTIME, "fastapi==0.165.0", "uvicorn==0.54.0", "uvloop==0.23.0", "httptools==0.9.0", "orjson==3.13.0",
        "granian==2.8.7", "grpcio==1.85.1", "protobuf==7.36.2", "numpy==2.4.6",
    ),
    "mlserver": (ONNXRUNTIME, "mlserver==1.7.1", "uvloop==0.23.0", "numpy==2.2.6"),
    "mlserver-forest": (
        "mlserver==1.7.1", "mlserver-sklearn==1.7.1", "scikit-learn==1.9.1", "uvloop==0.23.0", "numpy==2.2.6",
    ),
    "bentoml": (ONNXRUNTIME, "bentoml==1.4.39", "numpy==2.4.6"),
    "litserve": (ONNXRUNTIME, "litserve==0.2.19", "numpy==2.4.6"),
    "kserve": (ONNXRUNTIME, "kserve==0.21.0", "numpy==2.4.6"),
    "mlflow": (ONNXRUNTIME, "mlflow==3.17.2", "onnx==1.23.2"),
    "triton": (ONNXRUNTIME, "nvidia-pytriton==0.7.0", "numpy==1.26.4"),  # its stub misreads arrays of numpy 2
}  # fmt: skip


def _uv() -> str:
    beside = Path(sys.executable).parent / "uv"
    found = str(beside) if beside.exists() else shutil.which("uv")
    if not found:
        raise SystemExit(f"uv is missing: {sys.executable} -m pip install uv")
    return found


def python_of(name: str) -> Path:
    """The interpreter of one environment."""
    return ROOT / ".venvs" / f"bench-{name}" / "bin" / "python"


def prepare(name: str) -> Path:
    """Makes the environment, or leaves it as it is where it already has just these requirements."""
    python = python_of(name)
    stamp = python.parent.parent / "requirements.txt"
    wanted = "\n".join(REQUIREMENTS[name])
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"  environment for {name} ...", flush=True)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    subprocess.run([_uv(), "venv", "-q", "--clear", "--python", version, python.parent.parent], check=True)
    subprocess.run([_uv(), "pip", "install", "-q", "--python", python, *REQUIREMENTS[name]], check=True)
    stamp.write_text(wanted)
    return python
