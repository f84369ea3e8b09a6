"""A model whose rows say how it is to break; it runs in a worker of its own."""

from __future__ import annotations

import enum
import os
import resource
import time

import numpy as np

from turnout.core.signature import Signature, TensorSpec
from turnout.core.tensors import Tensors

#: What a usual row takes (seconds).
SECONDS = 0.005
_ADDRESS_SPACE = 4 << 30


class How(enum.IntEnum):
    """What a row asks for."""

    WELL = 0
    CRASH = 1
    HANG = 2
    SLOW = 3
    NAN = 4
    SHAPE = 5
    OUT_OF_MEMORY = 6


class Faulty:
    """The score is a tenth of the first column; the second one says how to break."""

    signature = Signature(
        (TensorSpec("x", "FP64", (-1, 2)),), (TensorSpec("score", "FP64", (-1,)), TensorSpec("calls", "INT64", (-1,)))
    )

    def __init__(self) -> None:
        self.calls = 0

    def predict(self, inputs: Tensors) -> Tensors:
        """The score, or what the worst row asks for."""
        self.calls += 1
        x = inputs["x"]
        score = x[:, 0] / 10
        how = How(int(x[:, 1].max()))
        time.sleep(SECONDS)
        if how is How.CRASH:
            os._exit(9)
        if how is How.HANG:
            time.sleep(3600)
        if how is How.SLOW:
            time.sleep(19 * SECONDS)
        if how is How.NAN:
            score = score * np.nan
        if how is How.SHAPE:
            score = score[:, None]
        if how is How.OUT_OF_MEMORY:
            resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, resource.RLIM_INFINITY))  # 128 GiB are refused
            np.ones(1 << 34)
        return {"score": score, "calls": np.full(len(x), self.calls)}
