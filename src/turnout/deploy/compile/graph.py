"""A converted graph gets the original's own signature: its names, types and shapes, at both ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from turnout.core.errors import LoadFailed
from turnout.core.signature import Signature, TensorSpec
from turnout.core.tensors import Array
from turnout.formats.refusals import library

#: The protocol's types by ONNX's own numbers for them.
ELEMENTS = {
    "FP32": 1, "UINT8": 2, "INT8": 3, "UINT16": 4, "INT16": 5, "INT32": 6, "INT64": 7, "BYTES": 8, "BOOL": 9,
    "FP16": 10, "FP64": 11, "UINT32": 12, "UINT64": 13,
}  # fmt: skip
_PREFIX = "turnout_"


class Piece(NamedTuple):
    """Where a part of an inner input comes from: an input of the signature, whole or one column of it."""

    input: str
    column: int | None = None


@dataclass(frozen=True)
class Feed:
    """One input of the converted graph, side by side from its pieces.

    `rounded`: through FP32 first, as trees do. `whole`: one piece in the shape that it has, which need not be a table.
    """

    name: str
    datatype: str
    pieces: Sequence[Piece]
    rounded: bool = False
    whole: bool = False


@dataclass(frozen=True)
class Converted:
    """A graph as a converter gives it: how it is fed, and which of its outputs are the signature's."""

    name: str
    model: Any
    feeds: Sequence[Feed]
    outputs: Mapping[str, str]


def onnx_library() -> Any:
    """The package that reads and writes graphs."""
    return library("onnx", "turnout compile")


class _Nodes:
    """Nodes to be written, with fresh names."""

    def __init__(self, onnx: Any) -> None:
        self._onnx = onnx
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, kind: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        """Adds a node and gives its output's name."""
        output = output or f"{_PREFIX}{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(self._onnx.helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def numbers(self, values: Sequence[int]) -> str:
        """The name of a constant list of whole numbers."""
        name = f"{_PREFIX}numbers_{len(self.constants)}"
        self.constants.append(self._onnx.helper.make_tensor(name, ELEMENTS["INT64"], [len(values)], list(values)))
        return name


def dressed(converted: Converted, signature: Signature, seen: Mapping[str, Array]) -> bytes:
    """The graph under the signature, serialised. `seen` are its inner outputs for some rows, for their true types.

    Raises LoadFailed where an output cannot be what the signature says.
    """
    onnx = onnx_library()
    inner = converted.model
    body = onnx.GraphProto()
    body.CopyFrom(inner.graph)
    before, after = _Nodes(onnx), _Nodes(onnx)
    specs = {spec.name: spec for spec in signature.inputs}
    _set_apart(body, {*specs, *(spec.name for spec in signature.outputs)})
    for feed in converted.feeds:
        _feed(before, feed, specs, _renamed(feed.name, body))
    for spec in signature.outputs:
        name = converted.outputs[spec.name]
        _give(after, spec, _renamed(name, body), seen[name])
    graph = onnx.helper.make_graph(
        [*before.nodes, *body.node, *after.nodes],
        "compiled",
        [_described(onnx, spec) for spec in signature.inputs],
        [_described(onnx, spec) for spec in signature.outputs],
        [*body.initializer, *before.constants, *after.constants],
    )
    model = onnx.helper.make_model(graph, producer_name="turnout", ir_version=inner.ir_version)
    del model.opset_import[:]
    model.opset_import.extend(inner.opset_import)
    for entry in model.opset_import:
        entry.version = max(entry.version, 9) if entry.domain in ("", "ai.onnx") else entry.version
    if not any(entry.domain in ("", "ai.onnx") for entry in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid("", 13))
    model.functions.extend(inner.functions)
    data: bytes = model.SerializeToString()
    return data


def _described(onnx: Any, spec: TensorSpec) -> Any:
    shape = [("rows" if axis == 0 else f"{spec.name}_{axis}") if n == -1 else n for axis, n in enumerate(spec.shape)]
    return onnx.helper.make_tensor_value_info(spec.name, ELEMENTS[spec.datatype], shape)


def _set_apart(body: Any, taken: set[str]) -> None:
    """Gives the names inside the graph that the signature needs another one."""
    body.ClearField("value_info")
    used = {n.name for n in (*body.input, *body.output)} | {
        n for node in body.node for n in (*node.input, *node.output)
    }
    clash = {name: f"{_PREFIX}inner_{name}" for name in used & taken}
    if not clash:
        return
    for node in body.node:
        for names in (node.input, node.output):
            for at, name in enumerate(names):
                names[at] = clash.get(name, name)
        for attribute in node.attribute:
            if attribute.type == attribute.GRAPH:
                _rename_captured(attribute.g, clash)
    for value in (*body.input, *body.output, *body.initializer):
        value.name = clash.get(value.name, value.name)


def _rename_captured(graph: Any, clash: Mapping[str, str]) -> None:
    own = {v.name for v in (*graph.input, *graph.initializer)} | {n for node in graph.node for n in node.output}
    for node in graph.node:
        for at, name in enumerate(node.input):
            if name not in own:
                node.input[at] = clash.get(name, name)


def _renamed(name: str, body: Any) -> str:
    """The name that an input or output of the graph has now."""
    known = {value.name for value in (*body.input, *body.output)}
    return name if name in known else f"{_PREFIX}inner_{name}"


def _feed(nodes: _Nodes, feed: Feed, specs: Mapping[str, TensorSpec], target: str) -> None:
    parts = []
    for piece in feed.pieces:
        spec = specs[piece.input]
        part = spec.name
        if piece.column is not None:
            part = nodes.add("Gather", [part, nodes.numbers([piece.column])], axis=1)
        elif len(spec.shape) == 1 and not feed.whole:
            part = nodes.add("Reshape", [part, nodes.numbers([-1, 1])])
        steps = (["FP32"] if feed.rounded else []) + [feed.datatype]
        have = spec.datatype
        for datatype in steps:
            if datatype != have:
                part = nodes.add("Cast", [part], to=ELEMENTS[datatype])
            have = datatype
        parts.append(part)
    if len(parts) > 1:
        nodes.add("Concat", parts, target, axis=1)
    else:
        nodes.add("Identity", parts, target)


def _give(nodes: _Nodes, spec: TensorSpec, name: str, seen: Array) -> None:
    """From the converter's output to the signature's: the right column, shape and type."""
    if len(spec.shape) == 1 and seen.ndim == 2:
        if seen.shape[1] > 2:
            raise LoadFailed(f"the converted model gives {seen.shape[1]} columns for {spec.name!r}, not one")
        if seen.shape[1] == 2:  # scores of both classes, where the original gives those of the second
            name = nodes.add("Gather", [name, nodes.numbers([1])], axis=1)
        name = nodes.add("Reshape", [name, nodes.numbers([-1])])
    elif len(spec.shape) == 2 and seen.ndim == 1:
        name = nodes.add("Reshape", [name, nodes.numbers([-1, 1])])
    elif len(spec.shape) != seen.ndim:
        raise LoadFailed(f"the converted model gives {spec.name!r} in {seen.ndim} dimensions, not {len(spec.shape)}")
    text = seen.dtype.kind in "OUS"
    if text != (spec.datatype == "BYTES"):
        raise LoadFailed(f"the converted model gives {'text' if text else 'numbers'} for {spec.name!r}")
    if text:
        nodes.add("Identity", [name], spec.name)
    else:
        nodes.add("Cast", [name], spec.name, to=ELEMENTS[spec.datatype])


def without_zipmap(model: Any) -> dict[str, str]:
    """Takes ZipMap nodes out of a graph; gives the names of their inputs by the names of their outputs."""
    found: dict[str, str] = {}
    for node in list(model.graph.node):
        if node.op_type == "ZipMap":
            found[node.output[0]] = node.input[0]
            model.graph.node.remove(node)
    for value in model.graph.output:
        value.name = found.get(value.name, value.name)
    return found
