"""Keras 3 models (.keras), on whichever backend is installed; the old HDF5 form only where it is trusted."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from turnout.core.errors import Failure, InvalidInput, LoadFailed
from turnout.core.servable import Model
from turnout.core.signature import Signature, TensorSpec
from turnout.core.tensors import Array, Tensors, canonical
from turnout.formats import keras_content
from turnout.formats.artifact import Artifact, LoadOptions
from turnout.formats.declared import example_of
from turnout.formats.graph_signatures import completed, datatype_of, has_rows, overridden, sizes
from turnout.formats.jax_export import filled, jax_library
from turnout.formats.quiet import quiet_import
from turnout.formats.refusals import library, loading
from turnout.formats.tensorflow import said, tensorflow

_KIND = "a Keras model"
_BACKENDS = ("tensorflow", "jax", "torch")
Run = Callable[[Sequence[Array]], Sequence[Any]]


class Keras:
    """The Keras format."""

    name = "keras"
    extra = "keras"
    suffixes = (".keras", ".h5", ".hdf5")

    def recognise(self, artifact: Artifact) -> bool:
        """Whether this is a .keras archive, packed or unpacked, or an HDF5 file that Keras wrote."""
        return (
            keras_content.is_archive(artifact) or keras_content.is_unpacked(artifact) or keras_content.is_hdf5(artifact)
        )

    def load(self, artifact: Artifact, options: LoadOptions) -> Model:
        """The model. Raises PickleRefused for one that would run code of its own, unless it is trusted."""
        old = keras_content.is_hdf5(artifact)
        if old and not keras_content.holds_model(artifact):
            raise LoadFailed(
                f"{artifact.label} holds weights without a model; save the whole model: model.save('m.keras')"
            )
        if old and not options.trust_pickle:
            raise keras_content.hdf5_refused(artifact)
        with loading(artifact, _KIND):
            if not old:
                artifact.check_suffix("a .keras archive", "an HDF5 file", ".h5", ".hdf5")
                keras_content.check_archive(artifact, trusted=options.trust_pickle)
            else:
                artifact.check_suffix("an HDF5 file", "a .keras archive", ".keras")
        keras = _library(f"{artifact.label} ({_KIND})", options.threads)
        with loading(artifact, _KIND), ExitStack() as stack:
            path = artifact.file
            ending = ".h5" if old else ".keras"
            if not artifact.is_directory and path.suffix != ending:  # Keras goes by the name
                named = Path(stack.enter_context(tempfile.TemporaryDirectory())) / f"model{ending}"
                named.symlink_to(path.resolve())
                path = named
            model = keras.models.load_model(str(path), compile=False, safe_mode=not options.trust_pickle)
            return KerasModel(keras, model, artifact, options)


def _library(what: str, threads: int) -> Any:
    """Keras with the backend the user chose (KERAS_BACKEND), or the first that is installed."""
    if "KERAS_BACKEND" not in os.environ:
        installed = [name for name in _BACKENDS if find_spec(name) is not None]
        os.environ["KERAS_BACKEND"] = installed[0] if installed else _BACKENDS[0]
    backend = os.environ["KERAS_BACKEND"]
    if backend == "tensorflow":
        tensorflow(what, threads)
    elif backend == "jax":
        jax_library(what, threads)
    elif backend == "torch":
        library("torch", what).set_num_threads(threads)
    with quiet_import():
        return library("keras", what)


class KerasModel:
    """Calls the model for inference; inputs and outputs have the names that Keras knows them by."""

    __slots__ = ("_failures", "_names", "_pads", "_run", "signature")

    def __init__(self, keras: Any, model: Any, artifact: Artifact, options: LoadOptions) -> None:
        tensors = _inputs(keras, model, artifact)
        own = [
            TensorSpec(
                name, datatype_of(str(tensor.dtype), f"{artifact.label}: the input {name!r}"), sizes(tensor.shape)
            )
            for name, tensor in tensors.items()
        ]
        results = _outputs(keras, model)
        self._names = tuple(results)
        outputs = [
            TensorSpec(
                name, datatype_of(str(tensor.dtype), f"{artifact.label}: the output {name!r}"), sizes(tensor.shape)
            )
            for name, tensor in results.items()
        ]
        self._run, self._failures = _runner(keras, model, list(tensors.values()))
        self._pads = False
        inputs = overridden(own, options.signature, artifact.label)
        signature = Signature(inputs, (), batched=has_rows([*inputs, *outputs]))
        if options.signature is not None:
            signature = replace(signature, batched=options.signature.batched, source="user")
        self.signature = signature
        self.signature = completed(signature, self.predict, outputs, example=example_of(artifact, options))
        # JAX compiles each number of rows anew: a power of two is compiled once.
        self._pads = keras.backend.backend() == "jax" and self.signature.batched

    def predict(self, inputs: Tensors) -> Tensors:
        """The model's outputs. Raises InvalidInput where its layers do not take the values or sizes."""
        arrays = [inputs[spec.name] for spec in self.signature.inputs]
        rows = len(arrays[0]) if self._pads else 0
        if rows:
            arrays = [filled(array, 1 << (rows - 1).bit_length()) for array in arrays]
        try:
            answer = self._run(arrays)
        except Failure:
            raise
        except self._failures as problem:
            raise InvalidInput("the model's layers do not take these inputs", got=said(problem)) from problem
        made = {name: canonical(np.asarray(value)) for name, value in zip(self._names, answer, strict=True)}
        return {name: array[:rows] for name, array in made.items()} if rows else made


def _structure(model: Any, which: str) -> Any:
    """The nest of tensors that the model takes or gives; None where it was not built from tensors."""
    functional = getattr(model, "_functional", None) or model  # a Sequential model wraps what it is made of
    return getattr(functional, f"_{which}_struct", None)


def _inputs(keras: Any, model: Any, artifact: Artifact) -> dict[str, Any]:
    """The model's input tensors by name, in the order in which it takes them."""
    structure = _structure(model, "inputs")
    if structure is None:
        raise LoadFailed(
            f"{artifact.label} does not say what it takes (it was not built from Input tensors). Call it once on real "
            "rows before saving it, or export it: model.export('directory') writes a SavedModel"
        )
    return _by_name(keras, structure, [tensor.name for tensor in keras.tree.flatten(structure)])


def _outputs(keras: Any, model: Any) -> dict[str, Any]:
    functional = getattr(model, "_functional", None) or model
    return _by_name(keras, _structure(model, "outputs"), functional.output_names)


def _by_name(keras: Any, struct: Any, names: Sequence[str]) -> dict[str, Any]:
    """The leaves of a structure, under its own keys if it is a dict, else under the given names."""
    leaves = keras.tree.flatten(struct)
    if isinstance(struct, dict) and len(struct) == len(leaves):
        names = sorted(struct)  # the order in which the leaves come
    if len(set(names)) != len(leaves):
        names = [f"{name}_{at}" for at, name in enumerate(names)]
    return dict(zip(names, leaves, strict=True))


def _runner(keras: Any, model: Any, inputs: Sequence[Any]) -> tuple[Run, tuple[type[Exception], ...]]:
    """How the model is called on its backend, with nothing of Keras in between, and what it raises for bad inputs."""
    pack, flatten = keras.tree.pack_sequence_as, keras.tree.flatten
    structure = _structure(model, "inputs")

    def call(flat: Sequence[Any]) -> Any:
        return flatten(model(pack(structure, list(flat)), training=False))

    backend = keras.backend.backend()
    if backend == "tensorflow":
        tf = library("tensorflow", _KIND)
        specs = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in inputs]
        graph = tf.function(lambda *flat: call(flat), input_signature=specs).get_concrete_function()
        convert = tf.convert_to_tensor

        def run(arrays: Sequence[Array]) -> Sequence[Any]:
            return [value.numpy() for value in graph(*(convert(array) for array in arrays))]

        return run, (tf.errors.InvalidArgumentError, tf.errors.OutOfRangeError)
    if backend == "jax":
        jax = library("jax", _KIND)
        trained, fixed = (
            [v.value for v in part] for part in (model.trainable_variables, model.non_trainable_variables)
        )

        def stateless(trained: Any, fixed: Any, flat: Sequence[Any]) -> Any:
            answer, _ = model.stateless_call(trained, fixed, pack(structure, list(flat)), training=False)
            return flatten(answer)

        compiled = jax.jit(stateless)
        return lambda arrays: jax.device_get(compiled(trained, fixed, list(arrays))), (TypeError, ValueError)
    torch = library("torch", _KIND)

    def infer(arrays: Sequence[Array]) -> Sequence[Any]:
        with torch.inference_mode():
            return [value.numpy() for value in call([torch.from_numpy(np.array(array)) for array in arrays])]

    return infer, (IndexError, ValueError)
