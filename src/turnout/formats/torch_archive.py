"""What a torch archive is, from its member names, and whether it holds a pickle that may run code."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

from turnout.core.errors import LoadFailed, PickleRefused
from turnout.formats.artifact import Artifact
from turnout.formats.pickles import TORCH_LEGACY
from turnout.formats.refusals import untrusted
from turnout.formats.zip_content import read_member

#: Members above this size are weights, which are read as numbers; the checked ones are far smaller.
_CONFIG_BYTES = 64 << 20


def _inner(artifact: Artifact) -> set[str]:
    """Member names without the archive's own folder."""
    return {name.partition("/")[2] for name in artifact.members}


def is_script(artifact: Artifact) -> bool:
    """Whether the file is a TorchScript archive."""
    inner = _inner(artifact)
    return "constants.pkl" in inner and any(name.startswith("code/") for name in inner)


def is_exported(artifact: Artifact) -> bool:
    """Whether the file is a `torch.export` archive of any age."""
    return "archive_format" in _inner(artifact) or "serialized_exported_program.json" in artifact.members


def is_weights(artifact: Artifact) -> bool:
    """Whether the file is what `torch.save` writes: weights or pickled classes."""
    if artifact.head.startswith(TORCH_LEGACY):
        return True
    return not is_script(artifact) and not is_exported(artifact) and "data.pkl" in _inner(artifact)


def check_exported(torch: Any, artifact: Artifact, data: bytes) -> None:
    """Raises PickleRefused where torch.export.load would unpickle without limits, LoadFailed for what cannot be served.

    torch.export.load reads the sample inputs with weights_only and, if that fails, again without; and it unpickles
    weights and constants whose configuration says so. All of that is looked for in the same bytes beforehand.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        names = [entry.filename for entry in entries]
        if len({name.lower() for name in names}) != len(names):
            raise LoadFailed(f"{artifact.label}: two members of the archive have the same name")
        if "serialized_exported_program.json" in names:
            raise LoadFailed(f"{artifact.label} was written by torch before 2.8; export it again with a newer torch")
        for entry in entries:
            inner = entry.filename.partition("/")[2]
            if inner.startswith("data/aotinductor/"):
                raise LoadFailed(f"{artifact.label} holds compiled code; use torch.export.save")
            if inner.startswith("data/constants/") and not inner.endswith(".json") and "tensor_" not in inner:
                raise _refused(artifact, "a constant that is a pickled object")
            if inner.startswith(("data/weights/", "data/constants/")) and inner.endswith(".pt"):
                raise _refused(artifact, "weights in the old pickled form")
            if inner.endswith(("weights_config.json", "constants_config.json")):
                _check_config(artifact, read_member(archive, entry, artifact, _CONFIG_BYTES))
            if inner.startswith("data/sample_inputs/"):
                try:
                    torch.load(io.BytesIO(read_member(archive, entry, artifact, _CONFIG_BYTES)), weights_only=True)
                except Exception as problem:
                    raise _refused(artifact, "sample inputs that are more than tensors") from problem


def _check_config(artifact: Artifact, text: bytes) -> None:
    config = json.loads(text).get("config", {})
    for payload in config.values():
        path = str(payload.get("path_name", ""))
        if payload.get("use_pickle") is not False or "/" in path or ".." in path:
            raise _refused(artifact, "weights that are pickled")


def _refused(artifact: Artifact, found: str) -> PickleRefused:
    return untrusted(
        f"{artifact.label} holds {found}. Loading it may run code from the file", "convert the model to ONNX"
    )
