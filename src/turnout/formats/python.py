"""Plain Python as a model: a class with `predict`, or a function, named by reference or found in a model.py."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from turnout.core.errors import InvalidOutput, LoadFailed
from turnout.core.servable import Model
from turnout.core.signature import Signature
from turnout.core.tensors import Array, Tensors, as_text, canonical
from turnout.formats.artifact import Artifact, LoadOptions
from turnout.formats.declared import declared_inputs, example_of, from_example
from turnout.formats.mlmodel import FILE as MLMODEL
from turnout.formats.python_code import FILE, find, instance, parameters, predict_of, wants_mapping
from turnout.formats.signatures import with_outputs

OUTPUT = "output"
_ARCHITECTURE = "architecture.json"  # says that the code builds a module for weights: another format


class Python:
    """The plain Python format. Only what the user names as code is recognised: a reference, a .py file, a model.py."""

    name = "python"
    extra = ""
    suffixes = (".py",)

    def recognise(self, artifact: Artifact) -> bool:
        """Whether this is a reference, a Python file, or a directory with a model.py."""
        if artifact.is_reference:
            return True
        if artifact.is_directory:
            return FILE in artifact.listing and not {_ARCHITECTURE, MLMODEL} & set(artifact.listing)
        return artifact.suffix == ".py" and b"\0" not in artifact.head

    def load(self, artifact: Artifact, options: LoadOptions) -> Model:
        """The object as a model. Raises LoadFailed if it cannot be imported, called, or its inputs are not known."""
        found, module = find(artifact)
        label = artifact.given if artifact.is_reference else artifact.label
        return model_of(instance(found, label), module, label, artifact, options)


def model_of(
    subject: Any, module: Any, label: str, artifact: Artifact, options: LoadOptions, *, own: Signature | None = None
) -> Model:
    """An object with `predict`, or a function, as a model; `own` is the signature declared beside it."""
    predict = predict_of(subject, label)
    wanted = parameters(predict, label)
    example = options.example if options.example is not None else _attribute(subject, module, "example")
    if example is None:
        example = example_of(artifact, options)
    given = options.signature
    signature = (own or _signature(subject, module, label)) if given is None else replace(given, source="user")
    if signature is None and example is not None:
        signature = _named_by_parameters(from_example(_tensors(example, wanted)), wanted)
    signature = signature or declared_inputs(artifact, options)
    if signature is None:
        raise LoadFailed(
            f"{label} does not say what it takes. Give it a `signature` (turnout.core.signature.Signature), "
            "an `example` attribute, or an input example (--example rows.json)"
        )
    call = _caller(predict, wanted, signature, is_function=predict is subject, label=label)
    model = PythonModel(signature, call)
    trial = _tensors(example, wanted) if example is not None else None
    model.signature = _described(signature, model, trial)
    return model


class PythonModel:
    """Calls the user's object and names what it returns."""

    __slots__ = ("_call", "_text", "signature")

    def __init__(self, signature: Signature, call: Callable[[Tensors], Any]) -> None:
        self.signature = signature
        self._call = call
        self._text = frozenset(s.name for s in signature.inputs if s.datatype == "BYTES" and s.text)

    def predict(self, inputs: Tensors) -> Tensors:
        """The object's answer as named arrays. Raises InvalidOutput where it is none, and what the object raises."""
        if self._text:
            inputs = {name: as_text(array) if name in self._text else array for name, array in inputs.items()}
        return self._named(self._call(inputs))

    def _named(self, answer: Any) -> Tensors:
        declared = {spec.name: spec for spec in self.signature.outputs}
        if isinstance(answer, Mapping):
            named = {str(name): value for name, value in answer.items()}
        elif isinstance(answer, tuple) and not hasattr(answer, "_asdict"):
            names = list(declared) if len(declared) == len(answer) else [f"{OUTPUT}_{i}" for i in range(len(answer))]
            named = dict(zip(names, answer, strict=True))
        elif hasattr(answer, "_asdict"):
            named = answer._asdict()
        else:
            named = {next(iter(declared)) if len(declared) == 1 else OUTPUT: answer}
        out: dict[str, Array] = {}
        for name, value in named.items():
            array = _array(name, value)
            spec = declared.get(name)
            if spec is not None and array.dtype != spec.dtype and np.can_cast(array.dtype, spec.dtype, "same_kind"):
                array = array.astype(spec.dtype)
            out[name] = array
        return out


def _array(name: str, value: Any) -> Array:
    if value is None or inspect.isawaitable(value) or inspect.isgenerator(value):
        raise InvalidOutput(f"the model returned {type(value).__name__} for {name!r}, not an array")
    if hasattr(value, "toarray"):
        value = value.toarray()
    try:
        array = np.asarray(value)
    except ValueError as problem:
        raise InvalidOutput(f"the model's output {name!r} has rows of different length") from problem
    if array.dtype.kind == "O":
        flat = array.ravel().tolist()
        if not all(isinstance(v, (str, bytes)) for v in flat):
            raise InvalidOutput(f"the model's output {name!r} holds objects, not numbers or text")
    elif array.dtype.kind in "cMmV":
        raise InvalidOutput(f"the model's output {name!r} has the type {array.dtype}, for which there is no tensor")
    return canonical(array)


def _attribute(subject: Any, module: Any, name: str) -> Any:
    found = getattr(subject, name, None)
    if found is None and subject is not module:
        found = getattr(module, name, None)
    return None if callable(found) else found


def _signature(subject: Any, module: Any, label: str) -> Signature | None:
    found = _attribute(subject, module, "signature")
    if found is not None and not isinstance(found, Signature):
        raise LoadFailed(f"{label}: `signature` is a {type(found).__name__}, not a turnout.core.signature.Signature")
    return found


def _tensors(example: Any, wanted: Sequence[inspect.Parameter]) -> Tensors:
    """An example as named arrays; a bare array is the first parameter's."""
    if isinstance(example, Mapping):
        return {str(name): canonical(np.asarray(value)) for name, value in example.items()}
    name = wanted[0].name if wanted and not wants_mapping(wanted[0]) else "x"
    return {name: canonical(np.asarray(example))}


def _named_by_parameters(signature: Signature, wanted: Sequence[inspect.Parameter]) -> Signature:
    """A function of one array names its input."""
    if len(signature.inputs) == 1 and len(wanted) == 1 and not wants_mapping(wanted[0]):
        return replace(signature, inputs=(replace(signature.inputs[0], name=wanted[0].name),))
    return signature


def _caller(
    predict: Callable[..., Any],
    wanted: Sequence[inspect.Parameter],
    signature: Signature,
    *,
    is_function: bool,
    label: str,
) -> Callable[[Tensors], Any]:
    """How the inputs reach the object: as one dict, or each array under its parameter's name."""
    names = [spec.name for spec in signature.inputs]
    if not wanted or wants_mapping(wanted[0]):
        return predict
    needed = [p.name for p in wanted if p.default is p.empty]
    if set(needed) <= set(names) <= {p.name for p in wanted}:
        if any(p.kind is p.POSITIONAL_ONLY for p in wanted):
            order = [p.name for p in wanted if p.name in names]
            return lambda inputs: predict(*(inputs[name] for name in order))
        return lambda inputs: predict(**inputs)
    if len(needed) <= 1 and len(names) == 1 and is_function:
        (name,) = names
        return lambda inputs: predict(inputs[name])
    if len(needed) <= 1:
        return predict
    raise LoadFailed(f"{label} takes ({', '.join(p.name for p in wanted)}), and the inputs are {', '.join(names)}")


def _described(signature: Signature, model: PythonModel, example: Tensors | None) -> Signature:
    """The signature with outputs. Where it came from an example, rows that do not come back row by row end batching."""
    if signature.outputs:
        return signature
    try:
        found = with_outputs(signature, model.predict, example=example)
        if signature.source != "example" or found == with_outputs(signature, model.predict, example=example, rows=3):
            return found
    except LoadFailed:
        if signature.source != "example" or not signature.batched:
            raise
    fixed = replace(signature, batched=False)
    return with_outputs(fixed, lambda inputs: model.predict(example if example is not None else inputs))
