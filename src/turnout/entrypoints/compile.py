"""`turnout compile`: a model becomes a faster one that was proved equal, or the reasons why not."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from turnout.core.errors import InvalidInput
from turnout.core.signature import Signature
from turnout.core.tensors import Tensors, join_rows
from turnout.deploy.load import load_options
from turnout.entrypoints.rows import match, read_rows
from turnout.formats.artifact import Artifact
from turnout.formats.examples import tensors_of

_TRIED = ("quantized", "threads")
_ABOUT = (
    "Converts a model to ONNX, compares both on real and on hard rows, measures both by batch size, and writes a "
    "directory that holds both, of which the faster one answers. Where no conversion is equal within the tolerance, or "
    "none is faster, says why, writes nothing, and ends with status 1."
)


def words(verbs: Any, model_words: Callable[[argparse.ArgumentParser], None]) -> None:
    """Adds the verb. `model_words` adds what all verbs say of how a model is loaded."""
    parser = verbs.add_parser(
        "compile",
        help="make a model faster, with proof",
        description=_ABOUT,
        usage="turnout compile [OPTIONS] MODEL",
        allow_abbrev=False,
    )
    parser.add_argument("model", metavar="MODEL", help="a file or a directory")
    parser.add_argument("--output", metavar="DIR", help="the directory to write (default MODEL.compiled)")
    proof = parser.add_argument_group("what it is proved with")
    proof.add_argument("--rows", metavar="FILE", help="real rows: .csv, .tsv, .json, .jsonl or .parquet")
    proof.add_argument("--requests", metavar="FILE", help="recorded request bodies of any protocol, one a line")
    proof.add_argument(
        "--generated", type=_count(1), default=1000, metavar="N", help="rows to make besides (default 1000)"
    )
    proof.add_argument(
        "--absolute", type=_size, default=1e-5, metavar="X", help="numbers may be so far apart ... (default 1e-5)"
    )
    proof.add_argument(
        "--relative", type=_size, default=1e-4, metavar="X", help="... plus this share of the number (default 1e-4)"
    )
    speed = parser.add_argument_group("how it is measured")
    speed.add_argument(
        "--sizes", type=_sizes, default=None, metavar="N,N", help="batch sizes (default 1,8,64,256,1024)"
    )
    speed.add_argument("--seconds", type=_size, default=5.0, metavar="SECONDS", help="time for measuring (default 5)")
    speed.add_argument(
        "--try",
        dest="tried",
        type=_tried,
        default=frozenset(),
        metavar="WHAT",
        help="also: quantized, threads",
    )
    speed.add_argument("--report", metavar="FILE", help="write all figures there as JSON")
    model_words(parser)


def run(arguments: argparse.Namespace) -> int:
    """Compiles; 0 where a twin was adopted, 1 where none was. Raises a Failure where model or rows do not fit."""
    from turnout.deploy.compile import compiling, measure, report
    from turnout.deploy.compile.compare import Tolerance

    load = load_options(
        trust_pickle=arguments.trust_pickle,
        format=arguments.format,
        threads=arguments.threads,
        signature=arguments.signature,
        example=arguments.example,
    )
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
        _write(Path(arguments.report), report.figures(outcome))
    if outcome.adopted:
        print(f"written to {target}; serve it with: turnout serve {target}")
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


def _write(path: Path, figures: dict[str, Any]) -> None:
    try:
        path.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    except OSError as problem:
        raise InvalidInput(f"cannot be written ({problem.strerror})", field="--report", got=repr(str(path))) from None


def _count(low: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < low:
            raise argparse.ArgumentTypeError(f"expected a whole number, {low} or more; got {text!r}")
        return int(text)

    return read


def _size(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0.0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number, 0 or more; got {text!r}")
    return number


def _sizes(text: str) -> tuple[int, ...]:
    found = tuple(sorted({_count(1)(part.strip()) for part in text.split(",")}))
    if found[-1] > 1 << 20:
        raise argparse.ArgumentTypeError(f"expected batch sizes up to {1 << 20}; got {text!r}")
    return found


def _tried(text: str) -> frozenset[str]:
    found = frozenset(part.strip() for part in text.split(","))
    if not found <= set(_TRIED):
        raise argparse.ArgumentTypeError(f"expected some of {', '.join(_TRIED)}; got {text!r}")
    return found


def _say(line: str) -> None:
    print(f"{line} ...", file=sys.stderr)
