"""MXNet models: a symbol (JSON) and its parameters, as `save_checkpoint` and `HybridBlock.export` write them."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from turnout.core.errors import InvalidInput, LoadFailed
from turnout.core.servable import Model
from turnout.core.signature import Signature, TensorSpec
from turnout.core.tensors import Array, Tensors, canonical
from turnout.formats.artifact import Artifact, LoadOptions
from turnout.formats.declared import declared_inputs, example_of
from turnout.formats.mxnet_content import (
    Symbol,
    check_params,
    is_params,
    is_symbol,
    pair_of,
    read_symbol,
    stated_shapes,
)
from turnout.formats.refusals import library, loading
from turnout.formats.signatures import tried_out

_NUMPY_LIMIT = (1, 24)


class MXNet:
    """The MXNet format. The project has ended and its library needs numpy below 1.24: an environment of its own."""

    name = "mxnet"
    extra = "mxnet"
    suffixes = (".json", ".params")

    def recognise(self, artifact: Artifact) -> bool:
        """Whether this is a symbol, a file of parameters, or a directory with one of each."""
        if artifact.is_directory:
            return pair_of(artifact) is not None
        return is_symbol(artifact.head) or is_params(artifact.head)

    def load(self, artifact: Artifact, options: LoadOptions) -> Model:
        """The graph as a model. Both files are walked first: MXNet's own reader ends the process on damaged ones."""
        pair = pair_of(artifact)
        if pair is None:
            raise LoadFailed(
                f"{artifact.label}: an MXNet model is a symbol and its parameters (NAME-symbol.json and "
                "NAME-0000.params); the other of the two is not beside this one"
            )
        symbol_file, params_file = pair
        symbol = read_symbol(symbol_file)
        check_params(params_file)
        mxnet = _library(artifact, options.threads)
        with loading(artifact, "an MXNet model"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _model(mxnet, symbol, symbol_file, params_file, artifact, options)


class MXNetModel:
    """Runs a graph. MXNet is not to be called by two threads at once, so they take turns."""

    __slots__ = ("_array", "_block", "_labels", "_lock", "_names", "_order", "_symbol", "signature")

    def __init__(self, mxnet: Any, signature: Signature, block: Any, symbol: Any, labels: Sequence[str]) -> None:
        self.signature = signature
        self._array = mxnet.nd.array
        self._block = block
        self._symbol = symbol
        self._labels = tuple(labels)
        self._names = tuple(symbol.list_outputs())
        self._order = tuple(spec.name for spec in signature.inputs)
        self._lock = threading.Lock()

    def predict(self, inputs: Tensors) -> Tensors:
        """The graph's outputs under its own names. Raises InvalidInput where sizes do not fit the graph."""
        with self._lock:
            given = [self._array(inputs[name], dtype=inputs[name].dtype) for name in self._order]
            try:
                answer = self._block(*given, *self._unused(inputs))
                parts = answer if isinstance(answer, (list, tuple)) else [answer]
                return {name: canonical(_own(part.asnumpy())) for name, part in zip(self._names, parts, strict=True)}
            except Exception as problem:
                if "hape" in str(problem):  # MXNet has one type of exception for everything
                    said = " ".join(str(problem).rpartition("Check failed:")[2].split())[:200]
                    raise InvalidInput("the model's graph does not take these sizes", got=said) from problem
                raise

    def _unused(self, inputs: Tensors) -> list[Any]:
        """Zeros for the labels that a graph with its loss still asks for, and does not look at when it predicts."""
        if not self._labels:
            return []
        known = {name: inputs[name].shape for name in self._order}
        shapes = dict(zip(self._symbol.list_arguments(), self._symbol.infer_shape(**known)[0], strict=True))
        return [self._array(np.zeros(shapes[name], dtype=np.float32)) for name in self._labels]


def _own(array: Array) -> Array:
    return array if array.flags.owndata else array.copy()


def _library(artifact: Artifact, threads: int) -> Any:
    """MXNet, told how many threads it may use before it is imported. Raises LoadFailed where numpy is too new."""
    if tuple(int(part) for part in np.__version__.split(".")[:2]) >= _NUMPY_LIMIT:
        raise LoadFailed(
            f"{artifact.label} is an MXNet model; MXNet's last version works with numpy below 1.24, and here is numpy "
            f"{np.__version__}. Give the model an environment of its own: a requirements.txt beside it with "
            "mxnet==1.9.1 and numpy==1.23.5"
        )
    for variable in ("OMP_NUM_THREADS", "MXNET_CPU_WORKER_NTHREADS"):
        os.environ.setdefault(variable, str(threads))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it was written for an older numpy, of which the user can change nothing
        return library("mxnet", f"{artifact.label} (an MXNet model)")


def _model(
    mxnet: Any, described: Symbol, symbol_file: Path, params_file: Path, artifact: Artifact, options: LoadOptions
) -> MXNetModel:
    symbol = mxnet.sym.load(str(symbol_file))
    saved = {name.partition(":")[2] or name: array for name, array in mxnet.nd.load(str(params_file)).items()}
    wanted = [name for name in symbol.list_inputs() if name not in saved]
    labels = [name for name in wanted if name in described.labels]
    names = [name for name in wanted if name not in labels]
    if not names:
        raise LoadFailed(
            f"{artifact.label}: every input of the graph is a saved parameter; nothing is left to be given"
        )
    widths = {name: array.shape for name, array in saved.items()}
    own = _own_signature(described, names, widths, symbol_file.parent)
    signature = _fitted(declared_inputs(artifact, options), own, names, artifact.label)
    block = mxnet.gluon.SymbolBlock(symbol, [mxnet.sym.var(name) for name in (*names, *labels)])
    parameters = block.collect_params()
    cpu = mxnet.cpu()
    for name, parameter in parameters.items():
        parameter._load_init(saved[name], cpu, cast_dtype=True, dtype_source="saved")  # noqa: SLF001  as `imports` does
    model = MXNetModel(mxnet, signature, block, symbol, labels)
    tried_out(model, example_of(artifact, options))
    return model


def _own_signature(
    described: Symbol, names: Sequence[str], widths: Mapping[str, tuple[int, ...]], directory: Path
) -> Signature | None:
    """What the artifact says of its inputs: a signature.json beside it, the graph's attributes, its first weights."""
    stated = stated_shapes(directory)
    specs = []
    for name in names:
        shape = stated.get(name) or described.shape_of(name, widths)
        if shape is None:
            return None
        specs.append(TensorSpec(name, described.datatype_of(name), (-1, *(size or -1 for size in shape[1:]))))
    return Signature(tuple(specs), (), lenient=True)


def _fitted(declared: Signature | None, own: Signature | None, names: Sequence[str], label: str) -> Signature:
    """The declared inputs under the graph's names, else the graph's own. Raises LoadFailed where neither is known."""
    if declared is None or (own is not None and declared.source == "artifact"):
        if own is None:
            raise LoadFailed(
                f"{label}: an MXNet symbol does not say which shape {', '.join(names)} has, and it cannot be told from "
                "the first weights. Give an input example (--example rows.json, or input_example.json beside the model)"
            )
        return own
    specs = {spec.name: spec for spec in declared.inputs}
    if len(specs) == 1 == len(names) and names[0] not in specs:
        specs = {names[0]: replace(declared.inputs[0], name=names[0])}
    if set(specs) != set(names):
        raise LoadFailed(f"{label} takes {', '.join(names)}; the signature or example has {', '.join(specs)}")
    chosen = [specs[name] for name in names]
    if declared.source != "user":
        kinds = {spec.name: spec.datatype for spec in own.inputs} if own is not None else {}
        chosen = [replace(spec, datatype=kinds.get(spec.name, "FP32")) for spec in chosen]
    return replace(declared, inputs=tuple(chosen))
