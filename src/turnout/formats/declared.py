"""What is said about a model's inputs outside the model: by the user, by an example, by a file beside it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from turnout.core.errors import InvalidInput, LoadFailed
from turnout.core.signature import Signature
from turnout.core.tensors import Tensors
from turnout.formats.artifact import Artifact, LoadOptions
from turnout.formats.examples import tensors_of
from turnout.formats.mlmodel import read_mlmodel
from turnout.formats.signatures import specs_of_example

_MLMODEL = "MLmodel"
_EXAMPLES = ("input_example.json", "example.json")


def declared_inputs(artifact: Artifact, options: LoadOptions) -> Signature | None:
    """The signature the user gave, else one from an example, else from an MLmodel file; None if nothing says it.

    Its outputs are empty unless the user gave them. Raises LoadFailed for an example that cannot be read.
    """
    if options.signature is not None:
        return replace(options.signature, source="user")
    if options.example is not None:
        return from_example(options.example)
    path = mlmodel_of(artifact)
    if path is not None:
        found = read_mlmodel(path)
        if found is not None:
            return found
    example = example_of(artifact, options)
    return None if example is None else from_example(example)


def from_example(example: Tensors) -> Signature:
    """The inputs of an example's arrays; batched if all have the same number of rows."""
    specs = specs_of_example(example)
    batched = all(spec.shape and spec.shape[0] == -1 for spec in specs)
    specs = tuple(replace(s, columns=(s.name,)) if s.shape == (-1,) and len(specs) > 1 else s for s in specs)
    return Signature(specs, (), batched=batched, lenient=True, source="example")


def example_of(artifact: Artifact, options: LoadOptions) -> Tensors | None:
    """The user's example, or the one in a JSON file beside the model."""
    if options.example is not None:
        return options.example
    for name in _EXAMPLES:
        path = artifact.beside(name)
        if path is not None:
            try:
                return tensors_of(json.loads(path.read_text(encoding="utf-8")))
            except (ValueError, InvalidInput) as problem:
                raise LoadFailed(f"{name} beside the model cannot be read as an input example: {problem}") from None
    return None


def mlmodel_of(artifact: Artifact) -> Path | None:
    """The MLmodel file of the artifact's directory, or one beside the file that names it."""
    path = artifact.beside(_MLMODEL)
    if path is not None or artifact.path is None or not artifact.is_file:
        return path
    path = artifact.path.parent / _MLMODEL
    if path.is_file() and artifact.path.name in path.read_text(encoding="utf-8", errors="replace"):
        return path
    return None
