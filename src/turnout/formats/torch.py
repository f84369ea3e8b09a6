"""PyTorch models: TorchScript archives and `torch.export` programs (.pt2). `torch.load` is not called."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from turnout.core.errors import InvalidInput, LoadFailed
from turnout.core.servable import Model
from turnout.core.signature import Signature
from turnout.core.tensors import Array, Tensors, join_rows, slice_rows
from turnout.formats.artifact import Artifact, LoadOptions
from turnout.formats.declared import declared_inputs, example_of
from turnout.formats.refusals import library, loading
from turnout.formats.signatures import tried_out
from turnout.formats.torch_archive import check_exported, is_exported, is_script, is_weights
from turnout.formats.torch_signatures import exported_signature, script_inputs

OUTPUT = "output"


class Torch:
    """The PyTorch formats."""

    name = "torch"
    extra = "torch"
    suffixes = (".pt", ".pth", ".pt2", ".ts", ".torchscript")

    def recognise(self, artifact: Artifact) -> bool:
        """Whether the file is an archive that torch wrote."""
        return is_script(artifact) or is_exported(artifact) or is_weights(artifact)

    def load(self, artifact: Artifact, options: LoadOptions) -> Model:
        """The program as a model, on the CPU. Raises LoadFailed for weights without a program."""
        if is_weights(artifact):
            raise LoadFailed(
                f"{artifact.label} was written by torch.save: weights or pickled classes, not a program that can run. "
                "Save the model with torch.export.save(torch.export.export(model, inputs), 'model.pt2') or "
                "torch.jit.script(model).save('model.pt')"
            )
        if is_script(artifact):
            artifact.check_suffix("TorchScript", "a torch.export program", ".pt2")
        else:
            artifact.check_suffix("a torch.export program", "TorchScript", ".ts", ".torchscript")
        torch = library("torch", f"{artifact.label} (a PyTorch model)")
        torch.set_num_threads(options.threads)
        with loading(artifact, "a PyTorch model"), warnings.catch_warnings():
            # torch warns that TorchScript is on its way out: the user who has such a file cannot help it here.
            warnings.simplefilter("ignore", DeprecationWarning)
            if is_script(artifact):
                return _script(torch, artifact, options)
            return _exported(torch, artifact, options)


class TorchModel:
    """Runs a module in inference mode. One tensor is `output`; tuples are numbered, dicts keep their names."""

    __slots__ = ("_call", "_inference", "_limit", "_numpy", "_order", "signature")

    def __init__(
        self, torch: Any, signature: Signature, call: Callable[[Sequence[Any]], Any], limit: int | None
    ) -> None:
        self.signature = signature
        self._call = call
        self._inference = torch.inference_mode
        self._numpy = torch.from_numpy
        self._order = tuple(spec.name for spec in signature.inputs)
        self._limit = limit

    def predict(self, inputs: Tensors) -> Tensors:
        """The module's outputs. Raises InvalidInput where the program does not take the sizes."""
        rows = len(next(iter(inputs.values()))) if self.signature.batched else 0
        if self._limit is not None and rows > self._limit:
            starts = range(0, rows, self._limit)
            return join_rows([self._run(slice_rows(inputs, at, at + self._limit)) for at in starts])
        return self._run(inputs)

    def _run(self, inputs: Tensors) -> Tensors:
        with self._inference():
            try:
                return _named(self._call([self._numpy(_owned(inputs[name])) for name in self._order]))
            except AssertionError as problem:  # what torch.export raises for sizes its guards exclude
                raise InvalidInput("the model's program does not take these sizes", got=str(problem)[:200]) from problem


def _owned(array: Array) -> Array:
    """Memory that torch may see: writeable, since torch has no read-only tensors and would warn."""
    if array.flags.writeable and array.flags.c_contiguous:
        return array
    return np.array(array, order="C")


def _named(answer: Any) -> dict[str, Array]:
    if hasattr(answer, "numpy"):
        return {OUTPUT: answer.numpy()}
    if isinstance(answer, Mapping):
        return {str(name): value.numpy() for name, value in answer.items()}
    if hasattr(answer, "_asdict"):
        return {name: value.numpy() for name, value in answer._asdict().items()}
    if isinstance(answer, (tuple, list)):
        if len(answer) == 1:
            return {OUTPUT: answer[0].numpy()}
        return {f"{OUTPUT}_{i}": value.numpy() for i, value in enumerate(answer)}
    raise LoadFailed(f"the module returns {type(answer).__name__}; a model returns tensors")


def _script(torch: Any, artifact: Artifact, options: LoadOptions) -> TorchModel:
    module = torch.jit.load(io.BytesIO(artifact.file.read_bytes()), map_location="cpu").eval()
    arguments = [argument for argument in module.forward.schema.arguments[1:] if argument.default_value is None]
    foreign = [a.name for a in arguments if str(a.type) != "Tensor"]
    if foreign:
        raise LoadFailed(
            f"{artifact.label}: the inputs {', '.join(foreign)} are not tensors; wrap the module in one of tensors"
        )
    names = [argument.name for argument in arguments]
    declared = declared_inputs(artifact, options)
    signature = script_inputs(torch, module, names) if declared is None else _renamed(declared, names, artifact)
    if signature is None:
        raise LoadFailed(
            f"{artifact.label}: TorchScript does not say which shapes and types {', '.join(names)} have. Give an input "
            "example (--example rows.json, or input_example.json beside the model), or save with torch.export"
        )
    return _finished(TorchModel(torch, signature, lambda tensors: module(*tensors), None), artifact, options)


def _renamed(declared: Signature, names: Sequence[str], artifact: Artifact) -> Signature:
    """The declared inputs under the program's names and in its order. Floats of an example are FP32, as torch's are."""
    specs = {spec.name: spec for spec in declared.inputs}
    if len(names) == 1 == len(specs) and names[0] not in specs:
        specs = {names[0]: replace(next(iter(specs.values())), name=names[0])}
    if set(specs) != set(names):
        raise LoadFailed(f"{artifact.label} takes {', '.join(names)}; the signature or example has {', '.join(specs)}")
    chosen = [specs[name] for name in names]
    if declared.source == "example":
        chosen = [replace(s, datatype="FP32") if s.datatype == "FP64" else s for s in chosen]
    return replace(declared, inputs=tuple(chosen))


def _exported(torch: Any, artifact: Artifact, options: LoadOptions) -> TorchModel:
    data = artifact.file.read_bytes()  # judged and loaded from the same bytes
    if not options.trust_pickle:
        check_exported(torch, artifact, data)
    program = torch.export.load(io.BytesIO(data))
    own, limit, positional = exported_signature(program, artifact.label)
    signature = (
        own if options.signature is None else _renamed(options.signature, [s.name for s in own.inputs], artifact)
    )
    module = program.module()
    keywords = [spec.name for spec in own.inputs][positional:]

    def call(tensors: Sequence[Any]) -> Any:
        return module(*tensors[:positional], **dict(zip(keywords, tensors[positional:], strict=True)))

    return _finished(TorchModel(torch, signature, call, limit), artifact, options)


def model_of_module(
    torch: Any, module: Any, declared: Signature, artifact: Artifact, options: LoadOptions
) -> TorchModel:
    """A module with its weights as a model; its inputs are those declared, in order. Raises LoadFailed."""
    if declared.source == "example":
        floats = (replace(s, datatype="FP32") if s.datatype == "FP64" else s for s in declared.inputs)
        declared = replace(declared, inputs=tuple(floats))
    return _finished(TorchModel(torch, declared, lambda tensors: module(*tensors), None), artifact, options)


def _finished(model: TorchModel, artifact: Artifact, options: LoadOptions) -> TorchModel:
    """The model with its outputs, found by a run on example rows."""
    tried_out(model, example_of(artifact, options))
    return model
