"""Carries rollouts on: shows the machine what is seen, writes down what it decides, and sets the weights."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from functools import partial
from time import monotonic, time
from typing import Any

import msgspec

from turnout.core.errors import Conflict, Failure, InvalidInput, ModelNotFound
from turnout.deploy.control_plane import ControlPlane
from turnout.deploy.document import Document
from turnout.deploy.following import Following
from turnout.deploy.leadership import Leadership
from turnout.deploy.observations import Observations
from turnout.deploy.plan import Phase as VersionPhase
from turnout.deploy.references import resolved
from turnout.deploy.reported import Reported
from turnout.deploy.revisions import ROLLOUT
from turnout.deploy.rollout.commands import Command, answered, command, new_rollout
from turnout.deploy.rollout.machine import decide
from turnout.deploy.rollout.policy import RolloutPolicy
from turnout.deploy.rollout.state import (
    WATCHED,
    Call,
    Decision,
    Observed,
    Pairs,
    Phase,
    Readiness,
    RolloutState,
    state_from_json,
)  # fmt: skip
from turnout.deploy.rollout.words import status, status_json
from turnout.deploy.shared_evidence import SharedEvidence
from turnout.deploy.store.store import Store
from turnout.deploy.threads import in_thread
from turnout.deploy.versions import Versions
from turnout.deploy.webhooks import post
from turnout.deploy.workers import Workers
from turnout.graph.shadow_record import ShadowRecord

logger = logging.getLogger("turnout")
Question = Mapping[str, Any]
_LOOK_SECONDS = 1.0
_TICK = 0.2
_CRASHES = 3
_WORDS: Mapping[str, Command] = {
    "start": "start", "pause": "pause", "resume": "resume", "promote": "promote", "abort": "abort",
}  # fmt: skip


class Rollouts:
    """Of one server. With a `leadership` that another controller has, nothing is decided here."""

    def __init__(
        self,
        plane: ControlPlane,
        observations: Observations,
        versions: Versions,
        workers: Workers,
        following: Following,
    ) -> None:
        self.reported = Reported(plane)
        self.leadership: Leadership | None = None
        self.shared: SharedEvidence | None = None
        self._plane = plane
        self._observations = observations
        self._versions = versions
        self._workers = workers
        self._following = following
        self._states: dict[str, RolloutState] = {}
        self._last: dict[str, Decision] = {}
        self._stable_before: dict[str, int] = {}
        self._loop = asyncio.get_running_loop()
        self._led, self._looked = False, 0.0
        self._task: asyncio.Task[None] | None = None
        self._calls: set[asyncio.Task[None]] = set()
        plane.rollouts = self

    async def begin(self) -> None:
        """Goes on with those that were under way."""
        await self._read()
        await self.reported.begin()
        self._task = asyncio.ensure_future(self._tick())

    def end(self) -> None:
        """Decides nothing any more."""
        if self._task is not None:
            self._task.cancel()

    @property
    def _leads(self) -> bool:
        return self.leadership is None or self.leadership.lease is not None

    async def act(self, question: Question) -> Any:
        """What a person says to a rollout, or asks of it."""
        name = str(question.get("endpoint", ""))
        endpoint = self._plane.endpoint(name)
        act = str(question.get("act", "status"))
        if act == "status":
            return self._status(name)
        if act not in _WORDS:
            raise InvalidInput("unknown", field="act", expected=", ".join([*_WORDS, "status"]), got=repr(act)[:60])
        if act == "start":
            policy = _policy(endpoint.rollout, question.get("to"))
            traffic = {version.name: endpoint.traffic.get(version.name, 0.0) for version in endpoint.versions}
            if name not in self._states or self._states[name].phase not in WATCHED:
                self._states[name] = new_rollout(policy, traffic)
                self._stable_before[name] = await self._stable_ago(name, policy)
        if not self._leads:
            raise Conflict(f"{name}: another controller leads; ask that one, or wait until it is gone")
        state = self._state(name)
        decision = command(state, _WORDS[act], self._observed(name, state), time())
        if decision.refused:
            raise Conflict(f"{name}: {decision.words}")
        await self._carry_out(name, decision, str(question.get("author", "api")))
        return self._status(name)

    def summary(self, name: str) -> dict[str, Any] | None:
        """Where an endpoint's rollout is, in brief; None where there is none."""
        state = self._states.get(name)
        if state is None:
            return None
        return {"to": state.policy.to, "from": state.stable, "phase": state.phase.value, "weight": state.weight}

    def _state(self, name: str) -> RolloutState:
        if name not in self._states:
            raise ModelNotFound(f"there is no rollout of {name!r}; `turnout rollout {name} start` starts one")
        return self._states[name]

    def _status(self, name: str) -> Any:
        state = self._state(name)
        observed, now = self._observed(name, state), time()
        last = self._last.get(name)
        decision = last if last is not None and last.state is state else Decision(state=state, words=state.reason)
        return {**status_json(decision, observed, now), "endpoint": name, "text": status(decision, observed, now)}

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            await self.reported.save()
            await self._look_at_others()
            self._following.look(self._states)
            for name, state in list(self._states.items()):
                over = state.phase not in WATCHED and state.applied and state.phase is not Phase.PENDING
                if over or not self._leads:
                    continue
                if state.phase is Phase.PENDING and not state.began:
                    continue
                try:
                    await self._carry_out(name, decide(state, self._observed(name, state), time()), "rollout")
                except Failure as failure:
                    logger.warning("the rollout of %s waits: %s", name, failure.message)
                except Exception:
                    logger.exception("the rollout of %s could not be carried on", name)

    async def _look_at_others(self) -> None:
        """Who does not lead knows of rollouts what the leader has written down; so does who leads from now on."""
        if self.leadership is None:
            return
        try:
            if self.shared is not None:
                await self.shared.share(list(self._states))
            if self._leads is self._led and (self._leads or monotonic() - self._looked < _LOOK_SECONDS):
                return
            self._led, self._looked = self._leads, monotonic()
            await self._read()
        except Failure as failure:
            logger.warning("what rollouts are under way is not known: %s", failure.message)

    async def _read(self) -> None:
        found: dict[str, RolloutState] = {}
        for document in await self._plane.revisions.call(lambda store: store.documents(ROLLOUT)):
            try:
                found[document.key] = state_from_json(json.loads(document.value))
            except (ValueError, msgspec.ValidationError):
                logger.warning("the rollout of %s was written by another Turnout, and ends here", document.key)
        self._states = found

    async def _carry_out(self, name: str, decision: Decision, author: str) -> None:
        before = self._states.get(name)
        if decision.changed or before is None or before.phase is not decision.state.phase:
            value = json.dumps(decision.state.to_json())
            await self._plane.revisions.call(lambda store: _put(store, name, value))
            if before is not None and name not in self._states:  # it was let go meanwhile
                await self._plane.revisions.call(partial(_forget, name=name))
                return
        self._states[name], self._last[name] = decision.state, decision
        waits = decision.weights and self._following.holds_back(name, decision.state, decision.weights)
        if waits:
            self._last[name] = msgspec.structs.replace(decision, words=waits)
        elif decision.weights is not None:
            reason = f"rollout: {decision.state.reason}"
            lease = self.leadership.lease if self.leadership is not None else None
            await self._plane.set_traffic(
                name, decision.weights, author=author, reason=reason, lease=lease,
                holds=lambda: self._states.get(name) is decision.state,
            )  # fmt: skip
        if before is not None and (before.phase, before.weight) != (decision.state.phase, decision.state.weight):
            text = f"{name}: {decision.state.phase.value} at {decision.state.weight:g} %: {decision.words}"
            self._plane.happenings.tell("rollout", name, text, phase=decision.state.phase.value)
        for call in decision.calls:
            task = asyncio.ensure_future(self._ask(name, call))
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)

    async def _ask(self, name: str, call: Call) -> None:
        body = {"endpoint": name, "when": call.when, **call.body}
        ok, words = await in_thread(self._loop, lambda: post(resolved(call.url), body, call.timeout))
        state = self._states.get(name)
        if state is not None and call.when != "event":
            await self._carry_out(name, answered(state, call, ok=ok, words=words, now=time()), "webhook")

    def let_go(self, document: Document) -> dict[str, RolloutState]:
        """Somebody else changes an endpoint's traffic: its rollout is over, for it no longer says what is in force."""
        over = {}
        for name, state in list(self._states.items()):
            if state.phase not in WATCHED:
                continue
            traffic = next((dict(one.traffic) for one in document.endpoints if one.name == name), None)
            now = {version: share for version, share in state.wanted.items() if share}
            if traffic is None or {version: share for version, share in traffic.items() if share} != now:
                over[name] = self._states.pop(name)
        return over

    def take_back(self, over: Mapping[str, RolloutState]) -> None:
        """Nothing was changed, and so they go on."""
        self._states.update(over)

    def ended(self, over: Mapping[str, RolloutState], author: str) -> None:
        """They are over."""
        for name in over:
            text = f"{name}: it ends, because {author} has changed the traffic"
            self._plane.happenings.tell("rollout", name, text)

    def _observed(self, name: str, state: RolloutState) -> Observed:
        endpoint = self._plane.endpoint(name)
        routers = self._versions.routers
        seen = routers is not None and routers.seen
        metric = state.policy.judge.metric if state.policy.judge is not None else ""
        return Observed(
            evidence=(self.shared or self._observations).of(name),
            judge=self.reported.metrics.of(name, metric),
            pairs=self._pairs(name, state),
            versions=self._readiness(name),
            age=self._observations.age(name, monotonic()),
            weights=dict(endpoint.traffic) if seen else None,
            sticky=endpoint.split.sticky is not None,
            last_stable=self._stable_before.get(name) or None,
        )

    def _readiness(self, name: str) -> dict[str, Readiness]:
        managed = self._versions.models.get(name)
        found: dict[str, Readiness] = {}
        for version in managed.versions.values() if managed is not None else ():
            workers = self._workers.of(version.uid)
            if version.phase is VersionPhase.FAILED or any(worker.failures >= _CRASHES for worker in workers):
                found[version.found.version] = "failed"
            elif version.phase is VersionPhase.READY:
                found[version.found.version] = "ready"
            elif version.phase in {VersionPhase.PREPARING, VersionPhase.LOADING}:
                found.setdefault(version.found.version, "loading")
        for one in self._plane.endpoint(name).versions:
            if one.model is None:  # what it consists of is looked after by itself
                found[one.name] = "ready"
        return found

    def _pairs(self, name: str, state: RolloutState) -> Pairs:
        count = differ = failed = 0
        for said in self._observations.pairs(name):
            record = ShadowRecord.from_json(said)
            pairs = record.pairs.get((state.stable, state.policy.to))
            if pairs is not None:
                count += pairs.requests
                # Rows of one request may resemble each other: a request counts once, by its share of rows.
                differ += round(pairs.requests * (pairs.rows - pairs.agreed) / pairs.rows) if pairs.rows else 0
                failed += sum(pairs.failed["shadow"].values())
        return Pairs(count, differ, failed)

    async def _stable_ago(self, name: str, policy: RolloutPolicy) -> int:
        """How many revisions ago the version had all of the traffic; 0 where it never had, as far as is looked."""

        def look(store: Store) -> int:
            for ago, change in enumerate(store.history(policy.rollback_window)[1:], 1):
                document = Document.from_text(store.revision(change.revision).document)
                traffic = next((one.traffic for one in document.endpoints if one.name == name), {})
                if traffic.get(policy.to, 0.0) >= 100.0:
                    return ago
            return 0

        found: int = await self._plane.revisions.call(look)
        return found


def _put(store: Store, name: str, value: str) -> None:
    store.put(ROLLOUT, name, value)


def _forget(store: Store, name: str) -> None:
    store.delete(ROLLOUT, name)


def _policy(said: RolloutPolicy | None, to: Any) -> RolloutPolicy:
    if said is None and not to:
        raise InvalidInput(
            "the spec has no rollout, so the version must be said",
            field="to",
            example="turnout rollout fraud start --to v8",
        )
    if said is None:
        return RolloutPolicy(to=str(to))
    return msgspec.structs.replace(said, to=str(to)) if to else said
