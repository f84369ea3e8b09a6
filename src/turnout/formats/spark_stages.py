"""A saved Spark ML model's stages, read from their metadata without Spark: what goes in, comes out, and may run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from turnout.core.errors import LoadFailed
from turnout.formats.refusals import untrusted

_OWN = re.compile(r"(org\.apache\.spark|pyspark)\.ml\.([a-z]+\.)?[A-Za-z0-9]+\Z")
_MAX_METADATA = 16 << 20
_MAX_STAGES, _MAX_DEPTH = 1000, 8
#: Stages that run what is written in them.
_RUNS_CODE = {"SQLTransformer"}
_TEXT = {"StringIndexerModel", "StringIndexer", "Tokenizer", "RegexTokenizer"}
#: Stages that take lists of words, for which there is no column of plain values.
_WORDS = {
    "HashingTF",
    "CountVectorizerModel",
    "NGram",
    "StopWordsRemover",
    "Word2VecModel",
    "FeatureHasher",
    "RFormulaModel",
}
_NUMBERS = {"VectorAssembler", "ImputerModel", "Bucketizer", "Binarizer", "OneHotEncoderModel", "OneHotEncoder"}
_OUTPUTS = ("predictionCol", "probabilityCol", "rawPredictionCol", "topicDistributionCol", "leafCol")


@dataclass(frozen=True)
class Stage:
    """One stage: its class without the package, and the columns it reads and makes."""

    kind: str
    reads: tuple[str, ...]
    makes: tuple[str, ...]
    label: str


@dataclass(frozen=True)
class Described:
    """A whole model: its class in Spark, and its inputs as (column, "FP64", "BYTES", "vector" or "" for unknown)."""

    kind: str
    version: str
    inputs: tuple[tuple[str, str], ...]
    outputs: tuple[str, ...]


def is_spark(directory: Path) -> bool:
    """Whether a directory is a saved Spark ML model or pipeline."""
    try:
        return str(_metadata(directory).get("class", "")).startswith(("org.apache.spark.ml.", "pyspark.ml."))
    except (OSError, ValueError, LoadFailed):
        return False


def describe(directory: Path, *, trusted: bool) -> Described:
    """What the model takes and gives. Raises LoadFailed for damage, PickleRefused for stages that run code."""
    stages = list(_stages(directory, 0))
    own = _read(directory)
    for stage_class, place in _classes(directory, 0):
        if (not _OWN.match(stage_class) or stage_class.rpartition(".")[2] in _RUNS_CODE) and not trusted:
            raise untrusted(
                f"{directory.name} has a stage of the class {stage_class} ({place}), which runs code that is named or "
                "written in it"
            )
    return Described(
        str(own["class"]).rpartition(".")[2], str(own.get("sparkVersion", "")), _inputs(stages), _outputs(stages)
    )


def _inputs(stages: Sequence[Stage]) -> tuple[tuple[str, str], ...]:
    """The columns that no earlier stage makes, without those that only lead to a label: Spark skips them too."""
    labels = {stage.label for stage in stages if stage.label}
    used = {name for stage in stages for name in stage.reads}
    made: set[str] = set()
    found: dict[str, str] = {}
    for stage in stages:
        only_label = bool(stage.makes) and set(stage.makes) <= labels and not set(stage.makes) & used
        for name in () if only_label else stage.reads:
            if name not in made:
                found.setdefault(name, _type_for(stage))
        made.update(stage.makes)
    return tuple(found.items())


def _type_for(stage: Stage) -> str:
    if stage.kind in _TEXT:
        return "BYTES"
    if stage.kind in _NUMBERS:
        return "FP64"
    return "" if stage.kind in _WORDS else "vector"


def _outputs(stages: Sequence[Stage]) -> tuple[str, ...]:
    """What a caller wants: what is predicted, and what is made and not used up by a later stage."""
    used = {name for stage in stages for name in stage.reads}
    labels = {stage.label for stage in stages if stage.label}
    found: dict[str, None] = {}
    for stage in stages:
        for name in stage.makes:
            predicted = bool(stage.label) or name == "prediction"
            if (predicted or name not in used) and name not in labels:
                found[name] = None
    return tuple(found)


def _stages(directory: Path, depth: int) -> Iterator[Stage]:
    found = _read(directory)
    kind = str(found["class"]).rpartition(".")[2]
    if kind in {"PipelineModel", "Pipeline"}:
        for stage in _directories(directory, depth):
            yield from _stages(stage, depth + 1)
        return
    named = {**found.get("defaultParamMap", {}), **found.get("paramMap", {})}
    explicit = found.get("paramMap", {})
    reads = [str(named[key]) for key in ("inputCol", "featuresCol") if isinstance(named.get(key), str)]
    reads += [str(name) for name in named.get("inputCols") or []]
    many = [str(name) for name in explicit.get("outputCols") or []]
    makes = many or [str(named[key]) for key in ("outputCol",) if isinstance(named.get(key), str)]
    makes += [str(named[key]) for key in _OUTPUTS if isinstance(named.get(key), str) and named[key]]
    yield Stage(kind, tuple(reads), tuple(makes), str(named.get("labelCol") or ""))


def _classes(directory: Path, depth: int) -> Iterator[tuple[str, str]]:
    """Every class that loading the model would make an object of, and where it is named."""
    yield str(_read(directory)["class"]), directory.name
    for stage in _directories(directory, depth):
        yield from _classes(stage, depth + 1)


def _directories(directory: Path, depth: int) -> list[Path]:
    """The stages' directories in their order, `0_...`, `1_...`; [] where there are none."""
    place = directory / "stages"
    if not place.is_dir():
        return []
    found = [path for path in place.iterdir() if path.is_dir() and path.name.partition("_")[0].isdigit()]
    if len(found) > _MAX_STAGES or depth > _MAX_DEPTH:
        raise LoadFailed(f"{directory.name} has {len(found)} stages at depth {depth}, which is too much")
    return sorted(found, key=lambda path: int(path.name.partition("_")[0]))


def _read(directory: Path) -> dict[str, Any]:
    """A stage's metadata. Raises LoadFailed where it is missing or damaged."""
    try:
        found = _metadata(directory)
    except (OSError, ValueError) as problem:
        raise LoadFailed(
            f"{directory.name}: the metadata of the Spark model is cut off or damaged ({problem})"
        ) from None
    if not isinstance(found.get("class"), str) or not all(
        isinstance(found.get(key, {}), dict) for key in ("paramMap", "defaultParamMap")
    ):
        raise LoadFailed(f"{directory.name}: the metadata of the Spark model says no class")
    stages = found.get("paramMap", {}).get("stageUids")
    if stages is not None and len(_directories(directory, 0)) != len(stages):
        raise LoadFailed(f"{directory.name}: the pipeline names {len(stages)} stages, and not all of them are there")
    return found


def _metadata(directory: Path) -> dict[str, Any]:
    parts = sorted((directory / "metadata").glob("part-*"))
    if not parts:
        raise LoadFailed(f"{directory.name}: there is no metadata of a Spark model")
    if parts[0].stat().st_size > _MAX_METADATA:
        raise LoadFailed(f"{directory.name}: its metadata is larger than {_MAX_METADATA} bytes")
    found = json.loads(parts[0].read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise LoadFailed(f"{directory.name}: the metadata of the Spark model is no JSON object")
    return found
