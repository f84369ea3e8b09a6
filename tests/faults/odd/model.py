"""Doubles its rows; one of the processes that hold it does so badly while a file says how.

ODD_FILE names the file: "raise", "slow", "shape", or nothing. The first process that makes ODD_FILE.pid is the odd one;
it adds a line to ODD_FILE.calls for each call.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import MappingProxyType

import numpy as np

FILE = Path(os.environ.get("ODD_FILE", "/nonexistent/odd"))
SECONDS = 0.01


class Model:
    """x[:, 0] is doubled; `pid` says who did it."""

    example = MappingProxyType({"x": np.zeros((1, 2))})

    def __init__(self) -> None:
        self.odd = False
        try:
            with FILE.with_suffix(".pid").open("x") as file:
                file.write(str(os.getpid()))
            self.odd = True
        except OSError:
            pass

    def predict(self, inputs: dict) -> dict:
        x = inputs["x"]
        y = x[:, 0] * 2.0
        how = FILE.read_text() if self.odd and FILE.exists() else ""
        if self.odd:
            with FILE.with_suffix(".calls").open("a") as file:
                file.write(f"{how or 'well'}\n")
        time.sleep(SECONDS * (20 if how == "slow" else 1))
        if how == "raise":
            raise ValueError("this replica is broken")
        return {"y": y[:, None] if how == "shape" else y, "pid": np.full(len(x), os.getpid())}
