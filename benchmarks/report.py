"""Tables of the results: for the terminal, and as Markdown for docs/explanation/performance.md."""

from __future__ import annotations

from typing import Any

from benchmarks.cells import CELLS, OVERLOADS, Cell, Overload
from benchmarks.peers import IN_PROCESS, PEERS
from benchmarks.places import PERFORMANCE_PAGE
from benchmarks.results import Results
from benchmarks.targets import Verdict

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
TITLES = {peer.name: peer.title for peer in PEERS} | {IN_PROCESS: "onnxruntime, in process"}
Table = list[list[str]]


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _time(value: float | None) -> str:
    return "" if value is None else f"{value * 1000:.3g}" if value < 0.1 else f"{value * 1000:,.0f}"


def _microseconds(value: float | None) -> str:
    return "" if value is None else f"{value * 1e6:,.3g}" if value < 0.001 else f"{value * 1e6:,.0f}"


def _wrong(found: dict[str, Any]) -> str:
    wrong = sum(found.get(key, 0) for key in ("failed", "mismatched", "disconnected", "rejected", "gave_up", "expired"))
    return f"{wrong:,} wrong" if wrong else ""


def _closed(servers: dict[str, dict[str, Any]]) -> Table:
    ours = servers.get("turnout", {}).get("rate")
    rows = [["", "requests/s", "p50 ms", "p99 ms", "CPU µs", "Turnout is", ""]]
    for name, found in sorted(servers.items(), key=lambda item: -item[1]["rate"]):
        ratio = f"{ours / found['rate']:.2f}x" if ours and found["rate"] and name != "turnout" else ""
        rows.append([TITLES[name], _rate(found["rate"]), _time(found.get("p50")), _time(found.get("p99")),
                     _microseconds(found.get("cpu_per_request")), ratio,
                     _wrong(found)])  # fmt: skip
    return rows


def _overload(servers: dict[str, dict[str, Any]]) -> Table:
    rows = [["", "capacity/s", "offered", "in time", "p99 ms", "rejected", "reject p99 ms", "gave up", "lost"]]
    for name, found in sorted(servers.items(), key=lambda item: -item[1]["goodput"]):
        total = sum(found.get(key, 0) for key in ("answered", "rejected", "expired", "gave_up", "failed", "unsent"))
        lost = sum(found.get(key, 0) for key in ("failed", "mismatched", "disconnected", "unsent"))
        shares = [f"{found.get(key, 0) / max(total, 1):.0%}" for key in ("rejected", "gave_up")]
        rows.append([
            TITLES[name], _rate(found["capacity"]), f"{found['offered']:.2f}x", f"{found['goodput']:.2f}",
            _time(found.get("p99")), shares[0], _time(found.get("reject_p99")), shares[1], f"{lost:,}" if lost else "",
        ])  # fmt: skip
    return rows


def _start(results: Results) -> Table:
    rows = [["", "first answer after s", "processes", "memory MB"]]
    for name, seconds in sorted(results["ready"].items(), key=lambda item: item[1]):
        processes = results["memory"].get(name, [])
        total = sum(process["resident"] for process in processes) / 1e6
        rows.append([TITLES[name], f"{seconds:.2f}", str(len(processes)), f"{total:,.0f}"])
    return rows


def tables(results: Results) -> list[tuple[str, Table]]:
    """Title and rows, the first row being the head."""
    known: list[Cell | Overload] = [*CELLS, *OVERLOADS]
    made: list[tuple[str, Table]] = []
    for cell in known:
        servers = results["cells"].get(cell.name)
        if servers:
            make = _overload if isinstance(cell, Overload) else _closed
            made.append((f"{cell.title} (`{cell.name}`)", make(servers)))
    if results["ready"]:
        made.append(("Start and memory: all three models (LitServe and mlflow: one)", _start(results)))
    return made


def as_text(results: Results) -> str:
    """For the terminal."""
    lines: list[str] = []
    for title, rows in tables(results):
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines += ["", title]
        for row in rows:
            cells = [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
            lines.append("  " + "  ".join(cells).rstrip())
    if results["problems"]:
        lines += ["", "Not measured, or not as it should be:", *(f"  {problem}" for problem in results["problems"])]
    return "\n".join(lines)


def as_verdicts(verdicts: list[Verdict]) -> str:
    """PASS, MISS or a dash for each line of the list."""
    words = {True: "PASS", False: "MISS", None: "  - "}
    return "\n".join(f"{words[verdict.passed]}  {verdict.what}: {verdict.figures}" for verdict in verdicts)


def _markdown_table(rows: Table) -> list[str]:
    head, *body = rows
    align = ["---"] + ["--:"] * (len(head) - 1)
    return [f"| {' | '.join(row)} |" for row in (head, align, *body)]


def as_markdown(results: Results, verdicts: list[Verdict]) -> str:
    """The generated part of the page."""
    machine = results["machine"]
    kind = "virtual machine" if machine["virtual"] else "machine"
    lines = [
        f"Made by `{results['command']}` at revision {results['revision']}.",
        f"Rounds: {results['rounds']} of {results['seconds']:g} s for each cell; medians over the rounds.",
        f"A {kind} with {machine['cores']} cores ({machine['processor']}), {machine['memory_bytes'] / 2**30:.0f} GiB.",
        f"Linux {machine['kernel']}, Python {machine['python']}.",
    ]
    words = {True: "yes", False: "**no**", None: "not measured"}
    lines += ["", "### What it is meant to reach", ""]
    lines += _markdown_table([["", "reached", "measured"], *([v.what, words[v.passed], v.figures] for v in verdicts)])
    for title, rows in tables(results):
        lines += ["", f"### {title}", "", *_markdown_table(rows)]
    problems = [problem.splitlines()[0] for problem in results["problems"]]
    if problems:
        lines += ["", "### Not measured, or not as it should be", "", *(f"- {problem}" for problem in problems)]
    return "\n".join(lines)


def write_page(results: Results, verdicts: list[Verdict]) -> None:
    """Puts the tables between the two marks of the page."""
    text = PERFORMANCE_PAGE.read_text()
    before, rest = text.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    PERFORMANCE_PAGE.write_text(f"{before}{BEGIN}\n{as_markdown(results, verdicts)}\n{END}{after}")
