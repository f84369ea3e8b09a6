"""Signatures of PyTorch programs, from what an exported program or a script's graph says of its inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from turnout.core.errors import LoadFailed
from turnout.core.signature import Signature, TensorSpec
from turnout.formats.graph_signatures import DATATYPES

#: All but the wider unsigned ones, which torch knows and can hardly calculate with.
_TYPES = {torch: name for torch, name in DATATYPES.items() if name not in {"UINT16", "UINT32", "UINT64", "BYTES"}}


def exported_signature(program: Any, label: str) -> tuple[Signature, int | None, int]:
    """An ExportedProgram's signature without outputs, the most rows it takes, and how many inputs have no keyword."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    specs: list[TensorSpec] = []
    firsts: set[str] = set()
    limit: int | None = None
    for name in program.graph_signature.user_inputs:
        value = values.get(name) if isinstance(name, str) else None
        datatype = _TYPES.get(str(getattr(value, "dtype", "")).removeprefix("torch."))
        if value is None or datatype is None:
            raise LoadFailed(
                f"{label}: the input {name!r} is not a tensor of a plain type; export a module that takes such"
            )
        specs.append(TensorSpec(str(name), datatype, tuple(s if isinstance(s, int) else -1 for s in value.shape)))
        firsts.add(str(value.shape[0]) if len(value.shape) else "")
        if len(value.shape) and not isinstance(value.shape[0], int):
            limit = _upper(program, value.shape[0])
    tree = program.call_spec.in_spec
    children = () if tree is None else tree.children() if hasattr(tree, "children") else tree.children_specs
    positional = children[0].num_leaves if children else len(specs)
    batched = len(firsts) == 1 and "" not in firsts and bool(specs)
    return Signature(tuple(specs), (), batched=batched), limit, positional


def _upper(program: Any, size: Any) -> int | None:
    """The largest value of a free dimension, None where it is unbounded."""
    bounds = program.range_constraints.get(size.node.expr)
    try:
        upper = int(bounds.upper)
    except (AttributeError, TypeError, ValueError, OverflowError):
        return None
    return upper if upper < 1 << 31 else None


def script_inputs(torch: Any, module: Any, names: Sequence[str]) -> Signature | None:
    """Inputs read off the first operation on each argument of a script; None where one of them stays unknown."""
    try:
        graph = torch.jit.freeze(module).graph
    except RuntimeError:
        return None
    specs: list[TensorSpec] = []
    for value, name in zip(list(graph.inputs())[1:], names, strict=False):
        found = [spec for use in value.uses() if (spec := _by_operation(use.user, value, name)) is not None]
        if not found:
            return None
        specs.append(found[0])
    if len(specs) != len(names):
        return None
    return Signature(tuple(specs), (), lenient=True)


def _by_operation(node: Any, value: Any, name: str) -> TensorSpec | None:
    """The shape that a linear layer, a convolution or an embedding asks of its input, by its weights."""
    kind = node.kind().removeprefix("aten::")
    inputs = list(node.inputs())
    if kind in {"linear", "conv1d", "conv2d", "conv3d"} and inputs[0].debugName() == value.debugName():
        weight = inputs[1].toIValue()
        if weight is None:
            return None
        datatype = _TYPES.get(str(weight.dtype).removeprefix("torch."), "FP32")
        if kind == "linear":
            return TensorSpec(name, datatype, (-1, int(weight.shape[1])))
        groups = inputs[6].toIValue()
        channels = int(weight.shape[1]) * int(groups if groups is not None else 1)
        return TensorSpec(name, datatype, (-1, channels, *([-1] * (weight.dim() - 2))))
    if kind == "embedding" and inputs[1].debugName() == value.debugName():
        return TensorSpec(name, "INT64", (-1, -1))
    return None
