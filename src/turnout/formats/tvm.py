"""Models compiled by Apache TVM: a native library, as `export_library` writes it, run by TVM's virtual machine."""

from __future__ import annotations

import mmap
import platform
import re
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from turnout.core.errors import InvalidInput, LoadFailed
from turnout.core.servable import Model
from turnout.core.signature import Signature, TensorSpec
from turnout.core.tensors import DTYPES, Array, Tensors
from turnout.formats import elf
from turnout.formats.artifact import Artifact, LoadOptions
from turnout.formats.declared import declared_inputs, example_of
from turnout.formats.graph_signatures import DATATYPES
from turnout.formats.refusals import library, loading, untrusted
from turnout.formats.signatures import tried_out

OUTPUT = "output"
#: The compiled virtual machine and its constants, under the name that each TVM since 0.12 gives them.
_MODULES = (b"__tvm_ffi__library_bin", b"__tvm_dev_mblob")
#: What a compiled function keeps about each argument and result, to name it when a caller errs; its length is before.
_NOTE = re.compile(rb"(?P<length>.{8})ErrorContext\(fn=", re.DOTALL)
_SHAPE = re.compile(
    r"ErrorContext\(fn=(?P<function>[\w.]+), loc=(?:param\[(?P<place>\d+)\], param=(?P<name>[^\s,]+)|return), "
    r"annotation=(?P<type>.+)\) ?\Z"
)
_MAX_NOTE = 65_536
_TENSOR = re.compile(r"R\.Tensor\(\((?P<shape>(?:[^()]|\(\d+\))*)\), dtype=\"(?P<dtype>\w+)\"\)\Z")


class _Argument(NamedTuple):
    name: str
    datatype: str
    sizes: tuple[str, ...]


class TVM:
    """The Apache TVM format."""

    name = "tvm"
    extra = "tvm"
    suffixes = (".so",)

    def recognise(self, artifact: Artifact) -> bool:
        """Whether the file is a shared library with TVM's module in it, complete or cut off."""
        if not artifact.head.startswith(elf.MAGIC):
            return False
        try:
            return bool(set(_MODULES) & elf.read_library(artifact.file).names)
        except (elf.Damaged, OSError):
            return any(name in artifact.head for name in _MODULES)

    def load(self, artifact: Artifact, options: LoadOptions) -> Model:
        """The library's main function as a model. Raises PickleRefused without trust: native code may do anything."""
        if not options.trust_pickle:
            raise untrusted(
                f"{artifact.label} is a native library compiled by TVM. Opening it runs the machine code in it, with "
                "no check of what that does: like a pickle, only below Python",
                "serve the model it was compiled from (ONNX, say)",
            )
        _check_library(artifact)
        tvm = library("tvm", f"{artifact.label} (a model compiled by TVM)")
        relax = library("tvm.relax", f"{artifact.label} (a model compiled by TVM)")
        with loading(artifact, "a model compiled by TVM"):
            return _model(tvm, relax, artifact, options)


class TVMModel:
    """Calls one function of TVM's virtual machine, which is not to be entered by two threads at once."""

    __slots__ = ("_call", "_lock", "_names", "_order", "_tensor", "signature")

    def __init__(self, signature: Signature, call: Any, tensor: Any) -> None:
        self.signature = signature
        self._call = call
        self._tensor = tensor
        self._order = tuple(spec.name for spec in signature.inputs)
        self._names = tuple(spec.name for spec in signature.outputs)
        self._lock = threading.Lock()

    def predict(self, inputs: Tensors) -> Tensors:
        """`output`, or `output_0`, `output_1` ... for a tuple. Raises InvalidInput for sizes it does not take."""
        with self._lock:
            try:
                answer = self._call(*(self._tensor(np.ascontiguousarray(inputs[name])) for name in self._order))
            except Exception as problem:
                said = str(problem)
                if "ErrorContext(" not in said:  # the mark of the checks that were compiled in
                    raise
                said = " ".join(said.rpartition("ErrorContext(")[0].split())[-200:]
                raise InvalidInput("the compiled function does not take these sizes", got=said) from problem
            return self._named(answer)

    def _named(self, answer: Any) -> dict[str, Array]:
        if hasattr(answer, "numpy"):
            arrays = [answer.numpy()]
        else:
            arrays = [part.numpy() for part in answer]
        if len(self._names) == len(arrays):
            return dict(zip(self._names, arrays, strict=True))
        if len(arrays) == 1:
            return {OUTPUT: arrays[0]}
        return {f"{OUTPUT}_{number}": array for number, array in enumerate(arrays)}


def _check_library(artifact: Artifact) -> None:
    """Raises LoadFailed for what the system's loader would crash on, or refuse with less to go by."""
    try:
        found = elf.read_library(artifact.file)
    except elf.Damaged as problem:
        raise LoadFailed(f"{artifact.label}: the library is cut off or damaged: {problem}") from None
    if found.machine != platform.machine():
        raise LoadFailed(
            f"{artifact.label} was compiled for {found.machine}, and this machine is {platform.machine()}. Compile it "
            f'again for this one: tvm.compile(module, target={{"kind": "llvm", ...}})'
        )


def _model(tvm: Any, relax: Any, artifact: Artifact, options: LoadOptions) -> TVMModel:
    functions = _described(artifact.file)
    module = tvm.runtime.load_module(str(artifact.file.resolve()))
    configure = tvm.get_global_func("runtime.config_threadpool", allow_missing=True)
    if configure is not None:
        configure(1, options.threads)
    machine = relax.VirtualMachine(module, tvm.cpu())
    name = _main(functions, machine, artifact.label)
    arguments = functions.get(name, [])
    signature = _signature(arguments, artifact, options)
    model = TVMModel(signature, machine[name], _to_tensor(tvm))
    tried_out(model, example_of(artifact, options))
    return TVMModel(model.signature, machine[name], _to_tensor(tvm))


def _to_tensor(tvm: Any) -> Any:
    return getattr(tvm.runtime, "tensor", None) or tvm.nd.array


def _described(path: Path) -> dict[str, list[_Argument]]:
    """What each function takes, by the messages compiled into it; its results are found by running it."""
    functions: dict[str, dict[int, _Argument]] = {}
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        notes = [
            data[found.start() + 8 : found.start() + 8 + min(int.from_bytes(found["length"], "little"), _MAX_NOTE)]
            for found in _NOTE.finditer(data)
        ]
    for note in notes:
        found = _SHAPE.match(note.decode(errors="replace"))
        if found is None:
            continue
        arguments = functions.setdefault(found["function"], {})
        tensor = _TENSOR.match(found["type"])
        if found["place"] is not None and tensor is not None and tensor["dtype"] in DATATYPES:
            sizes = tuple(size.strip() for size in tensor["shape"].split(",") if size.strip())
            arguments[int(found["place"])] = _Argument(found["name"], DATATYPES[tensor["dtype"]], sizes)
    return {
        function: [arguments[place] for place in sorted(arguments)]
        for function, arguments in functions.items()
        if sorted(arguments) == list(range(len(arguments)))
    }


def _main(functions: dict[str, list[_Argument]], machine: Any, label: str) -> str:
    """The function to serve: `main`, or the only one. Raises LoadFailed where neither is there."""
    module = machine.module
    callable_names = [name for name in functions if not name.startswith("_")]
    for name in ("main", "forward", *callable_names[: len(callable_names) == 1]):
        if module.implements_function(name):
            return name
    known = ", ".join(callable_names) or "none that says what it takes"
    raise LoadFailed(
        f"{label} has no function main, and not one only (it has {known}). Compile it with one that is called main"
    )


def _signature(arguments: Sequence[_Argument], artifact: Artifact, options: LoadOptions) -> Signature:
    declared = declared_inputs(artifact, options)
    if options.signature is not None and declared is not None:
        return declared
    if not arguments:
        if declared is None:
            raise LoadFailed(
                f"{artifact.label} does not say which tensors its function takes (a part of it that keeps their shapes "
                "was stripped). Give an input example (--example rows.json, or input_example.json beside the library)"
            )
        return replace(declared, inputs=tuple(_single(spec) for spec in declared.inputs))
    specs = [TensorSpec(a.name, a.datatype, tuple(_size(size) for size in a.sizes)) for a in arguments]
    firsts = {a.sizes[0] if a.sizes else "" for a in arguments}
    return Signature(tuple(specs), (), batched=len(firsts) == 1 and "" not in firsts)


def _single(spec: TensorSpec) -> TensorSpec:
    """An example's numbers in the precision that compiled models have."""
    return replace(spec, datatype="FP32") if spec.dtype == DTYPES["FP64"] else spec


def _size(said: str) -> int:
    """A size as compiled in: a number, `T.int64(4)`, or the name of a free one."""
    number = re.fullmatch(r"(?:T\.int64\()?(\d+)\)?", said)
    return int(number[1]) if number else -1
