"""What a .keras archive or an HDF5 file of Keras holds, judged before Keras reads it."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from typing import Any

from turnout.core.errors import LoadFailed, PickleRefused
from turnout.formats.artifact import Artifact
from turnout.formats.refusals import untrusted
from turnout.formats.zip_content import check_members, read_member

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
_HDF5 = b"\x89HDF\r\n\x1a\n"
_CONFIG_BYTES = 64 << 20
#: Classes that run code from the file, or read files that it names.
_RUNS_CODE = {"Lambda", "__lambda__", "TorchModuleWrapper", "TFSMLayer", "JaxLayer", "FlaxLayer", "TFOpLambda"}
#: Where the objects that a model is made of may come from.
_MODULES = (
    *("keras.layers", "keras.models", "keras.initializers", "keras.regularizers", "keras.constraints"),
    *("keras.activations", "keras.losses", "keras.metrics", "keras.optimizers", "keras.ops", "keras.quantizers"),
    *("keras.dtype_policies", "keras.random", "keras.src.models", "keras.src.layers", "keras.src.ops"),
    *("keras.src.optimizers", "keras.src.losses", "keras.src.metrics"),
    *(f"keras.src.backend.{backend}.optimizers" for backend in ("tensorflow", "jax", "torch")),
)


def is_archive(artifact: Artifact) -> bool:
    """Whether the file is a .keras archive."""
    return CONFIG in artifact.members and (METADATA in artifact.members or WEIGHTS in artifact.members)


def is_unpacked(artifact: Artifact) -> bool:
    """Whether the directory is a .keras archive, unpacked."""
    return {CONFIG, METADATA, WEIGHTS} <= set(artifact.listing)


def is_hdf5(artifact: Artifact) -> bool:
    """Whether the file is an HDF5 file that Keras wrote: a whole model, or weights only."""
    return artifact.head.startswith(_HDF5) and (b"keras" in artifact.head or b"layers" in artifact.head)


def holds_model(artifact: Artifact) -> bool:
    """Whether an HDF5 file holds a model, not weights alone."""
    return b"model_config" in artifact.head


def check_archive(artifact: Artifact, *, trusted: bool) -> None:
    """Raises LoadFailed for a damaged archive, PickleRefused for a model that would run code from the file."""
    if artifact.is_directory:
        text = (artifact.file / CONFIG).read_bytes()
    else:
        with zipfile.ZipFile(artifact.file) as archive:
            check_members(archive, artifact)
            text = read_member(archive, archive.getinfo(CONFIG), artifact, _CONFIG_BYTES)
    config = json.loads(text)
    if isinstance(config, dict):
        config.pop("compile_config", None)  # how it was trained is not read: its losses may be the author's own
    for found in _objects(config):
        _check_object(found, artifact, trusted)


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every object of a decoded JSON document, however deep."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


def _check_object(found: dict[str, Any], artifact: Artifact, trusted: bool) -> None:
    name, module = found.get("class_name"), found.get("module")
    if isinstance(name, str) and name in _RUNS_CODE and not trusted:
        raise _refused(artifact, f"a {name.strip('_')} layer, whose code or whose file comes with the model")
    vocabulary = found.get("vocabulary")
    if isinstance(vocabulary, str) and vocabulary and not trusted:
        raise _refused(artifact, f"a layer that reads the file {vocabulary!r}")
    registered = found.get("registered_name")
    if isinstance(name, str) and isinstance(registered, str) and ">" in registered and "module" in found and not module:
        raise LoadFailed(
            f"{artifact.label} uses {registered}, a class of your own that is not in the file. Save the model "
            "without it (model.export('directory') writes a SavedModel that holds everything), or wrap it in a "
            "model.py that defines the class and loads the file"
        )
    if isinstance(name, str) and isinstance(module, str) and not _is_keras(module):
        raise LoadFailed(
            f"{artifact.label} names {module}.{name}, which is not a part that a Keras model is made of. Export the "
            "model (model.export('directory')) where that code is installed"
        )


def _is_keras(module: str) -> bool:
    if module in ("", "keras", "builtins"):
        return True
    return any(module == known or module.startswith(f"{known}.") for known in _MODULES)


def hdf5_refused(artifact: Artifact) -> PickleRefused:
    """The refusal of the old form."""
    return untrusted(
        f"{artifact.label} is a Keras model in the old HDF5 form, which is read without the checks of the new one and "
        "may run code",
        "load it once where you trust it and save it as model.keras",
    )


def _refused(artifact: Artifact, found: str) -> PickleRefused:
    return untrusted(
        f"{artifact.label} has {found}",
        "build the model from Keras's own layers and operations, or export it with model.export('directory')",
    )
