"""Models made to be put on trial: they answer with what can be checked, and misbehave when a row tells them to."""

from __future__ import annotations

import enum
import math
import os
import sys
import time

import numpy as np

from turnout.core.errors import InvalidInput
from turnout.core.messages import Context, InferRequest
from turnout.core.signature import Signature, TensorSpec
from turnout.core.tensors import Array, Tensors, bytes_array


class Act(enum.IntEnum):
    """What a row can tell `Trial` to do by its nonce; it does so to the whole batch that holds the row."""

    RAISE = -1
    REFUSE = -2
    EXIT = -3
    FEWER_ROWS = -4
    OTHER_TYPE = -5
    OTHER_SHAPE = -6
    NO_OUTPUT = -7
    NO_MAPPING = -8
    DIE = -9
    HANG = -10
    SLOW = -11


class Trial:
    """Doubles `x`, gives `nonce` and `text` back, and says how often it was called and with how many rows."""

    signature = Signature(
        (
            TensorSpec("nonce", "INT64", (-1,)),
            TensorSpec("x", "FP32", (-1, -1)),
            TensorSpec("text", "BYTES", (-1,), text=False, optional=True),
        ),
        (
            TensorSpec("nonce", "INT64", (-1,)),
            TensorSpec("y", "FP32", (-1, -1)),
            TensorSpec("text", "BYTES", (-1,), text=False),
            TensorSpec("calls", "INT64", (-1,)),
            TensorSpec("rows", "INT64", (-1,)),
        ),
    )

    def __init__(self) -> None:
        self.calls = 0

    def predict(self, inputs: Tensors) -> Tensors:
        """The honest answer, or what the lowest nonce asks for."""
        self.calls += 1
        nonce, x = inputs["nonce"], inputs["x"]
        rows = len(nonce)
        text = inputs["text"] if "text" in inputs else bytes_array([b"none"] * rows, (rows,))
        outputs: dict[str, Array] = {
            "nonce": nonce,
            "y": x * np.float32(2),
            "text": text,
            "calls": np.full(rows, self.calls),
            "rows": np.full(rows, rows),
        }
        asked = int(nonce.min()) if rows else 0
        return outputs if asked >= 0 else _act(Act(asked), outputs)


def _act(act: Act, outputs: dict[str, Array]) -> Tensors:
    if act is Act.RAISE:
        raise ValueError("a row of this batch cannot be predicted: /secret/path.py")
    if act is Act.REFUSE:
        raise InvalidInput("this row is refused", field="inputs.nonce", got="-2")
    if act is Act.EXIT:
        sys.exit(3)
    if act is Act.DIE:
        os._exit(13)
    if act is Act.HANG:
        time.sleep(3600)
    if act is Act.SLOW:
        time.sleep(0.3)
    if act is Act.FEWER_ROWS:
        outputs["y"] = outputs["y"][:-1]
    if act is Act.OTHER_TYPE:
        outputs["y"] = outputs["y"].astype(np.complex64)
    if act is Act.OTHER_SHAPE:
        outputs["y"] = outputs["y"][..., None]
    if act is Act.NO_OUTPUT:
        del outputs["y"]
    if act is Act.NO_MAPPING:
        return [outputs["y"]]  # type: ignore[return-value]  # that is what it is about
    return outputs


class Unbatched:
    """The sum of a whole vector: two requests cannot be joined."""

    signature = Signature((TensorSpec("x", "FP64", (-1,)),), (TensorSpec("total", "FP64", ()),), batched=False)

    def predict(self, inputs: Tensors) -> Tensors:
        """The sum."""
        return {"total": np.asarray(inputs["x"].sum())}


class FixedBatch:
    """Takes four rows and no other number."""

    signature = Signature((TensorSpec("x", "FP32", (4, 2)),), (TensorSpec("y", "FP32", (4, 2)),))

    def predict(self, inputs: Tensors) -> Tensors:
        """The rows plus one. Raises ValueError for another number of rows."""
        if inputs["x"].shape != (4, 2):
            raise ValueError(f"four rows, not {inputs['x'].shape}")
        return {"y": inputs["x"] + np.float32(1)}


def trial_inputs(nonces: list[int], width: int = 3, *, text: bool = False) -> dict[str, Array]:
    """Inputs for `Trial`: a row for each nonce, which decides what is in it."""
    nonce = np.array(nonces, dtype=np.int64)
    x = (nonce[:, None] * np.float32(0.5) + np.arange(width, dtype=np.float32)).astype(np.float32)
    found: dict[str, Array] = {"nonce": nonce, "x": x}
    if text:
        found["text"] = bytes_array([b"%d\x00\xff" % n for n in nonces], (len(nonces),))
    return found


def check_trial(inputs: Tensors, outputs: Tensors) -> None:
    """Raises AssertionError where outputs are not `Trial`'s answer to these very inputs."""
    assert outputs["nonce"].tolist() == inputs["nonce"].tolist(), "somebody else's answer"
    assert outputs["y"].dtype == np.float32
    assert outputs["y"].shape == inputs["x"].shape
    assert np.array_equal(outputs["y"], inputs["x"] * np.float32(2), equal_nan=True)
    texts = inputs["text"].tolist() if "text" in inputs else [b"none"] * len(inputs["nonce"])
    assert outputs["text"].tolist() == texts


def request(inputs: Tensors, deadline: float = math.inf, rows: int | None = None) -> InferRequest:
    """A request as a door would make it; `deadline` in monotonic seconds."""
    count = len(next(iter(inputs.values()))) if rows is None else rows
    return InferRequest("trial", inputs, count, Context(deadline=deadline))
