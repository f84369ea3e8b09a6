"""What Turnout must reach, line by line, against the results of one run."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.results import Results

MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Verdict:
    """One line of the list. `passed` is None where the run has no figures for it."""

    what: str
    passed: bool | None
    figures: str


def _figure(results: Results, cell: str, server: str, key: str = "rate") -> float | None:
    value = results["cells"].get(cell, {}).get(server, {}).get(key)
    return float(value) if value else None


def _at_least(results: Results, cell: str, factor: float, other: str, title: str, server: str = "turnout") -> Verdict:
    ours, theirs = _figure(results, cell, server), _figure(results, cell, other)
    what = f"{cell}: at least {factor:g}x {title}"
    if ours is None or theirs is None:
        return Verdict(what, None, "not measured")
    return Verdict(what, ours >= factor * theirs, f"{ours / theirs:.2f}x ({ours:,.0f}/s against {theirs:,.0f}/s)")


def _no_slower(results: Results, cell: str) -> Verdict:
    ours, theirs = _figure(results, cell, "turnout", "p50"), _figure(results, cell, "fastapi", "p50")
    what = f"{cell}: p50 no worse than FastAPI with the model in its own process"
    if ours is None or theirs is None:
        return Verdict(what, None, "not measured")
    return Verdict(what, ours <= theirs, f"{ours * 1000:.3f} ms against {theirs * 1000:.3f} ms")


def _near_echo(results: Results) -> Verdict:
    cell = "tiny-json-1"
    ours, echo = _figure(results, cell, "turnout-inline", "p50"), _figure(results, cell, "uvloop", "p50")
    what = f"{cell}: `place: inline` within 0.06 ms of a bare uvloop echo"
    if ours is None or echo is None:
        return Verdict(what, None, "not measured")
    figures = f"{(ours - echo) * 1000:+.3f} ms ({ours * 1000:.3f} ms against {echo * 1000:.3f} ms)"
    return Verdict(what, ours - echo <= 0.06e-3, figures)


def _goodput(results: Results, cell: str) -> list[Verdict]:
    found = results["cells"].get(cell, {}).get("turnout")
    good, quick = f"{cell}: at least 0.95 of capacity answered in time", f"{cell}: rejects answered within 10 ms (p99)"
    if not found:
        return [Verdict(good, None, "not measured")]
    figures = f"{found['goodput']:.3f} of {found['capacity']:,.0f}/s, offered {found['offered']:.2f}x"
    verdicts = [Verdict(good, found["goodput"] >= 0.95, figures)]
    if "reject_p99" in found:
        text = f"{found['reject_p99'] * 1000:.2f} ms over {found['rejected']:,} rejects"
        verdicts.append(Verdict(quick, found["reject_p99"] <= 0.01, text))
    return verdicts


def _start_and_memory(results: Results) -> list[Verdict]:
    growth = results.get("growth")
    names = (
        "ready in under 1 s (`turnout serve tiny.onnx`)",
        "router under 60 MB",
        "no growth over 1 million requests",
    )
    if not growth:
        return [Verdict(name, None, "not measured") for name in names]
    ready, grown = max(growth["ready"]), (growth["after"] - growth["before"]) / MEBIBYTE
    enough = growth["requests"] >= 1_000_000 and growth["same_process"]
    return [
        Verdict(names[0], ready < 1, f"{ready:.2f} s, the slowest of {len(growth['ready'])}"),
        Verdict(names[1], growth["after"] < 60e6, f"{growth['after'] / 1e6:.1f} MB"),
        Verdict(names[2], enough and grown <= 1, f"{grown:+.2f} MiB over {growth['requests']:,} requests"),
    ]


def check(results: Results) -> list[Verdict]:
    """All lines, in the order in which they were promised."""
    wanted = [
        ("tiny-json-64", 20, "mlserver", "MLServer"),
        ("tiny-json-64", 8, "fastapi", "FastAPI + onnxruntime"),
        ("tiny-json-64", 40, "bentoml", "BentoML"),
        ("tiny-json-64", 40, "litserve", "LitServe"),
        ("tiny-json-64", 1.5, "granian", "a hand-written Granian app"),
        ("tiny-json-64", 0.3, "nginx", "nginx with a static body"),
        ("tiny-grpc-64", 20, "mlserver", "MLServer"),
        ("tiny-grpc-64", 10, "grpcio", "a hand-written grpcio.aio server"),
        ("tiny-grpc-64", 5, "triton", "Triton with its python back end"),
        ("mlp-json-64", 10, "mlserver", "MLServer"),
        ("mlp-json-64", 3, "granian", "a hand-written Granian app"),
    ]
    verdicts = [_at_least(results, *line) for line in wanted]
    pickled = "MLServer with the same pickle"
    verdicts += [
        _at_least(results, f"forest-json-{callers}", 100, "mlserver-forest", pickled, "turnout-compiled")
        for callers in (1, 8, 64)
    ]
    verdicts += [_no_slower(results, "mlp-json-1"), _near_echo(results)]
    verdicts.append(_at_least(results, "mlp1000-binary-8", 0.9, "in-process", "onnxruntime in process"))
    verdicts.append(_at_least(results, "heavy-json-8", 0.97, "in-process", "onnxruntime in process"))
    for cell in ("mlp-json-open-2x", "mlp-json-open-4x", "heavy-json-open-2x", "heavy-json-open-4x"):
        verdicts += _goodput(results, cell)
    verdicts += _start_and_memory(results)
    every = [found for servers in results["cells"].values() for name, found in servers.items() if name == "turnout"]
    wrong = sum(found.get(key, 0) for found in every for key in ("failed", "mismatched", "disconnected"))
    if every:
        verdicts.append(Verdict("every answer right and belonging to its request", wrong == 0, f"{wrong} wrong"))
    return verdicts
