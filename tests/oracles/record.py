"""Sends the battery to the oracles and keeps what they did.

python -m tests.oracles.record [oracle ...]      records the goldens anew
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from .battery import CASES
from .case import Case
from .outcome import Outcome, outcome
from .send import send
from .servers import Running, serve

GOLDENS = Path(__file__).parent / "goldens"
ORACLES = ("triton", "mlserver", "kserve", "mlflow")

Outcomes = dict[str, Outcome]


def ask(cases: Iterable[Case], server: Running) -> Outcomes:
    """Every case's outcome on that server, one after the other."""
    return {case.name: outcome(case, send(case, server)) for case in cases}


def record(oracle: str) -> Outcomes:
    """The outcomes of a live oracle."""
    with tempfile.TemporaryDirectory() as work, serve(oracle, Path(work)) as server:
        return ask((case for case in CASES if oracle in case.oracles), server)


def load(oracle: str) -> Outcomes:
    """The recorded outcomes."""
    found: Outcomes = json.loads((GOLDENS / f"{oracle}.json").read_text())
    return found


def save(oracle: str, outcomes: Outcomes) -> None:
    """One line a case, so that a change of one outcome is a change of one line."""
    lines = (f"{json.dumps(name)}: {json.dumps(fact, separators=(',', ':'))}" for name, fact in outcomes.items())
    (GOLDENS / f"{oracle}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    for chosen in sys.argv[1:] or ORACLES:
        save(chosen, record(chosen))
        sys.stdout.write(f"recorded {chosen}\n")
