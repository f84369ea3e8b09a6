"""What the tests of both doors' lanes need: one model, places for it, and transports that are no sockets."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.http.tiny import Kept
from turnout.core.errors import InvalidInput, ModelNotFound
from turnout.core.signature import Signature, TensorSpec
from turnout.core.tensors import Tensors
from turnout.deploy.build import build_version
from turnout.deploy.live import LiveVersion
from turnout.deploy.version import VersionSpec
from turnout.runtime.batch import Batch
from turnout.runtime.batch_policy import BatchPolicy
from turnout.runtime.predict import Outcome
from turnout.runtime.replica import Inline

FLOATS = Signature(
    (TensorSpec("x", "FP32", (-1, 4)),), (TensorSpec("y", "FP32", (-1, 3)), TensorSpec("z", "FP64", (-1,)))
)


class Sums:
    """Outputs that tell every input apart; odd inputs ask for odd behaviour."""

    def __init__(self, signature: Signature) -> None:
        self.signature = signature

    def predict(self, inputs: Tensors) -> Tensors:
        (x,) = inputs.values()
        flat = x.reshape(len(x), -1)
        if (flat[:, 0] == 666).any():
            raise ValueError("what the model says to nobody")
        if (flat[:, 0] == 13).any():
            raise InvalidInput("an unlucky number", field="inputs.x")
        made = {}
        for spec in self.signature.outputs:
            shape = (len(x), *spec.shape[1:])
            width = math.prod(shape[1:])
            made[spec.name] = np.tile(flat, (1, width))[:, :width].astype(spec.dtype).reshape(shape)
        return made


class Held:
    """A place that answers when it is told to."""

    name, free, busy_since = "held", 1, 0.0

    def __init__(self, version: LiveVersion) -> None:
        self.version = version
        self.batches: list[Batch] = []

    def inside(self) -> Sequence[Batch]:
        return tuple(self.batches)

    def run(self, batch: Batch) -> None:
        self.batches.append(batch)
        self.free = 0

    def close(self) -> None:
        """Holds nothing."""

    def answer(self, *failures: Any, twin: str = "") -> None:
        rows = [item.inputs["x"] for item in self.batches[-1].items]
        self.end(Outcome(Sums(FLOATS).predict({"x": np.concatenate(rows)}), failures, 0.001, (), twin))

    def end(self, outcome: Outcome) -> None:
        batch = self.batches.pop()
        self.free = 1
        self.version.batching.done(self, batch, outcome)


class Wire(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing is ever full."""

    def get_write_buffer_size(self) -> int:
        return 0

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        """Nothing comes by itself."""

    def resume_reading(self) -> None:
        """Nothing comes by itself."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("10.1.2.3", 4) if name == "peername" else default


class Only:
    """One model, which may be changed."""

    ready = True

    def __init__(self, model: LiveVersion | None) -> None:
        self.model = model

    def models(self) -> list[LiveVersion]:
        return [self.model] if self.model else []

    def find(self, name: str, version: str = "") -> LiveVersion:
        if self.model is None or name != self.model.name or version not in ("", self.model.version):
            raise ModelNotFound(f"there is no model {name!r} here")
        return self.model


class Rooms:
    """One model with a place for it, and the records of who asked it."""

    def __init__(self, signature: Signature = FLOATS, *, held: bool = False, policy: BatchPolicy | None = None) -> None:
        self.records = Kept()
        self.version = self.made(signature, "1", policy)
        self.serving = Only(self.version)
        self.place: Any = Held(self.version) if held else Inline("m", Sums(signature), self.version.batching.done)
        self.version.batching.add_place(self.place)

    @staticmethod
    def made(signature: Signature, version: str, policy: BatchPolicy | None = None) -> LiveVersion:
        spec = VersionSpec("m", "m.onnx", version, digest="sha256:ab", batching=policy or BatchPolicy())
        return build_version(spec, signature, "onnx")


async def passes(count: int = 4) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def record_of(record: Any) -> tuple[Any, ...]:
    """A record without its times and its id."""
    fields = record._replace(decode=0, queue=0, predict=0, encode=0, total=0, prediction_id=bool(record.prediction_id))
    return tuple(fields)
