"""Weights in safetensors, with the architecture they belong to declared beside them in architecture.json.

`{"class": "net.py:Net", "arguments": {"hidden": 8}, "inputs": [...]}`: a torch module, or a class of plain Python that
takes the weights as numpy arrays.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from turnout.core.errors import LoadFailed
from turnout.core.servable import Model
from turnout.core.signature import Signature, TensorSpec
from turnout.formats.artifact import Artifact, LoadOptions
from turnout.formats.declared import declared_inputs
from turnout.formats.python import model_of
from turnout.formats.python_code import find
from turnout.formats.refusals import library, loading
from turnout.formats.safetensors_header import SUFFIX, check, looks_like
from turnout.formats.torch import model_of_module

FILE = "architecture.json"
WEIGHTS = "weights"
_KIND = "safetensors weights"
_EXAMPLE = '{"class": "net.py:Net", "arguments": {}, "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]}'


class Safetensors:
    """The safetensors format."""

    name = "safetensors"
    extra = "safetensors"
    suffixes = (SUFFIX,)

    def recognise(self, artifact: Artifact) -> bool:
        """Whether this is a safetensors file, or a directory that declares an architecture for some."""
        if artifact.is_directory:
            return FILE in artifact.listing
        return looks_like(artifact)

    def load(self, artifact: Artifact, options: LoadOptions) -> Model:
        """The architecture with its weights. Raises LoadFailed where either is missing, or they do not fit."""
        directory = artifact.file if artifact.is_directory else artifact.file.parent
        files = sorted(directory.glob(f"*{SUFFIX}")) if artifact.is_directory else [artifact.file]
        if not files:
            raise LoadFailed(f"{artifact.label} declares an architecture and holds no *{SUFFIX} file")
        for file in files:
            check(file)
        declared = _declaration(directory, artifact)
        subject, module = find(Artifact.of(_reference(declared.reference, directory, artifact)))
        reader = library("safetensors", f"{artifact.label} ({_KIND})")
        with loading(artifact, _KIND):
            return _built(reader, subject, module, declared, files, artifact, options)


@dataclass(frozen=True)
class _Declaration:
    reference: str
    arguments: Mapping[str, Any]
    signature: Signature | None


def _declaration(directory: Path, artifact: Artifact) -> _Declaration:
    """What architecture.json says. Raises LoadFailed where there is none, or it is not of this form."""
    path = directory / FILE
    if not path.is_file():
        raise LoadFailed(
            f"{artifact.label} holds weights and not the model they belong to. Put {FILE} beside it: {_EXAMPLE}"
        )
    try:
        found = json.loads(path.read_bytes())
        unknown = set(found) - {"class", "arguments", "inputs", "outputs", "batched"}
        if unknown:
            raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
        arguments = found.get("arguments", {})
        signature = None
        if "inputs" in found:
            signature = Signature(
                tuple(TensorSpec.from_json(one) for one in found["inputs"]),
                tuple(TensorSpec.from_json(one) for one in found.get("outputs", ())),
                batched=bool(found.get("batched", True)),
            )
        if not isinstance(arguments, dict):
            raise TypeError("arguments is not an object")
        return _Declaration(str(found["class"]), arguments, signature)
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise LoadFailed(
            f"{FILE} cannot be read ({type(problem).__name__}: {problem}); it looks like {_EXAMPLE}"
        ) from None


def _reference(reference: str, directory: Path, artifact: Artifact) -> str:
    """`net.py:Net` as a path of this directory, which it may not leave; `module:attr` as it is."""
    file, colon, attribute = reference.removeprefix("python:").rpartition(":")
    if not file.endswith(".py"):
        return reference
    path = (directory / file).resolve()
    if not colon or not path.is_relative_to(directory.resolve()) or not path.is_file():
        raise LoadFailed(f"{artifact.label}: {FILE} names {reference!r}, and there is no such file beside it")
    return f"{path}:{attribute}"


def _built(
    reader: Any,
    subject: Any,
    module: Any,
    declared: _Declaration,
    files: list[Path],
    artifact: Artifact,
    options: LoadOptions,
) -> Model:
    arguments = dict(declared.arguments)
    if WEIGHTS in inspect.signature(subject).parameters:
        numpy_reader = library(f"{reader.__name__}.numpy", _KIND)
        arguments[WEIGHTS] = {name: value for file in files for name, value in numpy_reader.load_file(file).items()}
        return model_of(subject(**arguments), module, declared.reference, artifact, options, own=declared.signature)
    built = subject(**arguments)
    if not hasattr(built, "load_state_dict"):
        raise LoadFailed(
            f"{artifact.label}: {declared.reference} is neither a torch module nor takes the parameter `{WEIGHTS}` "
            "(a dict of numpy arrays)"
        )
    torch = library("torch", f"{artifact.label} ({_KIND} of a torch module)")
    torch.set_num_threads(options.threads)
    torch_reader = library(f"{reader.__name__}.torch", _KIND)
    built.load_state_dict({name: value for file in files for name, value in torch_reader.load_file(str(file)).items()})
    said = options.signature or declared.signature or declared_inputs(artifact, options)
    if said is None:
        raise LoadFailed(
            f'{artifact.label}: {FILE} does not say what the model takes. Add "inputs" to it ({_EXAMPLE}), or give an '
            "input example (--example rows.json, or input_example.json beside it)"
        )
    return model_of_module(torch, built.eval(), said, artifact, options)
