"""The command `turnout`: serve and predict."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

import turnout
from turnout.core.errors import Failure
from turnout.entrypoints import artifacts, control, environments
from turnout.entrypoints import compile as compiling
from turnout.entrypoints.supplies import package_words, source_words

_EPILOG = """\
examples:
  turnout serve model.onnx
  turnout serve fraud=clf.skops digits=model.onnx --port 8080 --grpc-port 8081
  turnout predict model.onnx --input rows.csv
"""


_HERE = "turnout.entrypoints"
#: What each verb runs; its module is imported when the verb is used.
_ACTS = {
    "serve": f"{_HERE}.serve:serve",
    "predict": f"{_HERE}.predict:predict",
    "compile": f"{_HERE}.compile:run",
    "env": f"{_HERE}.environments:run",
    "pull": f"{_HERE}.artifacts:run",
    "cache": f"{_HERE}.artifacts:run",
    **dict.fromkeys(control.VERBS, f"{_HERE}.control:run"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code: 0 done, 1 it failed, 2 the words were wrong."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.verb == "serve" and not arguments.models and not arguments.spec:
        arguments.parser.error("the following arguments are required: [NAME=]MODEL")
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
    parser = argparse.ArgumentParser(
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
    control.words(verbs)
    compiling.words(verbs, _model_words)
    artifacts.words(verbs)
    environments.words(verbs)
    return parser


_SERVE = (
    "Serves each model in worker processes of its own. SIGTERM or Ctrl-C stops it gracefully, a second one at once."
)
_PREDICT = "Predicts the rows of a file in this process and prints one JSON record for each."
_MODEL = "a file, a directory, a URI, module:attr or python:FILE.py:ATTR"


def _whole(low: int, high: int | None = None) -> Callable[[str], int]:
    """Reads a whole number within bounds; argparse puts the option's name before the complaint."""
    wanted = f"a whole number from {low} to {high}" if high is not None else f"a whole number, {low} or more"

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = low - 1
        if number < low or (high is not None and number > high):
            raise argparse.ArgumentTypeError(f"expected {wanted}; got {text!r}")
        return number

    return read


def _seconds(*, or_zero: bool = False) -> Callable[[str], float]:
    """Reads a duration in seconds."""

    def read(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number) or number < 0 or (number == 0 and not or_zero):
            raise argparse.ArgumentTypeError(f"expected seconds, {'0 or more' if or_zero else 'above 0'}; got {text!r}")
        return number

    return read


def _model_words(parser: argparse.ArgumentParser) -> None:
    models = parser.add_argument_group("how a model is loaded")
    models.add_argument(
        "--trust-pickle", action="store_true", help="allow files whose loading runs code from them, such as pickles"
    )
    models.add_argument("--format", help="say the format instead of having it detected (onnx, sklearn, xgboost ...)")
    models.add_argument("--signature", metavar="FILE", help="JSON file with the model's inputs and outputs")
    models.add_argument(
        "--example", metavar="FILE", help="JSON file with example rows, for a model that does not say its inputs"
    )
    models.add_argument(
        "--threads", type=_whole(1), default=1, metavar="N", help="threads of the model's library (default 1)"
    )


def _serve_words(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(parser=parser)
    parser.add_argument("models", nargs="*", metavar="[NAME=]MODEL", help=f"{_MODEL}; or a repository of models")
    parser.add_argument("--spec", metavar="FILE", help="a file that says everything instead (turnout.yaml)")
    doors = parser.add_argument_group("where it is called")
    port = _whole(0, 65535)
    doors.add_argument("--host", help="address to listen on (default 127.0.0.1: this machine only)")
    doors.add_argument("--port", type=port, metavar="N", help="HTTP port, 0 for a free one (default 8080)")
    doors.add_argument("--grpc-port", type=port, metavar="N", help="gRPC port, 0 for a free one (default 8081)")
    doors.add_argument(
        "--routers", type=_whole(1), default=1, metavar="N", help="processes that share the ports (default 1)"
    )
    doors.add_argument(
        "--max-body-mb", type=_whole(1, 256), default=64, metavar="N", help="largest request, in MiB (default 64)"
    )
    doors.add_argument(
        "--access-log", default="stderr", metavar="WHERE", help="stderr, stdout, off or a path (default stderr)"
    )
    work = parser.add_argument_group("how it runs")
    work.add_argument("--replicas", type=_whole(1), default=1, metavar="N", help="processes per model (default 1)")
    work.add_argument(
        "--place",
        choices=("worker", "inline"),
        default="worker",
        help="where predict runs (default worker); inline, in the router, is for trusted models",
    )
    work.add_argument(
        "--max-batch-rows", type=_whole(1), default=1024, metavar="N", help="rows in one batch (default 1024)"
    )
    work.add_argument(
        "--max-batch-wait",
        type=_seconds(or_zero=True),
        default=0.0,
        metavar="SECONDS",
        help="how long a batch waits for more rows (default 0: not at all)",
    )
    work.add_argument(
        "--queue-rows", type=_whole(1), default=16384, metavar="N", help="rows that may wait per model (default 16384)"
    )
    _time_words(parser)
    _model_words(parser)
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
        type=_seconds(or_zero=True),
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
        type=_whole(0),
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
    ):
        times.add_argument(
            name, type=_seconds(), default=default, metavar="SECONDS", help=f"{meaning} (default {default:g})"
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
    _model_words(parser)


if __name__ == "__main__":
    sys.exit(main())
