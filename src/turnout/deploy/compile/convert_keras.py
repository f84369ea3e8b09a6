"""Keras models to ONNX, by Keras's own exporter (with TensorFlow through tf2onnx, with PyTorch through onnxscript)."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from turnout.deploy.compile.convert_torch import in_order
from turnout.deploy.compile.graph import Converted, onnx_library
from turnout.formats.artifact import Artifact, LoadOptions
from turnout.formats.refusals import library


def from_keras(source: Any) -> Iterator[Callable[[], Converted]]:
    """One way; what the backend cannot export is the reason that it gives."""

    def convert() -> Converted:
        onnx = onnx_library()
        _call_once(source.native)
        with tempfile.TemporaryDirectory() as place, contextlib.redirect_stdout(io.StringIO()):
            path = Path(place) / "model.onnx"
            source.native.export(str(path), format="onnx", verbose=False)
            return in_order(source, onnx.load(str(path)))

    yield convert


def _call_once(model: Any) -> None:
    """On zeros: the exporter asks for a model that was called, and one that was loaded was not."""
    keras = library("keras", "turnout compile, for a Keras model,")

    def zeros(tensor: Any) -> Any:
        return keras.ops.zeros([2 if size is None else size for size in tensor.shape], dtype=tensor.dtype)

    functional = getattr(model, "_functional", None) or model  # a Sequential model wraps what it is made of
    model(keras.tree.map_structure(zeros, functional.input))


def keras_of(artifact: Artifact, options: LoadOptions) -> Any:
    """The model in the file, which was judged and loaded before."""
    keras = library("keras", f"{artifact.label} (a Keras model)")
    path = artifact.file
    with tempfile.TemporaryDirectory() as place:
        if not artifact.is_directory and path.suffix not in {".keras", ".h5", ".hdf5"}:
            path = Path(place) / "model.keras"  # Keras goes by the name
            path.symlink_to(artifact.file.resolve())
        return keras.models.load_model(str(path), compile=False, safe_mode=not options.trust_pickle)
