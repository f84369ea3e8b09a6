"""What nodes have counted is in the metrics, with labels that only a spec can choose."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import numpy as np
import pytest

from turnout.core.errors import Failure, ModelFailed, RateLimited
from turnout.core.messages import Context, InferRequest, InferResponse, Journey
from turnout.core.signature import Signature, TensorSpec
from turnout.deploy.build import build_version
from turnout.deploy.live import LiveVersion
from turnout.deploy.memories import Memories
from turnout.deploy.samples import router_samples, samples
from turnout.deploy.version import VersionSpec
from turnout.graph.allocation import allocate
from turnout.graph.cache import Cache, CacheMemory, CachePolicy
from turnout.graph.cascade import CascadeMemory
from turnout.graph.circuit_breaker import Circuit, CircuitBreaker, CircuitBreakerPolicy
from turnout.graph.endpoint import Endpoint, EndpointCounts
from turnout.graph.evidence import Evidence
from turnout.graph.fallback import Fallback, FallbackMemory
from turnout.graph.limits import Limits, LimitsMemory, LimitsPolicy
from turnout.graph.retry import Retry, RetryBudget
from turnout.graph.shadow import Shadow, ShadowPolicy, ShadowState
from turnout.graph.split import Split, SplitState
from turnout.monitoring.families import FAMILIES
from turnout.monitoring.metrics import Metrics

SIGNATURE = Signature((TensorSpec("x", "FP64", (-1,)),), (TensorSpec("y", "FP64", (-1,)),))


class Version:
    """Answers, or fails for inputs below 0."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def infer(self, request: InferRequest) -> InferResponse:
        if request.inputs["x"][0] < 0:
            raise ModelFailed("ValueError")
        return InferResponse({"y": request.inputs["x"]}, "fraud", self.name, batch_rows=1)


class Tree:
    """A tree as an endpoint has it, and its memories under their keys."""

    def __init__(self) -> None:
        breaker, retry = CircuitBreakerPolicy(failures=2), RetryBudget()
        self.memories: dict[tuple[str, ...], Any] = {
            ("endpoint",): EndpointCounts(),
            ("limits",): LimitsMemory(),
            ("fallback",): FallbackMemory(),
            ("shadow",): ShadowState(),
            ("split",): SplitState(),
            ("circuit_breaker", "fraud@v8"): Circuit(),
            ("retry", "fraud@v8~12"): retry,
            ("cache", "v8"): CacheMemory(),
            ("numberless",): object(),
        }
        found = self.memories
        cache = Cache(Version("v8"), CachePolicy(), found["cache", "v8"], digest="sha256:88")
        arm = CircuitBreaker(Retry(cache, memory=retry), breaker, found["circuit_breaker", "fraud@v8"])
        arms = {"v8": arm, "v7": Version("v7")}
        evidence = {name: Evidence() for name in arms}
        split = Split("fraud", arms, allocate({"v8": 100}), evidence, state=found[("split",)])
        shadow = Shadow(split, {"v7": (arms["v7"], ShadowPolicy(percent=100.0))}, found[("shadow",)], SIGNATURE)
        fallback = Fallback({"v8": shadow, "v7": Version("v7")}, memory=found[("fallback",)])
        limits = Limits(fallback, LimitsPolicy(rate=0.001, burst=5), found[("limits",)])
        versions = {"v7": "sha256:77", "v8": "sha256:88"}
        self.root = Endpoint("fraud", limits, versions=versions, counts=found[("endpoint",)], evidence=evidence)

    async def ask(self, *values: float) -> None:
        for value in values:
            journey = Journey()
            request = InferRequest("fraud", {"x": np.array([value])}, 1, Context("", math.inf, journey=journey))
            try:
                await self.root.infer(request)
            except Failure as failure:
                assert isinstance(failure, RateLimited | ModelFailed)  # noqa: PT017  one of many requests
            for _ in range(20):
                await asyncio.sleep(0)


@pytest.fixture
def found() -> dict[tuple[str, ...], float]:
    """The samples after three equal requests that go well, two that no version can answer, and one over the limit."""
    tree = Tree()
    asyncio.run(tree.ask(1.0, 1.0, 1.0, -1.0, -1.0, 2.0))
    return {(one.name.removeprefix("turnout_"), *one.labels): one.value for one in samples("fraud", tree.memories)}


def test_every_node_tells_what_it_counted(found: dict[tuple[str, ...], float]) -> None:
    wanted = {
        ("endpoint_requests_total", "fraud", "v8", "answered"): 3,
        ("endpoint_requests_total", "fraud", "", "RESOURCE_EXHAUSTED"): 1,
        ("fallback_failures_total", "fraud", "error"): 2,
        ("circuit_breaker_state", "fraud", "v8", "open"): 1,
        ("circuit_breaker_state", "fraud", "v8", "closed"): 0,
        ("circuit_breaker_opened_total", "fraud", "v8"): 1,
        ("retries_total", "fraud", "v8"): 0,
        ("limits_active", "fraud"): 0,
        ("limits_refused_total", "fraud"): 1,
        ("cache_requests_total", "fraud", "v8", "hit"): 2,
        ("cache_requests_total", "fraud", "v8", "miss"): 3,
        ("cache_answers", "fraud", "v8"): 1,
        ("shadow_pairs_total", "fraud", "v8", "v7"): 3,
        ("split_choices_total", "fraud", "random"): 0,
    }
    assert {key: found.get(key) for key in wanted} == wanted
    assert found["cache_bytes", "fraud", "v8"] > 0


def test_a_cascade_is_told_by_its_steps() -> None:
    memory = CascadeMemory()
    memory.rows.update({"small": 7, "large": 3})
    memory.unsure = 2
    found = {(one.name, *one.labels): one.value for one in samples("fraud", {("cascade", "careful"): memory})}
    assert found == {
        ("turnout_cascade_rows_total", "fraud", "careful", "small"): 7,
        ("turnout_cascade_rows_total", "fraud", "careful", "large"): 3,
        ("turnout_cascade_unsure_rows_total", "fraud", "careful"): 2,
    }


def test_a_fallback_is_told_with_both_versions() -> None:
    counts = EndpointCounts()
    counts.kind("v8", "v7", "timeout", "degraded").count += 2
    counts.kind("v8", "default", "error", "degraded").count += 1
    found = {(one.name, *one.labels): one.value for one in samples("fraud", {("endpoint",): counts})}
    assert found["turnout_fallback_total", "fraud", "v8", "v7", "timeout"] == 2
    assert found["turnout_fallback_total", "fraud", "v8", "default", "error"] == 1


def test_samples_are_of_families_with_their_labels() -> None:
    tree = Tree()
    asyncio.run(tree.ask(1.0, -1.0))
    metrics = Metrics()
    metrics.add_source(lambda: samples("fraud", tree.memories))
    taken = metrics.snapshot()
    ((_, (failures,)),) = taken["turnout_metrics_failures_total"]
    assert failures == 0
    for one in samples("fraud", tree.memories):
        assert len(one.labels) == len(FAMILIES[one.name].labels), one
    degraded = [
        values for labels, values in taken["turnout_endpoint_requests_total"] if labels[1:] == ["v8", "answered"]
    ]
    assert sum(sum(one) for one in degraded) == 1


def test_a_router_tells_of_its_endpoints_and_of_versions_without_one() -> None:
    tree = Tree()
    asyncio.run(tree.ask(1.0))
    memories = Memories()
    memories.begin("fraud")
    for key, memory in tree.memories.items():
        memories.of(lambda memory=memory: memory, *key)
    memories.end()

    async def alone() -> LiveVersion:
        built = build_version(VersionSpec("iris", "iris.onnx", "7"), SIGNATURE, "onnx")
        built.servable.counts.kind("7", "7", "", "answered").count += 5  # type: ignore[attr-defined]  # an Endpoint
        return built

    found = {
        tuple(one.labels): one.value
        for one in router_samples([asyncio.run(alone())], ["fraud", "gone"], memories)
        if one.name == "turnout_endpoint_requests_total"
    }
    assert found == {("iris", "7", "answered"): 5, ("fraud", "v8", "answered"): 1}
