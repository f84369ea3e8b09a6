"""Clients under load that count every request: what was asked, what came back, and how long it took."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from turnout.testing.server import Answer, Client, Server

FOLDER = Path(__file__).parent / "models"
#: What must never be in a text that a caller sees.
INTERNAL = (
    "Traceback",
    'File "',
    ".py",
    "/work",
    "/tmp",
    "/home",
    "/root",
    "turnout.",
    "numpy",
    "object at 0x",
    "secret",
)


def body(nonce: float, act: int = 0, rows: int = 1) -> bytes:
    data = [value for i in range(rows) for value in (nonce + i, float(act))]
    return json.dumps({"inputs": [{"name": "x", "datatype": "FP64", "shape": [rows, 2], "data": data}]}).encode()


def ask(client: Client | Server, nonce: float, act: int = 0, rows: int = 1, model: str = "m", **headers: str) -> Answer:
    sent = {"content-type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return client.request("POST", f"/v2/models/{model}/infer", body(nonce, act, rows), sent)


def outputs(answer: Answer) -> dict[str, list[Any]]:
    assert answer.status == 200, answer
    return {one["name"]: one["data"] for one in answer.json()["outputs"]}


def check(answer: Answer, nonce: float, rows: int = 1) -> None:
    assert outputs(answer)["y"] == [2.0 * (nonce + i) for i in range(rows)]


def check_clean(answer: Answer) -> None:
    """A failure that says something to the caller and nothing about the inside."""
    text = answer.json()["error"]
    assert text
    assert not [word for word in INTERNAL if word in text], text
    for name, value in answer.headers.items():
        assert not [word for word in INTERNAL if word in value], (name, value)


@dataclass
class Load:
    """Threads with one connection each that ask until they are stopped; use as a context manager.

    rate: requests a second of all of them together, each sent when it is due and not when the last one was answered.
    models: whom they ask, each client one of them.
    """

    server: Server
    clients: int = 8
    deadline_ms: int = 10_000
    answers: list[Answer] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    refused: int = 0
    wrong: list[str] = field(default_factory=list)
    pause: float = 0.0
    rate: float = 0.0
    new_connections: bool = False
    models: Sequence[str] = ("m",)

    def __enter__(self) -> Self:
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(i,)) for i in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive(), "a request never ended"

    def _run(self, number: int) -> None:
        with closing(self.server.client()) as client:
            self._ask_on(client, number)

    def _ask_on(self, client: Client, number: int) -> None:
        nonce = number * 10_000_000.0
        model = self.models[number % len(self.models)]
        due = time.monotonic() + number / max(self.rate, 1.0)
        while not self._stop.is_set():
            nonce += 1
            if self.rate:
                self._stop.wait(max(0.0, due - time.monotonic()))
                due += self.clients / self.rate
            try:
                answer = ask(client, nonce, model=model, x_request_deadline_ms=str(self.deadline_ms))
            except ConnectionRefusedError:
                self.refused += 1
                self._stop.wait(0.02)
                continue
            except (OSError, http.client.HTTPException) as problem:
                self.broken.append(repr(problem))
                self._stop.wait(0.02)
                continue
            self.answers.append(answer)
            if answer.status == 200 and outputs(answer)["y"] != [2.0 * nonce]:
                self.wrong.append(f"{nonce}: {answer.body!r}")
            if self.new_connections:
                client.close()
            if self.pause:
                self._stop.wait(self.pause)

    def statuses(self) -> Counter[int]:
        return Counter(answer.status for answer in self.answers)

    def wait_for(self, count: int, seconds: float = 20.0) -> None:
        """Until so many more requests were answered well."""
        until = time.monotonic() + seconds
        start = self.statuses()[200]
        while self.statuses()[200] < start + count:
            assert time.monotonic() < until, (self.statuses(), self.broken[:3], self.server.log[-2000:])
            time.sleep(0.005)
