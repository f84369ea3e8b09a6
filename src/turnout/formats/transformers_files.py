"""What lies in a Hugging Face model directory, judged before the library reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from turnout.core.errors import LoadFailed
from turnout.formats.artifact import Artifact
from turnout.formats.refusals import untrusted
from turnout.formats.safetensors_header import check
from turnout.formats.transformers_tasks import Pooling

CONFIG = "config.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_ADAPTER = "adapter_config.json"
_JSON_BYTES = 64 << 20


def is_model(artifact: Artifact) -> bool:
    """Whether a directory holds a Hugging Face model: its configuration, and weights."""
    if CONFIG not in artifact.listing or not {WEIGHTS, INDEX, *PICKLED} & set(artifact.listing):
        return False
    try:
        config = json.loads((artifact.file / CONFIG).read_bytes()[:_JSON_BYTES])
    except ValueError:
        return True  # said to be one by its names; loading says what is wrong with it
    return isinstance(config, dict) and ("model_type" in config or "architectures" in config)


def read_json(path: Path) -> Any:
    """A JSON file. Raises LoadFailed where it is none."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as problem:
        raise LoadFailed(f"{path.name} cannot be read ({problem})") from None


def check_weights(artifact: Artifact, *, trusted: bool) -> None:
    """Raises LoadFailed for damaged safetensors, PickleRefused where there are only pickled weights."""
    directory = artifact.file
    if WEIGHTS in artifact.listing:
        check(directory / WEIGHTS)
    elif INDEX in artifact.listing:
        files = read_json(directory / INDEX).get("weight_map", {})
        for name in sorted(set(files.values())):
            if Path(name).name != name or not (directory / name).is_file():
                raise LoadFailed(f"{artifact.label}: {INDEX} names {name!r}, and there is no such file")
            check(directory / name)
    elif not trusted:
        raise untrusted(
            f"{artifact.label} holds its weights as {PICKLED[0]}, a pickle. Loading it may run code from the file",
            "model.save_pretrained(directory) writes model.safetensors",
        )


def check_tokenizer(artifact: Artifact, names: Mapping[str, str]) -> None:
    """Raises LoadFailed where the tokenizer's files are not there: the library makes an empty one without a word.

    `names` are those that the tokenizer reads: one that holds everything, and the separate ones.
    """
    whole = names.get("tokenizer_file", "tokenizer.json")
    parts = [name for key, name in names.items() if key != "tokenizer_file"]
    if whole not in artifact.listing and not all(name in artifact.listing for name in parts):
        raise LoadFailed(
            f"{artifact.label} holds no tokenizer ({whole}, or {' and '.join(parts)}); "
            "save it beside the model: tokenizer.save_pretrained(directory)"
        )


def architecture(artifact: Artifact) -> str:
    """The class that the configuration names. Raises LoadFailed where it names none, or is damaged."""
    config = read_json(artifact.file / CONFIG)
    found = config.get("architectures") if isinstance(config, dict) else None
    if not found or not isinstance(found, list) or not isinstance(found[0], str):
        raise LoadFailed(f"{artifact.label}: {CONFIG} names no architecture; save the model with save_pretrained")
    if _ADAPTER in artifact.listing:
        raise LoadFailed(f"{artifact.label} holds an adapter; merge it into its model and save that")
    return str(found[0])


def pooling_of(artifact: Artifact) -> Pooling:
    """How sentence-transformers says that token vectors are joined; the mean where nothing says it."""
    if "modules.json" not in artifact.listing:
        return Pooling()
    mode, normalize = "mean", False
    for module in read_json(artifact.file / "modules.json"):
        kind = str(module.get("type", "")).rpartition(".")[2]
        if kind == "Pooling":
            mode = _mode(artifact, str(module.get("path", "1_Pooling")))
        elif kind == "Normalize":
            normalize = True
        elif kind != "Transformer":
            raise LoadFailed(f"{artifact.label}: the sentence-transformers module {kind} is not known here")
    return Pooling(mode, normalize)


def _mode(artifact: Artifact, folder: str) -> str:
    path = (artifact.file / folder / CONFIG).resolve()
    if not path.is_relative_to(artifact.file.resolve()):
        raise LoadFailed(f"{artifact.label}: modules.json names a folder outside the model")
    found = read_json(path)
    if isinstance(found.get("pooling_mode"), str):
        chosen = [found["pooling_mode"]]
    else:
        chosen = [name.removeprefix("pooling_mode_") for name, value in found.items() if value is True]
    known = {"mean_tokens": "mean", "cls_token": "cls", "max_tokens": "max", "mean": "mean", "cls": "cls", "max": "max"}
    modes = [known.get(name) for name in chosen if name != "include_prompt"]
    if len(modes) != 1 or modes[0] is None:
        raise LoadFailed(f"{artifact.label}: the pooling {', '.join(chosen) or 'of nothing'} is not known here")
    return modes[0]
