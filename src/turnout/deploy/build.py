"""The one place that nests servables: read it from top to bottom, it is a request's way, inside out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from turnout.core.messages import InferRequest, InferResponse, Journey
from turnout.core.servable import Servable, ServedModel
from turnout.core.signature import Signature
from turnout.deploy.endpoint_spec import EndpointSpec, FallbackStep, VariantSpec
from turnout.deploy.graphs import in_order
from turnout.deploy.live import Live, LiveEndpoint, LiveVersion, Trees
from turnout.deploy.memories import Memories
from turnout.deploy.plan import Guide
from turnout.deploy.version import VersionSpec
from turnout.graph.allocation import Allocation, allocate
from turnout.graph.cache import Cache, CacheMemory
from turnout.graph.cascade import Cascade, CascadeMemory
from turnout.graph.circuit_breaker import Circuit, CircuitBreaker
from turnout.graph.constant import Constant
from turnout.graph.endpoint import Endpoint, EndpointCounts
from turnout.graph.ensemble import Ensemble
from turnout.graph.evidence import Evidence
from turnout.graph.fallback import Fallback, FallbackMemory
from turnout.graph.last_good import LastGood, LastGoodMemory
from turnout.graph.limits import Limits, LimitsMemory
from turnout.graph.outputs import OutputCheck
from turnout.graph.retry import Retry, RetryBudget
from turnout.graph.shadow import Shadow, ShadowState
from turnout.graph.split import Split, SplitState
from turnout.runtime.batching import Batching
from turnout.runtime.outlier import OutlierPolicy

OnBatch = Callable[[str, str, int, float], None]


def build_version(spec: VersionSpec, signature: Signature, format: str, on_batch: OnBatch | None = None) -> LiveVersion:
    """A version that is ready as soon as a place is added to its `batching`."""
    counted = partial(on_batch, spec.name, spec.version) if on_batch is not None else None
    batching = Batching(spec.name, spec.version, signature, spec.batching, counted)
    root = Endpoint(spec.name, batching, versions={spec.version: spec.digest}, default=spec.version)
    return LiveVersion(spec.uid, spec.name, spec.version, format, batching, servable=root, digest=spec.digest)


class Builder:
    """Builds the trees of one router's endpoints, and keeps what their nodes remember."""

    def __init__(self, live: Live) -> None:
        self.memories = Memories()
        self.endpoints: dict[str, Endpoint] = {}
        self._told: dict[str, dict[str, int]] = {}
        self._compared: dict[str, dict[str, int]] = {}
        self._live = live

    def __call__(self, name: str, guide: Guide, versions: Mapping[str, LiveVersion]) -> Trees:
        """The endpoint as its guide says, over its loaded versions."""
        self.memories.begin(name)
        spec = EndpointSpec.from_json(guide.endpoint)
        parts: dict[str, ServedModel] = {}
        arms: dict[str, Servable] = {}
        for one in in_order(spec):
            parts[one.name] = self._part(spec, one, guide, versions, arms)
            arms[one.name] = self._arm(one, parts[one.name])
        parts = {one.name: parts[one.name] for one in spec.versions}
        arms = {one.name: arms[one.name] for one in spec.versions}
        whole = self._endpoint(spec, guide, parts, arms)
        self.memories.end()
        return whole

    def evidence(self) -> dict[str, dict[str, Any]]:
        """What was counted of each endpoint's versions, where something has changed since it was asked last."""
        changed = {}
        for name, endpoint in self.endpoints.items():
            counts = {version: found.requests for version, found in endpoint.evidence.items()}
            if counts != self._told.get(name):
                self._told[name] = counts
                changed[name] = {version: found.to_json() for version, found in endpoint.evidence.items()}
        return changed

    def pairs(self) -> dict[str, Any]:
        """What was compared with each endpoint's shadows, of those where something has changed since it was asked."""
        changed = {}
        for name in self.endpoints:
            state = self.memories.kept(name).get(("shadow",))
            if state is None:
                continue
            answered = {shadow: counts.answered + counts.failed for shadow, counts in state.record.counts.items()}
            if answered and answered != self._compared.get(name):
                self._compared[name] = answered
                changed[name] = state.record.to_json()
        return changed

    def tell_all(self) -> None:
        """Whoever asks next knows nothing yet."""
        self._told.clear()
        self._compared.clear()

    def _part(
        self, endpoint: EndpointSpec, spec: VariantSpec, guide: Guide, versions: Mapping[str, LiveVersion],
        arms: Mapping[str, Servable],
    ) -> ServedModel:  # fmt: skip
        """What answers for a version: its model, or a graph over others, those of the same endpoint first."""
        if spec.model is not None:
            return versions[spec.name]
        proved = guide.graphs[spec.name]
        used = {use: arms[use] if use in arms else Beside(self._live, use) for use in spec.uses}
        signatures = {use: Signature.from_json(found) for use, found in proved["uses"].items()}
        servable: Servable
        if spec.ensemble is not None:
            servable = Ensemble(spec.name, spec.ensemble, used, signatures)
        else:
            assert spec.cascade is not None  # noqa: S101  a version is one of the three
            memory = self.memories.of(CascadeMemory, "cascade", spec.name)
            servable = Cascade(spec.name, spec.cascade, used, signatures, memory)
        signature = Signature.from_json(proved["signature"])
        needed = [versions[use] for use in spec.uses if use in versions]
        return LiveEndpoint(endpoint.name, spec.name, spec.kind, signature, servable, needed)

    def _arm(self, spec: VariantSpec, part: ServedModel) -> Servable:
        """A version with what is kept of its answers."""
        of = self.memories.of
        uid = part.uid if isinstance(part, LiveVersion) else spec.name
        digest = part.digest if isinstance(part, LiveVersion) else spec.name
        servable: Servable = part.batching if isinstance(part, LiveVersion) else part.servable
        if isinstance(part, LiveVersion):
            part.batching.replicas.outliers.policy = spec.outlier or OutlierPolicy()
        if spec.cache is not None:
            memory = of(CacheMemory, "cache", uid)
            servable = Cache(servable, spec.cache, memory, digest=digest or uid, name=spec.name)
        if spec.outputs is not None:
            servable = OutputCheck(servable, spec.outputs, part.signature)
        if spec.retry is not None:
            servable = Retry(servable, spec.retry, of(RetryBudget, "retry", uid), name=spec.name)
        if spec.circuit_breaker is not None:
            circuit = of(Circuit, "circuit_breaker", uid)
            servable = CircuitBreaker(servable, spec.circuit_breaker, circuit, name=spec.name)
        return servable

    def _endpoint(
        self, spec: EndpointSpec, guide: Guide, parts: Mapping[str, ServedModel], arms: Mapping[str, Servable]
    ) -> Trees:
        """Split, then shadow, then fallback, then cache, then limits; the root says who answered."""
        name, of = spec.name, self.memories.of
        signature = parts[spec.default].signature
        uids = {one: part.uid if isinstance(part, LiveVersion) else one for one, part in parts.items()}
        evidence = {one: of(Evidence, "evidence", one, uid) for one, uid in uids.items()}
        allocation = Allocation.from_json(guide.allocation) if guide.allocation else allocate(spec.traffic)
        servable: Servable
        servable = split = Split(
            name, arms, allocation, evidence, spec.split, of(SplitState, "split"), signature
        )  # fmt: skip
        if shadows := {one: (arms[one], policy) for one, policy in spec.shadow.items() if policy.percent}:
            servable = Shadow(servable, shadows, of(ShadowState, "shadow"), signature)
        if spec.steps:
            steps = {"primary": servable} | {_said(step): self._step(step, arms, signature) for step in spec.steps}
            servable = Fallback(steps, spec.fallback, of(FallbackMemory, "fallback"))
        if spec.cache is not None:
            revision = f"{name} {guide.revision}"
            servable = Cache(
                servable, spec.cache, of(CacheMemory, "cache"), digest=revision, name=name,
                route=lambda request: split.explain_route(request).variant,
            )  # fmt: skip
        if spec.limits is not None:
            servable = Limits(servable, spec.limits, of(LimitsMemory, "limits"))
        root = partial(
            Endpoint, name, revision=guide.revision, versions={one: _digest(part) for one, part in parts.items()},
            policy=spec.policy, evidence=evidence, counts=of(EndpointCounts, "endpoint"),
        )  # fmt: skip
        whole = self.endpoints[name] = root(child=servable, default=spec.default)
        needed = [parts[one] for one in spec.traffic if spec.traffic[one] > 0]
        formats = parts[spec.default].format
        # Whoever names a version has said so in the request's journey, and the split goes there.
        direct = {
            one: LiveEndpoint(name, one, part.format, part.signature, whole, [part]) for one, part in parts.items()
        }
        return Trees(LiveEndpoint(name, "", formats, signature, whole, needed), direct)

    def _step(self, step: FallbackStep, arms: Mapping[str, Servable], signature: Signature) -> Servable:
        if step.default is not None:
            return Constant(step.default, signature)
        if step.last_good is not None:
            return LastGood(step.last_good, self.memories.of(LastGoodMemory, "last_good"), signature)
        return arms[step.version]


class Beside:
    """A model that is served under a name of its own: as it is at each request."""

    __slots__ = ("_live", "_name", "_version")

    def __init__(self, live: Live, use: str) -> None:
        self._live = live
        self._name, _, self._version = use.partition("@")

    def __repr__(self) -> str:
        return f"Beside({self._name}{'@' if self._version else ''}{self._version})"

    async def infer(self, request: InferRequest) -> InferResponse:
        """Raises ModelNotFound where it is gone, and what it raises itself."""
        served = self._live.find(self._name, self._version)
        if self._version:  # as a door says it, so that the split of an endpoint goes to the version that is named
            journey = request.context.journey or Journey()
            journey.direct, journey.variant = True, served.version
            request = request._replace(context=request.context._replace(journey=journey))
        return await served.servable.infer(request)


def _said(step: FallbackStep) -> str:
    return step.version or ("last_good" if step.last_good is not None else "default")


def _digest(part: Any) -> str:
    return part.digest if isinstance(part, LiveVersion) else ""
