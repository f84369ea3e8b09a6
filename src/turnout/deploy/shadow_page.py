"""A shadow's report as one page that needs nothing else: no script, no font, no picture from anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from turnout.deploy.shadow_report import percent
from turnout.graph.difference import OTHER

_STYLE = """
:root{color-scheme:light dark;--ink:#1c2430;--soft:#55606e;--page:#fff;--panel:#f4f6f8;--line:#d5dbe1;--mark:#0b62a8;
--bad:#b3261e;--good:#1b6e3c;--warn:#8a5a00;--heat:11,98,168}
@media(prefers-color-scheme:dark){:root{--ink:#e6eaef;--soft:#a6b0bc;--page:#14181d;--panel:#1d232a;--line:#3a434d;
--mark:#7cc0ff;--bad:#ff9b91;--good:#7fd6a0;--warn:#f0c36b;--heat:124,192,255}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:62rem;padding:1.5rem 1rem 3rem;background:var(--page);color:var(--ink);
font:16px/1.5 system-ui,sans-serif}
h1{font-size:1.5rem;line-height:1.25;margin:0 0 .25rem}h2{font-size:1.15rem;margin:2rem 0 .5rem}
h3{font-size:1rem;margin:1.25rem 0 .4rem}p{margin:.35rem 0}
.soft,caption,small{color:var(--soft)}
.verdict{border-left:.4rem solid var(--mark);background:var(--panel);padding:.8rem 1rem;margin:1rem 0;font-size:1.1rem}
.verdict b{text-transform:uppercase;font-size:.8rem;letter-spacing:.05em;display:block}
.alike{border-color:var(--good)}.alike b{color:var(--good)}.fails,.differs{border-color:var(--bad)}
.fails b,.differs b{color:var(--bad)}.unclear,.incomparable{border-color:var(--warn)}
.unclear b,.incomparable b{color:var(--warn)}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;margin:.25rem 0}
caption{text-align:left;font-size:.9rem;padding:.2rem 0}
th,td{padding:.3rem .7rem;border-bottom:1px solid var(--line);text-align:right;vertical-align:top;white-space:nowrap}
caption,td.text{white-space:normal}td.text{min-width:6rem}.matrix{min-width:24rem}tbody th small{font-weight:400}
th:first-child,td.text,th.text{text-align:left}thead th{color:var(--soft);font-weight:600;font-size:.9rem}
.matrix td{background:rgba(var(--heat),var(--share));border:1px solid var(--line)}
.matrix td.same{font-weight:700}
svg{display:block;width:11rem;height:1.1rem}.rail{stroke:var(--line);stroke-width:2}
.range{fill:var(--mark);opacity:.35}.point{fill:var(--mark)}
code,pre{font:13px/1.45 ui-monospace,monospace}td pre{margin:0;white-space:pre-wrap;overflow-wrap:anywhere;
max-width:20rem}
.bad{color:var(--bad);font-weight:600}
"""
_NOTHING = "&ndash;"
_HEAD = (
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width,initial-scale=1">'
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
)


def page(endpoint: str, reports: Sequence[Mapping[str, Any]]) -> str:
    """HTML for the reports of one endpoint, from `shadow_report.reports`."""
    title = f"Shadow report of {endpoint}"
    parts = [f"{_HEAD}<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>"]
    if not reports:
        parts.append(f"<h1>{escape(title)}</h1><p>No pair of answers has been compared yet.</p>")
    for report in reports:
        parts += _report(report)
    parts.append("</main></body></html>\n")
    return "".join(parts)


def _report(report: Mapping[str, Any]) -> list[str]:
    shadow, primary = escape(report["shadow"]), escape(report["primary"])
    certain = f"{(1 - report['alpha']) * 100:g} %"
    parts = [
        f"<h1>{escape(report['endpoint'])}: {shadow} in the shadow of {primary}</h1>",
        (
            f'<p class="soft">{report["requests"]:,} requests answered by both, {report["rows"]:,} rows compared. '
            f"Intervals hold with {certain} certainty, at whatever time and however often one looks.</p>"
        ),
        (
            f'<p class="verdict {escape(report["outcome"].replace(" ", "-"))}"><b>{escape(report["outcome"])}</b>'
            f"{escape(report['verdict'])}</p>"
        ),
        *(f"<p><strong>Mind:</strong> {escape(caution)}</p>" for caution in report["cautions"]),
        "<h2>Agreement</h2>",
        _table(
            "Rows in which both versions agree, in all outputs together and in each",
            ("output", "kind", "agree", "", "interval", "rows"),
            [
                _agreement("all together", "", report["agreement"]),
                *(_agreement(one["name"], one["kind"], one["agreement"]) for one in report["outputs"]),
            ],
            text=2,
        ),
    ]
    for output in report["outputs"]:
        parts += _output(output, report["primary"], report["shadow"])
    parts += _latency(report["latency"], primary, shadow)
    parts += _failures(report["failures"], primary, shadow)
    if report["segments"]:
        parts += _segments(report["segments"])
    if report["worst"]:
        parts += _worst(report["worst"], primary, shadow)
    if report["mirrored"] is not None:
        parts += _mirrored(report["mirrored"])
    return parts


def _agreement(name: str, kind: str, share: Mapping[str, Any]) -> list[str]:
    known = share["share"] is not None
    return [
        escape(name),
        escape(kind),
        percent(share["share"]) if known else _NOTHING,
        _bar(share) if known else "",
        f"{percent(share['low'])} to {percent(share['high'])}",
        f"{share['of']:,}",
    ]


def _bar(share: Mapping[str, Any]) -> str:
    """The share as a point in its interval, on a line from 0 to 100 percent."""
    low, high, at = (4 + 192 * share[name] for name in ("low", "high", "share"))
    words = f"{percent(share['share'])}, between {percent(share['low'])} and {percent(share['high'])}"
    return (
        f'<svg viewBox="0 0 200 20" role="img" aria-label="{words}">'
        '<line class="rail" x1="4" y1="10" x2="196" y2="10"/>'
        f'<rect class="range" x="{low:.1f}" y="4" width="{max(1.0, high - low):.1f}" height="12"/>'
        f'<circle class="point" cx="{at:.1f}" cy="10" r="4"/></svg>'
    )


def _output(output: Mapping[str, Any], primary: str, shadow: str) -> list[str]:
    parts = []
    name = escape(output["name"])
    labels, flips = output["labels"], output["flips"]
    if labels:
        most = max(1, *(max(row) for row in flips))
        rarer = f", and {OTHER} are rarer labels" if OTHER in labels else ""
        head = "".join(f'<th scope="col">{escape(label) or "(empty)"}</th>' for label in labels)
        rows = "".join(
            f'<tr><th scope="row">{escape(labels[i]) or "(empty)"}</th>'
            + "".join(
                f'<td{" class=same" if i == j else ""} style="--share:{0.55 * count / most:.3f}">{count:,}</td>'
                for j, count in enumerate(row)
            )
            + "</tr>"
            for i, row in enumerate(flips)
        )
        parts.append(
            f'<h3>Flips of {name}</h3><div class=scroll tabindex=0 role=region aria-label="Flips of {name}">'
            f'<table class="matrix"><caption>Rows by what {escape(primary)} says (down) and what {escape(shadow)} says '
            f"(across); on the diagonal both say the same{rarer}"
            f'</caption><thead><tr><th scope="col">{escape(primary)} \\ {escape(shadow)}</th>{head}</tr></thead>'
            f"<tbody>{rows}</tbody></table></div>"
        )
    if output["distance"] is not None:
        distance = output["distance"]
        names = list(distance)
        parts.append(f"<h3>Differences in {name}</h3>")
        parts.append(
            _table(
                (
                    f"Largest absolute difference in a row, quantiles to within 5 %; "
                    f"{percent(output['close']['share'])} of the rows are within the tolerance"
                ),
                ("", *names),
                [["difference", *(_number(distance[one]) for one in names)]],
            )
        )
    if output["odd"]:
        parts.append(f"<p class=bad>{output['odd']:,} rows of {name} are no finite number at one version only.</p>")
    return parts


def _latency(latency: Mapping[str, Any], primary: str, shadow: str) -> list[str]:
    names = list(latency["primary"])
    parts = [
        "<h2>Time</h2>",
        _table(
            "Milliseconds for the same requests; quantiles to within 5 %",
            ("version", *names),
            [
                [who, *(_NOTHING if one is None else f"{one * 1e3:.2f}" for one in latency[side].values())]
                for who, side in ((primary, "primary"), (shadow, "shadow"))
            ],
        ),
    ]
    if (ratio := latency["ratio"]) is not None:
        parts.append(
            f"<p>{shadow} takes <strong>{ratio['estimate']:.2f} times</strong> as long as {primary} "
            f"({ratio['low']:.2f} to {ratio['high']:.2f}; mean of the ratios of single requests).</p>"
        )
    return parts


def _failures(failures: Mapping[str, Any], primary: str, shadow: str) -> list[str]:
    rows = [
        [who, escape(kind), f"{count:,}"]
        for side, who in (("primary", f"only {primary}"), ("shadow", f"only {shadow}"), ("both", "both"))
        for kind, count in sorted(failures["kinds"][side].items())
    ]
    if not rows:
        return ["<h2>Failures</h2>", f"<p>None, of {failures['requests']:,} requests.</p>"]
    share = failures["shadow"]
    return [
        "<h2>Failures</h2>",
        _table(f"Of {failures['requests']:,} requests", ("who failed", "with", "requests"), rows, text=2),
        f"<p>{shadow} failed {percent(share['share'])} ({percent(share['low'])} to {percent(share['high'])}).</p>",
    ]


def _segments(segments: Sequence[Mapping[str, Any]]) -> list[str]:
    words = {"less": "agrees less", "more": "agrees more", "": ""}
    rows = [
        [
            *_agreement(one["segment"], "", one["agreement"])[:1],
            *_agreement(one["segment"], "", one["agreement"])[2:],
            _number(one["mean_distance"]),
            words[one["apart"]],
        ]
        for one in segments
    ]
    return [
        "<h2>Segments</h2>",
        _table(
            "Agreement by segment; all intervals hold at once; beyond chance: than all rows do",
            ("segment", "agree", "", "interval", "rows", "mean difference", "beyond chance"),
            rows,
        ),
    ]


def _worst(worst: Sequence[Mapping[str, Any]], primary: str, shadow: str) -> list[str]:
    asked = any("inputs" in row for row in worst)
    rows = [
        [
            f"<code>{escape(row['id'])}</code> <small>row {row['row']}</small>",
            ("flip, " if row["flipped"] else "") + _number(row["distance"]),
            *(_values(row[side]) for side in ("primary", "shadow")),
            *([_values(row["inputs"]) if "inputs" in row else ""] if asked else []),
        ]
        for row in worst
    ]
    note = "" if asked else "<p class=soft>What was asked is not shown: it is not kept, or not yours to see.</p>"
    return [
        "<h2>Rows that differ most</h2>",
        note,
        _table(
            "By prediction; flips first, then the largest differences",
            ("prediction", "difference", primary, shadow, *(["inputs"] if asked else [])),
            rows,
            text=9,
        ),
    ]


def _mirrored(counts: Mapping[str, int]) -> list[str]:
    words = {
        "drawn": "chosen by their share",
        "sent": "sent to the shadow",
        "skipped": "left out: answered by it anyway, or the caller's mistake",
        "busy": "dropped: it had enough to do",
        "answered": "answered by it",
        "failed": "failed by it",
        "late": "of those, too late",
        "left": "without a pair: the caller went away",
    }
    rows = [[text, f"{counts[name]:,}"] for name, text in words.items()]
    return ["<h2>Requests</h2>", _table("What became of the shadow's share", ("", "requests"), rows)]


def _table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]], text: int = 1) -> str:
    """A table of cells that are HTML already; the first `text` columns are words."""
    titles = "".join(
        f'<th scope="col"{" class=text" if at < text else ""}>{title}</th>' if title else "<td></td>"
        for at, title in enumerate(head)
    )
    body = "".join(
        "<tr>"
        + "".join(
            f'<th scope="row">{cell}</th>' if at == 0 else f"<td{' class=text' if at < text else ''}>{cell}</td>"
            for at, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    label = escape(caption, quote=True)
    return (
        f'<div class=scroll tabindex=0 role=region aria-label="{label}"><table><caption>{escape(caption)}</caption>'
        f"<thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _values(values: Mapping[str, Any]) -> str:
    lines = "\n".join(f"{name} = {_plain(value)}" for name, value in values.items())
    return f"<pre>{escape(lines)}</pre>"


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_plain(one) for one in value) + "]"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _number(value: float | None) -> str:
    return _NOTHING if value is None else "no number" if value > 1e300 else f"{value:.3g}"
