"""A controller, simulated: the real decisions of `plan`, `route`, `guided` and `decide`, and acts that may fail.

What it does not have in the store it may forget at any moment.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tests.simulation.machines import Loaded, Router, Shown, Workers, total, weights_of
from tests.simulation.world import Crash, SimulatedStore, World
from turnout.core.errors import Conflict
from turnout.deploy import plan as plans
from turnout.deploy.plan import Guide, Have, Keep, Load, Manner, Phase, Return, Routing, Unload, Wanted
from turnout.deploy.rollout.commands import command, new_rollout
from turnout.deploy.rollout.machine import decide
from turnout.deploy.rollout.policy import GuardPolicy, RolloutPolicy
from turnout.deploy.rollout.state import WATCHED, Decision, Observed, RolloutState, state_from_json
from turnout.deploy.store.failures import LeaseLost, RevisionNotFound, StoreUnavailable
from turnout.deploy.store.records import Lease, Revision

_TICK_SECONDS = 0.5
_LEASE_SECONDS = 3.0
_MANNER = Manner(swap="availability", keep=1)
Plan = Callable[..., list[plans.Action]]


def policy_to(version: str) -> RolloutPolicy:
    """Quick steps, so that a simulated minute sees a whole rollout."""
    return RolloutPolicy(
        to=version,
        steps=(5.0, 50.0, 100.0),
        min_samples=5,
        min_seconds=1.0,
        interval=0.5,
        max_seconds=60.0,
        mismatch_alpha=0.0,
        guard=GuardPolicy(latency="off", invalid="off", fallback="off"),
    )


class Controller:
    """One of several. It leads while it has the lease and all workers and routers have heard of that."""

    def __init__(self, world: World, name: str, store: SimulatedStore, plan: Plan = plans.plan) -> None:
        self.world = world
        self.name = name
        self.store = store
        self.plan = plan
        self.alive = True
        self.workers: Workers
        self.routers: list[Router]
        self._forget()
        world.at(world.rng.uniform(0.1, 0.6), self._tick, 0)

    def _forget(self) -> None:
        self.lease: Lease | None = None
        self._workers_seq = 0
        self._heard = -1
        self.versions: dict[str, Loaded] = {}
        self._shown: dict[int, tuple[int, Shown]] = {}
        self._draining: set[str] = set()
        self._sent: dict[str, Loaded] = {}
        self._returned: set[str] = set()
        self._loads = self._tellings = 0
        self._routings: dict[str, Routing] = {}
        self._rollouts: dict[str, tuple[int, RolloutState]] = {}

    # -- its life -----------------------------------------------------------------------------------------

    def die(self) -> None:
        self.world.tell(f"{self.name}: dies")
        self.alive = False
        self._forget()
        self.world.at(self.world.rng.uniform(0.2, 5.0), self._revive)

    def _revive(self) -> None:
        self.alive = True
        self.world.tell(f"{self.name}: is back")

    def _tick(self, number: int) -> None:
        """Twice a second; and sometimes it sleeps long enough for another to take over, and then goes on."""
        late = self.world.rng.uniform(3, 8) if self.world.chance(0.01) else 0.0
        self.world.at(_TICK_SECONDS + late, self._tick, number + 1)
        if self.world.chance(0.01):
            self.die()
        if self.alive:
            self.attempt(self._turn)

    def attempt(self, act: Callable[[], Any]) -> Any:
        """Whatever it does may be refused by the store, or be its last."""
        try:
            return act()
        except Crash:
            self.die()
        except LeaseLost as lost:
            self.world.tell(f"{self.name}: {lost.message}")
            self._forget()
        except (StoreUnavailable, Conflict, RevisionNotFound) as failure:
            self.world.tell(f"{self.name}: {failure.message}")
        return None

    @property
    def leads(self) -> bool:
        """Whether everything has heard of it and told it what is there."""
        token = self.lease.token if self.lease else 0
        said = [shown for _, shown in self._shown.values() if shown.token == token]
        return self.alive and token > 0 and self._heard == token and len(said) == len(self.routers)

    def _turn(self) -> None:
        if self.lease is None:
            self.lease = self.store.lease("leader", self.name, _LEASE_SECONDS)
            if self.lease is None:
                return
            self.world.tell(f"{self.name}: has the lease {self.lease.token}")
        elif not self.world.chance(0.05):  # that it is its own is looked at by each of its changes
            self.store.renew(self.lease)
        token = self.lease.token
        if not self.leads:
            for machine in (self.workers, *self.routers):
                self.world.send(machine.hello, token)
            return
        if not self._tellings:
            # Only now: nobody before this one is listened to any more, so what is in force stays until it is told.
            newest = max((said for _, said in self._shown.values()), key=lambda said: said.mark)
            self._routings = dict(newest.routings)
            # What requests go to is in use, also where the controller before had no time to say so to the workers.
            self._returned = {uid for routing in newest.routings.values() for uid in routing.versions.values()}
        current = self.store.current()
        if current is None:
            return
        document = json.loads(current.document)
        for name, endpoint in document["endpoints"].items():
            self._reconcile(token, current.number, name, endpoint)
        self._show(token)
        for name in document["endpoints"]:
            self._roll(current, document, name)

    # -- what is heard ------------------------------------------------------------------------------------

    def workers_said(self, seq: int, token: int, versions: dict[str, Loaded]) -> None:
        if self.alive and seq > self._workers_seq:
            self._workers_seq, self._heard, self.versions = seq, token, versions

    def router_said(self, number: int, seq: int, said: Shown) -> None:
        before = self._shown.get(number)
        if self.alive and (before is None or seq > before[0]):
            self._shown[number] = (seq, said)

    # -- what is served -----------------------------------------------------------------------------------

    def _have(self, endpoint: str) -> list[Have]:
        found = []
        for uid, one in {**self._sent, **self.versions}.items():
            if one.endpoint == endpoint:
                phase = Phase.READY if uid in self._returned and one.phase is Phase.KEPT else one.phase
                found.append(Have(uid, one.version, one.key, Phase.DRAINING if uid in self._draining else phase))
        return found

    def _reconcile(self, token: int, revision: int, name: str, endpoint: dict[str, Any]) -> None:
        wanted = [Wanted(version, key) for version, key in endpoint["versions"].items()]
        for uid, one in list(self._sent.items()):
            if uid in self.versions:
                del self._sent[uid]
            elif one.endpoint == name and uid not in self._draining:  # as long as nobody says that it is there
                self.world.send(self.workers.load, token, uid, name, one.version, one.key)
        for action in self.plan(wanted, self._have(name), _MANNER):
            self.world.tell(f"{self.name}: {action}")
            if isinstance(action, Load):
                self._loads += 1
                version, key = action.wanted.version, action.wanted.key
                uid = f"{name}/{version}/{key}~{token}.{self._loads}"
                self._sent[uid] = Loaded(name, version, key, Phase.LOADING)
                self.world.send(self.workers.load, token, uid, name, version, key)
            elif isinstance(action, Unload):
                self._draining.add(action.uid)
            else:
                (self._returned.add if isinstance(action, Return) else self._returned.discard)(action.uid)
                phase = Phase.KEPT if isinstance(action, Keep) else Phase.READY
                self.versions[action.uid] = replace(self.versions[action.uid], phase=phase)
        for uid, one in self.versions.items():
            if (
                one.endpoint == name
                and uid not in self._draining
                and (one.phase is Phase.KEPT or uid in self._returned)
            ):
                self.world.send(self.workers.keep, token, uid, Phase.READY if uid in self._returned else Phase.KEPT)
        needs = tuple(version for version, weight in endpoint["traffic"].items() if weight > 0)
        guide = Guide(endpoint, revision, None, needs)
        before = self._routings.get(name, Routing())
        routing = plans.route(wanted, self._have(name), {}, before)
        self._routings[name] = plans.guided(routing, guide, before.guide)

    def _show(self, token: int) -> None:
        """Tells the routers, and unloads what none of them sends anything to any more."""
        routings = dict(self._routings)
        shown = [said for _, said in self._shown.values()]
        if any(said.routings != routings or said.mark[0] != token for said in shown):
            self._tellings += 1
            for number, router in enumerate(self.routers):
                life = self._shown[number][1].life
                self.world.send(router.show, life, (token, self._tellings), routings)
            return
        for uid in sorted(self._draining & {*self.versions, *self._sent}):  # a set's order is not the seed's
            self.world.send(self.workers.unload, token, uid)
            if uid not in self.versions:
                self._sent.pop(uid, None)  # if it comes into being later, it is seen then, and is draining already

    # -- rollouts -----------------------------------------------------------------------------------------

    def rollout(self, name: str) -> tuple[int, RolloutState | None]:
        """Its version in the store and what it remembers; what only counts has grown by is not stored."""
        found = self.store.document("rollout", name)
        if found is None:
            return 0, None
        kept = self._rollouts.get(name)
        if kept is None or kept[0] != found.version:
            self._rollouts[name] = kept = (found.version, state_from_json(json.loads(found.value)))
        return kept

    def observed(self, name: str) -> Observed:
        shown = [said for _, said in self._shown.values()]
        weights = [weights_of(said.routings[name]) if name in said.routings else None for said in shown]
        agreed = weights[0] if len({json.dumps(one, sort_keys=True) for one in weights}) == 1 else None
        readiness: dict[str, Any] = {}
        for have in self._have(name):
            words = {Phase.READY: "ready", Phase.FAILED: "failed", Phase.LOADING: "loading"}
            if have.phase in words and readiness.get(have.version) != "ready":
                readiness[have.version] = words[have.phase]
        return Observed(
            evidence=total(shown, name),
            versions=readiness,
            age=self.world.now - min(said.at for said in shown),
            weights=agreed or {},
        )

    def _roll(self, current: Revision, document: dict[str, Any], name: str) -> None:
        version, state = self.rollout(name)
        if state is None:
            return
        self.settle(name, version, decide(state, self.observed(name), self.world.now), current, document)

    def settle(self, name: str, version: int, made: Decision, current: Revision, document: dict[str, Any]) -> None:
        """Saves what was decided, whole: the rollout's state, and the revision with its weights."""
        weights = dict(made.weights) if made.weights is not None else None
        moves = weights is not None and weights != document["endpoints"][name]["traffic"]
        if not made.changed and not moves:
            self._rollouts[name] = (version, made.state)
            return
        if self.world.chance(0.02):  # it sleeps between what it decided and what it writes
            self.world.at(self.world.rng.uniform(3, 8), self._wake, name, version, made, current, document)
            return
        self._save(name, version, made, current, document)

    def _wake(self, *decided: Any) -> None:
        if self.alive and self.lease is not None:
            self.attempt(lambda: self._save(*decided))

    def _save(self, name: str, version: int, made: Decision, current: Revision, document: dict[str, Any]) -> None:
        self.world.tell(f"{self.name}: rollout of {name}: {made.words}")
        with self.store.transaction(self.lease) as change:
            change.put("rollout", name, json.dumps(made.state.to_json()), version)
            change.append("rollout", name, json.dumps(made.words))
            if made.weights is not None:
                endpoint = {**document["endpoints"][name], "traffic": dict(made.weights)}
                text = json.dumps({"endpoints": {**document["endpoints"], name: endpoint}})
                change.propose(text, author="rollout", base=current.number)

    # -- what people ask for ------------------------------------------------------------------------------

    def change(self, act: str, base: int, text: str = "") -> tuple[int, str, int] | None:
        """Apply, undo or move; the seq, act and number of the change that was saved. What rolls out ends with it."""

        def save() -> tuple[int, str, int] | None:
            with self.store.transaction(self.lease) as change:
                before = change.position()
                if act == "apply":
                    change.propose(text, author="person", base=base)
                elif act == "undo":
                    change.undo(author="person", base=base)
                else:
                    change.move_to(int(text), author="person", base=base)
                for document in change.documents("rollout"):
                    change.delete("rollout", document.key)
                newest = change.history(1)[0]
                changed = change.position() >= before
            return (newest.seq, newest.act, newest.revision) if changed else None

        found: tuple[int, str, int] | None = self.attempt(save)
        return found

    def start(self, name: str, version: str) -> bool:
        """Begins to roll a version out."""

        def save() -> bool:
            current = self.store.current()
            if current is None:
                return False
            document = json.loads(current.document)
            there, before = self.rollout(name)
            traffic = document["endpoints"].get(name, {}).get("traffic", {})
            if version not in traffic or len(traffic) < 2 or (before is not None and before.phase in WATCHED):
                return False
            made = command(new_rollout(policy_to(version), traffic), "start", self.observed(name), self.world.now)
            if made.refused:
                return False
            self._save(name, there, made, current, document)
            return True

        return bool(self.attempt(save))

    def is_rolling(self, name: str) -> bool:
        """Whether a rollout goes on."""
        _, state = self.rollout(name)
        return state is not None and state.phase in WATCHED

    def command(self, name: str, word: Any) -> None:
        """Pause, resume, promote or abort."""

        def save() -> None:
            current = self.store.current()
            version, state = self.rollout(name)
            if current is None or state is None:
                return
            made = command(state, word, self.observed(name), self.world.now)
            if not made.refused:
                self._save(name, version, made, current, json.loads(current.document))

        self.attempt(save)
