"""Parts of ensembles and cascades: functions of their inputs that may be slow, hang or fail, and remember."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np

from turnout.core.messages import Context, InferRequest, InferResponse, Journey
from turnout.core.signature import Signature, TensorSpec
from turnout.core.tensors import Tensors
from turnout.graph.ensemble import Ensemble, EnsemblePolicy

#: One number a row in, one out.
ONE = Signature((TensorSpec("x", "FP64", (-1,)),), (TensorSpec("y", "FP64", (-1,)),))


class Part:
    """Answers after some seconds, or when `gate` is set; a failure instead where there is one."""

    def __init__(
        self, act: Callable[[Tensors], Tensors], seconds: float = 0.0, fails: BaseException | None = None
    ) -> None:
        self.act, self.seconds, self.fails = act, seconds, fails
        self.gate: asyncio.Event | None = None
        self.given: list[InferRequest] = []
        self.cancelled = 0
        self.degraded = ""

    async def infer(self, request: InferRequest) -> InferResponse:
        self.given.append(request)
        try:
            if self.gate is not None:
                await self.gate.wait()
            if self.seconds:
                await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.fails is not None:
            raise self.fails
        if self.degraded and request.context.journey is not None:
            request.context.journey.degraded = self.degraded
        return InferResponse(self.act(request.inputs), request.model, "1", queue_seconds=0.25, predict_seconds=0.5)


def times(factor: float, seconds: float = 0.0, fails: BaseException | None = None) -> Part:
    """Multiplies x."""
    return Part(lambda inputs: {"y": inputs["x"] * factor}, seconds, fails)


def hangs() -> Part:
    """Never answers."""
    return times(1.0, 3600.0)


def ensemble(
    said: Mapping[str, Any], parts: Mapping[str, Part], signatures: Mapping[str, Signature] | None = None
) -> Ensemble:
    """Of parts that all have the signature ONE, where nothing else is said."""
    policy = msgspec.convert(said, EnsemblePolicy)
    return Ensemble("both", policy, parts, signatures or dict.fromkeys(parts, ONE))


def asked(values: Any, deadline: float = float("inf"), journey: Journey | None = None, **more: Any) -> InferRequest:
    """A request for these rows."""
    x = np.asarray(values, float)
    return InferRequest("m", {"x": x}, len(x), Context("r", deadline, "v2", "somebody", None, journey), **more)


async def until(condition: Callable[[], object]) -> None:
    """Lets others go on until something is so; who waits for it has a bound of his own."""
    while not condition():  # noqa: ASYNC110  it is the parts themselves that are watched
        await asyncio.sleep(0)


def two(**more: Any) -> dict[str, Any]:
    """The mean of a hard and a soft member."""
    return {
        "steps": {"a": {"use": "f"}, "b": {"use": "g", "soft": True}},
        "outputs": {"y": {"combine": "mean", "of": ["a.y", "b.y"]}},
    } | more
