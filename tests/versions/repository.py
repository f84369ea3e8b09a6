"""Repositories of versions whose answers say which version gave them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Self

from turnout.testing.server import Server

_MODEL = """
import numpy as np

class Model:
    example = {{"x": np.zeros((1, 1), np.float32)}}

    def __init__(self):
        {before}
        self.weights = np.ones({floats}, np.float32)

    def predict(self, inputs):
        {predicts}
        return {{"version": np.full((len(inputs["x"]),), {number}, np.int64)}}
"""


def write_version(
    model: Path, number: int, *, says: int | None = None, before: str = "pass", predicts: str = "pass", floats: int = 1
) -> None:
    """Puts a version there, whole at once, as a careful copy does."""
    half = model / f".{number}"
    half.mkdir(parents=True)
    text = _MODEL.format(number=number if says is None else says, before=before, predicts=predicts, floats=floats)
    (half / "model.py").write_text(text)
    if (model / str(number)).exists():
        (model / str(number)).rename(model / f".old{number}-{os.urandom(4).hex()}")
    half.rename(model / str(number))


def answer(server: Server, version: str = "", name: str = "m") -> int:
    """Which version answers."""
    path = f"/v2/models/{name}/versions/{version}/infer" if version else f"/v2/models/{name}/infer"
    body = {"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [0.0]}]}
    got = server.request("POST", path, body)
    assert got.status == 200, got.body
    return int(got.json()["outputs"][0]["data"][0])


def turnout(server: Server, verb: str, *words: str) -> tuple[int, str]:
    """One verb of the command line at a running server: its exit code and what it printed."""
    command = [
        sys.executable,
        "-m",
        "turnout.entrypoints.cli",
        verb,
        *words,
        "--url",
        f"http://127.0.0.1:{server.port}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


def status(server: Server, name: str = "m") -> dict[str, Any]:
    """What `turnout status` knows of one model."""
    code, text = turnout(server, "status", "--output", "json")
    assert code == 0, text
    found: dict[str, Any] = next(one for one in json.loads(text)["models"] if one["name"] == name)
    return found


def states(server: Server, name: str = "m") -> dict[str, str]:
    """Versions with their states."""
    return {version["version"]: version["state"] for version in status(server, name)["versions"]}


class Asking:
    """Asks all the time, and keeps every answer: `with` it, versions come and go."""

    def __init__(self, server: Server) -> None:
        self.seen: list[int] = []
        #: By caller: of two that ask at once, the one that was answered first may be the last to say so.
        self.each: list[list[int]] = [[], []]
        self.problems: list[str] = []
        self._server = server
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(seen,)) for seen in self.each]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *ended: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, own: list[int]) -> None:
        while not self._stop.is_set():
            try:
                own.append(answer(self._server))
                self.seen.append(own[-1])
            except (AssertionError, OSError) as problem:
                self.problems.append(repr(problem)[:300])
