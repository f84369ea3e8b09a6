"""Signatures of graphs that name their inputs and outputs themselves (SavedModel, Keras, exported JAX functions)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from turnout.core.errors import LoadFailed
from turnout.core.signature import Signature, TensorSpec
from turnout.core.tensors import DTYPES, Tensors
from turnout.formats.signatures import Predict, rows_are_independent, with_outputs

#: Names of numpy types as the frameworks write them.
DATATYPES = {dtype.name: name for name, dtype in DTYPES.items() if dtype.kind != "O"} | {"string": "BYTES"}


def datatype_of(dtype: str, what: str) -> str:
    """The protocol's name of a framework's type. Raises LoadFailed for types that have no tensor on the wire."""
    found = DATATYPES.get(dtype)
    if found is None:
        raise LoadFailed(f"{what} has the type {dtype}, for which there is no tensor on the wire; cast it in the model")
    return found


def sizes(shape: Sequence[object]) -> tuple[int, ...]:
    """A framework's shape, -1 where a size is free."""
    return tuple(size if isinstance(size, int) and size >= 0 else -1 for size in shape)


def has_rows(specs: Sequence[TensorSpec]) -> bool:
    """Whether the first axis of all tensors is free, or has the same fixed size."""
    return bool(specs) and all(spec.shape for spec in specs) and len({spec.shape[0] for spec in specs}) == 1


def overridden(own: Sequence[TensorSpec], wanted: Signature | None, label: str) -> tuple[TensorSpec, ...]:
    """The graph's inputs with what the user says of them. Raises LoadFailed where a name or type is not its own."""
    if wanted is None:
        return tuple(own)
    have = {spec.name: spec for spec in own}
    for spec in wanted.inputs:
        if spec.name not in have or have[spec.name].datatype != spec.datatype:
            known = ", ".join(f"{s.name} ({s.datatype})" for s in own)
            raise LoadFailed(f"{label}: there is no input {spec.name} ({spec.datatype}); it has {known}")
    if len(wanted.inputs) != len(have):
        raise LoadFailed(
            f"{label} takes {', '.join(have)}; the signature has {', '.join(s.name for s in wanted.inputs)}"
        )
    return wanted.inputs


def completed(
    signature: Signature, predict: Predict, declared: Sequence[TensorSpec], *, example: Tensors | None = None
) -> Signature:
    """The signature with outputs: as the graph declares them, made exact by a run on example rows.

    A graph whose rows influence each other, or do not come back row by row, is not batched. Raises LoadFailed where
    the graph declares no outputs and fails on the example.
    """
    known = {spec.name: spec for spec in declared}
    if signature.batched and signature.rows_limit is None and not rows_are_independent(signature.inputs, predict):
        signature = replace(signature, batched=False)
    try:
        seen = _tried(replace(signature, outputs=()), predict, example)
    except LoadFailed:  # zeros may be out of the model's domain: the declaration then has to do
        if not known:
            raise
        return replace(signature, outputs=tuple(declared))
    outputs = []
    for spec in seen.outputs:
        said = known.get(spec.name)
        if said is not None and len(said.shape) == len(spec.shape):
            free = tuple(-1 if a == -1 else b for a, b in zip(said.shape, spec.shape, strict=True))
            spec = replace(spec, shape=free)
        outputs.append(spec)
    return replace(seen, outputs=tuple(outputs))


def _tried(signature: Signature, predict: Predict, example: Tensors | None) -> Signature:
    try:
        return with_outputs(signature, predict, example=example)
    except LoadFailed:
        if not signature.batched or signature.rows_limit is not None:
            raise
    return with_outputs(replace(signature, batched=False), predict, example=example)
