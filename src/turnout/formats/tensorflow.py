"""TensorFlow SavedModel directories. Which of several signatures is served stands behind a `#`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from turnout.core.errors import InvalidInput, LoadFailed
from turnout.core.servable import Model
from turnout.core.signature import Signature, TensorSpec
from turnout.core.tensors import Array, Tensors, canonical
from turnout.formats import saved_model
from turnout.formats.artifact import Artifact, LoadOptions
from turnout.formats.declared import declared_inputs, example_of
from turnout.formats.graph_signatures import completed, datatype_of, has_rows, overridden, sizes
from turnout.formats.quiet import quiet_import
from turnout.formats.refusals import library, loading

_KIND = "a TensorFlow SavedModel"


class TensorFlow:
    """The SavedModel format."""

    name = "tensorflow"
    extra = "tensorflow"
    suffixes = ()
    signatures = True

    def recognise(self, artifact: Artifact) -> bool:
        """Whether this is a directory with a saved_model.pb in it."""
        return artifact.is_directory and saved_model.FILE in artifact.listing

    def load(self, artifact: Artifact, options: LoadOptions) -> Model:
        """One signature of the SavedModel as a model. Raises LoadFailed naming those there are."""
        file = artifact.file / saved_model.FILE
        if not saved_model.looks_like(file.read_bytes()[:3]):
            raise LoadFailed(f"{artifact.label}: {saved_model.FILE} is empty, or not a SavedModel")
        content = saved_model.read(file)
        saved_model.check(content, artifact.label, trusted=options.trust_pickle)
        key = _chosen(content, artifact)
        tf = tensorflow(f"{artifact.label} ({_KIND})", options.threads)
        with loading(artifact, _KIND):
            tags = ["serve"] if len(content.tags) > 1 and ["serve"] in content.tags else None
            loaded = tf.saved_model.load(str(artifact.file), tags=tags)
            return TensorFlowModel(tf, loaded, key, artifact, options)


def tensorflow(what: str, threads: int) -> Any:
    """The library, on the CPU and with that many threads. Raises MissingExtra, saying that `what` needs it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")  # no search for a GPU that is not used
    with quiet_import():
        tf = library("tensorflow", what)
        try:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(1)
            tf.config.list_logical_devices()  # starts the runtime, with what it has to say
        except RuntimeError:
            pass  # the runtime of this process has been started before, and keeps its threads
    return tf


def _chosen(content: saved_model.Content, artifact: Artifact) -> str:
    """The signature that the artifact's `#NAME` names, or else the usual one."""
    have = content.signatures
    if artifact.fragment in have:
        return artifact.fragment
    if not artifact.fragment and saved_model.DEFAULT in have:
        return saved_model.DEFAULT
    if not artifact.fragment and len(have) == 1:
        return have[0]
    if not have:
        raise LoadFailed(
            f"{artifact.label} has no signature. Save it with one: "
            "tf.saved_model.save(module, path, signatures=module.serve)"
        )
    wanted = artifact.fragment or saved_model.DEFAULT
    raise LoadFailed(
        f"{artifact.label} has no signature {wanted!r}; it has {', '.join(have)}. Name one: {artifact.label}#{have[0]}"
    )


class TensorFlowModel:
    """Calls one signature; its own names are the inputs and outputs."""

    __slots__ = ("_call", "_constant", "_invalid", "_kept", "signature")

    def __init__(self, tf: Any, kept: Any, key: str, artifact: Artifact, options: LoadOptions) -> None:
        self._kept = kept  # owns the variables
        call: Callable[..., Mapping[str, Any]] = kept.signatures[key]
        self._call = call
        self._constant = tf.convert_to_tensor
        self._invalid = (tf.errors.InvalidArgumentError, tf.errors.OutOfRangeError)
        inputs = overridden(_inputs(call, artifact, options), options.signature, artifact.label)
        outputs = _outputs(call, artifact)
        batched = has_rows([*inputs, *outputs]) if options.signature is None else options.signature.batched
        source = "user" if options.signature else "artifact"
        self.signature = Signature(inputs, (), batched=batched, source=source, name=key)
        self.signature = completed(self.signature, self.predict, outputs, example=example_of(artifact, options))

    def predict(self, inputs: Tensors) -> Tensors:
        """The signature's outputs. Raises InvalidInput where the graph does not take the values or sizes."""
        try:
            answer = self._call(**{name: self._constant(array) for name, array in inputs.items()})
        except self._invalid as problem:
            raise InvalidInput("the model's graph does not take these inputs", got=said(problem)) from problem
        # In the alphabet's order: TensorFlow's own differs from process to process, and a signature must not.
        return {name: _array(answer[name]) for name in sorted(answer)}


def said(problem: Exception) -> str:
    """What TensorFlow says is wrong with the inputs, without the names and places of its nodes."""
    lines = [line.strip() for line in str(problem).splitlines()]
    told = [
        line
        for line in lines
        if line and not line.startswith(("Graph execution error", "Detected at", "[[", "File", "<"))
    ]
    return told[0][:300] if told else type(problem).__name__


def _array(value: Any) -> Array:
    found = value.numpy()
    if isinstance(found, bytes):  # what TensorFlow makes of a single text
        array = np.empty((), dtype=object)
        array[()] = found
        return array
    return canonical(np.asarray(found))


def _inputs(call: Any, artifact: Artifact, options: LoadOptions) -> tuple[TensorSpec, ...]:
    """What the signature takes. A tensor of unknown rank has to be shown by an example or said by the user."""
    found = []
    declared = declared_inputs(artifact, options)
    shown = {spec.name: spec for spec in declared.inputs} if declared is not None else {}
    for name, spec in sorted(call.structured_input_signature[1].items()):
        datatype = datatype_of(spec.dtype.name, f"{artifact.label}: the input {name!r}")
        if spec.shape.rank is not None:
            found.append(TensorSpec(name, datatype, sizes(spec.shape.as_list())))
        elif name in shown:
            found.append(TensorSpec(name, datatype, shown[name].shape))
        else:
            raise LoadFailed(
                f"{artifact.label}: the signature does not say how many axes {name!r} has. Give an input example "
                "(--example rows.json, or input_example.json beside saved_model.pb)"
            )
    return tuple(found)


def _outputs(call: Any, artifact: Artifact) -> tuple[TensorSpec, ...]:
    """The outputs whose rank the graph knows."""
    return tuple(
        TensorSpec(
            name, datatype_of(spec.dtype.name, f"{artifact.label}: the output {name!r}"), sizes(spec.shape.as_list())
        )
        for name, spec in call.structured_outputs.items()
        if spec.shape.rank is not None
    )
