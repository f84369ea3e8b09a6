"""A model is converted, proved against itself, measured, and written down; or refused, with the reasons."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from turnout import formats
from turnout.core.errors import LoadFailed
from turnout.core.signature import Signature
from turnout.core.tensors import Tensors, byte_size
from turnout.deploy.compile import measure as measuring
from turnout.deploy.compile.compare import Tolerance
from turnout.deploy.compile.convert import WAYS, Source, attempts
from turnout.deploy.compile.guards import Trials
from turnout.deploy.compile.native import native_of
from turnout.deploy.compile.rows import Group, Rows
from turnout.deploy.compile.seen import seen_of, take_rows
from turnout.deploy.compile.twins import Candidate, Evidence, variants
from turnout.formats import compiled_file
from turnout.formats.artifact import Artifact, LoadOptions
from turnout.formats.compiled_file import FILE, Choice, Compiled, Twin
from turnout.formats.declared import example_of
from turnout.formats.refusals import library
from turnout.formats.signatures import rows_of_example

logger = logging.getLogger("turnout")
Tell = Callable[[str], None]
_LIBRARIES = (
    "numpy", "onnxruntime", "onnx", "skl2onnx", "onnxmltools", "scikit-learn", "xgboost-cpu", "xgboost", "lightgbm",
    "catboost", "torch",
)  # fmt: skip


_GENERATED_BYTES = 64 << 20


@dataclass(frozen=True)
class CompileOptions:
    """How to compile. rows: real rows to prove with; recorded: rows of recorded requests.

    generated, thresholds: how many rows to make, at most. sizes: batch sizes to measure. seconds: for measuring.
    tried: further variants, of "quantized" and "threads".
    """

    rows: Tensors | None = None
    recorded: Tensors | None = None
    tolerance: Tolerance = field(default_factory=Tolerance)
    generated: int = 1000
    thresholds: int = 4000
    seed: int = 0
    sizes: Sequence[int] = measuring.SIZES
    seconds: float = 5.0
    tried: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Outcome:
    """What came of it: the adopted twin's description, or the reasons against every candidate."""

    compiled: Compiled | None
    original_format: str
    candidates: list[Candidate]
    reasons: list[str]
    choices: list[Choice]
    rows: dict[str, int]

    @property
    def adopted(self) -> bool:
        """Whether a compiled model was written."""
        return self.compiled is not None


def compile_model(
    artifact: Artifact, load: LoadOptions, options: CompileOptions, target: Path, tell: Tell = logger.info
) -> Outcome:
    """Makes the directory `target` from a model, or leaves nothing where no twin is good enough and faster.

    The original is copied into it and not touched. Raises LoadFailed or one of its kinds where the model cannot be
    loaded, has no converter, or a library is missing; `tell` is given lines while it works.
    """
    if target.exists():
        raise LoadFailed(f"{target} is there already; remove it, or say another --output")
    if artifact.directory is not None and artifact.directory.resolve() in target.resolve().parents:
        raise LoadFailed(f"{target} is inside of what is compiled; say another --output")
    found, chosen = _to_compile(artifact, load)
    for name in ("onnx", "onnxruntime"):
        library(name, "turnout compile")
    tell(f"loading {chosen.label} ({found.name})")
    model = found.load(chosen, load)
    if not model.signature.batched:
        raise LoadFailed(f"{artifact.label}: the first axis of its tensors is not the row, so rows cannot be compared")
    source = Source(chosen, load, model, native_of(found.name, chosen, load))
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as place:
        draft = Path(place) / target.name
        draft.mkdir()
        outcome = _compiled(found.name, source, options, draft, tell)
        if outcome.compiled is not None:
            _write(outcome.compiled, artifact, draft)
            draft.rename(target)
        return outcome


def _to_compile(artifact: Artifact, load: LoadOptions) -> tuple[formats.Format, Artifact]:
    if artifact.is_directory and FILE in artifact.listing:  # compiled before: once more, from its original
        held = compiled_file.read(artifact.file)
        return _to_compile(Artifact.of(artifact.file / held.original), load)
    found, chosen = formats.locate(artifact, load)
    if found.name not in WAYS:
        raise LoadFailed(
            f"{artifact.label} is of the format {found.name}, which has no converter; those that have one are "
            f"{', '.join(WAYS)}"
        )
    return found, chosen


def _compiled(format: str, source: Source, options: CompileOptions, draft: Path, tell: Tell) -> Outcome:
    groups, trials, evidence = _evidence(format, source, options, tell)
    counts = {group.kind: group.count for group in groups} | {"edge": trials.count}
    plain, reasons = _first_good(format, source, evidence, draft, tell)
    if plain is None:
        return Outcome(None, format, [], reasons, [], counts)
    candidates = [plain]
    for candidate in variants(plain, options.tried):
        if not candidate.reason:
            tell(f"proving {candidate.name} ({candidate.way})")
            evidence.judge(candidate)
        if candidate.reason:
            reasons.append(f"{candidate.name} ({candidate.way}): {candidate.reason}")
        candidates.append(candidate)
    good = {one.name: one.predict for one in candidates if not one.reason and one.predict is not None}
    sizes = [source.signature.rows_limit] if source.signature.rows_limit else options.sizes
    tell(f"measuring {', '.join([format, *good])} with {', '.join(map(str, sizes))} rows")
    choices = measuring.measure({format: source.model.predict, **good}, groups[0].rows, sizes, options.seconds, format)
    won = {choice.variant for choice in choices}
    if won == {format}:
        reasons.append("the original is as fast for every batch size that was measured")
        return Outcome(None, format, candidates, reasons, choices, counts)
    adopted = [one for one in candidates if one.name in won]
    compiled = _description(format, source, options, adopted, choices, counts)
    return Outcome(compiled, format, candidates, reasons, choices, counts)


def _evidence(format: str, source: Source, options: CompileOptions, tell: Tell) -> tuple[list[Group], Trials, Evidence]:
    signature = source.signature
    seen = seen_of(format, source.native, signature)
    real = [(kind, rows) for kind, rows in (("given", options.rows), ("recorded", options.recorded)) if rows]
    example = rows_of_example(signature, example_of(source.artifact, source.options), 1)
    if example is not None:
        real.append(("example", example))
    groups = [Group(kind, rows, len(next(iter(rows.values())))) for kind, rows in real]
    for group in groups:
        take_rows(seen, group.rows)
    makes = Rows(signature, seen, options.seed)
    largest = max(groups, key=lambda group: group.count, default=None)
    one = byte_size(makes.generated(1))
    count = max(min(options.generated, _GENERATED_BYTES // max(one, 1)), signature.rows_limit or 1, 4)
    made = makes.generated(count, largest.rows if largest is not None and largest.count > 1 else None)
    groups.append(Group("generated", made, count))
    base = groups[0].rows if groups[0].count > 1 else made
    at = makes.at_thresholds(options.thresholds, base)
    if at is not None:
        groups.append(Group("threshold", at, len(next(iter(at.values())))))
    groups.sort(key=lambda group: -group.count if group.kind in {"given", "recorded"} else 0)
    tell(f"asking the original about {', '.join(f'{group.count} {group.kind}' for group in groups)} rows")
    trials = Trials([] if signature.rows_limit else makes.edges(base), source.model.predict)
    return groups, trials, Evidence.of(source.model.predict, signature, groups, trials, seen, options.tolerance)


def _first_good(
    format: str, source: Source, evidence: Evidence, draft: Path, tell: Tell
) -> tuple[Candidate | None, list[str]]:
    """The first conversion that is equal, and why those before it are not."""
    reasons: list[str] = []
    path = draft / "twin.onnx"
    few = {name: array[: source.signature.rows_limit or 3] for name, array in evidence.groups[0][0].rows.items()}
    for attempt in attempts(format, source, few):
        if attempt.data:
            path.write_bytes(attempt.data)
            candidate = Candidate("onnx", attempt.name, path, source.options.threads)
            tell(f"proving onnx ({attempt.name})")
            evidence.judge(candidate)
            if not candidate.reason:
                return candidate, reasons
            reasons.append(f"onnx ({attempt.name}): {candidate.reason}")
            reasons += _shown(candidate)
            path.unlink()
        else:
            reasons.append(f"onnx ({attempt.name}): cannot be converted: {attempt.reason}")
    return None, reasons


def _shown(candidate: Candidate) -> list[str]:
    worst = candidate.inside.worst[:1] if candidate.inside is not None else []
    return [f"  for {one['row']} the original gives {one['original']}, it gives {one['twin']}" for one in worst]


def _description(
    format: str, source: Source, options: CompileOptions, adopted: list[Candidate], choices: list[Choice],
    counts: dict[str, int],
) -> Compiled:  # fmt: skip
    artifact = source.artifact
    inner = artifact.directory if artifact.directory is not None else artifact.file
    merged: dict[str, Any] = {}
    for one in adopted:
        for guard in one.guards:
            held = merged.get(guard.input)
            merged[guard.input] = guard if held is None or guard.sends_away else held
    return Compiled(
        original=f"original/{inner.resolve().name}",
        original_format=format,
        twins=tuple(Twin(one.name, one.path.name, one.threads) for one in adopted),
        files={},
        signature=source.signature,
        guards=tuple(merged.values()),
        choices=tuple(choices),
        threads=source.options.threads,
        machine=compiled_file.this_machine(),
        libraries=_versions(),
        tolerance={"absolute": options.tolerance.absolute, "relative": options.tolerance.relative},
        proof={
            "rows": counts,
            "twins": {
                one.name: {
                    "way": one.way,
                    "inside": one.inside.to_json() if one.inside is not None else {},
                    "edges": one.edges.to_json() if one.edges is not None else {},
                }
                for one in adopted
            },
        },
    )


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _write(compiled: Compiled, artifact: Artifact, draft: Path) -> None:
    source = artifact.file
    if artifact.is_directory and FILE in artifact.listing:
        source = source / compiled_file.read(source).original
    target = draft / compiled.original
    target.parent.mkdir()
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy2(source, target)
    kept = {twin.file for twin in compiled.twins}
    for path in draft.glob("twin*.onnx"):
        if path.name not in kept:
            path.unlink()
    whole = replace(compiled, files=compiled_file.digests(draft))
    (draft / FILE).write_text(json.dumps(whole.to_json(), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def signature_of(artifact: Artifact, load: LoadOptions) -> Signature:
    """The signature of what would be compiled, for reading rows. Raises as `compile_model` does."""
    found, chosen = _to_compile(artifact, load)
    return found.load(chosen, load).signature
