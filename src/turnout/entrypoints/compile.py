"""`turnout compile`: a model becomes a faster one that was proved equal, or the reasons why not."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from turnout.core.errors import InvalidInput
from turnout.core.signature import Signature
from turnout.core.tensors import Tensors, join_rows
from turnout.deploy.compile import compiling, measure, report
from turnout.deploy.compile.compare import Tolerance
from turnout.entrypoints.rows import match, read_rows
from turnout.entrypoints.supplies import options_of
from turnout.entrypoints.terminal import write_json
from turnout.formats.artifact import Artifact
from turnout.formats.examples import tensors_of


def run(arguments: argparse.Namespace) -> int:
    """Compiles; 0 where a twin was adopted, 1 where none was. Raises a Failure where model or rows do not fit."""
    load = options_of(arguments)
    artifact = Artifact.of(arguments.model)
    if artifact.path is None or artifact.is_reference:
        raise InvalidInput("Python code has no converter", field="MODEL", expected="a file or a directory")
    target = Path(arguments.output) if arguments.output else _beside(artifact.path)
    rows = recorded = None
    if arguments.rows or arguments.requests:
        signature = compiling.signature_of(artifact, load)
        rows = _checked(read_rows(arguments.rows, signature), signature) if arguments.rows else None
        recorded = read_requests(arguments.requests, signature) if arguments.requests else None
    options = compiling.CompileOptions(
        rows=rows,
        recorded=recorded,
        tolerance=Tolerance(arguments.absolute, arguments.relative),
        generated=arguments.generated,
        sizes=arguments.sizes or measure.SIZES,
        seconds=arguments.seconds,
        tried=arguments.tried or frozenset(),
    )
    outcome = compiling.compile_model(
        artifact, load, options, target, lambda line: print(f"{line} ...", file=sys.stderr)
    )
    for line in report.lines(outcome):
        print(line)
    if arguments.report:
        write_json(report.figures(outcome), arguments.report, "--report")
    if outcome.compiled:  # where the original answers too, it has to be loaded as it was here
        trust = " --trust-pickle" if arguments.trust_pickle and outcome.compiled.needs_original else ""
        print(f"written to {target}; serve it with: turnout serve {artifact.name}={target}{trust}")
    return 0 if outcome.adopted else 1


def read_requests(path: str, signature: Signature) -> Tensors:
    """The rows of recorded requests: a file with one JSON body a line, of any protocol. Raises InvalidInput."""
    parts: list[Tensors] = []
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise InvalidInput("there is no such text file", field="--requests", got=repr(path)) from None
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                parts.append(_checked(match(tensors_of(json.loads(line)), signature), signature))
            except (ValueError, InvalidInput) as problem:
                raise InvalidInput(f"line {number} is no request of this model ({problem})", field=path) from None
    if not parts:
        raise InvalidInput("there are no requests in it", field=path)
    return join_rows(parts)


def _checked(rows: Tensors, signature: Signature) -> Tensors:
    return signature.validate(rows)[0]


def _beside(path: Path) -> Path:
    if path.is_file():
        return path.parent / f"{path.stem}.compiled"
    found = path.resolve()
    return found.parent / f"{found.name}.compiled"
