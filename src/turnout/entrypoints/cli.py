"""The command `turnout`: serve and predict."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import turnout
from turnout.core.errors import Failure

_EPILOG = """\
examples:
  turnout serve model.onnx
  turnout serve fraud=clf.skops digits=model.onnx --port 8080 --grpc-port 8081
  turnout predict model.onnx --input rows.csv
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code: 0 done, 1 it failed, 2 the words were wrong."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    try:
        if arguments.verb == "serve":
            from turnout.entrypoints.serve import serve

            return serve(arguments)
        from turnout.entrypoints.predict import predict

        return predict(arguments)
    except Failure as failure:
        print(f"turnout: {failure.message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="turnout",
        description="Deploys and serves machine-learning models.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"turnout {turnout.__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    _serve_words(verbs.add_parser("serve", help="serve models over REST and gRPC", description=_SERVE))
    _predict_words(verbs.add_parser("predict", help="predict rows of a file", description=_PREDICT))
    return parser


_SERVE = (
    "Serves each model in worker processes of its own. SIGTERM or Ctrl-C stops it gracefully, a second one at once."
)
_PREDICT = "Predicts the rows of a CSV, JSON or Parquet file in this process and prints one JSON record for each."


def _model_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--trust-pickle", action="store_true", help="allow pickle-based files: loading one runs its code"
    )
    parser.add_argument("--format", help="say the format instead of having it detected (onnx, sklearn, xgboost ...)")
    parser.add_argument("--signature", metavar="FILE", help="JSON file with the model's inputs and outputs")
    parser.add_argument(
        "--example", metavar="FILE", help="JSON file with example rows, where the model does not name its inputs"
    )
    parser.add_argument(
        "--threads", type=int, default=1, help="threads of the model's library, per replica (default 1)"
    )


def _serve_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "models", nargs="+", metavar="[NAME=]MODEL", help="a file, a directory, module:attr or python:FILE.py:ATTR"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: loopback only)")
    parser.add_argument("--port", type=int, default=8080, help="HTTP port, 0 for a free one (default 8080)")
    parser.add_argument("--grpc-port", type=int, default=8081, help="gRPC port, 0 for a free one (default 8081)")
    parser.add_argument("--replicas", type=int, default=1, help="worker processes per model (default 1)")
    parser.add_argument("--routers", type=int, default=1, help="router processes that share the ports (default 1)")
    parser.add_argument(
        "--place",
        choices=("worker", "inline"),
        default="worker",
        help="where predict runs; inline is for trusted models",
    )
    parser.add_argument(
        "--deadline", type=float, default=30.0, metavar="SECONDS", help="for requests that bring none (default 30)"
    )
    parser.add_argument("--max-batch-rows", type=int, default=256, help="rows in one batch (default 256)")
    parser.add_argument(
        "--max-batch-wait", type=float, default=0.0, metavar="SECONDS", help="wait for more rows (default 0: never)"
    )
    parser.add_argument("--queue-rows", type=int, default=16384, help="rows that may wait per model (default 16384)")
    parser.add_argument("--max-body-mb", type=int, default=64, help="largest request, in MiB (default 64)")
    parser.add_argument(
        "--load-timeout", type=float, default=300.0, metavar="SECONDS", help="for a model to become ready"
    )
    parser.add_argument(
        "--drain-timeout", type=float, default=30.0, metavar="SECONDS", help="for requests in flight at the end"
    )
    parser.add_argument(
        "--access-log", default="stderr", metavar="WHERE", help="stderr, stdout, off or a path (default stderr)"
    )
    _model_words(parser)


def _predict_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a file, a directory, module:attr or python:FILE.py:ATTR")
    parser.add_argument(
        "--input", required=True, metavar="FILE", help="rows: .csv, .json or .parquet; - for JSON on standard input"
    )
    parser.add_argument(
        "--output", metavar="FILE", help="write .json, .jsonl or .csv there instead of JSON lines on standard output"
    )
    _model_words(parser)


if __name__ == "__main__":
    sys.exit(main())
