"""Servables that do what they are told, a clock that is turned by hand, and doors' attributes made of dictionaries."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Mapping
from time import monotonic
from typing import Any

import numpy as np

from turnout.core.errors import Failure
from turnout.core.messages import Context, InferRequest, InferResponse, Journey
from turnout.core.signature import Signature, TensorSpec
from turnout.entrypoints.call import Call, Deadlines

SIGNATURE = Signature(
    (TensorSpec("x", "FP32", (-1, 2), columns=("age", "income")),),
    (TensorSpec("score", "FP32", (-1,)), TensorSpec("label", "BYTES", (-1,))),
)


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Answers:
    """Does one thing after the other; the last one again and again. A float is a pause, then the answer follows."""

    def __init__(self, *acts: Any, version: str = "1", score: float = 0.5) -> None:
        self.acts = list(acts)
        self.version = version
        self.score = score
        self.requests: list[InferRequest] = []
        self.cancelled = 0

    def __repr__(self) -> str:
        return f"Answers({self.version})"

    async def infer(self, request: InferRequest) -> InferResponse:
        self.requests.append(request)
        act = (self.acts.pop(0) if len(self.acts) > 1 else self.acts[0]) if self.acts else None
        try:
            if isinstance(act, asyncio.Event):
                await act.wait()
            elif isinstance(act, float):
                await asyncio.sleep(act)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if isinstance(act, Exception):
            raise act
        if callable(act):
            return act(request)  # type: ignore[no-any-return]
        return self.answer(request.rows)

    def answer(self, rows: int = 1) -> InferResponse:
        outputs = {
            "score": np.full(rows, self.score, dtype=np.float32),
            "label": np.array([b"yes"] * rows, dtype=object),
        }
        return InferResponse(outputs, "m", self.version, batch_rows=rows)


class Said:
    """What a door knows of a request beside its message."""

    def __init__(
        self,
        headers: Mapping[str, str] | None = None,
        cookies: Mapping[str, str] | None = None,
        arguments: Mapping[str, str] | None = None,
    ) -> None:
        self.headers, self.cookies, self.arguments = headers or {}, cookies or {}, arguments or {}

    def header(self, name: str) -> str | None:
        return self.headers.get(name)

    def cookie(self, name: str) -> str | None:
        return self.cookies.get(name)

    def argument(self, name: str) -> str | None:
        return self.arguments.get(name)


def asking(
    *values: float,
    within: float = math.inf,
    headers: Mapping[str, str] | None = None,
    caller: str = "",
    journey: Journey | None = None,
    outputs: tuple[str, ...] = (),
    parameters: Mapping[str, Any] | None = None,
) -> InferRequest:
    """A request of one row for each value; `within` seconds from now."""
    x = np.array([[value, 0.0] for value in values or (1.0,)], dtype=np.float32)
    context = Context("r", monotonic() + within, "v2", caller, Said(headers), journey)
    return InferRequest("m", {"x": x}, len(x), context, "", outputs, parameters or {})


async def driven(servable: Any, request: InferRequest, deadlines: Deadlines | None = None) -> InferResponse:
    """One call driven as the doors do it: without a task, ended at its deadline. Raises what `infer` raises."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[InferResponse] = loop.create_future()

    def done(response: InferResponse | None, problem: BaseException | None) -> None:
        if problem is not None:
            ended.set_exception(problem)
        elif response is not None:
            ended.set_result(response)

    call = Call(servable.infer(request), done)
    call.step()
    if not call.over and request.context.deadline < math.inf:
        (deadlines or Deadlines(loop)).add(call, request.context.deadline)
    return await ended


def run(main: Callable[[], Coroutine[Any, Any, None]], seconds: float = 20.0) -> None:
    """Runs it, and shows that nothing it started is left."""

    async def bounded() -> None:
        async with asyncio.timeout(seconds):
            await main()
            me = asyncio.current_task()
            for _ in range(20):
                left = [task for task in asyncio.all_tasks() if task is not me]
                if not left:
                    return
                await asyncio.sleep(0.01)
            raise AssertionError(f"left running: {left}")

    asyncio.run(bounded())


async def failing(servable: Any, request: InferRequest) -> Failure:
    """The failure of one call."""
    try:
        response = await driven(servable, request)
    except Failure as failure:
        return failure
    raise AssertionError(f"it answered: {response}")
