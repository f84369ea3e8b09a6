"""An artifact becomes a Model; one file per format.

`FORMATS` is the whole list. A further format is one file with a class like those here, and one line below.
"""

from __future__ import annotations

from pathlib import Path

from turnout.core.errors import FormatMismatch, FormatUnknown, LoadFailed
from turnout.core.servable import Model
from turnout.formats.artifact import Artifact, Format, LoadOptions
from turnout.formats.catboost import CatBoost
from turnout.formats.compiled import CompiledFormat
from turnout.formats.h2o import H2O
from turnout.formats.jax_export import JaxExport
from turnout.formats.keras import Keras
from turnout.formats.lightgbm import LightGBM
from turnout.formats.mlflow import Mlflow
from turnout.formats.mxnet import MXNet
from turnout.formats.onnx import Onnx
from turnout.formats.openvino import OpenVINO
from turnout.formats.pmml import PMML
from turnout.formats.python import Python
from turnout.formats.safetensors import Safetensors
from turnout.formats.selection import WRAPPED, describe_content, select_file
from turnout.formats.sklearn import Sklearn
from turnout.formats.spark import Spark
from turnout.formats.statsmodels import Statsmodels
from turnout.formats.tensorflow import TensorFlow
from turnout.formats.torch import Torch
from turnout.formats.transformers import Transformers
from turnout.formats.treelite import Treelite
from turnout.formats.tvm import TVM
from turnout.formats.xgboost import XGBoost

__all__ = ["FORMATS", "Artifact", "Format", "LoadOptions", "detect", "load"]


def _whatever(artifact: Artifact, options: LoadOptions) -> Model:
    """Loads what lies inside another artifact, whatever its format."""
    return load(artifact, options)


FORMATS: list[Format] = [
    CompiledFormat(_whatever),
    Onnx(),
    Sklearn(),
    XGBoost(),
    LightGBM(),
    CatBoost(),
    Torch(),
    TensorFlow(),
    Keras(),
    JaxExport(),
    Safetensors(),
    Transformers(),
    TVM(),
    MXNet(),
    OpenVINO(),
    Treelite(),
    Statsmodels(),
    H2O(),
    PMML(),
    Spark(),
    Mlflow(_whatever),
    Python(),
]


def load(path_or_reference: str | Path | Artifact, options: LoadOptions | None = None) -> Model:
    """The model in a file, a directory, or Python code named as `module:attr` or `python:FILE.py:ATTR`.

    Raises LoadFailed or one of its kinds: FormatUnknown, FormatMismatch, PickleRefused, MissingExtra.
    """
    options = options or LoadOptions()
    artifact = path_or_reference if isinstance(path_or_reference, Artifact) else Artifact.of(path_or_reference)
    found, artifact = locate(artifact, options)
    return found.load(artifact, options)


def detect(artifact: Artifact, options: LoadOptions | None = None) -> Format:
    """The format of an artifact, by its content. Imports no model library. Raises as `load` does."""
    return locate(artifact, options or LoadOptions())[0]


def locate(artifact: Artifact, options: LoadOptions) -> tuple[Format, Artifact]:
    """The format and the very artifact it loads: a directory with one model file stands for that file."""
    found, artifact = _located(artifact, options)
    if artifact.fragment and not getattr(found, "signatures", False):
        raise LoadFailed(
            f"{artifact.label} is a {found.name} model, which has one signature: leave out #{artifact.fragment}"
        )
    return found, artifact


def _located(artifact: Artifact, options: LoadOptions) -> tuple[Format, Artifact]:
    wanted = _named(options.format)
    if artifact.is_file and artifact.size == 0:
        raise LoadFailed(f"{artifact.label} is empty (0 bytes)")
    recognised = [known for known in FORMATS if known.recognise(artifact)]
    if not recognised and artifact.is_directory:
        artifact = select_file(artifact, FORMATS)
        recognised = [known for known in FORMATS if known.recognise(artifact)]
    if wanted is not None:
        if wanted not in recognised:
            content = _names(recognised) if recognised else describe_content(artifact)
            raise FormatMismatch(f"{artifact.label} is said to be {wanted.name}, but its content is {content}")
        return wanted, artifact
    promised = [known for known in FORMATS if artifact.suffix in known.suffixes]
    fitting = [known for known in recognised if known in promised]
    if recognised and promised and not fitting:
        raise FormatMismatch(
            f"{artifact.label}: the ending {artifact.suffix} promises {_names(promised)}, but the content is "
            f"{_names(recognised)}. Rename the file if the content is right, or say --format"
        )
    if len(fitting or recognised) == 1:
        return (fitting or recognised)[0], artifact
    if recognised:
        raise FormatUnknown(f"{artifact.label} may be {_names(recognised)}; say which with --format")
    content = describe_content(artifact)
    if promised:
        raise FormatMismatch(
            f"{artifact.label}: the ending {artifact.suffix} promises {_names(promised)}, but the content is {content}"
        )
    raise FormatUnknown(f"{artifact.label} is {content}, which is none of the formats {_names(FORMATS)}. {WRAPPED}")


def _named(name: str | None) -> Format | None:
    if name is None:
        return None
    for known in FORMATS:
        if known.name == name:
            return known
    raise FormatUnknown(f"there is no format {name!r}; one of {_names(FORMATS)}")


def _names(formats: list[Format]) -> str:
    return ", ".join(known.name for known in formats)
