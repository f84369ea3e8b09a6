"""ONNX models, run by onnxruntime on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from turnout.core.errors import InvalidInput, LoadFailed
from turnout.core.servable import Model
from turnout.core.signature import Signature, TensorSpec
from turnout.core.tensors import Array, Tensors, as_text, canonical
from turnout.formats.artifact import Artifact, LoadOptions
from turnout.formats.onnx_content import check_whole, looks_like_onnx
from turnout.formats.refusals import library, loading
from turnout.formats.signatures import example_rows, outputs_of, rows_are_independent, rows_of_example

_TYPES = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}
_ZIPMAP = ("seq(map(int64,", "seq(map(string,")

Run = Callable[[Sequence[str], Mapping[str, Any], None], list[Any]]


class Onnx:
    """The ONNX format."""

    name = "onnx"
    extra = "onnx"
    suffixes = (".onnx", ".ort")

    def recognise(self, artifact: Artifact) -> bool:
        """Whether the file is a serialised ModelProto."""
        return looks_like_onnx(artifact)

    def load(self, artifact: Artifact, options: LoadOptions) -> Model:
        """The graph as a model; its own names, types and shapes are the signature."""
        check_whole(artifact)
        onnxruntime = library("onnxruntime", f"{artifact.label} (an ONNX model)")
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = options.threads
        settings.inter_op_num_threads = 1
        settings.log_severity_level = 4  # what goes wrong comes as an exception; stderr is not ours
        with loading(artifact, "an ONNX model"):
            session = onnxruntime.InferenceSession(
                str(artifact.file), sess_options=settings, providers=["CPUExecutionProvider"]
            )
        return _model(session, artifact, options)


class OnnxModel:
    """A graph of plain tensors: nothing stands between the caller and onnxruntime."""

    __slots__ = ("_invalid", "_names", "_run", "signature")

    def __init__(self, signature: Signature, names: Sequence[str], run: Run, invalid: type[Exception]) -> None:
        self.signature = signature
        self._names = list(names)
        self._run = run
        self._invalid = invalid

    def predict(self, inputs: Tensors) -> Tensors:
        """The graph's outputs. Raises InvalidInput where free dimensions do not fit the graph."""
        try:
            return dict(zip(self._names, self._run(self._names, inputs, None), strict=True))
        except self._invalid as problem:
            raise _refused(problem) from problem


class ConvertingOnnxModel(OnnxModel):
    """A graph with text inputs, text outputs or ZipMap outputs, which are turned into plain tensors."""

    __slots__ = ("_text", "_zipmaps")

    def __init__(
        self, signature: Signature, names: Sequence[str], run: Run, invalid: type[Exception], zipmaps: frozenset[str]
    ) -> None:
        super().__init__(signature, names, run, invalid)
        self._text = tuple(spec.name for spec in signature.inputs if spec.datatype == "BYTES")
        self._zipmaps = zipmaps

    def predict(self, inputs: Tensors) -> Tensors:
        """The graph's outputs as plain tensors."""
        if self._text:
            inputs = {name: as_text(array) if name in self._text else array for name, array in inputs.items()}
        answer = super().predict(inputs)
        return {name: _unzip(value) if name in self._zipmaps else canonical(value) for name, value in answer.items()}


def _unzip(rows: Any) -> Array:
    """What a ZipMap wrapped into a dict a row, as the matrix it was."""
    return np.array([list(row.values()) for row in rows], dtype=np.float32)


def _refused(problem: Exception) -> InvalidInput:
    said = str(problem).rpartition("INVALID_ARGUMENT : ")[2].split("\n Please")[0]
    return InvalidInput("the model's graph does not take these inputs", got=" ".join(said.split())[:300])


def _runner(session: Any) -> Run:
    """onnxruntime's inner call where this version has it as we know it: it spares 1.5 us of checks a call.

    The inputs were validated against the signature; what the public call adds is a check for missing inputs,
    which the inner one makes too, and a fallback to other providers, of which there are none.
    """
    inner = getattr(getattr(session, "_sess", None), "run", None)
    return inner if callable(inner) else session.run  # type: ignore[no-any-return]


def _model(session: Any, artifact: Artifact, options: LoadOptions) -> Model:
    inputs = tuple(_input(node, artifact) for node in session.get_inputs())
    nodes = session.get_outputs()
    zipmaps = frozenset(node.name for node in nodes if node.type.startswith(_ZIPMAP))
    for node in nodes:
        if node.type not in _TYPES and node.name not in zipmaps:
            raise LoadFailed(
                f"{artifact.label}: the output {node.name!r} is a {node.type}, which is not a tensor. "
                "Convert the model so that it gives tensors only"
            )
    signature = Signature(inputs, (), batched=_rows_are_free(session))
    wanted = options.signature
    if wanted is not None:
        _check_names(wanted, inputs, artifact)
        signature = replace(wanted, outputs=())
    names = [node.name for node in nodes]
    if wanted is not None and wanted.outputs:
        names = [spec.name for spec in wanted.outputs]
    invalid: type[Exception] = library("onnxruntime.capi.onnxruntime_pybind11_state", "onnxruntime").InvalidArgument
    converts = bool(zipmaps) or any(
        kind.type == "tensor(string)" for kind in (*session.get_inputs(), *session.get_outputs())
    )

    def build(described: Signature, run: Run) -> OnnxModel:
        if converts:
            return ConvertingOnnxModel(described, names, run, invalid, zipmaps)
        return OnnxModel(described, names, run, invalid)

    trial = build(signature, session.run)
    with loading(artifact, "an ONNX model"):
        signature = _described(signature, wanted, nodes, trial, options.example)
    return build(signature, _runner(session))


def _input(node: Any, artifact: Artifact) -> TensorSpec:
    datatype = _TYPES.get(node.type)
    if datatype is None:
        raise LoadFailed(
            f"{artifact.label}: the input {node.name!r} is a {node.type}, for which there is no tensor on the wire. "
            "Put a Cast from a plain type in front of it"
        )
    return TensorSpec(node.name, datatype, _shape(node))


def _shape(node: Any) -> tuple[int, ...]:
    return tuple(size if isinstance(size, int) and size >= 0 else -1 for size in node.shape)


def _rows_are_free(session: Any) -> bool:
    """Whether the first axis of all tensors is one free dimension, or the same fixed one."""
    nodes = [*session.get_inputs(), *(n for n in session.get_outputs() if n.type in _TYPES)]
    if not session.get_inputs() or any(not node.shape for node in nodes):
        return False
    firsts = {node.shape[0] for node in nodes}
    fixed = {first for first in firsts if isinstance(first, int)}
    if fixed:
        return len(firsts) == 1
    return len({node.shape[0] for node in session.get_inputs()} - {None}) <= 1


def _check_names(wanted: Signature, inputs: Sequence[TensorSpec], artifact: Artifact) -> None:
    have = {spec.name: spec for spec in inputs}
    for spec in wanted.inputs:
        if spec.name not in have or have[spec.name].datatype != spec.datatype:
            known = ", ".join(f"{s.name} ({s.datatype})" for s in inputs)
            raise LoadFailed(f"{artifact.label}: there is no input {spec.name} ({spec.datatype}); it has {known}")


def _described(
    signature: Signature, wanted: Signature | None, nodes: Sequence[Any], trial: OnnxModel, example: Tensors | None
) -> Signature:
    """The signature with outputs: as the graph declares them, made exact by a run on example rows."""
    rows = signature.rows_limit or 2
    columns: dict[str, tuple[str, ...]] = {}
    shown: dict[str, TensorSpec] = {}
    try:
        answer = trial.predict(rows_of_example(signature, example, rows) or example_rows(signature.inputs, rows))
    except Exception:  # noqa: BLE001  zeros may be out of the model's domain: the declaration then has to do
        answer = {}
    if answer:
        apart = {name: array.shape[0] == rows if array.ndim else False for name, array in answer.items()}
        if signature.batched and not all(apart.values()):
            signature = replace(signature, batched=False)
        shown = {s.name: s for s in outputs_of(answer, rows if signature.batched else None, columns)}
    if signature.batched and signature.rows_limit is None and not rows_are_independent(signature.inputs, trial.predict):
        signature = replace(signature, batched=False)
    if wanted is not None and wanted.outputs:
        return replace(signature, outputs=wanted.outputs)
    outputs = []
    for node in nodes:
        datatype = _TYPES.get(node.type)
        if datatype is None:
            outputs.append(shown.get(node.name, TensorSpec(node.name, "FP32", (-1, -1))))
            continue
        shape = _shape(node)
        seen = shown.get(node.name)
        if seen is not None and len(seen.shape) != len(shape):
            shape = seen.shape  # the graph's declaration is wrong or missing: what came is what comes
        outputs.append(TensorSpec(node.name, datatype, shape))
    return replace(signature, outputs=tuple(outputs))
