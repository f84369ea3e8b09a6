"""`turnout predict`: the rows of a file, predicted in this process, one record each."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

from turnout.core.errors import InvalidInput
from turnout.deploy.load import load_options
from turnout.entrypoints.library import open_model
from turnout.entrypoints.rows import read_rows, to_records


def predict(arguments: argparse.Namespace) -> int:
    """Predicts and writes; raises a Failure where the model or the rows do not fit."""
    options = load_options(
        trust_pickle=arguments.trust_pickle,
        format=arguments.format,
        threads=arguments.threads,
        signature=arguments.signature,
        example=arguments.example,
    )
    model = open_model(arguments.model, options)
    inputs = read_rows(arguments.input, model.signature)
    records = to_records(model.predict(inputs))
    text = _written(records, Path(arguments.output).suffix if arguments.output else ".jsonl")
    if arguments.output:
        Path(arguments.output).write_text(text, encoding="utf-8")
        print(f"{len(records)} predictions written to {arguments.output}", file=sys.stderr)
    else:
        sys.stdout.write(text)
    return 0


def _written(records: list[dict[str, Any]], suffix: str) -> str:
    if suffix == ".json":
        return json.dumps(records) + "\n"
    if suffix == ".jsonl":
        return "".join(json.dumps(record) + "\n" for record in records)
    if suffix == ".csv":
        out = io.StringIO()
        writer = csv.DictWriter(out, list(records[0]) if records else [])
        writer.writeheader()
        writer.writerows(records)
        return out.getvalue()
    raise InvalidInput("unknown kind of file", field="--output", expected=".json, .jsonl or .csv", got=suffix or "none")
