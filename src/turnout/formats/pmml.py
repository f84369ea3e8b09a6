"""PMML documents, scored by PMML4S (which `pypmml` brings) in this process."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from turnout.core.errors import InvalidInput, LoadFailed
from turnout.core.servable import Model
from turnout.core.signature import Signature, TensorSpec
from turnout.core.tensors import DTYPES, Array, Tensors, as_text, bytes_array
from turnout.formats.artifact import Artifact, LoadOptions
from turnout.formats.jvm import java, reading
from turnout.formats.refusals import loading, missing
from turnout.formats.signatures import example_rows
from turnout.formats.table import column
from turnout.formats.xml_content import root_of, walk_xml

_ROOT = "PMML"
_MAX_BYTES = 1 << 30
#: PMML's data types by the tensor that carries them. Times travel as text, as the document writes them.
_DATATYPES = {"double": "FP64", "float": "FP64", "real": "FP64", "integer": "INT64", "boolean": "BOOL"}
_PARTS = {"Header", "DataDictionary", "TransformationDictionary", "MiningBuildTask", "Extension"}


class PMML:
    """The PMML format."""

    name = "pmml"
    extra = "pmml"
    suffixes = (".pmml", ".xml")

    def recognise(self, artifact: Artifact) -> bool:
        """Whether the file is XML whose outermost element is PMML."""
        return artifact.is_file and root_of(artifact) == _ROOT

    def load(self, artifact: Artifact, options: LoadOptions) -> Model:
        """The document's model. It is walked first: no document type, no entity, no other file is ever read."""
        _check(artifact.file)
        what = f"{artifact.label} (a PMML document)"
        jpype = java(_jars(what), artifact.size, options.threads, what)
        with reading(jpype, artifact.label, "a PMML document"):
            scorer = jpype.JClass("org.pmml4s.model.Model").fromFile(str(artifact.file))
            return _model(jpype, scorer, artifact, options)


class PMMLModel:
    """Scores row by row. NaN and empty text are missing values."""

    __slots__ = ("_arguments", "_lock", "_outputs", "_rows", "_score", "signature")

    def __init__(self, jpype: Any, scorer: Any, signature: Signature) -> None:
        self.signature = signature
        self._rows = jpype.JArray(jpype.JObject)
        self._score = scorer.predict
        whole = {str(field.name()) for field in scorer.inputFields() if _kind(field) == "INT64"}
        self._arguments = [(s.name, _to_java(jpype, s.datatype, s.name in whole)) for s in signature.inputs]
        self._outputs = [(spec.name, _to_array(spec.name, spec.datatype)) for spec in signature.outputs]
        self._lock = threading.Lock()

    def predict(self, inputs: Tensors) -> Tensors:
        """The document's outputs under their own names. A number that cannot be computed is NaN, a text is empty."""
        columns = [convert(inputs[name].ravel()) for name, convert in self._arguments if name in inputs]
        if len(columns) != len(self._arguments):
            rows = len(columns[0])
            given = iter(columns)
            columns = [next(given) if name in inputs else [None] * rows for name, _ in self._arguments]
        with self._lock:
            answers = [list(self._score(self._rows(list(row)))) for row in zip(*columns, strict=True)]
        return {name: convert([row[at] for row in answers]) for at, (name, convert) in enumerate(self._outputs)}


def _to_java(jpype: Any, datatype: str, whole: bool) -> Callable[[Array], list[Any]]:
    """How a column becomes Java's objects; None is a missing value. A `whole` number is one in the document."""
    if datatype == "BYTES":
        return lambda values: [jpype.JString(v) if v else None for v in as_text(values)]
    if datatype == "BOOL":
        return lambda values: [jpype.JBoolean(v) for v in values.tolist()]

    def number(value: float) -> Any:
        if math.isnan(value):
            return None
        return jpype.JLong(int(value)) if whole and float(value).is_integer() else jpype.JDouble(value)

    return lambda values: [number(v) for v in values.tolist()]


def _to_array(name: str, datatype: str) -> Callable[[Sequence[Any]], Array]:
    if datatype == "BYTES":
        return lambda values: bytes_array(["" if v is None else str(v) for v in values], (len(values),))
    if datatype == "FP64":
        return lambda values: np.array([np.nan if v is None else float(v) for v in values])
    dtype = DTYPES[datatype]

    def whole(values: Sequence[Any]) -> Array:
        if None in values:
            raise InvalidInput(f"the model has no answer for this row: {name!r} is missing")
        return np.array([int(v) for v in values]).astype(dtype)

    return whole


def _check(path: Path) -> None:
    """Raises LoadFailed for a document that is cut off, has a document type, or holds no model."""
    models: list[str] = []

    def started(depth: int, name: str, _attributes: object) -> None:
        if depth == 0 and name != _ROOT:
            raise LoadFailed(f"{path.name}: the outermost element is {name}, not {_ROOT}")
        if depth == 1 and name not in _PARTS:
            models.append(name)

    walk_xml(path, _MAX_BYTES, started)
    if len(models) != 1:
        raise LoadFailed(f"{path.name}: the document holds {len(models)} models; one is served")


def _jars(what: str) -> list[Path]:
    """The jars that pypmml brings, or those in the directory that its own environment variable names."""
    found = find_spec("pypmml")
    if found is None or not found.submodule_search_locations:
        raise missing("pypmml", what)
    place = os.environ.get("PYPMML_JARS_DIR") or Path(found.submodule_search_locations[0]) / "jars"
    jars = sorted(Path(place).glob("*.jar"))
    if not jars:
        raise LoadFailed(f"{what}: there are no jars in {place}; install pypmml again")
    return jars


def _model(jpype: Any, scorer: Any, artifact: Artifact, options: LoadOptions) -> PMMLModel:
    inputs = tuple(_field(field) for field in scorer.inputFields())
    outputs = tuple(_output(field) for field in scorer.outputFields())
    if not inputs or not outputs:
        raise LoadFailed(f"{artifact.label}: the document's model has no {'inputs' if outputs else 'outputs'}")
    signature = Signature(inputs, outputs, lenient=True)
    if options.signature is not None:
        if [s.name for s in options.signature.inputs] != [s.name for s in inputs]:
            raise LoadFailed(
                f"{artifact.label} takes {', '.join(s.name for s in inputs)}; the signature says otherwise"
            )
        signature = Signature(options.signature.inputs, outputs, lenient=True, source="user")
    model = PMMLModel(jpype, scorer, signature)
    with loading(artifact, "a PMML document"), suppress(InvalidInput):  # a row of zeros may be out of its domain
        signature.check_outputs(model.predict(example_rows(inputs, 1)), 1)
    return model


def _kind(field: Any) -> str:
    return _DATATYPES.get(str(field.dataType()), "BYTES")


def _field(field: Any) -> TensorSpec:
    """One input: whole numbers come as FP64 where they may be missing, since only that has a value for it."""
    datatype = _kind(field)
    return column(str(field.name()), "FP64" if datatype == "INT64" else datatype)


def _output(field: Any) -> TensorSpec:
    return TensorSpec(str(field.name()), _kind(field), (-1,))
