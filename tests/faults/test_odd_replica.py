"""R5: one worker of four is bad. It is left out, nobody waits for its probes, and it comes back when it is well."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Self

import pytest

from tests.faults.load import ask, outputs
from turnout.testing.server import Answer, Server, serving

FOLDER = Path(__file__).parent / "odd"
CLIENTS = 6
EJECTIONS = "turnout_replica_ejections_total{"


class Odd:
    """What the odd worker is told to do, and what it did."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "odd"

    def behave(self, how: str) -> None:
        new = self.file.with_suffix(".new")
        new.write_text(how)
        new.replace(self.file)

    @property
    def pid(self) -> int:
        return int(self.file.with_suffix(".pid").read_text())

    def calls(self) -> Counter[str]:
        path = self.file.with_suffix(".calls")
        return Counter(path.read_text().split()) if path.exists() else Counter()


class Asking:
    """Clients that ask all the time, one request after the other each."""

    def __init__(self, server: Server) -> None:
        self.answers: list[Answer] = []
        self._server = server
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(CLIENTS)]

    def _ask(self, number: int) -> None:
        nonce = number * 1e6
        with closing(self._server.client()) as client:
            while not self._stop.is_set():
                nonce += 1
                answer = ask(client, nonce)
                if answer.status == 200:
                    assert outputs(answer)["y"] == [2.0 * nonce]
                self.answers.append(answer)

    def wait_for(self, count: int, seconds: float = 30.0) -> list[Answer]:
        """So many more answers."""
        start, until = len(self.answers), time.monotonic() + seconds
        while len(self.answers) < start + count:
            assert time.monotonic() < until, len(self.answers) - start
            time.sleep(0.005)
        return self.answers[start:]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)


@contextmanager
def four(tmp_path: Path) -> Iterator[tuple[Server, Odd]]:
    odd = Odd(tmp_path)
    words = (f"m={FOLDER}", "--access-log", "off", "--replicas", "4", "--max-batch-rows", "1")
    with serving(*words, env={"ODD_FILE": str(odd.file)}) as server:
        server.wait_until(lambda: len(server.workers()) == 4, 30)
        yield server, odd


def pids(answers: list[Answer]) -> set[int]:
    return {int(outputs(answer)["pid"][0]) for answer in answers if answer.status == 200}


def well(answers: list[Answer], odd: Odd) -> bool:
    """Whether all were answered, and none by the odd one."""
    return all(answer.status == 200 for answer in answers) and odd.pid not in pids(answers)


def ejections(server: Server) -> int:
    """How often a replica was left out, by the server's own metrics."""
    text = server.request("GET", "/metrics").body.decode()
    return sum(int(float(line.split()[-1])) for line in text.splitlines() if line.startswith(EJECTIONS))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["raise", "shape", "slow"])
def test_one_bad_worker_of_four(tmp_path: Path, how: str) -> None:
    with four(tmp_path) as (server, odd), Asking(server) as asking:
        until = time.monotonic() + 20
        while not {odd.pid} <= pids(asking.wait_for(50)):
            assert time.monotonic() < until, "the odd one is asked as the others are"
        before = len(asking.answers)
        odd.behave(how)
        turned = time.monotonic()
        server.wait_until(lambda: ejections(server) > 0, 20, "it is left out")
        left_out = time.monotonic() - turned
        print(f"left out {left_out:.2f} s after it began to {how}")
        assert left_out <= 2.0
        while not well(asking.wait_for(150), odd):  # a slow one may have two inside when it is left out
            assert time.monotonic() - turned < 20.0, "it is still asked"
        calls = odd.calls()[how]
        assert calls <= 5 + 4, "five in a row, what was sent there meanwhile, and a probe or two"
        failed = [answer for answer in asking.answers[before:] if answer.status != 200]
        assert len(failed) <= 7
        assert bool(failed) == (how != "slow")
        assert "left out" in server.log
        server.wait_until(lambda: odd.calls()[how] > calls + 1, 15, "probes go there")
        assert well(asking.answers[-300:], odd), "nobody waits for a probe"
        odd.behave("")
        cured = time.monotonic()
        while odd.pid not in pids(asking.wait_for(20)):
            assert time.monotonic() - cured < 15.0, "it is not asked again"
        assert time.monotonic() - cured < 5.0 + 3.0
        assert {answer.status for answer in asking.wait_for(50)} == {200}
