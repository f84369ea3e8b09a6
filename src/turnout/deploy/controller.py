"""The controller: starts routers and workers, keeps the served versions what they should be, stops it all in order.

It touches no request: while it does nothing, routers and workers serve.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from turnout.core.errors import Failure
from turnout.deploy.administration import Administration
from turnout.deploy.document import Document
from turnout.deploy.finding import Finding
from turnout.deploy.guidance import Guidance
from turnout.deploy.kept import Kept
from turnout.deploy.listening import Doors
from turnout.deploy.managed import Version, loading, served_of
from turnout.deploy.plan import Phase
from turnout.deploy.resume import resume, returned
from turnout.deploy.routers import Router, Routers
from turnout.deploy.spec import ServeSpec, template_of
from turnout.deploy.status import waiting_labels
from turnout.deploy.succession import Left, Succession, state_of
from turnout.deploy.supply import Supply
from turnout.deploy.threads import in_thread
from turnout.deploy.versions import Versions
from turnout.deploy.workers import Worker, Workers
from turnout.runtime.wire import Message, Wire

logger = logging.getLogger("turnout")
_STATUS_SECONDS = 1.0

Announce = Callable[[ServeSpec, dict[str, dict[str, Any]]], None]
Tell = Callable[[str, str], None]


class Controller:
    """Runs one ServeSpec. `announce` is called once, when everything is ready, with what is served.

    `tell` gets what is being done for a version while that takes its time: its name, and a few words.
    """

    def __init__(
        self, spec: ServeSpec, supply: Supply, announce: Announce, tell: Tell | None = None, kept: Kept | None = None,
        document: Document | None = None,
    ) -> None:  # fmt: skip
        self.kept = kept or Kept()
        self.spec = spec.with_ports(*self.kept.ports) if self.kept.again and self.kept.ports[0] else spec
        self.succession = Succession(self.kept, self._has_returned)
        self.supply = supply
        self.failure = ""
        self._announce = announce
        self._tell = tell
        self._announced = False
        self._stopping = False
        self._told = self.kept.stopping
        self._goes_on = False
        self._dismissed = False
        self._loop = asyncio.get_running_loop()
        self._exit: asyncio.Future[int] = self._loop.create_future()
        self.workers = Workers(self)
        self.versions = Versions(supply, self.workers, self)
        self.routers: Routers | None = None
        self.finding = Finding(supply, self.versions, self._give_up, keep_going=spec.keep_going)
        self.administration = Administration(
            self.versions, self.workers, supply, self.finding.watches, template_of(spec.models), self.finding.watch
        )
        self._document = document or Document(models=spec.models)
        self.guidance = Guidance(self.versions, self.workers, supply, self.finding.watch, self._document)
        self.administration.offer(self.guidance.acts, self.guidance.check)

    async def run(self) -> int:
        """Serves until told to stop; returns the process's exit code. Raises OSError if a port is not to be had.

        What a controller before this one has left is gone on with, and if this one breaks, that is left to the next.
        """
        limit = self._loop.call_later(self.spec.load_timeout, self._load_timed_out)
        status = asyncio.ensure_future(self._say_status())
        admin = None
        try:
            left = await self.succession.find(self.spec)
            doors = left.doors if left is not None else self.succession.doors()
            self.routers = self.versions.routers = Routers(self.spec, self, doors)
            self.spec = self.routers.spec
            self.succession.begin(self.spec, self.routers, self._state)
            self.workers.lifeline = self.routers.lifeline = self.succession.lifeline
            self.guidance.listen(self.spec)
            self.versions.asked = self._document.names
            if left is not None:
                self._go_on(left)
            self.routers.expect(self.versions.asked)
            beginning = asyncio.ensure_future(self._find_all())
            self.routers.start()
            admin = await self.administration.listen(self.spec.port)
            if self._told:
                self.stop()
            # A place that is slow to answer does not hold up the end, and what breaks there is not lost.
            ends: list[asyncio.Future[Any]] = [beginning, self._exit]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if beginning.done():
                beginning.result()
            beginning.cancel()
            code = await self._exit
        except Exception:
            if self.routers is not None and (self._stopping or not (self._announced or self._goes_on)):
                self.kill()
                self.succession.end()
            raise
        else:
            self.kill()
            self.succession.end()
            return code
        finally:
            limit.cancel()
            status.cancel()
            self.guidance.end()
            self.administration.forget()
            if admin is not None:
                admin.close()
            self.finding.end()

    def stop(self) -> None:
        """Drains and ends; called again, it ends at once."""
        if self.routers is None and not self._told:
            self._told = True  # as soon as it is known what has to be stopped
            return
        if self._stopping or self.routers is None:
            self._finish(1)
            return
        self._stopping = True
        self.workers.stop()
        self.workers.be_the_last()
        self.succession.end()
        self.routers.drain()
        self._loop.call_later(self.spec.drain_timeout + 1.0, self._finish, 1)
        self._when_drained()

    def kill(self) -> None:
        """Ends every child at once."""
        self.workers.stop()
        for child in [worker.child for worker in self.workers.all if worker.child]:
            child.kill()
        if self.routers is not None:
            self.routers.kill()

    def _finish(self, code: int) -> None:
        if not self._exit.done():
            self._exit.set_result(code)

    def _fail(self, message: str) -> None:
        self.failure = self.failure or message
        self._stopping = True
        self.workers.stop()
        self._finish(1)

    def _go_on(self, left: Left) -> None:
        """Takes over what runs, as it was wanted then. What this server's words want else is done after that."""
        if self.routers is None:
            return
        self._goes_on = left.found["announced"]
        self._announced = self._goes_on and self.kept.again
        running = resume(left, self.spec, self.versions, self.workers, self.routers, again=self.kept.again)
        for spec in running:
            in_thread(self._loop, partial(self.supply.resume, spec))
        for pid, wire, said, doors in left.in_order():
            self._has_returned(pid, wire, said, doors)
        for managed in list(self.versions.models.values()):
            self.versions.resume(managed)
            if managed.spec.watch and not managed.removed:
                self.finding.watch(managed.spec, managed.found)
        logger.info("%d processes of the controller before this one go on", len(left.returned))

    def _has_returned(self, pid: int, wire: Wire, said: Message, doors: Doors | None) -> bool:
        """A child has found this controller. False for one that is not ours."""
        if self.routers is None or not returned(self.versions, self.routers, pid, wire, said, doors):
            return False
        if doors is not None:
            self.succession.keep(self.routers)
        return True

    def _state(self) -> dict[str, Any]:
        state = state_of(self.spec, self.versions, announced=self._announced or self._goes_on)
        return {**state, "children": self.succession.children(self.workers, self.routers)}

    def changes(self, *, soon: bool = False) -> None:
        """What the next controller has to know is other than it was."""
        if soon:
            self.succession.write_soon()
            self._loop.call_soon(self._when_ready)
        else:
            self.succession.write()

    async def _find_all(self) -> None:
        known = set(self.versions.models) if self.kept.again else set()
        await self.finding.find([model for model in self.spec.models if model.name not in known])
        try:
            await self.guidance.begin(keep_going=self.spec.keep_going)
        except Failure as failure:
            if self._goes_on:
                logger.error("what is served stays as it was: %s", failure.message)  # noqa: TRY400  the sentence says all
            else:
                self._fail(failure.message)
        self._when_ready()

    def _give_up(self, name: str, reason: str) -> None:
        if not self.spec.keep_going:
            self._fail(f"{name}: {reason}")
            return
        logger.error("%s is not served: %s", name, reason)
        self.administration.problems[name] = reason

    def _load_timed_out(self) -> None:
        if not self._announced and not self._goes_on and not self.spec.keep_going:
            late, limit = loading(self.versions.models) or "a router", self.spec.load_timeout
            self._fail(f"{late} did not become ready within {limit:g} s")

    # -- what children say --------------------------------------------------------------------------------

    def worker_ready(self, worker: Worker) -> None:
        """Every router gets a way to it, unless nobody is to come there any more."""
        self.succession.write_soon()
        if self.routers is not None and self.versions.serves(worker):
            self.routers.link(worker)

    def worker_failed(self, worker: Worker, message: str) -> None:
        """It never was ready: its version cannot be loaded."""
        version = self.versions.version_of(worker)
        if version is not None:
            self.versions.failed(version, message)

    def worker_gone(self, worker: Worker) -> None:
        """Routers are told, for a link may outlive the process."""
        if self.routers is not None:
            self.routers.lost(worker.name)
        if self._stopping:
            self._when_drained()

    def router_listening(self, router: Router) -> None:
        """It is linked to all that is ready, and none but it: a second link would be a second place."""
        if self.routers is not None:
            self.versions.declare(router)
            for worker in self.workers.all:
                if worker.ready and self.versions.serves(worker):
                    self.routers.link_one(router, worker)

    def router_shown(self) -> None:
        """It sends requests where they should go now."""
        self.versions.wake()
        self._when_ready()

    def router_connected(self, replica: str, said: Message) -> None:
        """One replica is connected to one more router, or an inline version is loaded there."""
        description = {k: v for k, v in said.items() if k not in {"event", "replica"}} or None
        self.versions.connected(replica.rpartition("#")[0] or replica, description)

    def router_refused(self, uid: str, message: str) -> None:
        """It could not load a version into itself. One that others serve is not lost because of one that came later."""
        managed = self.versions.models.get(uid.rpartition("@")[0])
        version = managed.versions.get(uid) if managed is not None else None
        if version is not None and version.phase is Phase.LOADING:
            self.versions.failed(version, message)
        elif version is not None:
            logger.error("%s could not be loaded into a router that was started again: %s", uid, message)

    def router_hung(self, replica: str) -> None:
        """A worker does not answer."""
        self.workers.kill(replica)

    def router_failed(self, message: str) -> None:
        """A router cannot do its work at all."""
        self._fail(message)

    def router_saw(self, router: Router, message: Message) -> None:
        """It has counted what versions did."""
        self.guidance.heard(f"{router.name}:{message['life']}", message)

    def router_asked(self, question: Message, answer: Callable[[Message], None]) -> None:
        """Somebody uses the repository API at a router."""
        self.administration.ask(question, answer)

    def router_ended(self) -> None:
        """While stopping: what it had in flight is answered."""
        self._when_drained()

    # -- what versions do ---------------------------------------------------------------------------------

    def version_ready(self, version: Version) -> None:
        """Announces, once everything that was asked for at the start is there."""
        if self._announced:
            logger.info("%s is ready", version.uid)
        self._when_ready()

    def version_failed(self, version: Version) -> None:
        """At the start that is the end, unless the user wants the rest served all the same."""
        if self._announced or self._goes_on or self.spec.keep_going:
            logger.error("%s cannot be loaded: %s", version.uid, version.reason)
            self._when_ready()
        else:
            self._fail(f"{version.model}: {version.reason}")

    def progress(self, version: Version, text: str) -> None:
        """Passes it on."""
        if self._tell is not None and not self._announced:
            self._tell(version.model, text)

    def _when_ready(self) -> None:
        models = self.versions.models
        found = len(models) >= len(self.spec.models) - len(self.administration.problems) and self.guidance.begun
        if self._announced or self._stopping or not found:
            return
        if self.routers is None or not (self.routers.seen and all(managed.settled for managed in models.values())):
            return
        served = served_of(models)
        if not served:
            self._fail("; ".join(v.reason for m in models.values() for v in m.versions.values()) or "nothing to serve")
            return
        self._announced = True
        self.succession.write_soon()
        for name, managed in models.items():
            for label, version in waiting_labels(managed).items():
                logger.warning("%s: the label %s is for version %s, which is not loaded", name, label, version)
        self._send_status()
        self._announce(self.spec, served)

    def _when_drained(self) -> None:
        if not self._stopping or self.routers is None or self.routers.alive:
            return
        if not any(worker.child for worker in self.workers.all):
            self._finish(0)
        elif not self._dismissed:
            self._dismissed = True
            self.workers.retire(self.workers.all, lambda: self._finish(0))

    async def _say_status(self) -> None:
        while True:
            await asyncio.sleep(_STATUS_SECONDS)
            self._send_status()

    def _send_status(self) -> None:
        if self.routers is not None:
            self.routers.say_status(
                [[w.spec.name, w.spec.version, w.name, w.state, w.restarts, w.memory] for w in self.workers.all]
            )
