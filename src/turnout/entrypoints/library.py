"""`turnout.load`: the same model as a plain function in your own code. No sockets, no event loop, no other process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from turnout import formats
from turnout.core.servable import Model
from turnout.core.signature import Signature
from turnout.core.tensors import Array
from turnout.deploy.sources.source import SourceSettings
from turnout.deploy.supply import Supply
from turnout.entrypoints.rows import to_tensors
from turnout.entrypoints.supplies import name_of
from turnout.runtime.predict import run_model


class LoadedModel:
    """A model to call. Validates and answers exactly as the served one does."""

    def __init__(self, name: str, format: str, model: Model) -> None:
        self.name = name
        self.format = format
        self._model = model

    def __repr__(self) -> str:
        inputs = ", ".join(f"{s.name}: {s.datatype}{list(s.shape)}" for s in self.signature.inputs)
        return f"<turnout model {self.name!r} ({self.format}): {inputs}>"

    @property
    def signature(self) -> Signature:
        """Inputs and outputs by name, type and shape."""
        return self._model.signature

    def predict(self, rows: Any) -> dict[str, Array]:
        """The outputs by name, for any number of rows.

        `rows`: named arrays, one array, a data frame, or records (a list of dicts). Raises InvalidInput, naming
        the input, what was expected and what came; what the model itself raises comes through unchanged.
        """
        inputs, count = self.signature.validate(to_tensors(rows, self.signature))
        return dict(run_model(self._model, inputs, count))

    __call__ = predict


def load(
    model: str | Path,
    *,
    trust_pickle: bool = False,
    format: str | None = None,
    threads: int = 1,
    signature: Signature | None = None,
    example: Any = None,
    sources: SourceSettings | None = None,
) -> LoadedModel:
    """Loads a model from a file, a directory, a URI, `module:attr` or `python:FILE.py:ATTR`.

    A URI is fetched into the cache first; `sources` says what is allowed there. The model runs in this very process,
    with the packages that are installed here, whatever it brings.
    `trust_pickle` allows files whose loading runs code; `example` (named arrays) shows the inputs of a model
    that does not say them. Raises LoadFailed or one of its kinds, with what was found and what to do.
    """
    options = formats.LoadOptions(
        trust_pickle=trust_pickle, format=format, threads=threads, signature=signature, example=example
    )
    return open_model(model, options, Supply(sources))


def _nobody(_text: str) -> None:
    """Hears what is told when nobody asked to."""


def open_model(
    model: str | Path, options: formats.LoadOptions, supply: Supply, tell: Callable[[str], None] | None = None
) -> LoadedModel:
    """The same with the options as one value, and somebody to tell while a URI is fetched."""
    given = str(model)
    path = supply.local(given, tell or _nobody)
    artifact = formats.Artifact.of(model if path == given else path)
    name = artifact.name if path == given else name_of(given)
    return LoadedModel(name, formats.detect(artifact, options).name, formats.load(artifact, options))
