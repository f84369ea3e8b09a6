"""What these tests share: a model saved, compiled within seconds, and loaded again."""

from __future__ import annotations

from pathlib import Path

import joblib
import numpy as np

from turnout import formats
from turnout.core.servable import Model
from turnout.deploy.compile.compiling import CompileOptions, Outcome, compile_model
from turnout.formats import Artifact, LoadOptions

TRUSTED = LoadOptions(trust_pickle=True)
QUICK = CompileOptions(generated=200, thresholds=600, sizes=(1, 64), seconds=0.1)


def saved(model, folder: Path, name: str = "model.joblib") -> Path:
    joblib.dump(model, folder / name)
    return folder / name


def compiled(path: Path, options: CompileOptions = QUICK, load: LoadOptions = TRUSTED) -> tuple[Outcome, Path]:
    target = path.parent / f"{path.stem}.compiled"
    return compile_model(Artifact.of(path), load, options, target, lambda _: None), target


def both(path: Path, options: CompileOptions = QUICK) -> tuple[Model, Model, Outcome]:
    """The original and its compiled form, loaded; the reasons where it was not adopted."""
    outcome, target = compiled(path, options)
    assert outcome.adopted, "\n".join(outcome.reasons)
    return formats.load(path, TRUSTED), formats.load(target, TRUSTED), outcome


def numbers(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 3, (rows, columns))
