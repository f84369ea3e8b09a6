"""Candidates for a twin: the converted graph, and its quantised and threaded variants, each proved by itself."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from turnout.core.errors import Failure
from turnout.core.signature import Signature
from turnout.core.tensors import Tensors
from turnout.deploy.compile.compare import Answers, Differences, Predict, Tolerance, answers, compare, one_by_one
from turnout.deploy.compile.guards import Trials
from turnout.deploy.compile.rows import Group
from turnout.deploy.compile.seen import Column, Seen
from turnout.formats.artifact import Artifact, LoadOptions
from turnout.formats.compiled_file import Guard
from turnout.formats.onnx import Onnx
from turnout.formats.refusals import library

ALONE_ROWS = 64


@dataclass
class Candidate:
    """One twin and what became of it. `reason` says why it is not adopted, "" where it may be."""

    name: str
    way: str
    path: Path
    threads: int
    reason: str = ""
    predict: Predict | None = None
    inside: Differences | None = None
    edges: Differences | None = None
    guards: tuple[Guard, ...] = ()


@dataclass(frozen=True)
class Evidence:
    """What every candidate is judged by: the rows with the original's answers, and the edges."""

    signature: Signature
    groups: list[tuple[Group, Answers]]
    alone: tuple[Tensors, Answers]
    trials: Trials
    seen: Mapping[Column, Seen]
    tolerance: Tolerance

    @classmethod
    def of(
        cls,
        original: Predict,
        signature: Signature,
        groups: list[Group],
        trials: Trials,
        seen: Mapping[Column, Seen],
        tolerance: Tolerance,
    ) -> Evidence:
        """Asks the original about all rows, once for all candidates."""
        size = signature.rows_limit or 512
        answered = [(group, answers(original, group.rows, size)) for group in groups]
        few, alone = (
            (groups[0].rows, answered[0][1])
            if signature.rows_limit
            else one_by_one(original, groups[0].rows, ALONE_ROWS)
        )
        return cls(signature, answered, (few, alone), trials, seen, tolerance)

    def judge(self, candidate: Candidate) -> None:
        """Loads a candidate and compares it with the original; says in it what was found."""
        try:
            model = Onnx().load(Artifact.of(candidate.path), LoadOptions(threads=candidate.threads))
        except Failure as failure:
            candidate.reason = f"the converted graph cannot be loaded: {failure.message}"
            return
        candidate.predict = predict = model.predict
        wanted = {s.name: s.datatype for s in (*self.signature.inputs, *self.signature.outputs)}
        if wanted != {s.name: s.datatype for s in (*model.signature.inputs, *model.signature.outputs)}:
            candidate.reason = "its names or types are not the original's"
            return
        inside = Differences()
        size = self.signature.rows_limit or 512
        for group, original in self.groups:
            found = answers(predict, group.rows, size)
            inside.add(compare(original, found, group.rows, self.signature, self.tolerance))
        few, alone = self.alone
        found = answers(predict, few, self.signature.rows_limit or 1)
        inside.add(compare(alone, found, few, self.signature, self.tolerance))
        candidate.inside = inside
        guards, candidate.edges = self.trials.judge(predict, self.signature, self.seen, self.tolerance)
        candidate.guards = tuple(guards)
        candidate.reason = _reason(inside, candidate.guards)


def _reason(inside: Differences, guards: tuple[Guard, ...]) -> str:
    if inside.only_twin_failed:
        return f"it fails on {inside.only_twin_failed} of {inside.rows} rows that the original answers"
    if inside.only_original_failed:
        return f"it answers {inside.only_original_failed} of {inside.rows} ordinary rows that the original refuses"
    outside = {name: found.outside for name, found in inside.outputs.items() if found.outside}
    if outside:
        what = ", ".join(f"{name!r} in {count} of {inside.rows} rows" for name, count in outside.items())
        return f"outside the tolerance: {what}"
    if any(guard.unseen and not guard.known for guard in guards):
        return "it differs on unseen texts, and the model does not say which texts it has seen"
    return ""


def quantised(source: Path, target: Path) -> str:
    """Writes a dynamically quantised (int8 weights) copy of a graph; gives why it is none, "" if it is one."""
    tools = library("onnxruntime.quantization", "turnout compile --try quantized")
    onnx = library("onnx", "turnout compile --try quantized")
    try:
        tools.quantize_dynamic(str(source), str(target), weight_type=tools.QuantType.QInt8)
        same = [n.op_type for n in onnx.load(str(source)).graph.node] == [
            n.op_type for n in onnx.load(str(target)).graph.node
        ]
    except Exception as problem:  # noqa: BLE001  the tool raises anything
        return f"it cannot be quantised ({type(problem).__name__}: {' '.join(str(problem).split())[:200]})"
    return "it has no weights that could be quantised" if same else ""


def variants(plain: Candidate, tried: frozenset[str]) -> Iterator[Candidate]:
    """The further candidates that were asked for, made from a proved twin."""
    if "quantized" in tried:
        path = plain.path.with_name("twin-int8.onnx")
        yield Candidate("onnx-int8", f"{plain.way}, int8 weights", path, plain.threads, quantised(plain.path, path))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if "threads" in tried:
        reason = "" if cores > plain.threads else "there are no more cores than threads"
        yield Candidate("onnx-threads", f"{plain.way}, {cores} threads", plain.path, cores, reason)
