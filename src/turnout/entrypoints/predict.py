"""`turnout predict`: the rows of a file, predicted in this process, one record each."""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

from turnout.core.errors import InvalidInput, InvalidOutput
from turnout.core.messages import Context, InferRequest, InferResponse
from turnout.core.signature import Signature
from turnout.core.tensors import Tensors
from turnout.entrypoints.library import LoadedModel, open_model
from turnout.entrypoints.progress import Progress
from turnout.entrypoints.rows import match, read_rows, to_records
from turnout.entrypoints.supplies import options_of, supply_of
from turnout.formats.examples import tensors_of
from turnout.protocols import examples
from turnout.protocols.http import JSON, HttpRequest
from turnout.protocols.mlflow import CSV
from turnout.protocols.plain import PlainPredict

STANDARD_INPUT = "-"
_SUFFIXES = (".json", ".jsonl", ".csv")


def predict(arguments: argparse.Namespace) -> int:
    """Predicts and writes; raises a Failure where the model or the rows do not fit."""
    suffix = _suffix(arguments.output)
    if arguments.input != STANDARD_INPUT and not Path(arguments.input).is_file():
        raise InvalidInput("there is no such file", field="--input", got=repr(arguments.input))
    options = options_of(arguments)
    progress = Progress()
    model = open_model(arguments.model, options, supply_of(arguments), partial(progress, arguments.model))
    progress.end()
    text, count = _written(model, _predicted(model, arguments.input), suffix)
    if arguments.output:
        try:
            Path(arguments.output).write_text(text, encoding="utf-8")
        except OSError as problem:
            raise _unwritable(arguments.output, problem) from None
        print(f"{count} predictions written to {arguments.output}", file=sys.stderr)
    else:
        sys.stdout.write(text)
    return 0


def _suffix(output: str | None) -> str:
    """The kind of file to write, before any work is done for one that could not be written."""
    if output is None:
        return ".jsonl"
    path = Path(output)
    if path.suffix not in _SUFFIXES:
        raise InvalidInput(
            "unknown kind of file", field="--output", expected=".json, .jsonl or .csv", got=path.suffix or repr(output)
        )
    if not path.parent.is_dir():
        raise InvalidInput("there is no such directory", field="--output", got=str(path.parent))
    return path.suffix


def _unwritable(output: str, problem: OSError) -> InvalidInput:
    return InvalidInput(f"cannot be written ({problem.strerror})", field="--output", got=repr(output))


def _predicted(model: LoadedModel, source: str) -> Tensors:
    """The outputs for the rows of a file or of standard input; what is wrong with them names the file."""
    name = "standard input" if source == STANDARD_INPUT else Path(source).name
    try:
        return model.predict(_rows(source, model.signature))
    except InvalidInput as problem:
        place = problem.field if problem.field not in {"", name, source, "csv", "rows"} else ""
        raise InvalidInput(
            f"{place}: {problem.reason}" if place else problem.reason,
            field=name,
            expected=problem.expected,
            got=problem.got,
            example=f"a file {_example(model.signature)}",
        ) from None


def _rows(source: str, signature: Signature) -> Tensors:
    if source != STANDARD_INPUT:
        return read_rows(source, signature)
    try:
        value = json.loads(sys.stdin.read())
    except ValueError as problem:
        raise InvalidInput(f"not JSON ({problem})") from None
    return match(tensors_of(value), signature)


def _example(signature: Signature) -> str:
    table = examples.csv(signature)
    if table is not None and len(table) < 200:
        return f"rows.csv with {table.strip()!r}"
    return f"rows.json with {examples.text(signature, 'plain')}"


def _written(model: LoadedModel, outputs: Tensors, suffix: str) -> tuple[str, int]:
    """The text and how many records it holds: what `POST /predict` answers for the same rows."""
    media_type = CSV if suffix == ".csv" else JSON
    http = HttpRequest("POST", "", "", {"accept": media_type}, b"")
    request = InferRequest(model.name, {}, 0, Context(), reply=model.signature)
    try:
        text = _joined(PlainPredict().encode(http, request, InferResponse(outputs, model.name, "")).body)
    except InvalidOutput:
        if suffix == ".csv":
            raise
        records: list[Any] = to_records(outputs)
    else:
        if suffix == ".csv":
            return text, max(len(array) for array in outputs.values())
        records = json.loads(text)["predictions"]
    if suffix == ".json":
        return json.dumps(records) + "\n", len(records)
    return "".join(json.dumps(record) + "\n" for record in records), len(records)


def _joined(body: bytes | list[bytes | memoryview]) -> str:
    return (body if isinstance(body, bytes) else b"".join(body)).decode()
