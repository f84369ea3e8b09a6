"""What a shadow is worth, from the pairs that all routers have counted: in numbers with intervals, and in words.

All intervals are always valid: one may look at any time and as often as one likes, and the stated chance that one of
them is wrong, ever, holds all the same. Rows of one request may resemble each other, so a request counts as one
observation however many rows it has.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from turnout.deploy.rollout.statistics import Information, Sums, Trials, mean_interval, rate_interval
from turnout.graph.difference import OTHER, Difference
from turnout.graph.pairs import Pairs
from turnout.graph.shadow_record import ShadowRecord
from turnout.graph.sketch import Sketch

#: With fewer requests nothing is said of a version.
ENOUGH = 100
_QUANTILES = (("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99))


class Limits(NamedTuple):
    """What a report judges by. alpha: the chance that an interval is ever wrong. agreement: from which share of rows
    on two versions are alike.
    """

    alpha: float = 0.05
    agreement: float = 0.99


def reports(
    endpoint: str, record: ShadowRecord, limits: Limits | None = None, *, inputs: bool = True
) -> list[dict[str, Any]]:
    """One report for each pair of versions, as plain JSON values; without `inputs` none shows what was asked.

    Those with the most pairs come first.
    """
    found = [
        _report(endpoint, primary, shadow, pairs, record, limits or Limits(), inputs=inputs)
        for (primary, shadow), pairs in record.pairs.items()
    ]
    return sorted(found, key=lambda one: (-one["requests"], one["shadow"], one["primary"]))


def _report(
    endpoint: str, primary: str, shadow: str, pairs: Pairs, record: ShadowRecord, limits: Limits, *, inputs: bool
) -> dict[str, Any]:
    alpha = limits.alpha
    # Of how many independent rows the rows are worth.
    weight = min(1.0, pairs.requests / pairs.rows) if pairs.rows else 1.0
    said = pairs.to_json(inputs=inputs)
    counts = record.counts.get(shadow)
    report: dict[str, Any] = {
        "endpoint": endpoint,
        "primary": primary,
        "shadow": shadow,
        "alpha": alpha,
        "requests": pairs.requests,
        "rows": pairs.rows,
        "agreement": _share(pairs.agreed, pairs.rows, weight, alpha),
        "flipped": _share(pairs.flipped, pairs.rows, weight, alpha),
        "outputs": [_output(name, one, weight, alpha) for name, one in sorted(pairs.outputs.items())],
        "missing": said["missing"],
        "failures": _failures(pairs, alpha),
        "latency": _latency(pairs, alpha),
        "segments": _segments(said["segments"], pairs, weight, alpha),
        "worst": said["worst"],
        "mirrored": counts.to_json() if counts is not None else None,
    }
    report["cautions"] = _cautions(report)
    return report | _verdict(report, limits)


def _share(hits: int, rows: int, weight: float, alpha: float) -> dict[str, Any]:
    """A share of rows with its interval; None where nothing is known."""
    known = rate_interval(Trials(rows * weight, hits * weight), alpha / 2) if rows else None  # type: ignore[arg-type]  # a weighted count is a count to it
    return {
        "count": hits,
        "of": rows,
        "share": hits / rows if rows else None,
        "low": known.low if known else 0.0,
        "high": known.high if known else 1.0,
    }


def _output(name: str, one: Difference, weight: float, alpha: float) -> dict[str, Any]:
    labels = sorted({label for pair in one.flips for label in pair}, key=lambda label: (label == OTHER, _order(label)))
    return {
        "name": name,
        "kind": one.kind,
        "agreement": _share(one.agreed, one.rows, weight, alpha),
        "close": _share(one.close, one.rows, weight, alpha),
        "unlike": one.unlike,
        "odd": one.odd,
        "labels": labels,
        "flips": [[one.flips.get((was, became), 0) for became in labels] for was in labels],
        "distance": _distribution(one.distance) if one.distance.count and one.kind != "label" else None,
    }


def _order(label: str) -> tuple[int, float, str]:
    """Numbers by their size before words by their letters."""
    try:
        return (0, float(label), label)
    except ValueError:
        return (1, 0.0, label)


def _distribution(sketch: Sketch) -> dict[str, float | None]:
    """Mean, quantiles and the largest; None where there is nothing."""
    if not sketch.count:
        return dict.fromkeys(("mean", *(name for name, _ in _QUANTILES), "max"))
    return {
        "mean": sketch.mean,
        **{name: sketch.quantile(share) for name, share in _QUANTILES},
        "max": sketch.largest,
    }


def _failures(pairs: Pairs, alpha: float) -> dict[str, Any]:
    """Who failed at what. The shares are of all requests that at least one of the two was to answer."""
    sums = {who: sum(kinds.values()) for who, kinds in pairs.failed.items()}
    every = pairs.requests + sum(sums.values())
    return {
        "kinds": pairs.failed,
        "requests": every,
        "primary": _share(sums["primary"] + sums["both"], every, 1.0, alpha),
        "shadow": _share(sums["shadow"] + sums["both"], every, 1.0, alpha),
        "shadow_only": _share(sums["shadow"], every, 1.0, alpha),
        "primary_only": _share(sums["primary"], every, 1.0, alpha),
    }


def _latency(pairs: Pairs, alpha: float) -> dict[str, Any]:
    """Seconds of both, and how many times as long the shadow takes for the same request (the geometric mean)."""
    sums = Sums(*pairs.ratio)
    ratio: dict[str, float] | None = None
    if sums.size >= ENOUGH and sums.variance > 0.0:
        known = mean_interval(Information(sums.mean, sums.size / sums.variance, 1000 / sums.variance), alpha)
        ratio = {"estimate": math.exp(known.estimate), "low": math.exp(known.low), "high": math.exp(known.high)}
    return {
        "primary": _distribution(pairs.primary_seconds),
        "shadow": _distribution(pairs.shadow_seconds),
        "ratio": ratio,
    }


def _segments(said: Mapping[str, Sequence[float]], pairs: Pairs, weight: float, alpha: float) -> list[dict[str, Any]]:
    """Segments, those with the most rows first. `apart`: it agrees less or more than all rows do, beyond chance."""
    found = []
    whole = pairs.agreed / pairs.rows if pairs.rows else math.nan
    # As many intervals as there are segments: each must be the more certain, for all to hold at once.
    each = alpha / max(1, len(said))
    for name, (rows, agreed, total) in sorted(said.items(), key=lambda one: (-one[1][0], one[0])):
        agreement = _share(int(agreed), int(rows), weight, each)
        found.append(
            {
                "segment": name,
                "agreement": agreement,
                "mean_distance": total / rows if rows else None,
                "apart": "less" if agreement["high"] < whole else "more" if agreement["low"] > whole else "",
            }
        )
    return found


def _cautions(report: Mapping[str, Any]) -> list[str]:
    """What a reader should know before trusting the numbers."""
    found = []
    if report["rows"] > report["requests"]:
        found.append(
            "Requests have several rows. Rows of one request may resemble each other, so the intervals count requests."
        )
    if report["missing"]:
        found.append(f"Only one of both has these outputs, which are not compared: {', '.join(report['missing'])}.")
    mirrored = report["mirrored"]
    if mirrored and mirrored["busy"] > 0.01 * mirrored["drawn"]:
        found.append(
            f"{mirrored['busy']:,} of {mirrored['drawn']:,} chosen requests were not sent, because the shadow was "
            "busy: those of busy times are too few here."
        )
    if any(output["unlike"] for output in report["outputs"]):
        found.append("Some answers could not be compared, because their shapes or types differ; they count as flipped.")
    return found


def _verdict(report: Mapping[str, Any], limits: Limits) -> dict[str, str]:
    """One word for programs, one sentence for people."""
    primary, shadow = report["primary"], report["shadow"]
    agreement, failures, latency = report["agreement"], report["failures"], report["latency"]
    seen = failures["requests"]
    if seen < ENOUGH:
        return {
            "outcome": "too early",
            "verdict": f"It is too early to say how {shadow} compares with {primary}: "
            f"{seen} {'request' if seen == 1 else 'requests'} of at least {ENOUGH} are there.",
        }
    if failures["shadow_only"]["low"] > failures["primary_only"]["high"]:
        outcome, word = "fails", f"{shadow} fails where {primary} does not"
    elif agreement["share"] is None:
        outcome, word = "incomparable", f"{shadow} and {primary} have no outputs in common"
    elif agreement["high"] < limits.agreement:
        outcome, word = "differs", f"{shadow} answers differently from {primary}"
    elif agreement["low"] >= limits.agreement:
        outcome, word = "alike", f"{shadow} answers as {primary} does"
    else:
        outcome, word = "unclear", f"It is not clear yet whether {shadow} answers as {primary} does"
    facts = []
    if agreement["share"] is not None:
        facts.append(
            f"they agree in {percent(agreement['share'])} of {agreement['of']:,} rows "
            f"({percent(agreement['low'])} to {percent(agreement['high'])})"
        )
    facts.append(
        f"{shadow} failed {failures['shadow']['count']:,} of {seen:,} requests, "
        f"{primary} {failures['primary']['count']:,}"
    )
    if (ratio := latency["ratio"]) is not None:
        facts.append(
            f"{shadow} takes {ratio['estimate']:.2f} times as long ({ratio['low']:.2f} to {ratio['high']:.2f})"
        )
    return {"outcome": outcome, "verdict": f"{word}: {'; '.join(facts)}."}


def percent(share: float) -> str:
    """A share for people: with as many digits as tell it from 0 and from 100 percent."""
    text = ""
    for digits in range(1, 5):
        text = f"{share * 100:.{digits}f}"
        if share in {0.0, 1.0} or float(text) not in {0.0, 100.0}:
            break
    return f"{text} %"
