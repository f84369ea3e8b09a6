"""Where things are. What the harness makes lies in `benchmarks/made` and `.venvs/bench-*`, both ignored by git."""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
WORK = HERE / "made"
MODEL_FILES = WORK / "models"
REQUEST_FILES = WORK / "requests"
LOGS = WORK / "logs"
SERVERS = HERE / "servers"
PERFORMANCE_PAGE = ROOT / "docs" / "explanation" / "performance.md"

SERVER_CORE = 0
LOAD_CORE = 1
