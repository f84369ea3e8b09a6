"""OpenVINO models in its own form (IR): a graph in XML and its weights in a .bin file beside it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from turnout.core.errors import InvalidInput, LoadFailed
from turnout.core.servable import Model
from turnout.core.signature import Signature, TensorSpec
from turnout.core.tensors import Tensors, as_text, canonical
from turnout.formats.artifact import Artifact, LoadOptions
from turnout.formats.declared import example_of
from turnout.formats.refusals import library, loading
from turnout.formats.signatures import tried_out
from turnout.formats.xml_content import root_of, walk_xml

_ROOT = "net"
_MAX_XML = 1 << 30
_DATATYPES = {
    **{f"{sign}{bits}": f"{kind}{bits}" for sign, kind in (("i", "INT"), ("u", "UINT")) for bits in (8, 16, 32, 64)},
    "f16": "FP16",
    "f32": "FP32",
    "f64": "FP64",
    "boolean": "BOOL",
    "string": "BYTES",
}


class OpenVINO:
    """The OpenVINO format."""

    name = "openvino"
    extra = "openvino"
    suffixes = (".xml",)

    def recognise(self, artifact: Artifact) -> bool:
        """Whether this is a graph in XML, the weights beside one, or a directory with one of each."""
        graph = _graph_of(artifact)
        return graph is not None and root_of(Artifact.of(graph)) == _ROOT

    def load(self, artifact: Artifact, options: LoadOptions) -> Model:
        """The graph as a model, compiled for the CPU; its own names, types and shapes are the signature."""
        graph = _graph_of(artifact)
        if graph is None:
            raise LoadFailed(f"{artifact.label}: there is no OpenVINO graph (.xml) beside these weights")
        weights = _check_pair(graph)
        openvino = library("openvino", f"{artifact.label} (an OpenVINO model)")
        with loading(artifact, "an OpenVINO model"):
            core = openvino.Core()
            network = core.read_model(str(graph), str(weights)) if weights is not None else core.read_model(str(graph))
            settings = {"INFERENCE_NUM_THREADS": options.threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
            compiled = core.compile_model(network, "CPU", settings)
            return _model(compiled, artifact, options)


class OpenVINOModel:
    """Runs a compiled graph. A request of OpenVINO's holds one inference, so threads take turns."""

    __slots__ = ("_lock", "_order", "_outputs", "_request", "_text", "signature")

    def __init__(self, signature: Signature, compiled: Any, outputs: Mapping[str, Any]) -> None:
        self.signature = signature
        self._request = compiled.create_infer_request()
        self._order = tuple(spec.name for spec in signature.inputs)
        self._text = frozenset(spec.name for spec in signature.inputs if spec.datatype == "BYTES" and spec.text)
        self._outputs = dict(outputs)
        self._lock = threading.Lock()

    def predict(self, inputs: Tensors) -> Tensors:
        """The graph's outputs under its own names. Raises InvalidInput where free sizes do not fit the graph."""
        given = [as_text(inputs[name]) if name in self._text else inputs[name] for name in self._order]
        with self._lock:
            try:
                answer = self._request.infer(given, share_inputs=False)
            except RuntimeError as problem:
                said = " ".join(str(problem).split())
                if "hape" not in said and "imension" not in said:  # OpenVINO has one type of exception for everything
                    raise
                raise InvalidInput("the model's graph does not take these sizes", got=said[-300:]) from problem
            return {name: canonical(answer[place]) for name, place in self._outputs.items()}


def _graph_of(artifact: Artifact) -> Path | None:
    """The XML file meant: itself, the one beside its weights, or the only one in the directory."""
    if artifact.path is None:
        return None
    if artifact.is_directory:
        names = [name for name in artifact.listing if name.endswith(".xml")]
        graph = artifact.file / names[0] if len(names) == 1 else None
        return graph if graph is not None and graph.with_suffix(".bin").is_file() else None
    if artifact.suffix == ".bin":
        graph = artifact.file.with_suffix(".xml")
        return graph if graph.is_file() else None
    return artifact.file if artifact.head[:512].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<") else None


def _check_pair(graph: Path) -> Path | None:
    """The weights' file, if the graph asks for one. Raises LoadFailed where the two do not fit together."""
    needed = 0
    roots: list[str] = []

    def started(depth: int, name: str, attributes: Mapping[str, str]) -> None:
        nonlocal needed
        if depth == 0:
            roots.append(name)
        if name == "data" and "offset" in attributes and "size" in attributes:
            try:
                offset, size = int(attributes["offset"]), int(attributes["size"])
            except ValueError:
                raise LoadFailed(f"{graph.name}: weights at {attributes['offset']!r} are nowhere") from None
            if offset < 0 or size < 0:
                raise LoadFailed(f"{graph.name}: weights at {offset} of {size} bytes are nowhere")
            needed = max(needed, offset + size)

    walk_xml(graph, _MAX_XML, started)
    if roots != [_ROOT]:
        raise LoadFailed(f"{graph.name}: the outermost element is {roots[0]}, not {_ROOT}: no OpenVINO graph")
    weights = graph.with_suffix(".bin")
    if not weights.is_file():
        if needed:
            raise LoadFailed(f"{graph.name}: its weights are not there; put {weights.name} beside it")
        return None
    have = weights.stat().st_size
    if have < needed:
        raise LoadFailed(f"{weights.name} is cut off: the graph asks for {needed} bytes of weights, it has {have}")
    return weights


def _model(compiled: Any, artifact: Artifact, options: LoadOptions) -> OpenVINOModel:
    inputs = tuple(_spec(port, artifact) for port in compiled.inputs)
    outputs = {_name(port, f"output_{at}"): at for at, port in enumerate(compiled.outputs)}
    firsts = {_first(port) for port in (*compiled.inputs, *compiled.outputs)}
    signature = Signature(inputs, (), batched=bool(inputs) and len(firsts) == 1 and None not in firsts)
    if options.signature is not None:
        wanted = {spec.name for spec in options.signature.inputs}
        if wanted != {spec.name for spec in inputs}:
            known = ", ".join(f"{spec.name} ({spec.datatype})" for spec in inputs)
            raise LoadFailed(f"{artifact.label} takes {known}; the signature has {', '.join(sorted(wanted))}")
        order = {spec.name: spec for spec in options.signature.inputs}
        signature = replace(options.signature, inputs=tuple(order[spec.name] for spec in inputs), source="user")
        if signature.outputs:
            outputs = {spec.name: outputs[spec.name] for spec in signature.outputs if spec.name in outputs}
    model = OpenVINOModel(signature, compiled, outputs)
    tried_out(model, example_of(artifact, options))
    return model


def _name(port: Any, otherwise: str) -> str:
    """The name a port has: the first by the alphabet of those the graph gives it, else its node's."""
    names = sorted(port.get_names())
    return str(names[0]) if names else str(port.get_node().get_friendly_name()) or otherwise


def _spec(port: Any, artifact: Artifact) -> TensorSpec:
    name = _name(port, "x")
    kind = port.get_element_type().get_type_name()
    if kind not in _DATATYPES:
        raise LoadFailed(f"{artifact.label}: the input {name!r} is of the type {kind}, for which there is no tensor")
    shape = port.get_partial_shape()
    if shape.rank.is_dynamic:
        raise LoadFailed(
            f"{artifact.label}: the input {name!r} has no number of dimensions. Convert the model with a shape for it"
        )
    return TensorSpec(name, _DATATYPES[kind], tuple(-1 if size.is_dynamic else size.get_length() for size in shape))


def _first(port: Any) -> int | None:
    """The first size of a port: -1 where it is free, None where there is none."""
    shape = port.get_partial_shape()
    if shape.rank.is_dynamic or shape.rank.get_length() == 0:
        return None
    return -1 if shape[0].is_dynamic else int(shape[0].get_length())
