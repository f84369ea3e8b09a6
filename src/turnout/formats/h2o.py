"""H2O models as MOJO archives, scored by H2O's own Java classes in this process: no cluster, no H2O server."""

from __future__ import annotations

import os
import re
import threading
import zipfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from turnout.core.errors import LoadFailed, MissingExtra
from turnout.core.servable import Model
from turnout.core.signature import Signature
from turnout.core.tensors import Array, Tensors, bytes_array
from turnout.formats.artifact import Artifact, LoadOptions
from turnout.formats.jvm import java, reading
from turnout.formats.refusals import loading
from turnout.formats.signatures import with_outputs
from turnout.formats.table import FP64, Table, column, numbers
from turnout.formats.zip_content import check_members, read_member

_INI = "model.ini"
_CATEGORY = re.compile(r"^category\s*=\s*(\S*)", re.MULTILINE)
_JAR = "h2o-genmodel.jar"
_JAR_VARIABLE = "TURNOUT_H2O_GENMODEL"
_MAX_INI = 256 << 20
_CLASSES = ("Binomial", "Multinomial", "Ordinal")
_SERVED = (*_CLASSES, "Regression", "CoxPH", "Clustering", "AnomalyDetection", "DimReduction")


class H2O:
    """The H2O MOJO format."""

    name = "h2o"
    extra = "h2o"
    suffixes = (".mojo",)

    def recognise(self, artifact: Artifact) -> bool:
        """Whether the file is a zip archive with a MOJO's description in it."""
        return _INI in artifact.members

    def load(self, artifact: Artifact, options: LoadOptions) -> Model:
        """The archive as a model. Every part of it is checked before Java unpacks it."""
        with loading(artifact, "an H2O MOJO"):
            _check(artifact)
        what = f"{artifact.label} (an H2O MOJO)"
        jpype = java([_scorer(artifact, options)], artifact.size, options.threads, what)
        with reading(jpype, artifact.label, "an H2O MOJO"):
            try:
                reader = jpype.JClass("hex.genmodel.MojoModel")
            except TypeError:
                raise LoadFailed(f"{what}: the jar of H2O's scorer has no class hex.genmodel.MojoModel") from None
            scorer = reader.load(str(artifact.file))
            return _model(jpype, scorer, artifact, options)


class H2OModel:
    """Scores row by row, as H2O does. A missing number is NaN; empty text, or one never seen, is a missing category."""

    __slots__ = (
        "_features",
        "_kind",
        "_labels",
        "_levels",
        "_lock",
        "_row",
        "_score",
        "_scores",
        "_table",
        "signature",
    )

    def __init__(
        self,
        jpype: Any,
        scorer: Any,
        signature: Signature,
        levels: Mapping[str, Mapping[bytes, int]],
        labels: Sequence[str],
    ) -> None:
        self.signature = signature
        self._kind = str(scorer.getModelCategory())
        self._features = [str(name) for name in scorer.getNames()][: int(scorer.nfeatures())]
        self._levels = levels
        self._labels = bytes_array(labels, (len(labels),))
        self._table = Table(signature.inputs, self._features)
        doubles = jpype.JArray(jpype.JDouble)
        self._row = doubles(len(self._features))
        self._scores = doubles(int(scorer.getPredsSize()))
        self._score = scorer.score0
        self._lock = threading.Lock()

    def predict(self, inputs: Tensors) -> Tensors:
        """`label` and `probabilities`, `prediction`, `cluster`, `scores` or `transformed`."""
        rows = self._numbers(inputs)
        answer = np.empty((len(rows), len(self._scores)))
        with self._lock:  # Java's arrays are used again for each row
            for place, row in enumerate(rows):
                self._row[:] = row
                self._score(self._row, self._scores)
                answer[place] = self._scores
        return self._named(answer)

    def _numbers(self, inputs: Tensors) -> Array:
        if not self._levels:
            return self._table.matrix(inputs, FP64)
        rows = len(next(iter(inputs.values())))
        out = np.full((rows, len(self._features)), np.nan)
        for place, name in enumerate(self._features):
            if name in self._levels:
                known = self._levels[name]
                out[:, place] = [known.get(value, np.nan) for value in inputs[name].ravel()]
            elif name in inputs:
                out[:, place] = inputs[name].ravel()
        return out

    def _named(self, answer: Array) -> Tensors:
        if self._kind in _CLASSES:
            return {"label": self._labels[answer[:, 0].astype(np.intp)], "probabilities": answer[:, 1:].copy()}
        if self._kind == "Clustering":
            return {"cluster": answer[:, 0].astype(np.int64)}
        if self._kind == "AnomalyDetection":
            named = {"scores": answer[:, 0].copy()}
            return named | {"mean_length": answer[:, 1].copy()} if answer.shape[1] > 1 else named
        if self._kind == "DimReduction":
            return {"transformed": answer}
        return {"prediction": answer[:, 0].copy()}


def _check(artifact: Artifact) -> None:
    """Raises LoadFailed for an archive that is damaged, unpacks to too much, or is of a kind that is not served."""
    with zipfile.ZipFile(artifact.file) as archive:
        check_members(archive, artifact)
        text = read_member(archive, archive.getinfo(_INI), artifact, _MAX_INI).decode("utf-8", errors="replace")
    said = _CATEGORY.search(text.partition("[columns]")[0])
    category = said[1] if said is not None else ""
    if category not in _SERVED:
        raise LoadFailed(
            f"{artifact.label} is an H2O model of the category {category or 'that it does not say'}; served are "
            f"{', '.join(_SERVED)}"
        )


def _scorer(artifact: Artifact, options: LoadOptions) -> Path:
    """The jar of H2O's scorer. Code that comes with a model is run only where the user trusts the model."""
    named = os.environ.get(_JAR_VARIABLE)
    if named:
        if not Path(named).is_file():
            raise LoadFailed(f"{_JAR_VARIABLE} names {named!r}, which is no file")
        return Path(named)
    found = find_spec("h2o")
    for place in (found.submodule_search_locations or []) if found is not None else []:
        jar = Path(place) / "backend" / "bin" / "h2o.jar"
        if jar.is_file():
            return jar
    beside = artifact.file.parent / _JAR
    if beside.is_file() and options.trust_pickle:
        return beside
    also = f" The {_JAR} beside the model is code: it is used with --trust-pickle only." if beside.is_file() else ""
    raise MissingExtra(
        f"{artifact.label} (an H2O MOJO) needs H2O's scorer: pip install 'turnout[h2o]', or set {_JAR_VARIABLE} to the "
        f"path of a {_JAR}, which H2O gives along with a MOJO (download_mojo(get_genmodel_jar=True)).{also}"
    )


def _model(jpype: Any, scorer: Any, artifact: Artifact, options: LoadOptions) -> H2OModel:
    names = [str(name) for name in scorer.getNames()]
    features = names[: int(scorer.nfeatures())]
    if scorer.getOffsetName() is not None:
        raise LoadFailed(
            f"{artifact.label} was trained with the offset column {scorer.getOffsetName()}, which is not served. "
            "Train it with that column as a feature"
        )
    domains = {name: scorer.getDomainValues(place) for place, name in enumerate(names)}
    levels = {
        name: {str(value).encode(): place for place, value in enumerate(domains[name])}
        for name in features
        if domains[name] is not None
    }
    if levels:
        inputs = tuple(column(name, "BYTES" if name in levels else "FP64") for name in features)
    else:
        inputs = (numbers(features, len(features), "FP64"),)
    signature = Signature(inputs, (), lenient=True)
    if options.signature is not None:
        signature = _renamed(options.signature, signature, artifact)
    labels: tuple[str, ...] = ()
    if str(scorer.getModelCategory()) in _CLASSES:
        values = scorer.getDomainValues(int(scorer.getResponseIdx()))
        labels = tuple(str(value) for value in values)
    model = H2OModel(jpype, scorer, signature, levels, labels)
    with loading(artifact, "an H2O MOJO"):
        model.signature = with_outputs(signature, model.predict, columns={"probabilities": labels})
    return model


def _renamed(wanted: Signature, own: Signature, artifact: Artifact) -> Signature:
    if {(s.name, s.datatype) for s in wanted.inputs} != {(s.name, s.datatype) for s in own.inputs}:
        known = ", ".join(f"{spec.name} ({spec.datatype})" for spec in own.inputs)
        raise LoadFailed(f"{artifact.label} takes {known}; the signature says otherwise")
    return wanted
