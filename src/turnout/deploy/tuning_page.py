"""A tuned cascade as one page that needs nothing else: accuracy by cost as a curve, and the same as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from turnout.deploy.tuning_report import Figures

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _EDGE = 640, 320, 64, 44, 16
_STYLE = """
:root{color-scheme:light dark;--ink:#1c2430;--soft:#55606e;--page:#fff;--line:#d5dbe1;--mark:#0b62a8;--panel:#f4f6f8}
@media(prefers-color-scheme:dark){:root{--ink:#e6eaef;--soft:#a6b0bc;--page:#14181d;--line:#3a434d;--mark:#7cc0ff;
--panel:#1d232a}}
body{margin:0 auto;max-width:48rem;padding:1.5rem 1rem 3rem;background:var(--page);color:var(--ink);
font:16px/1.5 system-ui,sans-serif}
h1{font-size:1.5rem;line-height:1.25;margin:0 0 .5rem}
svg{display:block;width:100%;height:auto}svg text{fill:var(--soft);font-size:12px}
.rail{stroke:var(--line)}.band{fill:var(--mark);opacity:.18}.curve{fill:none;stroke:var(--mark);stroke-width:2}
.chosen{fill:var(--mark);stroke:var(--page);stroke-width:2}.alone{fill:var(--soft)}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .7rem;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
th:first-child{text-align:left}thead th{color:var(--soft)}tr.chosen-row{background:var(--panel);font-weight:600}
pre{background:var(--panel);padding:.7rem 1rem;white-space:pre-wrap}
"""
_HEAD = (
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width,initial-scale=1">'
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
)


def page(figures: Figures) -> str:
    """HTML for the figures of `tuning_report.figures`."""
    title = escape(" -> ".join(figures["steps"]))
    *sentences, last = figures["lines"]
    parts = [
        f"{_HEAD}<title>Cascade {title}</title><style>{_STYLE}</style></head><body><main>",
        f"<h1>Cascade {title}</h1>",
        f"<p>{escape(' '.join(sentences))}</p>",
        f"<pre>{escape(last)}</pre>",
        *_drawing(figures),
        *_table(figures),
        "</main></body></html>\n",
    ]
    return "".join(parts)


class _Axes:
    """Where a cost and an accuracy are in the drawing."""

    def __init__(self, points: Sequence[Mapping[str, Any]]) -> None:
        self.cost: float = max(point["seconds"] for point in points) or 1.0
        self.low: float = min(point["low"] for point in points)
        self.high: float = max(point["high"] for point in points)
        if self.high <= self.low:
            self.high = self.low + 0.01

    def x(self, seconds: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _EDGE) * seconds / self.cost

    def y(self, accuracy: float) -> float:
        return _EDGE + (_HEIGHT - _EDGE - _BOTTOM) * (self.high - accuracy) / (self.high - self.low)

    def at(self, point: Mapping[str, Any], what: str = "accuracy") -> str:
        return f"{self.x(point['seconds']):.1f},{self.y(point[what]):.1f}"


def _drawing(figures: Figures) -> Iterator[str]:
    curve, alone, chosen = figures["curve"], figures["alone"], figures["chosen"]
    axes = _Axes([*curve, *alone.values()])
    yield (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="Accuracy by seconds a row; the table below has '
        'the same numbers">'
    )
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        accuracy = axes.low + (axes.high - axes.low) * share
        x, y = axes.x(axes.cost * share), axes.y(accuracy)
        yield f'<line class="rail" x1="{_LEFT}" x2="{_WIDTH - _EDGE}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{accuracy:.3f}</text>'
        anchor = "end" if share == 1.0 else "middle"
        yield f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="{anchor}">{axes.cost * share:.2g} s</text>'
    yield f'<text x="{_WIDTH - _EDGE}" y="{_HEIGHT - 6}" text-anchor="end">seconds a row</text>'
    around = [axes.at(point, "high") for point in curve] + [axes.at(point, "low") for point in reversed(curve)]
    yield f'<polygon class="band" points="{" ".join(around)}"/>'
    yield f'<polyline class="curve" points="{" ".join(axes.at(point) for point in curve)}"/>'
    for name, point in alone.items():
        x, y = axes.x(point["seconds"]), axes.y(point["accuracy"])
        anchor = "end" if x > _WIDTH / 2 else "start"
        yield f'<circle class="alone" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
        yield f'<text x="{x:.1f}" y="{y - 8:.1f}" text-anchor="{anchor}">only {escape(name)}</text>'
    x, y = axes.x(chosen["seconds"]), axes.y(chosen["accuracy"])
    yield f'<circle class="chosen" cx="{x:.1f}" cy="{y:.1f}" r="6"/>'
    yield f'<text x="{x:.1f}" y="{y + 20:.1f}" text-anchor="middle">chosen</text></svg>'


def _table(figures: Figures) -> Iterator[str]:
    heads = ("threshold", "accuracy", "95 %", "goes on", "seconds a row")
    yield (
        '<div class="scroll"><table><thead><tr>'
        + "".join(f"<th>{head}</th>" for head in heads)
        + "</tr></thead><tbody>"
    )
    for name, point in figures["alone"].items():
        yield _row(f"only {name}", point, "", "")
    for point in figures["curve"]:
        said = ", ".join(f"{one:.12g}" for one in point["thresholds"])
        mark = ' class="chosen-row"' if point == figures["chosen"] else ""
        yield _row(said, point, f"{point['asked'][1]:.1%}", mark)
    yield "</tbody></table></div>"


def _row(name: str, point: Mapping[str, Any], goes_on: str, mark: str) -> str:
    between = f"{point['low']:.4f} to {point['high']:.4f}"
    cells = [f"{point['accuracy']:.4f}", between, goes_on, f"{point['seconds']:.3g}"]
    return f"<tr{mark}><th>{escape(name)}</th>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
