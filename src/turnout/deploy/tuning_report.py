"""What tuning a cascade has found: as a table, as sentences, and as plain JSON values."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from turnout.graph.tuning import Point, Tuned, Wish

Figures = Mapping[str, Any]
#: Lines of the curve in the table for people.
_LINES = 9


class About(NamedTuple):
    """What was tuned, on which rows, and what was wished. batch_rows: of the batches that were measured."""

    steps: tuple[str, ...]
    output: str
    measure: str
    source: str
    wish: Wish
    batch_rows: int


def figures(about: About, tuned: Tuned) -> Figures:
    """All of it as plain JSON values; times are seconds a row."""
    less, low, high = tuned.loss
    return {
        "steps": list(about.steps),
        "output": about.output,
        "measure": about.measure,
        "source": about.source,
        "rows": tuned.rows,
        "batch_rows": about.batch_rows,
        "wish": {"tolerance": about.wish.tolerance, "target": about.wish.target, "sure": about.wish.sure},
        "chosen": _point(tuned.chosen),
        "best": _point(tuned.best),
        "alone": {step: _point(point) for step, point in zip(about.steps, tuned.alone, strict=True)},
        "loss": {"share": less, "low": low, "high": high},
        "held_out": None
        if math.isnan(tuned.held_out[0])
        else {"accuracy": tuned.held_out[0], "escalated": tuned.held_out[1]},
        "spec": spec(about, tuned),
        "curve": [_point(point) for point in tuned.curve],
        "lines": lines(about, tuned),
    }


def spec(about: About, tuned: Tuned) -> dict[str, Any]:
    """The cascade as a document says it."""
    thresholds = tuned.chosen.thresholds
    found: dict[str, Any] = {"steps": list(about.steps), "output": about.output}
    if about.measure != "max":
        found["measure"] = about.measure
    return found | {"threshold": thresholds[0] if len(thresholds) == 1 else list(thresholds)}


def rows(about: About, tuned: Tuned) -> list[list[str]]:
    """The table: each step alone, some of the curve, and what was chosen."""
    found = [["", "threshold", "accuracy", "95 %", "goes on", "seconds a row"]]
    found.append(_row(f"only {about.steps[0]}", tuned.alone[0], alone=True))
    step = max(1, (len(tuned.curve) - 1) // (_LINES - 1))
    shown = [*tuned.curve[::step], tuned.curve[-1]]
    for point in tuned.curve:
        if point == tuned.chosen:
            found.append(_row("chosen", point))
        elif point in shown:
            found.append(_row("", point))
    others = list(zip(about.steps, tuned.alone, strict=True))[1:]
    return found + [_row(f"only {step}", point, alone=True) for step, point in others]


def lines(about: About, tuned: Tuned) -> list[str]:
    """What was found, in sentences."""
    chosen, last = tuned.chosen, tuned.alone[-1]
    less, low, high = tuned.loss
    share = f", {chosen.seconds / last.seconds:.0%} of what only {about.steps[-1]} takes" if last.seconds > 0 else ""
    steps, certain = " -> ".join(about.steps), f"95 %: {chosen.low:.4f} to {chosen.high:.4f}"
    accurate = f"the answers are {chosen.accuracy:.4f} accurate ({certain})"
    found = [
        f"{steps}, on {tuned.rows} rows of {about.source}: with threshold {_said(chosen)} {accurate}.",
        f"{chosen.escalated:.1%} of the rows go on, and a row takes {chosen.seconds:.2g} s{share}.",
        f"The best threshold is {_said(tuned.best)} with {tuned.best.accuracy:.4f}.",
        f"The chosen one is {less:.4f} less accurate than that (95 %: {low:.4f} to {high:.4f}).",
    ]
    if not about.wish.sure and about.wish.target is None and high > about.wish.tolerance:
        found.append(
            f"These rows do not rule out a loss of more than {about.wish.tolerance:g}; with --sure they have to."
        )
    if not math.isnan(tuned.held_out[0]):
        found.append(
            f"Chosen on one half of the rows and tried on the other: {tuned.held_out[0]:.4f} accurate, "
            f"{tuned.held_out[1]:.1%} go on."
        )
    if tuned.best.accuracy < max(point.accuracy for point in tuned.alone):
        found.append("One of the steps alone is more accurate than any cascade of them.")
    found.append(f"In the spec: {{cascade: {json.dumps(spec(about, tuned))}}}")
    return found


def _row(name: str, point: Point, *, alone: bool = False) -> list[str]:
    return [
        name, "" if alone else _said(point), f"{point.accuracy:.4f}", f"{point.low:.4f} to {point.high:.4f}",
        "" if alone else f"{point.escalated:.1%}", f"{point.seconds:.2g}",
    ]  # fmt: skip


def _said(point: Point) -> str:
    return ", ".join(f"{one:.12g}" for one in point.thresholds)


def _point(point: Point) -> dict[str, Any]:
    return {
        "thresholds": list(point.thresholds),
        "accuracy": point.accuracy,
        "low": point.low,
        "high": point.high,
        "asked": list(point.asked),
        "seconds": point.seconds,
    }
