"""Doubles its rows, and does what column 1 of any row says to the whole batch."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from types import MappingProxyType

import numpy as np

RAISE, WRONG_ROWS, WRONG_SHAPE, WRONG_NAME, NAN, GARBAGE, HANG, EXIT, SEGFAULT, OOM, FORK, SLOW, SYS_EXIT, ABORT = (
    range(1, 15)
)
BASE = float(os.environ.get("TRIAL_BASE_SECONDS", "0"))
ROW = float(os.environ.get("TRIAL_ROW_SECONDS", "0"))


class Model:
    """x[:, 0] is a nonce, x[:, 1] what to do."""

    example = MappingProxyType({"x": np.zeros((1, 2))})

    def __init__(self) -> None:
        self.calls = 0
        self.rows = 0

    def predict(self, inputs: dict) -> dict:
        x = inputs["x"]
        self.calls += 1
        self.rows += len(x)
        if BASE or ROW:
            time.sleep(BASE + ROW * len(x))
        y = x[:, 0] * 2.0
        out = {"y": y, "calls": np.full(len(x), self.calls), "rows": np.full(len(x), self.rows)}
        act = int(x[:, 1].max())
        if act:
            misbehave(act, out)
        return out


def misbehave(act: int, out: dict) -> None:
    if act == RAISE:
        raise ValueError(f"bad row in {__file__}")
    if act == WRONG_ROWS:
        out["y"] = out["y"][:-1]
    if act == WRONG_SHAPE:
        out["y"] = out["y"][:, None]
    if act == WRONG_NAME:
        out["z"] = out.pop("y")
    if act == NAN:
        out["y"] = out["y"] * np.nan
    if act == GARBAGE:
        os.write(1, b"\x00\xff garbage \xfe\n" * 1000)
        os.write(2, b"\x00\xff garbage \xfe\n" * 1000)
        sys.stdout.write("garbage\n")
    if act == HANG:
        while True:
            time.sleep(60)
    if act == EXIT:
        os._exit(7)
    if act == SEGFAULT:
        ctypes.string_at(8)
    if act == OOM:
        np.ones(1 << 34)  # 128 GiB: refused by RLIMIT_AS, set by whoever starts the server
    if act == FORK:
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], close_fds=False)
        if os.fork() == 0:
            time.sleep(600)
            os._exit(0)
    if act == SLOW:
        time.sleep(0.4)
    if act == SYS_EXIT:
        sys.exit(5)
    if act == ABORT:
        threading.Thread(target=lambda: os.kill(os.getpid(), signal.SIGABRT)).start()
        time.sleep(5)
