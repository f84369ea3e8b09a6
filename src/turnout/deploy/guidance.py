"""Everything that a running server can be told and asked about how requests are guided, under the name of each act."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from turnout.core.errors import InvalidInput, NotReady, Unauthenticated
from turnout.core.messages import Context, InferRequest
from turnout.deploy.control_plane import ControlPlane
from turnout.deploy.converge import Converge
from turnout.deploy.document import Document
from turnout.deploy.following import Following
from turnout.deploy.leadership import Leadership, is_shared
from turnout.deploy.live import Trees
from turnout.deploy.managed import Managed
from turnout.deploy.memory import Memory
from turnout.deploy.observations import Observations
from turnout.deploy.plan import Guide
from turnout.deploy.rehearsal import rehearsed
from turnout.deploy.rollouts import Rollouts
from turnout.deploy.scaling import Scaling
from turnout.deploy.shadow_page import page
from turnout.deploy.shadow_report import reports
from turnout.deploy.shared_evidence import SharedEvidence
from turnout.deploy.spec import ModelSpec, ServeSpec
from turnout.deploy.store.url import default_url
from turnout.deploy.supply import Found, Supply
from turnout.deploy.token import Token
from turnout.deploy.versions import Versions
from turnout.deploy.workers import Workers
from turnout.graph.allocation import Allocation
from turnout.graph.evidence import Evidence
from turnout.graph.shadow_record import ShadowRecord
from turnout.graph.split import Split
from turnout.graph.tree import tree
from turnout.protocols.plain import from_document
from turnout.runtime.wire import Message

Question = Mapping[str, Any]
Act = Callable[[Question], Awaitable[Any]]


class Guidance:
    """Of one server. Belongs to the running event loop."""

    def __init__(
        self,
        versions: Versions,
        workers: Workers,
        supply: Supply,
        watch: Callable[[ModelSpec, list[Found]], None],
        document: Document,
    ) -> None:
        self.observations = Observations()
        self.control_plane = ControlPlane(Converge(versions, supply, watch), document)
        self.scaling = Scaling(versions, workers, self.control_plane.happenings)
        following = Following(self.control_plane, self.scaling)
        self.memory = Memory(versions, workers)
        self.control_plane.actual = self.memory.actual
        self.rollouts = Rollouts(self.control_plane, self.observations, versions, workers, following)
        #: Whether all endpoints that were asked for at the start are there.
        self.begun = not document.endpoints
        self._versions = versions
        self._token: Token | None = None
        self._leadership: Leadership | None = None
        plane = self.control_plane
        self.acts: dict[str, Act] = {
            "plan": plane.plan,
            "apply_document": plane.apply,
            "undo": plane.undo,
            "traffic": plane.traffic,
            "history": plane.history,
            "events": plane.events,
            "endpoint": self._endpoint,
            "explain": self._explain,
            "rollout": self.rollouts.act,
            "metric": self.rollouts.reported.metric,
            "scale": self.scaling.act,
            "shadow_report": self._shadow_report,
            "token": self._say_token,
        }

    def listen(self, spec: ServeSpec) -> None:
        """The server listens, on ports that are known now."""
        self._token = Token(spec.port)
        self.memory.limit = spec.memory_limit
        plane = self.control_plane
        plane.revisions.url = spec.store or default_url(str(spec.port))
        if is_shared(plane.revisions.url):
            self._leadership = Leadership(plane.revisions.call, spec.port, plane.follow)
            self.rollouts.leadership = self._leadership
            self.rollouts.shared = SharedEvidence(plane.revisions.call, self._leadership.name, self.observations)

    async def begin(self, *, keep_going: bool) -> None:
        """Serves the endpoints that were asked for. Raises what keeps one from being served, unless the rest may be."""
        self.scaling.settle_all()
        await self.control_plane.begin(keep_going=keep_going)
        if self.control_plane.revision:
            await self._carry_on()
        self.control_plane.on_first = self._carry_on
        self.begun = True

    async def _carry_on(self) -> None:
        await self.rollouts.begin()
        if self._leadership is not None:
            self._leadership.begin()

    def end(self) -> None:
        """Nothing is changed any more."""
        self.rollouts.end()
        if self._leadership is not None:
            self._leadership.end()

    def check(self, question: Question) -> Question:
        """The question of a caller of the admin API. Raises Unauthenticated without the right token."""
        token, said, inner = self._token, question.get("token"), question.get("question")
        if token is None or not isinstance(said, str) or not token.fits(said) or not isinstance(inner, dict):
            raise Unauthenticated("this is not the server's token; `turnout token` prints it to whoever started it")
        if inner.get("do") in ("token", "admin"):
            raise InvalidInput("not offered here", field="do")
        return inner

    def heard(self, router: str, message: Message) -> None:
        """A router says what it has seen."""
        for endpoint, counts in message["evidence"].items():
            self.observations.take(router, endpoint, counts)
        for endpoint, pairs in message.get("pairs", {}).items():
            self.observations.take_pairs(router, endpoint, pairs)

    async def _say_token(self, question: Question) -> Any:
        if self._token is None:
            raise NotReady("the server is not listening yet", retry_after=1.0)
        return {"token": self._token.value}

    async def _endpoint(self, question: Question) -> Any:
        """An endpoint's tree, its weights, and what was seen of its versions."""
        name = str(question.get("endpoint", ""))
        managed = self._known(name)
        guide = managed.routing.guide
        if guide is None:
            raise NotReady(f"{name!r} is not loaded yet", retry_after=1.0)
        spec = self.control_plane.endpoint(name)
        trees = self._built(managed, guide)
        seen = {version: _counts(found) for version, found in self.observations.of(name).items()}
        return {
            "name": name,
            "revision": guide.revision,
            "traffic": dict(spec.traffic),
            "tree": list(tree(trees.whole.servable)),
            "seen": seen,
            "rollout": self.rollouts.summary(name),
        }

    async def _explain(self, question: Question) -> Any:
        """Which version would answer a request, and why."""
        name = str(question.get("endpoint", ""))
        managed = self._known(name)
        guide = managed.routing.guide
        if guide is None:
            raise NotReady(f"{name!r} is not loaded yet", retry_after=1.0)
        spec = self.control_plane.endpoint(name)
        said = {} if question.get("request") is None else question["request"]
        if not isinstance(said, dict):
            raise InvalidInput("not an object", field="request", expected="{headers, cookies, query, inputs}")
        trees = self._built(managed, guide)
        signature = trees.whole.signature
        inputs = from_document(said["inputs"], signature) if "inputs" in said else {}
        rows = len(next(iter(inputs.values()))) if inputs and signature.batched else 1
        request = InferRequest(name, inputs, rows, Context(attributes=_Said(said)))
        arms = {one: served.servable for one, served in trees.versions.items()}
        evidence = {one: Evidence() for one in arms}
        split = Split(name, arms, Allocation.from_json(guide.allocation), evidence, spec.split, signature=signature)
        route = split.explain_route(request)
        return {"version": route.variant or "(by chance)", "kind": route.kind, "why": route.why}

    async def _shadow_report(self, question: Question) -> Any:
        """How shadows compare with what answers, as JSON values with a text, or as a page."""
        name = str(question.get("endpoint", ""))
        self.control_plane.endpoint(name)
        record = ShadowRecord()
        for said in self.observations.pairs(name):
            record = record.plus(ShadowRecord.from_json(said))
        found = reports(name, record)
        if str(question.get("form", "")).startswith("text/html"):
            return page(name, found)
        text = "\n\n".join(one["verdict"] for one in found) or "no request was answered by a shadow yet"
        return {"endpoint": name, "reports": found, "text": text}

    def _known(self, name: str) -> Managed:
        self.control_plane.endpoint(name)  # raises ModelNotFound for what is no endpoint
        return self._versions.known(name)

    def _built(self, managed: Managed, guide: Guide) -> Trees:
        """The trees as routers build them, over versions that run nowhere."""
        return rehearsed(guide, {one: managed.versions[uid] for one, uid in managed.routing.versions.items()})


class _Said:
    """What a request to be explained says beside its inputs."""

    def __init__(self, said: Mapping[str, Any]) -> None:
        self._said = {kind: _texts(said.get(kind, {}), kind) for kind in ("headers", "cookies", "query")}

    def header(self, name: str) -> str | None:
        return self._said["headers"].get(name)

    def cookie(self, name: str) -> str | None:
        return self._said["cookies"].get(name)

    def argument(self, name: str) -> str | None:
        return self._said["query"].get(name)


def _texts(said: Any, kind: str) -> dict[str, str]:
    if not isinstance(said, dict):
        raise InvalidInput("not an object", field=f"request.{kind}", expected="names with texts")
    return {str(name).lower() if kind == "headers" else str(name): str(value) for name, value in said.items()}


def _counts(found: Evidence) -> dict[str, Any]:
    return {
        "requests": found.requests,
        "errors": found.errors,
        "invalid": found.invalid,
        "degraded": found.degraded,
        "p50_seconds": _finite(found.quantile(0.5)),
        "p95_seconds": _finite(found.quantile(0.95)),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
