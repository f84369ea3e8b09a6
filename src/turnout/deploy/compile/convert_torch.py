"""PyTorch programs to ONNX, with torch's own exporters."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

from turnout.deploy.compile.graph import Converted, Feed, Piece, onnx_library
from turnout.formats.refusals import library
from turnout.formats.signatures import example_rows


def from_torch(source: Any) -> Iterator[Callable[[], Converted]]:
    """One way for each kind of file: an exported program is translated, a script is traced."""
    if hasattr(source.native, "graph_signature"):
        yield lambda: _exported(source)
    else:
        yield lambda: _script(source)


def _exported(source: Any) -> Converted:
    torch = library("torch", "turnout compile, for a PyTorch model,")
    library("onnxscript", "turnout compile, for a PyTorch program,")
    made = torch.onnx.export(source.native, dynamo=True, external_data=False, verbose=False)
    return in_order(source, made.model_proto)


def _script(source: Any) -> Converted:
    torch = library("torch", "turnout compile, for a PyTorch model,")
    names = [spec.name for spec in source.signature.inputs]
    rows = example_rows(source.signature.inputs, 2, seed=1)
    free = {
        spec.name: {axis: f"{spec.name}_{axis}" for axis, size in enumerate(spec.shape) if size == -1}
        for spec in source.signature.inputs
    }
    written = io.BytesIO()
    torch.onnx.export(
        source.native,
        tuple(torch.from_numpy(rows[name]) for name in names),
        written,
        input_names=names,
        output_names=[spec.name for spec in source.signature.outputs],
        dynamic_axes=free | {spec.name: {0: "rows"} for spec in source.signature.outputs},
        opset_version=17,
        dynamo=False,
    )
    return in_order(source, onnx_library().load_from_string(written.getvalue()))


def in_order(source: Any, model: Any) -> Converted:
    """The graph's inputs and outputs by their names, or in the order of the signature's, which is the program's."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value.name for value in model.graph.input if value.name not in weights]
    outputs = [value.name for value in model.graph.output]
    specs = source.signature.inputs
    if set(inputs) == {spec.name for spec in specs}:
        inputs = [spec.name for spec in specs]
    names = [spec.name for spec in source.signature.outputs]
    if set(outputs) == set(names):
        outputs = names
    feeds = [
        Feed(name, spec.datatype, [Piece(spec.name)], whole=True) for name, spec in zip(inputs, specs, strict=True)
    ]
    return Converted("float", model, feeds, dict(zip(names, outputs, strict=True)))
