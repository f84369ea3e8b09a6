"""Spark ML models and pipelines, run by a Spark of this process's own. For batches only: a job takes half a second."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np

from turnout.core.errors import InvalidInput, LoadFailed
from turnout.core.servable import Model
from turnout.core.signature import Signature, TensorSpec
from turnout.core.tensors import Array, Tensors, as_text, canonical
from turnout.formats.artifact import Artifact, LoadOptions
from turnout.formats.declared import declared_inputs, example_of
from turnout.formats.refusals import library, loading
from turnout.formats.signatures import with_outputs
from turnout.formats.spark_stages import Described, describe, is_spark
from turnout.formats.table import column

_ORDER = "__turnout_row"
_MEMORY = "1g"
_PACKAGES = ("feature", "classification", "regression", "clustering", "recommendation", "fpm", "tuning", "pipeline")
_lock = threading.Lock()


class Spark:
    """The Spark ML format."""

    name = "spark"
    extra = "spark"
    suffixes = ()
    #: Why it is not served: the text for those who try.
    batch_only = (
        "Spark plans a job for every request and answers in half a second or more, however few rows it has. Score "
        "files with `turnout predict`, or convert the model (onnxmltools, MLeap, PMML) to serve it"
    )

    def recognise(self, artifact: Artifact) -> bool:
        """Whether this is a directory with the metadata of a Spark ML model."""
        return artifact.is_directory and is_spark(artifact.file)

    def load(self, artifact: Artifact, options: LoadOptions) -> Model:
        """The pipeline as a model. Its stages are read first: those that run code of their own need trust."""
        described = describe(artifact.file, trusted=options.trust_pickle)
        what = f"{artifact.label} (a Spark ML model)"
        library("pandas", what)
        library("pyspark", what)
        if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
            raise LoadFailed(
                f"{what} needs Java 17, which was not found. Install it (apt-get install default-jre-headless), or set "
                "JAVA_HOME to where it is"
            )
        with loading(artifact, "a Spark ML model"):
            session = _session(options.threads)
            pipeline = _reader(described.kind).load(str(artifact.file.resolve()))
            return _model(session, pipeline, described, artifact, options)


class SparkModel:
    """Runs one Spark job a batch."""

    __slots__ = ("_lock", "_outputs", "_pipeline", "_session", "signature")

    def __init__(self, session: Any, pipeline: Any, signature: Signature, outputs: Sequence[str]) -> None:
        self.signature = signature
        self._session = session
        self._pipeline = pipeline
        self._outputs = tuple(outputs)
        self._lock = threading.Lock()

    def predict(self, inputs: Tensors) -> Tensors:
        """The pipeline's own output columns. Raises InvalidInput for categories that it was not fitted on."""
        functions = import_module("pyspark.ml.functions")
        pandas = import_module("pandas")
        columns = {name: self._column(inputs[name]) for name in (s.name for s in self.signature.inputs)}
        rows = len(next(iter(columns.values())))
        frame = self._session.createDataFrame(pandas.DataFrame({**columns, _ORDER: np.arange(rows)}))
        for spec in self.signature.inputs:
            if len(spec.shape) == 2:
                frame = frame.withColumn(spec.name, functions.array_to_vector(frame[spec.name]))
        with self._lock:
            try:
                answer = self._collected(self._pipeline.transform(frame), functions)
            except Exception as problem:
                said = str(problem)
                if "Unseen label" not in said and "NaN" not in said:
                    raise
                told = next((line for line in said.splitlines() if "Unseen label" in line or "NaN" in line), "")
                raise InvalidInput("a value is none of those the model takes", got=told.strip()[:300]) from problem
        if len(answer) != rows:
            raise InvalidInput(f"Spark left out {rows - len(answer)} rows, which it does for missing or unseen values")
        return {name: _array(answer[name]) for name in self._outputs}

    def _column(self, array: Array) -> Any:
        if array.dtype.kind == "O":
            return as_text(array.ravel())
        return list(array) if array.ndim == 2 else array

    def _collected(self, made: Any, functions: Any) -> Any:
        chosen = [made[_ORDER]]
        kinds = dict(made.dtypes)
        for name in self._outputs:
            is_vector = kinds[name] == "vector"
            chosen.append(functions.vector_to_array(made[name]).alias(name) if is_vector else made[name])
        return made.select(*chosen).toPandas().sort_values(_ORDER)


def _array(values: Any) -> Array:
    """A column that pandas gives, as a plain array; lists of numbers become a matrix."""
    found = values.to_numpy()
    if found.dtype.kind == "O" and len(found) and isinstance(found[0], (list, np.ndarray)):
        return np.array([np.asarray(row, dtype=np.float64) for row in found])
    return canonical(found)


def _session(threads: int) -> Any:
    """The one Spark of this process, on this machine only, with nothing listening to others.

    Spark's Java process reads from a pipe that this process holds, and ends when that does, however it ends.
    """
    with _lock:
        os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
        place = tempfile.mkdtemp(prefix="turnout-spark-")
        atexit.register(shutil.rmtree, place, ignore_errors=True)
        settings = {
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.driver.extraJavaOptions": "-XX:+UseSerialGC -XX:-UsePerfData",
            "spark.driver.host": "127.0.0.1",
            "spark.driver.memory": os.environ.get("TURNOUT_SPARK_MEMORY", _MEMORY),
            "spark.local.dir": place,
            "spark.log.level": "ERROR",
            "spark.sql.execution.arrow.pyspark.enabled": "true",
            "spark.sql.shuffle.partitions": str(threads),
            "spark.sql.warehouse.dir": place,
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": "false",
        }
        builder = import_module("pyspark.sql").SparkSession.builder.master(f"local[{threads}]").appName("turnout")
        for key, value in settings.items():
            builder = builder.config(key, value)
        return builder.getOrCreate()


def _reader(kind: str) -> Any:
    """The class in pyspark that reads a model of that class in Spark. Raises LoadFailed where there is none."""
    for package in _PACKAGES:
        found = getattr(import_module(f"pyspark.ml.{package}"), kind, None)
        if found is not None:
            return found
    raise LoadFailed(f"this version of pyspark has no {kind}, which the metadata names")


def _model(session: Any, pipeline: Any, described: Described, artifact: Artifact, options: LoadOptions) -> SparkModel:
    declared = declared_inputs(artifact, options)
    signature = declared if declared is not None else _own(pipeline, described, artifact)
    outputs = [spec.name for spec in signature.outputs] or list(described.outputs)
    model = SparkModel(session, pipeline, signature, outputs)
    example = example_of(artifact, options)
    model.signature = with_outputs(signature, model.predict, values=_seen(pipeline), example=example)
    return model


def _own(pipeline: Any, described: Described, artifact: Artifact) -> Signature:
    specs = []
    for name, kind in described.inputs:
        if kind == "vector":
            width = int(getattr(pipeline, "numFeatures", 0) or 0) or -1
            specs.append(TensorSpec(name, "FP64", (-1, width)))
        elif kind:
            specs.append(column(name, kind))
        else:
            raise LoadFailed(
                f"{artifact.label}: the column {name!r} has a type that the pipeline's metadata does not tell. Give an "
                "input example (--example rows.json) or a signature"
            )
    if not specs:
        raise LoadFailed(f"{artifact.label}: the pipeline's metadata names no input columns; give a signature")
    return replace(Signature(tuple(specs), ()), lenient=True)


def _seen(pipeline: Any) -> dict[str, Any]:
    """For each column of categories a value that the model knows, for the row it is tried on."""
    values: dict[str, Any] = {}
    for stage in getattr(pipeline, "stages", [pipeline]):
        if hasattr(stage, "labelsArray"):
            names = [stage.getInputCol()] if stage.isSet("inputCol") else stage.getInputCols()
            values |= {n: str(known[0]).encode() for n, known in zip(names, stage.labelsArray, strict=True) if known}
    return values
