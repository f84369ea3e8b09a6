"""Conversions of a model to ONNX: for each format the ways that may give an equal twin, the most exact one first."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from turnout.core.errors import LoadFailed
from turnout.core.servable import Model
from turnout.core.signature import Signature
from turnout.core.tensors import DTYPES, Array, Tensors, as_text
from turnout.deploy.compile.convert_boosting import from_catboost, from_lightgbm, from_xgboost
from turnout.deploy.compile.convert_keras import from_keras
from turnout.deploy.compile.convert_sklearn import from_sklearn
from turnout.deploy.compile.convert_torch import from_torch
from turnout.deploy.compile.graph import Converted, Feed, dressed
from turnout.formats.artifact import Artifact, LoadOptions
from turnout.formats.refusals import library

Ways = Iterator[Callable[[], Converted]]


class Source(NamedTuple):
    """What is converted: the model as it is served, the library's own object, and the file it came from."""

    artifact: Artifact
    options: LoadOptions
    model: Model
    native: Any

    @property
    def signature(self) -> Signature:
        """The signature that the twin has to have."""
        return self.model.signature


WAYS: dict[str, Callable[[Any], Ways]] = {
    "sklearn": from_sklearn,
    "xgboost": from_xgboost,
    "lightgbm": from_lightgbm,
    "catboost": from_catboost,
    "torch": from_torch,
    "keras": from_keras,
}


class Attempt(NamedTuple):
    """One way tried: the twin's bytes, or why there is none."""

    name: str
    data: bytes
    reason: str


def attempts(format: str, source: Source, rows: Tensors) -> Iterator[Attempt]:
    """Every way that the format knows, tried on some rows; a converter's own complaint is the reason."""
    for way in WAYS[format](source):
        name = "conversion"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                converted = way()
                name = converted.name
                yield Attempt(name, dressed(converted, source.signature, _tried(converted, rows)), "")
        except LoadFailed as failure:
            yield Attempt(name, b"", failure.message)
        except Exception as problem:  # noqa: BLE001  converters raise anything; none of it is ours to judge
            said = " ".join(str(problem).split())[:300]
            yield Attempt(name, b"", f"{type(problem).__name__}: {said}")


def _tried(converted: Converted, rows: Tensors) -> dict[str, Array]:
    """What the converted graph itself gives for the rows, to learn the types and shapes that it only claims."""
    onnxruntime = library("onnxruntime", "turnout compile")
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    graph = converted.model.graph
    for value in graph.output:  # a converter's claims may be wrong, and are then refused
        value.type.Clear()
    graph.ClearField("value_info")
    session = onnxruntime.InferenceSession(
        converted.model.SerializeToString(), sess_options=settings, providers=["CPUExecutionProvider"]
    )
    feeds = {feed.name: _fed(feed, rows) for feed in converted.feeds}
    names = list(converted.outputs.values())
    return dict(zip(names, session.run(names, feeds), strict=True))


def _fed(feed: Feed, rows: Tensors) -> Array:
    parts = []
    for piece in feed.pieces:
        array = rows[piece.input]
        if piece.column is not None:
            array = array[:, piece.column : piece.column + 1]
        elif array.ndim == 1 and not feed.whole:
            array = array.reshape(-1, 1)
        text = array.dtype.kind == "O"
        parts.append(as_text(array) if text else array.astype(DTYPES[feed.datatype]))
    return np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]
