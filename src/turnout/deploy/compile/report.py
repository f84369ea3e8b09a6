"""What came of compiling, for people: what was compared, how far apart, what answers which batch size, and why not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from turnout.deploy.compile.compiling import Outcome
from turnout.deploy.compile.twins import Candidate
from turnout.formats.compiled_file import NATIVE, Guard

_REASON = 400


def lines(outcome: Outcome) -> Iterator[str]:
    """The whole report."""
    rows = ", ".join(f"{count:,} {kind}" for kind, count in outcome.rows.items() if count)
    yield f"compared on {rows} rows"
    for reason in outcome.reasons:
        yield f"  not adopted: {_cut(reason)}" if not reason.startswith(" ") else f"    {_cut(reason.strip())}"
    for candidate in outcome.candidates:
        if not candidate.reason:
            yield from _proof(candidate)
    if outcome.choices:
        yield ""
        yield from _table(outcome)
    yield ""
    if outcome.adopted:
        yield f"adopted: {summary(outcome)}"
    else:
        yield "not adopted; the model is as it was"


def summary(outcome: Outcome) -> str:
    """One line: what answers how many rows, and how much faster that is for the smallest batch."""
    if outcome.compiled is None:
        return "nothing"
    low, parts = 1, []
    for bound, name in outcome.compiled.table():
        high = "" if bound == float("inf") else f" to {int(bound)}"
        parts.append(f"{name} for {low}{high} rows" if high else f"{name} from {low} rows on" if low > 1 else name)
        low = int(bound) + 1 if high else low
    first = outcome.choices[0]
    times = first.seconds[outcome.original_format] / first.seconds[first.variant]
    size = "one row" if first.rows == 1 else f"{first.rows} rows"
    return f"{', '.join(parts)}; {times:,.1f} times as fast for {size}"


def figures(outcome: Outcome) -> dict[str, Any]:
    """Everything that was found, as plain JSON values."""
    return {
        "adopted": outcome.adopted,
        "original": outcome.original_format,
        "rows": outcome.rows,
        "reasons": outcome.reasons,
        "choices": [asdict(choice) for choice in outcome.choices],
        "candidates": [
            {
                "name": one.name,
                "way": one.way,
                "reason": one.reason,
                "inside": one.inside.to_json() if one.inside is not None else None,
                "edges": one.edges.to_json() if one.edges is not None else None,
                "guards": [line for guard in one.guards for line in guard_lines(guard)],
            }
            for one in outcome.candidates
        ],
    }


def _cut(text: str) -> str:
    return text if len(text) <= _REASON else f"{text[:_REASON]} ..."


def _proof(candidate: Candidate) -> Iterator[str]:
    yield f"{candidate.name} ({candidate.way}): equal within the tolerance"
    if candidate.inside is not None:
        for name, found in candidate.inside.outputs.items():
            if name == "label":
                ties = f", {found.ties} decided otherwise in a tie" if found.ties else ""
                yield f"  {name}: the same in all of {candidate.inside.rows:,} rows{ties}"
            else:
                yield f"  {name}: at most {found.max_absolute:.2g} apart ({found.max_relative:.2g} relative)"
    for guard in candidate.guards:
        yield from (f"  {said}" for said in guard_lines(guard))


def guard_lines(guard: Guard) -> Iterator[str]:
    """What a guard does, in words."""
    cases = (
        (guard.nan, f"missing values (NaN){_columns(guard.nan_columns)}"),
        (guard.inf, f"infinite values{_columns(guard.inf_columns)}"),
        (guard.above, f"numbers over {guard.limit:.3g}"),
        (guard.unseen, "texts that were not in the training data"),
    )
    for action, what in cases:
        if action == NATIVE:
            yield f"{guard.input}: {what}: the original answers, where the twin would not be equal"
        elif action:
            yield f"{guard.input}: {what}: refused, as by the original"


def _columns(places: tuple[int, ...]) -> str:
    return f" in {len(places)} of its columns" if places else ""


def _table(outcome: Outcome) -> Iterator[str]:
    names = list(outcome.choices[0].seconds)
    yield "rows per batch  " + "  ".join(f"{name:>14}" for name in names) + "  answered by"
    for choice in outcome.choices:
        times = "  ".join(f"{choice.seconds[name] * 1e6:>11,.0f} us" for name in names)
        yield f"{choice.rows:>14}  {times}  {choice.variant}"
