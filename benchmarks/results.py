"""Medians over the rounds, and the machine they were measured on."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.places import ROOT
from benchmarks.rounds import Session

Results = dict[str, Any]


def _median(values: list[float]) -> float:
    return statistics.median(values) if values else 0.0


def _summary(reports: list[dict[str, Any]]) -> dict[str, Any]:
    summary: dict[str, Any] = {
        "rate": _median([report["rate"] for report in reports]),
        "rates": [report["rate"] for report in reports],
    }
    for quantile in ("p50", "p90", "p99", "max"):
        values = [report["latency"][quantile] for report in reports if quantile in report.get("latency", {})]
        if values:
            summary[quantile] = _median(values)
    for key in ("core_share", "cpu_per_request", "capacity", "offered_rate"):
        if key in reports[0]:
            summary[key] = _median([report[key] for report in reports])
    if "capacity" in summary:
        summary["goodput"] = _median([report["rate"] / report["capacity"] for report in reports])
        summary["offered"] = _median([report["offered_rate"] / report["capacity"] for report in reports])
        rejects = [report["reject_latency"]["p99"] for report in reports if report["reject_latency"]["count"]]
        if rejects:
            summary["reject_p99"] = _median(rejects)
    for key in ("answered", "rejected", "expired", "failed", "mismatched", "disconnected", "gave_up", "unsent"):
        total = sum(report.get(key, 0) for report in reports)
        if total:
            summary[key] = total
    problems = [report["problem"] for report in reports if report.get("problem")]
    if problems:
        summary["problem"] = problems[0]
    return summary


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    info = Path("/proc/cpuinfo").read_text()
    model = next((line.split(":", 1)[1].strip() for line in info.splitlines() if line.startswith("model name")), "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "virtual": "hypervisor" in info,
        "memory_bytes": memory,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average_before": os.getloadavg()[0],
    }


def revision() -> str:
    """The commit that was measured."""
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, check=False, capture_output=True, text=True
    )
    return done.stdout.strip()


def summarize(session: Session, command: str, host: dict[str, Any]) -> Results:
    """Everything that was measured, as one JSON document."""
    return {
        "command": command,
        "revision": revision(),
        "machine": host,
        "seconds": session.seconds,
        "rounds": session.rounds,
        "cells": {
            cell: {server: _summary(reports) for server, reports in servers.items()}
            for cell, servers in session.runs.items()
        },
        "ready": {server: _median(values) for server, values in session.ready.items()},
        "memory": session.memory,
        "growth": session.growth,
        "problems": list(dict.fromkeys(session.problems)),
    }
