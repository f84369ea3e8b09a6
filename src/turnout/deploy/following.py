"""Replicas follow the weights of a rollout: grown before a weight is, given back when it has shrunk."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic

from turnout.deploy.control_plane import ControlPlane
from turnout.deploy.endpoint_spec import EndpointSpec
from turnout.deploy.managed import Version
from turnout.deploy.rollout.replicas import replicas_by_version
from turnout.deploy.rollout.state import RolloutState
from turnout.deploy.scaling import Scaling

_WHOLE = 100.0


class Following:
    """Of one server. `patience`: seconds that a weight waits for its replicas at most."""

    def __init__(self, plane: ControlPlane, scaling: Scaling, patience: float = 300.0) -> None:
        self._plane = plane
        self._scaling = scaling
        self._patience = patience
        #: Since when an endpoint's next weights wait, and which (monotonic seconds).
        self._waiting: dict[str, tuple[Mapping[str, float], float]] = {}

    def look(self, states: Mapping[str, RolloutState]) -> None:
        """Gives every version the replicas that it shall have now, where no person has said how many."""
        for endpoint in self._plane.document.endpoints:
            self._follow(endpoint, states.get(endpoint.name))

    def holds_back(self, name: str, state: RolloutState, weights: Mapping[str, float]) -> str:
        """Why weights are not to be set yet; "" where they are. Less for the new version is never held back."""
        endpoint, to = self._plane.endpoint(name), state.policy.to
        if not state.policy.replicas_follow or weights.get(to, 0.0) <= endpoint.traffic.get(to, 0.0):
            self._waiting.pop(name, None)
            return ""
        self._follow(endpoint, state)
        version = self._scaling.loaded(name).get(to)
        waited, since = self._waiting.get(name, ({}, 0.0))
        if waited != weights:
            since = monotonic()
            self._waiting[name] = (dict(weights), since)
        if version is None or self._scaling.ready(version) or monotonic() - since > self._patience:
            del self._waiting[name]
            return ""
        return f"{to} gets {weights[to]:g} % as soon as it has the {version.count} replicas that this takes"

    def _follow(self, endpoint: EndpointSpec, state: RolloutState | None) -> None:
        loaded = self._scaling.loaded(endpoint.name)
        said = {name: one for name, one in loaded.items() if endpoint.version(name) is not None and not one.by_hand}
        replicas = {name: _said(one) for name, one in said.items()}
        wanted = replicas_by_version(state, replicas, endpoint.traffic, self._besides(endpoint))
        for name, count in wanted.items():
            if said[name].count != count:
                why = f"{endpoint.traffic.get(name, 0.0):g} % of the traffic now"
                if state is not None and state.policy.to == name and state.target != endpoint.traffic.get(name, 0.0):
                    why += f", {state.target:g} % next"
                self._scaling.set(said[name], count, why)

    def _besides(self, endpoint: EndpointSpec) -> dict[str, float]:
        """Percents of the requests that may come to a version in other ways than by its share of the traffic."""
        found = {name: policy.percent for name, policy in endpoint.shadow.items()}
        used = {use for other in self._plane.document.endpoints for version in other.versions for use in version.uses}
        inner = {use for version in endpoint.versions for use in version.uses}
        ruled = {rule.to for rule in endpoint.split.rules}
        for version in endpoint.versions:
            if version.name in inner | ruled or f"{endpoint.name}@{version.name}" in used:
                found[version.name] = _WHOLE
        return found


def _said(version: Version) -> int:
    return version.spec.replicas if version.spec is not None else 1
