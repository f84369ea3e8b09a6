"""What the control plane's store costs: `python -m benchmarks.store [URL]`, by default a new SQLite file."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from statistics import median

_TIMES = 300


def _measure(name: str, act: Callable[[int], object]) -> None:
    taken = []
    for number in range(_TIMES):
        began = time.perf_counter()
        act(number)
        taken.append(time.perf_counter() - began)
    print(f"{name:10} median {median(taken) * 1e3:6.2f} ms, slowest of {_TIMES} {max(taken) * 1e3:6.2f} ms")


def main() -> None:
    began = time.perf_counter()
    from turnout.deploy.store import database  # noqa: F401  its import is one of the figures

    imported = time.perf_counter()
    from turnout.deploy.store.store import open_store

    with tempfile.TemporaryDirectory() as directory:
        store = open_store(sys.argv[1] if len(sys.argv) > 1 else f"sqlite:///{directory}/store.db")
        now = time.perf_counter()
        print(f"import     {(imported - began) * 1e3:.0f} ms\nopen       {(now - imported) * 1e3:.0f} ms   {store}")
        _measure("propose", lambda number: store.propose(f'{{"number": {number}, "at": {now}}}', author="benchmark"))
        _measure("put", lambda number: store.put("benchmark", "key", str(number)))
        _measure("append", lambda number: store.append("benchmark", str(number)))
        _measure("current", lambda number: store.current())
        _measure("position", lambda number: store.position())
        store.close()


if __name__ == "__main__":
    main()
