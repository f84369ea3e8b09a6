"""`turnout tune`: the threshold of a cascade, from labelled rows that each model predicts in this process."""

from __future__ import annotations

import argparse
import math
import re
import sys
from functools import partial
from pathlib import Path
from textwrap import fill
from time import perf_counter

import numpy as np

from turnout.core.errors import InvalidInput
from turnout.core.tensors import Array, Tensors, join_rows, slice_rows
from turnout.deploy import tuning_page, tuning_report
from turnout.entrypoints.labelled import answer_of, read_labelled, right
from turnout.entrypoints.library import LoadedModel, open_model
from turnout.entrypoints.progress import Progress
from turnout.entrypoints.rows import match
from turnout.entrypoints.supplies import options_of, supply_of
from turnout.entrypoints.terminal import say, table, write_json
from turnout.graph.cascade import CascadePolicy, prove
from turnout.graph.confidence import confidence
from turnout.graph.tuning import Labelled, Wish, tune

_NAMED = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9_.-]*)=(?P<model>.+)")
_KINDS = (".json", ".html")
#: Where probabilities are called otherwise, it has to be said.
_USUAL = "probabilities"
_WIDTH = 100


def run(arguments: argparse.Namespace) -> int:
    """Tunes and prints. Raises a Failure where models, rows and wishes do not fit together."""
    for report in arguments.report:
        if Path(report).suffix not in _KINDS:
            raise InvalidInput("unknown kind of file", field="--report", expected=" or ".join(_KINDS), got=repr(report))
    columns, labels = read_labelled(arguments.rows, arguments.label)
    models = _opened(arguments)
    output = arguments.confidence or _USUAL
    policy = CascadePolicy(steps=tuple(models), output=output, measure=arguments.measure, threshold=0.0)
    prove(policy, {name: model.signature for name, model in models.items()})
    steps = [_labelled(name, model, columns, labels, output, arguments) for name, model in models.items()]
    wish = Wish(arguments.tolerance, arguments.target, arguments.sure)
    tuned = tune(steps, wish, math.inf if arguments.measure == "value" else 1.0)
    about = tuning_report.About(
        tuple(models), output, arguments.measure, Path(arguments.rows).name, wish, arguments.batch_rows
    )
    figures = tuning_report.figures(about, tuned)
    print(table(tuning_report.rows(about, tuned)))
    *sentences, spec = tuning_report.lines(about, tuned)
    print(f"\n{fill(' '.join(sentences), _WIDTH)}\n\n{spec}")
    for report in arguments.report:
        _write(figures, report)
    return 0


def _opened(arguments: argparse.Namespace) -> dict[str, LoadedModel]:
    """The steps by name."""
    options, supply = options_of(arguments), supply_of(arguments)
    found: dict[str, LoadedModel] = {}
    for word in arguments.models:
        named = _NAMED.fullmatch(word)
        progress = Progress()
        model = open_model(named["model"] if named else word, options, supply, partial(progress, word))
        progress.end()
        name = named["name"] if named else model.name
        if name in found:
            raise InvalidInput(f"two models are called {name!r}", field="MODEL", example=f"{name}={word} other={word}")
        found[name] = model
    return found


def _labelled(
    name: str, model: LoadedModel, columns: Tensors, labels: Array, output: str, arguments: argparse.Namespace
) -> Labelled:
    """What a model makes of the rows, and what that takes."""
    rows = match(columns, model.signature)
    answer = answer_of(model.signature, arguments.answer)
    say(f"{name} predicts {len(labels)} rows ...")
    outputs, seconds = _predicted(model, rows, len(labels), arguments.batch_rows)
    known = outputs.get(output)
    if known is None and not answer:
        raise InvalidInput(
            f"{name} does not say which class it is", field="--answer", expected=", ".join(outputs), got="nothing"
        )
    sure = np.full(len(labels), np.inf) if known is None else confidence(known, arguments.measure)
    return Labelled(name, sure, right(outputs, answer, output, labels, arguments.within), seconds)


def _predicted(model: LoadedModel, rows: Tensors, count: int, batch_rows: int) -> tuple[Tensors, float]:
    """The outputs for all rows, and the seconds of a row: the median of all batches."""
    model.predict(slice_rows(rows, 0, min(batch_rows, count)))  # the first call of a library is slower than the others
    parts: list[Tensors] = []
    times: list[float] = []
    for start in range(0, count, batch_rows):
        part = slice_rows(rows, start, min(start + batch_rows, count))
        begun = perf_counter()
        parts.append(model.predict(part))
        times.append((perf_counter() - begun) / (min(start + batch_rows, count) - start))
    whole = times[:-1] if len(times) > 1 and count % batch_rows else times
    return join_rows(parts), float(np.median(whole))


def _write(figures: tuning_report.Figures, report: str) -> None:
    if report.endswith(".json"):
        write_json(figures, report, "--report")
    else:
        try:
            Path(report).write_text(tuning_page.page(figures), encoding="utf-8")
        except OSError as problem:
            raise InvalidInput(f"cannot be written ({problem.strerror})", field="--report", got=repr(report)) from None
    print(f"turnout: written to {report}", file=sys.stderr)
