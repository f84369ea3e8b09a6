"""The refusals that every format words alike: a missing library, a pickle nobody trusts, a file that is broken."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

from turnout.core.errors import Failure, LoadFailed, MissingExtra, PickleRefused
from turnout.formats.artifact import Artifact

#: Top-level modules that an extra of Turnout brings.
EXTRAS = {
    "sklearn": "sklearn",
    "skops": "sklearn",
    "joblib": "sklearn",
    "xgboost": "xgboost",
    "lightgbm": "lightgbm",
    "catboost": "catboost",
    "onnxruntime": "onnx",
    "onnx": "compile",
    "skl2onnx": "compile",
    "onnxmltools": "compile",
    "torch": "torch",
    "tensorflow": "tensorflow",
    "keras": "keras",
    "h5py": "keras",
    "jax": "jax",
    "flatbuffers": "jax",
    "safetensors": "safetensors",
    "transformers": "transformers",
    "mlflow": "mlflow",
    "mxnet": "mxnet",
    "tvm": "tvm",
    "openvino": "openvino",
    "treelite": "treelite",
    "statsmodels": "statsmodels",
    "jpype": "h2o",
    "pypmml": "pmml",
    "pyspark": "spark",
    "pandas": "dataframe",
    "pyarrow": "parquet",
}


def missing(module: str, what: str) -> MissingExtra:
    """The failure that says how to install `module`, needed for `what`."""
    top = module.partition(".")[0]
    extra = EXTRAS.get(top)
    command = f"pip install 'turnout[{extra}]'" if extra else f"pip install the package that brings {top!r}"
    return MissingExtra(f"{what} needs the library {top!r}, which is not installed: {command}")


def library(module: str, what: str) -> ModuleType:
    """Imports a model library. Raises MissingExtra with the install command where it is not there."""
    try:
        return import_module(module)
    except ModuleNotFoundError as problem:
        raise missing(problem.name or module, what) from None
    except (ImportError, OSError) as problem:
        raise LoadFailed(f"the library {module!r} is installed but cannot be imported: {problem}") from problem


def pickle_refused(artifact: Artifact, found: str) -> PickleRefused:
    """The refusal of a file that may run code, with what to do instead."""
    return untrusted(
        f"{artifact.label} is {found}. Loading it runs whatever code was put into it",
        "save the model with skops (skops.io.dump(model, 'model.skops')) or convert it to ONNX",
    )


def untrusted(found: str, safer: str = "") -> PickleRefused:
    """The refusal of what may run code: `found` says what it is and why, without a full stop; `safer`, what to do."""
    text = (
        f"{found}, so it is refused unless you say that you trust where it comes from: --trust-pickle on the command "
        "line, trust_pickle=True in Python"
    )
    return PickleRefused(f"{text}. Safer: {safer}" if safer else text)


@contextmanager
def loading(artifact: Artifact, kind: str) -> Iterator[None]:
    """Turns whatever a library raises on a broken file into LoadFailed that names the file and the kind."""
    try:
        yield
    except Failure:
        raise
    except MemoryError as problem:
        raise LoadFailed(f"{artifact.label}: {kind} asks for more memory than there is, or is damaged") from problem
    except ModuleNotFoundError as problem:
        raise missing(problem.name or "", f"{artifact.label} ({kind})") from problem
    except RecursionError as problem:
        raise LoadFailed(f"{artifact.label}: {kind} is nested too deeply, or is damaged") from problem
    except Exception as problem:  # any library, any exception type: the file is what is wrong
        said = str(problem).strip().splitlines()
        because = f"{type(problem).__name__}: {said[0][:300]}" if said else type(problem).__name__
        raise LoadFailed(f"{artifact.label}: {kind} could not be loaded ({because})") from problem
