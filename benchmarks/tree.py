"""What each node of an endpoint's tree costs a request that goes well, in microseconds: `python -m benchmarks.tree`.

The coroutine is driven as the doors drive it, over a child that answers at once, and over one that is waited for once.
What is shown is the difference to that child alone, in processor time, the best of several rounds: a busy machine only
ever adds.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import timeit
from collections.abc import Callable, Mapping
from time import monotonic, thread_time
from typing import Any

import numpy as np

from turnout.core.messages import Context, InferRequest, InferResponse, Journey
from turnout.core.servable import Servable
from turnout.core.signature import Signature, TensorSpec
from turnout.entrypoints.call import Call
from turnout.graph.allocation import allocate
from turnout.graph.cache import Cache, CachePolicy
from turnout.graph.cascade import Cascade, CascadePolicy
from turnout.graph.circuit_breaker import CircuitBreaker
from turnout.graph.constant import Constant
from turnout.graph.endpoint import Endpoint
from turnout.graph.ensemble import Ensemble, EnsemblePolicy, StepPolicy
from turnout.graph.evidence import Evidence
from turnout.graph.fallback import Fallback
from turnout.graph.limits import Limit, Limits, LimitsPolicy
from turnout.graph.outputs import OutputCheck, OutputRange, OutputsPolicy
from turnout.graph.retry import Retry
from turnout.graph.split import Split
from turnout.runtime.reply import Reply

SIGNATURE = Signature((TensorSpec("x", "FP32", (-1, 4)),), (TensorSpec("score", "FP32", (-1,)),))
RESPONSE = InferResponse({"score": np.array([0.5], dtype=np.float32)}, "m", "1")
INPUTS = {"x": np.arange(4, dtype=np.float32).reshape(1, 4)}
ROUNDS, COUNT = 100, 1000


class AtOnce:
    """Answers without being waited for."""

    async def infer(self, request: InferRequest) -> InferResponse:
        return RESPONSE


class Waited:
    """Is waited for once, as a batch is."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.reply: Reply[InferResponse]

    async def infer(self, request: InferRequest) -> InferResponse:
        self.reply = Reply(self._loop)
        return await self.reply


def nodes(child: Servable) -> Mapping[str, Servable]:
    """Each node over the child, and those of a usual endpoint together."""
    finite = OutputsPolicy()
    ranged = OutputsPolicy(each={"score": OutputRange(min=0, max=1)})
    default = Constant({"score": 0.0}, SIGNATURE)
    rate = LimitsPolicy(concurrency=1000, rate=1e9, per_caller=Limit(rate=1e9))
    arm = CircuitBreaker(Retry(OutputCheck(child, finite, SIGNATURE)))
    shares = allocate({"v1": 90.0, "v2": 10.0})
    evidence = {name: Evidence() for name in ("v1", "v2")}
    split = Split("e", dict.fromkeys(evidence, child), shares, evidence)
    arms = {name: CircuitBreaker(child) for name in evidence}
    usual = Fallback({"primary": Split("e", arms, shares, evidence), "default": default})
    versions = dict.fromkeys(evidence, "")
    only = EnsemblePolicy(steps={"a": StepPolicy(use="v1")}, outputs={"score": "a.score"})
    sure = CascadePolicy(steps=("v1", "v2"), output="score", threshold=0.5)
    return {
        "Endpoint": Endpoint("e", child, versions=versions, revision=1),
        "Split, by chance": split,
        "Endpoint, Fallback, Split, CircuitBreaker": Endpoint("e", usual, versions=versions, revision=1),
        "OutputCheck, finite": OutputCheck(child, finite, SIGNATURE),
        "OutputCheck, finite and a range": OutputCheck(child, ranged, SIGNATURE),
        "Retry": Retry(child),
        "CircuitBreaker": CircuitBreaker(child),
        "Fallback, with a deadline": Fallback({"primary": child, "default": default}),
        "Limits, concurrency": Limits(child, LimitsPolicy(concurrency=1000)),
        "Limits, rate, and rate of each caller": Limits(child, rate),
        "Cache, a hit": Cache(AtOnce(), CachePolicy(ttl=1e6), digest="d"),
        "Ensemble of one step": Ensemble("both", only, {"v1": child}, {"v1": SIGNATURE}),
        "Cascade, all sure": Cascade("fast", sure, dict.fromkeys(evidence, child), dict.fromkeys(evidence, SIGNATURE)),
        "Fallback, CircuitBreaker": Fallback({"primary": CircuitBreaker(child), "default": default}),
        "Fallback, CircuitBreaker, Retry, OutputCheck": Fallback({"primary": arm, "default": default}),
    }


def runner(servable: Servable, child: Any) -> tuple[Callable[[], None], list[Any]]:
    """What asks for one answer, driven as by a door, and the problems that it has met."""
    asked = InferRequest("m", INPUTS, 1, Context("r-1", monotonic() + 1e6, "v2", "", None, Journey()))
    answers: list[Any] = []

    def done(response: InferResponse | None, problem: BaseException | None) -> None:
        if problem is not None:
            answers.append(problem)

    def once() -> None:
        Call(servable.infer(asked), done).step()

    def waited() -> None:
        Call(servable.infer(asked), done).step()
        child.reply.set_result(RESPONSE)

    run: Callable[[], None] = waited if isinstance(child, Waited) else once
    if isinstance(servable, Cache):
        run = once
    run()
    return run, answers


def microseconds(servable: Servable, child: Any) -> float:
    """The price of one request beyond the child's own; by turns, for a machine is not as fast now as a second ago."""
    runs = [runner(one, child) for one in (child, servable)]
    timers = [timeit.Timer(run, timer=thread_time) for run, _ in runs]
    rounds = [[timer.timeit(COUNT) for timer in timers] for _ in range(ROUNDS)]
    assert not any(problems for _, problems in runs), runs
    alone, node = (min(taken) / COUNT * 1e6 for taken in zip(*rounds, strict=True))
    return node if isinstance(servable, Cache) else max(0.0, node - alone)


async def measure() -> dict[str, dict[str, float]]:
    """Microseconds that each adds, by node and kind of child."""
    gc.disable()
    found: dict[str, dict[str, float]] = {}
    for kind, child in {"at once": AtOnce(), "waited for": Waited()}.items():
        for name, node in nodes(child).items():
            found.setdefault(name, {})[kind] = microseconds(node, child)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tree", description=__doc__)
    parser.add_argument("--json", action="store_true", help="as JSON")
    said = parser.parse_args()
    found = asyncio.run(measure())
    if said.json:
        print(json.dumps(found, indent=2))
        return
    print(f"{'us a request':46}{'at once':>12}{'waited for':>12}")
    for name, prices in found.items():
        print(f"{name:46}" + "".join(f"{prices[kind]:12.2f}" for kind in ("at once", "waited for")))


if __name__ == "__main__":
    main()
