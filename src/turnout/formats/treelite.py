"""Tree models as treelite checkpoints (`Model.serialize`), run by treelite's own inference library."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from turnout.core.errors import LoadFailed
from turnout.core.servable import Model
from turnout.core.signature import Signature
from turnout.core.tensors import DTYPES, Array, Tensors
from turnout.formats.artifact import Artifact, LoadOptions
from turnout.formats.declared import declared_inputs
from turnout.formats.probabilities import classes, numbers_of, two_classes
from turnout.formats.refusals import library, loading
from turnout.formats.signatures import with_outputs
from turnout.formats.table import Table, fitted, numbers
from turnout.formats.treelite_trees import Header, check_checkpoint, looks_like_treelite

Answer = Callable[[Array], Tensors]
#: What turns scores into probabilities, so that a classifier's answer is one.
_PROBABILITIES = {"sigmoid", "softmax", "identity_multiclass", "multiclass_ova"}


class Treelite:
    """The treelite format."""

    name = "treelite"
    extra = "treelite"
    suffixes = (".tl", ".treelite")

    def recognise(self, artifact: Artifact) -> bool:
        """Whether the file starts as a checkpoint does."""
        return looks_like_treelite(artifact.head)

    def load(self, artifact: Artifact, options: LoadOptions) -> Model:
        """The trees as a model. Every branch is followed first: treelite itself crashes on a damaged one."""
        header = check_checkpoint(artifact.file)
        treelite = library("treelite", f"{artifact.label} (a treelite checkpoint)")
        gtil = library("treelite.gtil", f"{artifact.label} (a treelite checkpoint)")
        with loading(artifact, "a treelite checkpoint"):
            trees = treelite.Model.deserialize(str(artifact.file))
            return _model(gtil, trees, header, artifact, options)


class TreeliteModel:
    """Runs the trees on rows of numbers; NaN is a missing value."""

    __slots__ = ("_answer", "_dtype", "_table", "signature")

    def __init__(self, signature: Signature, table: Table, datatype: str, answer: Answer) -> None:
        self.signature = signature
        self._table = table
        self._dtype = DTYPES[datatype]
        self._answer = answer

    def predict(self, inputs: Tensors) -> Tensors:
        """`label` and `probabilities`, `prediction`, or `scores`."""
        return self._answer(self._table.matrix(inputs, self._dtype))


def _model(gtil: Any, trees: Any, header: Header, artifact: Artifact, options: LoadOptions) -> TreeliteModel:
    own = Signature((numbers((), header.features, header.datatype),), (), lenient=True)
    signature = fitted(declared_inputs(artifact, options), own, (), header.features, artifact.label)
    table = Table(signature.inputs, ())
    if table.has_text:
        raise LoadFailed(f"{artifact.label}: treelite takes numbers; the signature or example has text")

    def scores(rows: Array) -> Array:
        return gtil.predict(trees, rows, nthread=options.threads)  # type: ignore[no-any-return]  # [rows, targets, classes]

    columns: tuple[str, ...] = ()
    if header.task in {"binary", "multiclass"} and len(header.classes) == 1 and header.postprocessor in _PROBABILITIES:
        columns = tuple(numbers_of(max(2, header.classes[0])))
    model = TreeliteModel(signature, table, header.datatype, _answer_of(header, scores))
    model.signature = with_outputs(signature, model.predict, columns={"probabilities": columns})
    return model


def _answer_of(header: Header, scores: Callable[[Array], Array]) -> Answer:
    """How the trees' answers are named, by what the checkpoint says it was trained for."""
    if len(header.classes) == 1:
        probable = header.postprocessor in _PROBABILITIES
        if header.task == "binary" and header.classes[0] == 1 and probable:
            return lambda rows: two_classes(scores(rows)[:, 0, 0])
        if header.task in {"binary", "multiclass"} and probable:
            return lambda rows: classes(scores(rows)[:, 0, :])
        if header.task == "isolation_forest":
            return lambda rows: {"scores": scores(rows)[:, 0, 0]}
        if header.classes[0] == 1:
            return lambda rows: {"prediction": scores(rows)[:, 0, 0]}
        return lambda rows: {"prediction": scores(rows)[:, 0, :]}
    if set(header.classes) == {1}:
        return lambda rows: {"prediction": scores(rows)[:, :, 0]}
    if header.postprocessor not in _PROBABILITIES:
        return lambda rows: {"prediction": scores(rows)}
    return lambda rows: _targets(header.classes, scores(rows))


def _targets(counts: Sequence[int], scores: Array) -> Tensors:
    """The label of each target, and the probabilities of each, which may have fewer classes than the widest."""
    parts = [classes(scores[:, target, :count]) for target, count in enumerate(counts)]
    probabilities = {f"probabilities_{target}": part["probabilities"] for target, part in enumerate(parts)}
    return {"label": np.stack([part["label"] for part in parts], axis=1), **probabilities}
