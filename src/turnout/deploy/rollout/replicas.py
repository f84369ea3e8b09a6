"""How many replicas each version of an endpoint shall have, by the rollout that is under way: a pure decision."""

from __future__ import annotations

from collections.abc import Mapping

from turnout.deploy.rollout.state import WATCHED, Phase, RolloutState
from turnout.deploy.rollout.weights import replicas_at

_WHOLE = 100.0


def replicas_by_version(
    state: RolloutState | None, replicas: Mapping[str, int], traffic: Mapping[str, float], besides: Mapping[str, float]
) -> dict[str, int]:
    """Replicas by version. A version that has or shall have all of the traffic gets all of its own, each at least one.

    replicas: what each version is said to have, as if all requests were its own. traffic: percents that are in force.
    besides: percents of the requests that come to a version in other ways. Without a rollout that says so each version
    has what it is said to have; so it does again once somebody else has changed the traffic.

    The new version has what its step's weight needs, before that is in force; the others keep theirs while it is
    watched, for they have to take everything back in an instant. Afterwards each has what its share needs.
    """
    if state is None or not state.policy.replicas_follow or (state.phase is Phase.PENDING and not state.began):
        return dict(replicas)
    over = state.phase not in WATCHED and state.phase is not Phase.PENDING
    if over and state.applied and not _same(traffic, state.wanted):
        return dict(replicas)
    wanted = state.wanted
    found: dict[str, int] = {}
    for version, count in replicas.items():
        share = max(traffic.get(version, 0.0), besides.get(version, 0.0))
        if over:
            share = max(share, wanted.get(version, 0.0))
        elif version == state.policy.to:
            share = max(share, _to_come(state))
        else:
            share = _WHOLE
        found[version] = max(1, replicas_at(share, count)[0])
    return found


def _to_come(state: RolloutState) -> float:
    """Percent of the requests that the new version shall be able to answer now."""
    shadow = state.policy.shadow
    if shadow is not None and Phase.SHADOW in {state.phase, state.back_to}:
        return max(state.weight, shadow.percent)
    return max(state.weight, state.target)


def _same(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    return all(abs(one.get(name, 0.0) - other.get(name, 0.0)) < 1e-6 for name in {*one, *other})
