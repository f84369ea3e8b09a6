"""Models for endpoints, written where a test wants them: each multiplies what it gets by its own factor."""

from __future__ import annotations

from pathlib import Path

_GOOD = """
import numpy as np

example = {{"x": np.array([1.0])}}


def predict(inputs):
    return {{"score": inputs["x"] * {factor}}}
"""
#: What a model does from the moment on when the file `trigger` is there.
_FAULTS = {
    "crash": "os._exit(3)",
    "hang": "time.sleep(3600)",
    "slow": "time.sleep(0.4)",
    "raise": "raise ValueError('secret')",
    "nan": "return {'score': inputs['x'] * np.nan}",
    "shape": "return {'score': np.zeros((len(inputs['x']) + 1,))}",
    "memory": "np.ones(1 << 40)",
}
_FAULTY = """
import os
import time
from pathlib import Path

import numpy as np

example = {{"x": np.array([1.0])}}


def predict(inputs):
    if Path({trigger!r}).exists():
        {fault}
    return {{"score": inputs["x"] * {factor}}}
"""


def write_model(path: Path, factor: float) -> Path:
    """A model that multiplies."""
    path.write_text(_GOOD.format(factor=factor))
    return path


def write_faulty(path: Path, factor: float, fault: str) -> Path:
    """A model that multiplies until its trigger is there; gives the trigger's path."""
    trigger = path.with_suffix(".trigger")
    path.write_text(_FAULTY.format(factor=factor, fault=_FAULTS[fault], trigger=str(trigger)))
    return trigger
