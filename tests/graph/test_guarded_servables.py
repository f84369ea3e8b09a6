"""The shipped conformance suite over the nodes that guard a version, each over real batching."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.graph.steps import Answers
from tests.runtime.places import PLACES, batched
from turnout.core.servable import Servable
from turnout.core.signature import Signature
from turnout.graph.cache import Cache, CachePolicy
from turnout.graph.circuit_breaker import CircuitBreaker, CircuitBreakerPolicy
from turnout.graph.fallback import Fallback
from turnout.graph.fallback_policy import FallbackPolicy
from turnout.graph.limits import Limit, Limits, LimitsPolicy
from turnout.graph.outputs import OutputCheck, OutputsPolicy
from turnout.graph.retry import Retry, RetryPolicy
from turnout.graph.tree import Node, tree
from turnout.testing.servables import SERVABLE_CHECKS, Check

Wrap = Callable[[Any, Signature], Servable]
PATIENT = CircuitBreakerPolicy(failures=10_000, ratio=0.0)


def whole(child: Any, signature: Signature) -> Servable:
    """All of them, as an endpoint's arm and its fallback are built."""
    arm = CircuitBreaker(Retry(OutputCheck(Cache(child, CachePolicy(), digest="d"), NAN, signature)), PATIENT)
    fallback = Fallback({"primary": arm, "again": child}, FallbackPolicy(hedge=0.5, timeout=20.0))
    return Limits(fallback, LimitsPolicy(concurrency=10_000))


NAN = OutputsPolicy(finite=False)
NODES: dict[str, Wrap] = {
    "outputs": lambda child, signature: OutputCheck(child, NAN, signature),
    "circuit breaker": lambda child, signature: CircuitBreaker(child, PATIENT),
    "retry": lambda child, signature: Retry(child, RetryPolicy(attempts=3, model_failures=True)),
    "limits": lambda child, signature: Limits(
        child, LimitsPolicy(concurrency=10_000, per_caller=Limit(rate=1e6, burst=1e6, count="rows"))
    ),
    "cache": lambda child, signature: Cache(child, CachePolicy(), digest="d"),
    "fallback": lambda child, signature: Fallback({"primary": child, "again": child}),
    "fallback with a bound": lambda child, signature: Fallback(
        {"primary": child, "again": child}, FallbackPolicy(timeout=20.0)
    ),
    "hedged": lambda child, signature: Fallback(
        {"primary": child, "again": child}, FallbackPolicy(timeout=20.0, hedge=0.5)
    ),
    "all": whole,
}


def over(wrap: Wrap) -> Any:
    make_batching = batched([PLACES["thread-memory"]])

    @asynccontextmanager
    async def make(model: type[Any]) -> AsyncIterator[Servable]:
        async with make_batching(model) as batching:
            yield wrap(batching, model.signature)

    return make


@pytest.mark.parametrize("check", SERVABLE_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", NODES)
def test_node(name: str, check: Check) -> None:
    asyncio.run(check(over(NODES[name])))


def test_each_says_what_it_is_in_one_line() -> None:
    signature = Signature((), ())
    for name, wrap in NODES.items():
        leaf = Answers()
        node = wrap(leaf, signature)
        assert isinstance(node, Node), name
        lines = list(tree(node))
        assert len(lines) >= 2, name
        assert lines[-1].endswith("Answers(1)")
        assert not [line for line in lines if "\n" in line or "object at" in line], name
