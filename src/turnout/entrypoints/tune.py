"""The words of `turnout tune`; what it does is in `tuning.py`, which imports more."""

from __future__ import annotations

from typing import Any

from turnout.entrypoints.words import model_words, number, source_words, whole

_DOES = (
    "Finds the threshold of a cascade from labelled rows: predicts them with each model in this process, and chooses "
    "the cheapest threshold that is as accurate as is wanted. Where none is, says why and ends with status 1."
)


def words(verbs: Any) -> None:
    """Adds the verb."""
    parser = verbs.add_parser(
        "tune",
        help="find the threshold of a cascade from labelled rows",
        description=_DOES,
        usage="turnout tune [OPTIONS] [NAME=]CHEAP [NAME=]DEAR ... --rows FILE --label COLUMN",
        allow_abbrev=False,
    )
    parser.add_argument("models", nargs="+", metavar="[NAME=]MODEL", help="the steps, the cheapest first")
    rows = parser.add_argument_group("what is known")
    rows.add_argument(
        "--rows", required=True, metavar="FILE", help="labelled rows: .csv, .tsv, .json, .jsonl or .parquet"
    )
    rows.add_argument("--label", required=True, metavar="COLUMN", help="the column that holds the right answer")
    rows.add_argument(
        "--answer",
        metavar="OUTPUT",
        help="the output that is compared with it (default label, else the likeliest class)",
    )
    rows.add_argument(
        "--within",
        type=number("a number"),
        default=0.0,
        metavar="X",
        help="how far off a right number may be (default 0)",
    )
    sure = parser.add_argument_group("how sure a model is")
    sure.add_argument("--confidence", metavar="OUTPUT", help="the output that says it (default probabilities)")
    sure.add_argument(
        "--measure",
        choices=("max", "margin", "entropy", "value"),
        default="max",
        help="how it says it: by probabilities, or as a value of its own (default max)",
    )
    wish = parser.add_argument_group("what is wanted")
    wish.add_argument(
        "--tolerance",
        type=number("a share"),
        default=0.005,
        metavar="X",
        help="so much less accurate than the best it may be (default 0.005)",
    )
    wish.add_argument("--target", type=number("a share"), metavar="X", help="so accurate it has to be, instead")
    wish.add_argument("--sure", action="store_true", help="with 95 %% certainty, not just on these rows")
    wish.add_argument(
        "--batch-rows",
        type=whole(1),
        default=32,
        metavar="N",
        help="rows that are predicted together where time is measured (default 32)",
    )
    wish.add_argument(
        "--report", action="append", default=[], metavar="FILE", help="write .json or .html; again for both"
    )
    source_words(parser)
    model_words(parser)
