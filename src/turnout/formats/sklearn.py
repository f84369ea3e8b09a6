"""scikit-learn models and those with its interface: skops files, joblib files, pickles."""

from __future__ import annotations

import io
import pickle
from typing import Any

from turnout.core.errors import LoadFailed, PickleRefused
from turnout.core.servable import Model
from turnout.formats.artifact import Artifact, LoadOptions
from turnout.formats.declared import declared_inputs, example_of
from turnout.formats.pickles import SUFFIXES, describe, is_pickle
from turnout.formats.refusals import library, loading, missing, pickle_refused
from turnout.formats.sklearn_inputs import inputs_of
from turnout.formats.sklearn_model import SklearnModel, as_source, build, has_interface
from turnout.formats.skops_types import suspicious
from turnout.formats.table import fitted


class Sklearn:
    """The scikit-learn formats."""

    name = "sklearn"
    extra = "sklearn"
    suffixes = (".skops", *SUFFIXES)

    def recognise(self, artifact: Artifact) -> bool:
        """Whether the file is a skops archive or a pickle."""
        return _is_skops(artifact) or is_pickle(artifact)

    def load(self, artifact: Artifact, options: LoadOptions) -> Model:
        """The estimator as a model. Raises PickleRefused for a pickle or an unknown type without `trust_pickle`."""
        return from_estimator(estimator_of(artifact, options), artifact, options)


def estimator_of(artifact: Artifact, options: LoadOptions) -> Any:
    """The object in the file, as it was saved. Raises as `load` does."""
    if _is_skops(artifact):
        artifact.check_suffix("a skops archive", "a pickle", *SUFFIXES)
        return _from_skops(artifact, options)
    artifact.check_suffix(describe(artifact), "a skops archive", ".skops")
    return _from_pickle(artifact, options)


def from_estimator(estimator: Any, artifact: Artifact, options: LoadOptions) -> SklearnModel:
    """The model of an estimator in memory. Raises LoadFailed if it has no `predict`, or its inputs are not known."""
    if not has_interface(estimator):
        raise LoadFailed(
            f"{artifact.label} holds a {type(estimator).__name__}, which has no predict; save the fitted model itself"
        )
    if type(estimator).__module__.startswith("xgboost.") and type(estimator).__name__ == "Booster":
        raise LoadFailed(f"{artifact.label} holds an XGBoost Booster; save it with booster.save_model('model.ubj')")
    with loading(artifact, "a scikit-learn model"):
        inputs = inputs_of(estimator)
        declared = declared_inputs(artifact, options)
        declared = None if declared is None else as_source(declared)
        signature = fitted(declared, inputs.signature, inputs.features, inputs.width, artifact.label)
        return build(
            estimator,
            inputs,
            signature,
            artifact.label,
            example=example_of(artifact, options),
            threads=options.threads,
        )


def _is_skops(artifact: Artifact) -> bool:
    return "schema.json" in artifact.members


def _from_skops(artifact: Artifact, options: LoadOptions) -> Any:
    reader = library("skops.io", f"{artifact.label} (a skops file)")
    library("sklearn", f"{artifact.label} (a skops file)")
    with loading(artifact, "a skops file"):
        data = artifact.file.read_bytes()  # judged and loaded from the same bytes
        asked = reader.get_untrusted_types(data=data)
        unknown = suspicious(asked)
        if unknown and not options.trust_pickle:
            raise PickleRefused(
                f"{artifact.label} is a skops file with types that are not ordinary parts of scikit-learn: "
                f"{', '.join(unknown[:8])}. Building them may run code. If you trust where the file comes from, say "
                "--trust-pickle (trust_pickle=True in Python); or convert the model to ONNX"
            )
        return reader.loads(data, trusted=asked)


def _from_pickle(artifact: Artifact, options: LoadOptions) -> Any:
    if not options.trust_pickle:
        raise pickle_refused(artifact, describe(artifact))
    try:
        joblib = library("joblib", f"{artifact.label} (a scikit-learn model)")
        with loading(artifact, describe(artifact)):
            return joblib.load(io.BytesIO(artifact.file.read_bytes()))
    except LoadFailed as failure:
        raise _explained(artifact, failure) from failure.__cause__


def _explained(artifact: Artifact, failure: LoadFailed) -> LoadFailed:
    """What a pickle asks for and does not find is named, with what to do."""
    cause = failure.__cause__
    if isinstance(cause, ModuleNotFoundError):
        return missing(cause.name or "", f"{artifact.label} (a pickle)")
    if isinstance(cause, AttributeError):
        return LoadFailed(
            f"{artifact.label}: the pickle names something that is not there ({cause}). A class or function from a "
            "notebook or script must be in a module that can be imported; or the library's version differs"
        )
    if isinstance(cause, (EOFError, pickle.UnpicklingError)):
        return LoadFailed(f"{artifact.label}: the pickle is cut off or damaged ({str(cause) or type(cause).__name__})")
    return failure
