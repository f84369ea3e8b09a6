"""MLflow model directories of any flavor: the native library where it answers alike, else MLflow's own pyfunc."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from turnout.core.errors import LoadFailed, MissingExtra, PickleRefused
from turnout.core.servable import Model
from turnout.formats.artifact import Artifact, LoadOptions
from turnout.formats.mlflow_native import Native, native
from turnout.formats.mlflow_pyfunc import from_pyfunc
from turnout.formats.mlmodel import FILE, MlModel, open_mlmodel
from turnout.formats.refusals import untrusted

_FLAVORS = re.compile(rb"^flavors:", re.MULTILINE)
Inner = Callable[[Artifact, LoadOptions], Model]


class Mlflow:
    """The MLflow format. `inner` loads the file of a flavor by its own format."""

    name = "mlflow"
    extra = "mlflow"
    suffixes = ()

    def __init__(self, inner: Inner) -> None:
        self._inner = inner

    def recognise(self, artifact: Artifact) -> bool:
        """Whether the directory has an MLmodel file with flavors, or an empty one."""
        path = artifact.beside(FILE) if artifact.is_directory else None
        if path is None:
            return False
        with path.open("rb") as stream:
            head = stream.read(1 << 20)
        return not head.strip() or bool(_FLAVORS.search(head))

    def load(self, artifact: Artifact, options: LoadOptions) -> Model:
        """The model as the flavor's own format loads it, else through `mlflow.pyfunc`.

        Raises PickleRefused where loading runs code and nobody trusts it, MissingExtra where a library is missing.
        """
        mlmodel = open_mlmodel(artifact.file)
        options = replace(options, format=None)
        chosen = native(mlmodel)
        if chosen is None:
            return _pyfunc(artifact, mlmodel, options)
        try:
            return self._native(artifact, mlmodel, chosen, options)
        except PickleRefused as refusal:
            raise PickleRefused(
                f"{refusal}. MLflow writes such a file for serialization_format='skops', and no pickle for xgboost, "
                "lightgbm, catboost and onnx models"
            ) from None
        except MissingExtra:
            raise
        except LoadFailed as failure:
            if not (options.trust_pickle and "python_function" in mlmodel.flavors and find_spec("mlflow")):
                raise
            try:
                return _pyfunc(artifact, mlmodel, options)
            except LoadFailed as second:
                raise LoadFailed(f"{failure}. Through MLflow's pyfunc: {second}") from second

    def _native(self, artifact: Artifact, mlmodel: MlModel, chosen: Native, options: LoadOptions) -> Model:
        if options.trust_pickle:
            _add_code(mlmodel, chosen.configuration.get("code"))
        model = self._inner(artifact.inside(chosen.path), options)
        return chosen.answering(model)


def _pyfunc(artifact: Artifact, mlmodel: MlModel, options: LoadOptions) -> Model:
    configuration = mlmodel.flavors.get("python_function")
    if configuration is None:
        known = ", ".join(mlmodel.flavors)
        raise LoadFailed(
            f"{artifact.label} is an MLflow model of the flavor {known}, which has no python_function: MLflow itself "
            "could not serve it either. Log it with a flavor that has one"
        )
    loader = configuration.get("loader_module") or "its own code"
    if not options.trust_pickle:
        raise untrusted(
            f"{artifact.label} is an MLflow model that is loaded by {loader} (python_function). That runs whatever "
            "code was put into it",
            "log the model with a flavor whose file holds no code (sklearn with serialization_format='skops', xgboost, "
            "lightgbm, catboost, onnx)",
        )
    return from_pyfunc(artifact, mlmodel, options)


def _add_code(mlmodel: MlModel, code: object) -> None:
    """The modules that were logged with the model, which its pickle may name."""
    if isinstance(code, str) and code:
        path = str(Path(mlmodel.file(code)).resolve())
        if path not in sys.path:
            sys.path.insert(0, path)
