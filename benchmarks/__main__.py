"""`python -m benchmarks`: serves the same models through Turnout and its peers and prints what each can do."""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import sys
from pathlib import Path

from benchmarks import cells as known_cells
from benchmarks import models, peers, report, results, rounds, targets
from benchmarks.places import LOAD_CORE, MODEL_FILES, SERVER_CORE, WORK
from benchmarks.processes import NotStarted


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--cells", nargs="+", metavar="CELL", help="only these, as tiny-json-64 or mlp-json-open-2x")
    parser.add_argument("--servers", nargs="+", metavar="SERVER", help="only these, as turnout, granian, in-process")
    parser.add_argument("--rounds", type=int, help="how often every server is measured (3; with --quick 1)")
    parser.add_argument("--seconds", type=float, help="for each cell and round (1.5; with --quick 1)")
    parser.add_argument("--quick", action="store_true", help="fewer cells, one round: under 6 minutes")
    parser.add_argument("--no-growth", action="store_true", help="without the million requests to Turnout")
    parser.add_argument("--check", action="store_true", help="exit status 1 where a promise is not kept")
    parser.add_argument("--write-page", action="store_true", help="put the tables into docs/explanation/performance.md")
    parser.add_argument("--output", type=Path, default=WORK / "results.json", help="all figures as JSON (%(default)s)")
    parser.add_argument("--show", type=Path, metavar="RESULTS", help="measure nothing, show what such a file says")
    return parser.parse_args()


def _require_machine() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # the servers inherit it: overload needs connections
    if not sys.platform.startswith("linux"):
        raise SystemExit("the benchmarks need Linux: epoll, /proc and CPU affinity")
    if not {SERVER_CORE, LOAD_CORE} <= os.sched_getaffinity(0):
        raise SystemExit(f"the benchmarks need two cores: {SERVER_CORE} for the server, {LOAD_CORE} for the load")
    missing = [program for program in ("gcc", "taskset") if not shutil.which(program)]
    if missing:
        raise SystemExit(f"not installed: {', '.join(missing)}")


def _command(arguments: argparse.Namespace) -> str:
    if sys.argv[1:] in ([], ["--check"]):
        return "make bench"
    return " ".join(["python -m benchmarks", *sys.argv[1:]]).replace(str(arguments.output), arguments.output.name)


def _measure(arguments: argparse.Namespace) -> results.Results:
    _require_machine()
    host = results.machine()
    if host["load_average_before"] > 0.5:
        print(f"the machine is busy (load average {host['load_average_before']:.1f}): these figures will be too low")
    chosen, overloads = known_cells.choose(arguments.cells, quick=arguments.quick)
    servers = peers.choose(arguments.servers)
    session = rounds.Session(
        seconds=arguments.seconds or (1 if arguments.quick else 1.5),
        rounds=arguments.rounds or (1 if arguments.quick else 3),
    )
    if not shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin"):
        session.problems.append("nginx: not installed (apt-get install nginx-light)")
        servers = [server for server in servers if server.name != "nginx"]
    print("preparing", flush=True)
    models.write(MODEL_FILES)
    servers = rounds.prepare_all(servers, chosen, overloads, session)
    in_process = not arguments.servers or peers.IN_PROCESS in arguments.servers
    for number in range(session.rounds):
        if in_process:
            rounds.measure_in_process(session, chosen)
        rounds.measure_round(session, number, servers, chosen, overloads)
    if not arguments.no_growth and any(server.name == "turnout" for server in servers):
        try:
            rounds.measure_growth(session)
        except (NotStarted, RuntimeError, OSError) as problem:
            session.problems.append(f"turnout, a million requests: {problem}")
    return results.summarize(session, _command(arguments), host)


def main() -> int:
    """Measures, prints, writes; 1 where `--check` finds a promise that is not kept."""
    arguments = _arguments()
    if arguments.show:
        measured = json.loads(arguments.show.read_text())
    else:
        measured = _measure(arguments)
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(measured, indent=1))
    print(report.as_text(measured))
    verdicts = targets.check(measured)
    if any(verdict.passed is not None for verdict in verdicts):
        print("\nWhat it must reach\n" + report.as_verdicts(verdicts))
    if arguments.write_page:
        report.write_page(measured, verdicts)
    return int(arguments.check and any(verdict.passed is False for verdict in verdicts))


if __name__ == "__main__":
    sys.exit(main())
