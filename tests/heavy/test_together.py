"""Four frameworks that cannot live together, in one server: each worker is killed, returns, and no other notices."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from tests.heavy.keeping import arrays, cases
from tests.heavy.test_frameworks import infer
from turnout.deploy.environments.environment import Environment
from turnout.testing.formats import Tolerance, assert_same
from turnout.testing.server import Server, serving

pytestmark = [pytest.mark.formats, pytest.mark.timeout(900)]
#: The framework's maker and environment, which of its cases is served, and the version of numpy that it lives with.
SERVED = [
    ("mxnet", "mxnet-module", "1.23."),
    ("tensorflow", "default-signature", "2."),
    ("torch", "program", "2."),
    ("tvm", "tvm-layers", "2."),
]
ROWS = 8
NOTICED = 5.0  # seconds that no request may take while another model's worker is dead


class Caller:
    """Asks one model without a pause, and keeps what went wrong and when it was answered."""

    def __init__(self, server: Server, folder: Path, case: dict) -> None:
        self.name = case["name"].replace("-", "_")
        self._tolerance = Tolerance(*case["split"])
        self._rows = {key: array[:ROWS] for key, array in arrays(folder, case, "rows").items()}
        self._expected = {key: array[:ROWS] for key, array in arrays(folder, case, "expected").items()}
        self._client = server.client(NOTICED * 4)
        self._over = threading.Event()
        self.answered: list[float] = []
        self.slowest = 0.0
        self.problems: list[str] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def forget(self) -> None:
        """Begins a new count."""
        self.answered, self.slowest, self.problems = [], 0.0, []

    def stop(self) -> None:
        self._over.set()
        self._thread.join()
        self._client.close()

    def _run(self) -> None:
        while not self._over.is_set():
            began = time.monotonic()
            try:
                answer = infer(self._client, self.name, self._rows)
                for key, want in self._expected.items():
                    assert_same(answer[key], np.asarray(want), self._tolerance, key)
                self.answered.append(time.monotonic())
            except (AssertionError, OSError) as problem:
                self.problems.append(f"{type(problem).__name__}: {problem}"[:300])
                self._client.close()
                self._over.wait(0.05)
            self.slowest = max(self.slowest, time.monotonic() - began)
            self._over.wait(0.01)


@contextmanager
def calling(server: Server, models: dict[str, tuple[Path, dict]]) -> Iterator[dict[str, Caller]]:
    callers: dict[str, Caller] = {}
    try:
        for maker, (folder, case) in models.items():
            callers[maker] = Caller(server, folder, case)
        yield callers
    finally:
        for caller in callers.values():
            caller.stop()


def worker_of(server: Server, python: Path) -> int:
    """The process id of the one worker that an interpreter runs; 0 where there is none at this moment."""
    found = [pid for pid in server.workers() if _program(pid) == str(python)]
    assert len(found) <= 1
    return found[0] if found else 0


def _program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().partition("\0")[0]
    except OSError:
        return ""


def test_four_frameworks_in_one_server_die_and_return_without_the_others_noticing(
    made: Callable[[str, str], Path], environment: Callable[[str], Environment], tmp_path: Path
) -> None:
    models: dict[str, tuple[Path, dict]] = {}
    pythons: dict[str, Path] = {}
    entries = []
    for maker, name, numpy in SERVED:
        folder, place = made(maker, maker), environment(maker)
        assert place.packages["numpy"].startswith(numpy)
        (case,) = [case for case in cases(folder) if case["name"] == name]
        models[maker], pythons[maker] = (folder, case), place.python
        entry = {"name": name.replace("-", "_"), "artifact": str(folder / case["artifact"])}
        entries.append({**entry, "environment": str(place.python), "trust_pickle": case.get("trust_pickle", False)})
    spec = tmp_path / "turnout.yaml"
    spec.write_text(
        json.dumps({"models": entries, "server": {"port": 0, "grpc_port": 0, "load_timeout": 300, "access_log": "off"}})
    )
    with serving("--spec", str(spec), ready_seconds=300.0) as server:
        server.wait_until(server.is_ready, 300.0, "all four models are ready")
        with calling(server, models) as callers:
            for killed in models:
                _kill_one(server, killed, callers, pythons)
        assert server.stop() == 0


def _kill_one(server: Server, killed: str, callers: dict[str, Caller], pythons: dict[str, Path]) -> None:
    """Kills a framework's worker with SIGKILL and waits until it answers again, while everybody is asked."""
    for caller in callers.values():
        caller.forget()
    server.wait_until(lambda: all(caller.answered for caller in callers.values()), 60.0, "everybody answers")
    before = {maker: worker_of(server, python) for maker, python in pythons.items()}
    assert all(before.values()), before
    for caller in callers.values():
        caller.forget()
    os.kill(before[killed], signal.SIGKILL)
    at = time.monotonic()
    server.wait_until(lambda: worker_of(server, pythons[killed]) not in {0, before[killed]}, 60.0, "a new worker")
    try:
        server.wait_until(lambda: callers[killed].answered[-1:] > [at + 0.2], 180.0, f"{killed} answers again")
    except TimeoutError as problem:
        raise TimeoutError(f"{problem}\n{callers[killed].problems[-3:]}") from None
    took = time.monotonic() - at
    after = {maker: worker_of(server, python) for maker, python in pythons.items()}
    for maker, caller in callers.items():
        if maker != killed:
            assert after[maker] == before[maker], f"{maker} got another worker when {killed} was killed"
            assert not caller.problems, f"{maker} noticed that {killed} was killed: {caller.problems[0]}"
            assert len(caller.answered) > 3
            assert caller.slowest < NOTICED, f"{maker} took {caller.slowest:.1f} s while {killed} was dead"
    others = {maker: (len(c.answered), round(c.slowest, 3)) for maker, c in callers.items() if maker != killed}
    print(f"{killed} was back in {took:.1f} s; the others answered (times, slowest in s): {others}")
