"""The command `turnout`: serve and predict."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

import turnout
from turnout.core.errors import Failure
from turnout.entrypoints import artifacts, control, environments, guiding, schema, stop, tune
from turnout.entrypoints.words import Words, model_words, number, package_words, seconds, source_words, whole

_EPILOG = """\
examples:
  turnout serve model.onnx
  turnout serve fraud=clf.skops digits=model.onnx --port 8080 --grpc-port 8081
  turnout serve turnout.yaml
  turnout predict model.onnx --input rows.csv
"""


_ALSO_TRIED = ("quantized", "threads")
_HERE = "turnout.entrypoints"
#: What each verb runs; its module is imported when the verb is used.
_ACTS = {
    "serve": f"{_HERE}.serve:serve",
    "predict": f"{_HERE}.predict:predict",
    "compile": f"{_HERE}.compile:run",
    "tune": f"{_HERE}.tuning:run",
    "env": f"{_HERE}.environments:run",
    "pull": f"{_HERE}.artifacts:run",
    "cache": f"{_HERE}.artifacts:run",
    "stop": f"{_HERE}.stop:run",
    "schema": f"{_HERE}.schema:run",
    **dict.fromkeys(control.VERBS, f"{_HERE}.control:run"),
    **dict.fromkeys(guiding.VERBS, f"{_HERE}.guiding:run"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code: 0 done, 1 it failed, 2 the words were wrong."""
    arguments = _parser().parse_args(argv)
    if arguments.verb == "serve":
        if arguments.spec is None and len(arguments.models) == 1 and arguments.models[0].endswith((".yaml", ".yml")):
            arguments.spec, arguments.models = arguments.models[0], []
        if not arguments.models and not arguments.spec:
            arguments.parser.error("the following arguments are required: [NAME=]MODEL, or a spec file")
    module, _, act = _ACTS[arguments.verb].partition(":")
    try:
        code: int = getattr(import_module(module), act)(arguments)
        return code
    except Failure as failure:
        print(f"turnout: {failure.message}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever read our output has seen enough (`| head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would complain once more at its end
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = Words(
        prog="turnout",
        description="Serves machine-learning models, or predicts with one.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"turnout {turnout.__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    _serve_words(
        verbs.add_parser(
            "serve",
            help="serve models over REST and gRPC",
            description=_SERVE,
            usage="turnout serve [OPTIONS] [NAME=]MODEL ...",
            allow_abbrev=False,
        )
    )
    _predict_words(
        verbs.add_parser(
            "predict",
            help="predict the rows of a file",
            description=_PREDICT,
            usage="turnout predict [OPTIONS] MODEL --input FILE",
            allow_abbrev=False,
        )
    )
    stop.words(verbs)
    control.words(verbs)
    guiding.words(verbs)
    schema.words(verbs)
    _compile_words(
        verbs.add_parser(
            "compile",
            help="make a model faster, with proof",
            description=_COMPILE,
            usage="turnout compile [OPTIONS] MODEL",
            allow_abbrev=False,
        )
    )
    tune.words(verbs)
    artifacts.words(verbs)
    environments.words(verbs)
    return parser


_SERVE = (
    "Serves each model in worker processes of its own. SIGTERM or Ctrl-C stops it gracefully, a second one at once."
)
_PREDICT = "Predicts the rows of a file in this process and prints one JSON record for each."
_COMPILE = (
    "Converts a model to ONNX, compares both on real and on hard rows, measures both by batch size, and writes a "
    "directory that holds both, of which the faster one answers. Where no conversion is equal within the tolerance, or "
    "none is faster, says why, writes nothing, and ends with status 1."
)
_MODEL = "a file, a directory, a URI, module:attr or python:FILE.py:ATTR"


def _serve_words(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(parser=parser)
    parser.add_argument("models", nargs="*", metavar="[NAME=]MODEL", help=f"{_MODEL}; or a repository of models")
    parser.add_argument("--spec", metavar="FILE", help="a file that says everything instead (turnout.yaml)")
    doors = parser.add_argument_group("where it is called")
    port = whole(0, 65535)
    doors.add_argument("--host", help="address to listen on (default 127.0.0.1: this machine only)")
    doors.add_argument("--port", type=port, metavar="N", help="HTTP port, 0 for a free one (default 8080)")
    doors.add_argument("--grpc-port", type=port, metavar="N", help="gRPC port, 0 for a free one (default 8081)")
    doors.add_argument(
        "--routers", type=whole(1), default=1, metavar="N", help="processes that share the ports (default 1)"
    )
    doors.add_argument(
        "--max-body-mb", type=whole(1, 256), default=64, metavar="N", help="largest request, in MiB (default 64)"
    )
    doors.add_argument(
        "--access-log", default="stderr", metavar="WHERE", help="stderr, stdout, off or a path (default stderr)"
    )
    work = parser.add_argument_group("how it runs")
    work.add_argument("--replicas", type=whole(1), default=1, metavar="N", help="processes per model (default 1)")
    work.add_argument(
        "--place",
        choices=("worker", "inline"),
        default="worker",
        help="where predict runs (default worker); inline, in the router, is for trusted models",
    )
    work.add_argument(
        "--max-batch-rows", type=whole(1), default=1024, metavar="N", help="rows in one batch (default 1024)"
    )
    work.add_argument(
        "--max-batch-wait",
        type=seconds(or_zero=True),
        default=0.0,
        metavar="SECONDS",
        help="how long a batch waits for more rows (default 0: not at all)",
    )
    work.add_argument(
        "--queue-rows", type=whole(1), default=16384, metavar="N", help="rows that may wait per model (default 16384)"
    )
    _time_words(parser)
    model_words(parser)
    _version_words(parser)
    source_words(parser)
    package_words(parser)


def _version_words(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("which versions, and how they replace each other")
    group.add_argument(
        "--versions",
        default="latest:1",
        metavar="POLICY",
        help="of a repository of versions: latest:N, all or specific:A,B (default latest:1)",
    )
    group.add_argument(
        "--environment",
        default="auto",
        metavar="WHAT",
        help="auto (what the artifact brings), none, a requirements file or an interpreter (default auto)",
    )
    group.add_argument(
        "--compile",
        choices=("off", "auto"),
        default="off",
        help="auto: serve a faster twin where it is proved equal (default off)",
    )
    group.add_argument(
        "--watch",
        type=seconds(or_zero=True),
        default=0.0,
        metavar="SECONDS",
        help="how often to look whether something else is there (default 0: never)",
    )
    group.add_argument(
        "--on-change", choices=("apply", "plan"), default="apply", help="what to do with it then (default apply)"
    )
    group.add_argument(
        "--swap",
        choices=("availability", "resources"),
        default="availability",
        help="load before unloading, or the other way round (default availability)",
    )
    group.add_argument(
        "--keep",
        type=whole(0),
        default=0,
        metavar="N",
        help="replaced versions that stay loaded for an instant return (default 0)",
    )
    group.add_argument("--model-control", action="store_true", help="let callers load and unload models")
    group.add_argument("--keep-going", action="store_true", help="serve what loads although something else does not")


def _time_words(parser: argparse.ArgumentParser) -> None:
    times = parser.add_argument_group("how long things may take, in seconds")
    for name, default, meaning in (
        ("--deadline", 30.0, "a request that brings no deadline of its own"),
        ("--load-timeout", 300.0, "all models to become ready"),
        ("--drain-timeout", 30.0, "requests in flight when it is told to stop"),
        ("--orphan-seconds", 86400.0, "how long models are served on after the server itself was killed"),
    ):
        times.add_argument(
            name, type=seconds(), default=default, metavar="SECONDS", help=f"{meaning} (default {default:g})"
        )


def _predict_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help=_MODEL)
    parser.add_argument(
        "--input",
        required=True,
        metavar="FILE",
        help="rows: .csv, .tsv, .json, .jsonl or .parquet; - for JSON on standard input",
    )
    parser.add_argument(
        "--output", metavar="FILE", help="write .json, .jsonl or .csv there instead of JSON lines on standard output"
    )
    source_words(parser)
    model_words(parser)


def _compile_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a file or a directory")
    parser.add_argument("--output", metavar="DIR", help="the directory to write (default MODEL.compiled)")
    proof = parser.add_argument_group("what it is proved with")
    proof.add_argument("--rows", metavar="FILE", help="real rows: .csv, .tsv, .json, .jsonl or .parquet")
    proof.add_argument("--requests", metavar="FILE", help="recorded request bodies of any protocol, one a line")
    proof.add_argument(
        "--generated", type=whole(1), default=1000, metavar="N", help="rows to make besides (default 1000)"
    )
    proof.add_argument(
        "--absolute",
        type=number("a number"),
        default=1e-5,
        metavar="X",
        help="numbers may be so far apart ... (default 1e-5)",
    )
    proof.add_argument(
        "--relative",
        type=number("a number"),
        default=1e-4,
        metavar="X",
        help="... plus this share of the number (default 1e-4)",
    )
    speed = parser.add_argument_group("how it is measured")
    speed.add_argument(
        "--sizes", type=_batch_sizes, default=None, metavar="N,N", help="batch sizes (default 1,8,64,256,1024)"
    )
    speed.add_argument(
        "--seconds", type=number("seconds"), default=5.0, metavar="SECONDS", help="time for measuring (default 5)"
    )
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


def _batch_sizes(text: str) -> tuple[int, ...]:
    found = tuple(sorted({whole(1)(part.strip()) for part in text.split(",")}))
    if found[-1] > 1 << 20:
        raise argparse.ArgumentTypeError(f"expected batch sizes up to {1 << 20}; got {text!r}")
    return found


def _tried(text: str) -> frozenset[str]:
    found = frozenset(part.strip() for part in text.split(","))
    if not found <= set(_ALSO_TRIED):
        raise argparse.ArgumentTypeError(f"expected some of {', '.join(_ALSO_TRIED)}; got {text!r}")
    return found


if __name__ == "__main__":
    sys.exit(main())
