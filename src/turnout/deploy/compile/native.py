"""The library's own object behind a model, for the converters and for what it says of its ranges."""

from __future__ import annotations

import io
from typing import Any

from turnout.core.errors import LoadFailed
from turnout.deploy.compile.convert_keras import keras_of
from turnout.formats import catboost, lightgbm, sklearn, xgboost
from turnout.formats.artifact import Artifact, LoadOptions
from turnout.formats.refusals import library
from turnout.formats.torch_archive import is_script


def native_of(format: str, artifact: Artifact, options: LoadOptions) -> Any:
    """A fresh object, which a converter may change. The file was loaded, and so judged, before. Raises LoadFailed."""
    if format == "sklearn":
        return sklearn.estimator_of(artifact, options)
    if format == "xgboost":
        return xgboost.booster_of(artifact, options)[1]
    if format == "lightgbm":
        return lightgbm.booster_of(artifact)[0]
    if format == "catboost":
        return catboost.model_of(artifact)[1]
    if format == "torch":
        torch = library("torch", f"{artifact.label} (a PyTorch model)")
        data = io.BytesIO(artifact.file.read_bytes())
        return torch.jit.load(data, map_location="cpu").eval() if is_script(artifact) else torch.export.load(data)
    if format == "keras":
        return keras_of(artifact, options)
    raise LoadFailed(f"{artifact.label}: a model of the format {format!r} has no converter")
