"""What an endpoint's nodes have counted, as samples for the metrics, read when somebody scrapes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from turnout.deploy.live import LiveVersion
from turnout.deploy.memories import Memories
from turnout.graph.cache import CacheMemory
from turnout.graph.cascade import CascadeMemory
from turnout.graph.circuit_breaker import Circuit
from turnout.graph.endpoint import Endpoint, EndpointCounts
from turnout.graph.fallback import FallbackMemory
from turnout.graph.limits import LimitsMemory
from turnout.graph.retry import RetryBudget
from turnout.graph.shadow import ShadowState
from turnout.graph.split import SplitState
from turnout.monitoring.families import Sample
from turnout.runtime.outlier import Outliers

Samples = Iterator[Sample]
_GENERATION = re.compile(r"~[0-9]+$")
_STATES = ("closed", "open", "half-open")


def router_samples(versions: Iterable[LiveVersion], endpoints: Iterable[str], memories: Memories) -> Samples:
    """What waits for each version in one router, and what its endpoints have counted."""
    for version in versions:
        labels, batching = (version.name, version.version), version.batching
        yield Sample("turnout_queue_rows", labels, batching.waiting.rows)
        yield Sample("turnout_queue_bytes", labels, batching.waiting.nbytes)
        yield Sample("turnout_queue_requests", labels, len(batching.waiting))
        yield Sample("turnout_model_ready", labels, float(bool(batching.places)))
        yield from _outliers(labels, batching.replicas.outliers)
        if isinstance(version.servable, Endpoint):
            yield from _endpoint((version.name, ""), version.servable.counts)
    for endpoint in endpoints:
        yield from samples(endpoint, memories.kept(endpoint))


def worker_samples(workers: Iterable[tuple[str, str, str, str, int, int]]) -> Samples:
    """The state of workers, each as (model, version, worker, state, restarts, bytes of memory)."""
    for model, number, worker, state, restarts, memory in workers:
        labels = (model, number, worker)
        yield Sample("turnout_worker_state", (*labels, state), 1)
        yield Sample("turnout_worker_restarts_total", labels, restarts)
        yield Sample("turnout_worker_memory_bytes", labels, memory)


def samples(endpoint: str, memories: Mapping[tuple[str, ...], Any]) -> Samples:
    """The samples of everything that an endpoint's nodes remember; what has no numbers gives none.

    A memory's key ends with the uid of the version that its node belongs to, where it belongs to one.
    """
    for key, memory in memories.items():
        read = _READERS.get(type(memory))
        if read is not None:
            yield from read((endpoint, _variant(endpoint, key[-1]) if len(key) > 1 else ""), memory)


def _variant(endpoint: str, uid: str) -> str:
    """The version's name in a uid, which has the endpoint before it and its generation behind it."""
    return _GENERATION.sub("", uid.removeprefix(f"{endpoint}@"))


def _endpoint(labels: tuple[str, str], counts: EndpointCounts) -> Samples:
    name = labels[0]
    for kind in counts.all():
        if not kind.count:
            continue
        yield Sample("turnout_endpoint_requests_total", (name, kind.variant, kind.outcome), kind.count)
        if kind.outcome == "degraded":
            yield Sample("turnout_fallback_total", (name, kind.variant, kind.version, kind.degraded), kind.count)


def _fallback(labels: tuple[str, str], memory: FallbackMemory) -> Samples:
    name = labels[0]
    for (step, reason), count in list(memory.answers.items()):
        if not step:
            yield Sample("turnout_fallback_failures_total", (name, reason), count)
    yield Sample("turnout_fallback_hedges_total", (name,), memory.hedges)
    yield Sample("turnout_fallback_hedges_used_total", (name,), memory.hedged)
    for step, count in list(memory.drills.items()):
        yield Sample("turnout_fallback_drills_total", (name, step), count)


def _split(labels: tuple[str, str], state: SplitState) -> Samples:
    for kind, count in state.to_json().items():
        yield Sample("turnout_split_choices_total", (labels[0], kind), count)


def _circuit(labels: tuple[str, str], circuit: Circuit) -> Samples:
    for state in _STATES:
        yield Sample("turnout_circuit_breaker_state", (*labels, state), float(circuit.state == state))
    yield Sample("turnout_circuit_breaker_opened_total", labels, circuit.opened)


def _retry(labels: tuple[str, str], budget: RetryBudget) -> Samples:
    yield Sample("turnout_retries_total", labels, budget.retries)
    yield Sample("turnout_retries_refused_total", labels, budget.refused)


def _cascade(labels: tuple[str, str], memory: CascadeMemory) -> Samples:
    for step, rows in list(memory.rows.items()):
        yield Sample("turnout_cascade_rows_total", (*labels, step), rows)
    yield Sample("turnout_cascade_unsure_rows_total", labels, memory.unsure)


def _outliers(labels: tuple[str, str], outliers: Outliers) -> Samples:
    yield Sample("turnout_replicas_ejected", labels, outliers.out)
    yield Sample("turnout_replica_ejections_total", labels, outliers.ejections)


def _limits(labels: tuple[str, str], memory: LimitsMemory) -> Samples:
    yield Sample("turnout_limits_active", labels[:1], memory.all.active)
    yield Sample("turnout_limits_refused_total", labels[:1], memory.refused)


def _cache(labels: tuple[str, str], memory: CacheMemory) -> Samples:
    joined = memory.joined
    counts = {"hit": memory.hits, "stale": memory.stale, "joined": joined, "miss": max(0, memory.misses - joined)}
    for outcome, count in counts.items():
        yield Sample("turnout_cache_requests_total", (*labels, outcome), count)
    yield Sample("turnout_cache_answers", labels, len(memory.entries))
    yield Sample("turnout_cache_bytes", labels, memory.nbytes)


def _shadow(labels: tuple[str, str], state: ShadowState) -> Samples:
    name = labels[0]
    for shadow, counts in list(state.record.counts.items()):
        said = counts.to_json()
        for outcome in ("answered", "failed", "left", "skipped"):
            yield Sample("turnout_shadow_requests_total", (name, shadow, outcome), said[outcome])
        yield Sample("turnout_shadow_requests_total", (name, shadow, "dropped"), said["busy"])
    for (primary, shadow), pairs in list(state.record.pairs.items()):
        yield Sample("turnout_shadow_pairs_total", (name, primary, shadow), pairs.requests)


_READERS: Mapping[type, Callable[[tuple[str, str], Any], Samples]] = {
    EndpointCounts: _endpoint,
    FallbackMemory: _fallback,
    SplitState: _split,
    Circuit: _circuit,
    RetryBudget: _retry,
    CascadeMemory: _cascade,
    LimitsMemory: _limits,
    CacheMemory: _cache,
    ShadowState: _shadow,
}
