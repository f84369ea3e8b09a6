"""One simulated history of a control plane: `python -m tests.simulation.run SEED` shows what happens in it."""

from __future__ import annotations

import itertools
import json
import sys
from dataclasses import dataclass, field
from typing import Any

from tests.simulation.controller import Controller, Plan
from tests.simulation.machines import Router, Workers, weights_of
from tests.simulation.world import Broken, SimulatedStore, World
from turnout.deploy import plan as plans
from turnout.deploy.plan import Phase
from turnout.deploy.rollout.state import RUNNING
from turnout.testing.stores import MemoryStore

_FAULTY_SECONDS = 25.0
_HEALTHY_SECONDS = 240.0
_ENDPOINTS = ("fraud", "churn")


@dataclass
class Simulation:
    """Two controllers, two routers, workers, and a person who asks for this and that, as chance has it."""

    seed: int
    store: type[SimulatedStore] = SimulatedStore
    plan: Plan = plans.plan
    trace: list[str] | None = None
    acknowledged: list[tuple[int, str, int]] = field(default_factory=list)
    asked: int = 0

    def __post_init__(self) -> None:
        self.world = World(self.seed, trace=self.trace)
        self.kept = self.store(self.world)
        first = MemoryStore(lambda: self.world.now)
        endpoint = {"versions": {"v1": "good"}, "traffic": {"v1": 100.0}}
        first.propose(json.dumps({"endpoints": dict.fromkeys(_ENDPOINTS, endpoint)}), author="person")
        self.kept.content = first.content
        self.controllers = [Controller(self.world, name, self.kept, self.plan) for name in ("one", "two")]
        self.workers = Workers(self.world, [*self.controllers])
        self.routers = [Router(self.world, number, self.workers, [*self.controllers]) for number in range(2)]
        for controller in self.controllers:
            controller.workers, controller.routers = self.workers, self.routers
        self.world.at(0.5, self._ask)

    def run(self) -> None:
        """Raises Broken with what was not kept."""
        began = self.world.now
        self.world.run(began + _FAULTY_SECONDS)
        self.world.faults = False
        self.world.tell("-- from here on nothing goes wrong any more")
        if not self.world.run(self.world.now + _HEALTHY_SECONDS, self._is_settled):
            raise Broken(f"it does not settle: {self._unsettled()}")
        content = self.kept.content
        for seq, act, number in self.acknowledged:
            if seq > len(content.changes):
                raise Broken(f"an acknowledged {act} to revision {number} is lost")
            change = content.changes[seq - 1]
            if (change.act, change.revision) != (act, number):
                raise Broken(f"an acknowledged {act} to revision {number} became {change}")

    # -- what people ask for ------------------------------------------------------------------------------

    def _ask(self) -> None:
        if self.world.faults:
            self.world.at(self.world.rng.uniform(0.3, 4.0), self._ask)
            leading = [controller for controller in self.controllers if controller.leads]
            if leading:
                self._ask_of(self.world.rng.choice(leading))

    def _ask_of(self, controller: Controller) -> None:
        rng, current = self.world.rng, self.kept.current()
        self.asked += 1
        assert current is not None
        base, endpoints = current.number, json.loads(current.document)["endpoints"]
        name = rng.choice(_ENDPOINTS)
        if controller.is_rolling(name) and rng.random() < 0.7:
            return  # let it go on for a while
        act = rng.choices(("apply", "traffic", "undo", "move", "start", "word"), (4, 1, 1, 1, 6, 2))[0]
        if act in {"apply", "traffic"}:
            endpoint = self._changed(endpoints[name], traffic_only=act == "traffic")
            self._change(controller, "apply", base, json.dumps({"endpoints": {**endpoints, name: endpoint}}))
        elif act == "undo":
            self._change(controller, "undo", base)
        elif act == "move":
            self._change(controller, "move", base, str(rng.randint(1, len(self.kept.content.revisions))))
        elif act == "start":
            version = min(endpoints[name]["traffic"], key=endpoints[name]["traffic"].__getitem__)
            if controller.start(name, version):
                self.world.tell(f"person: rolls {version} of {name} out")
        else:
            controller.command(name, rng.choice(("pause", "resume", "promote", "abort")))

    def _change(self, controller: Controller, act: str, base: int, text: str = "") -> None:
        self.world.tell(f"person: asks {controller.name} for {act} from {base}: {text}")
        saved = controller.change(act, base, text)
        if saved is not None:
            self.world.tell(f"person: was told {saved}")
            self.acknowledged.append(saved)

    def _changed(self, endpoint: dict[str, Any], *, traffic_only: bool) -> dict[str, Any]:
        """Other weights; or other content of a version; or one version in place of all; or a new one beside the others.

        So there are changes that can be in force at once, and such as have to wait until something is loaded.
        """
        rng = self.world.rng
        versions, traffic = dict(endpoint["versions"]), dict(endpoint["traffic"])
        if not traffic_only:
            if rng.random() < 0.25:
                changed = rng.choice(list(versions))
                return {"versions": {**versions, changed: f"{versions[changed][:4]}{self.asked}"}, "traffic": traffic}
            if rng.random() < 0.25:
                version = f"v{self.asked + 1}"
                return {"versions": {version: "good"}, "traffic": {version: 100.0}}
            idle = [version for version in versions if traffic[version] == 0]
            if idle and rng.random() < 0.5:
                del versions[idle[0]], traffic[idle[0]]
            version = f"v{self.asked + 1}"
            versions[version] = rng.choice(("good", "good", "bad"))
            traffic[version] = 0.0
            return {"versions": versions, "traffic": traffic}
        shares = [rng.randrange(101) for _ in range(len(versions) - 1)]
        cuts = [0, *sorted(shares), 100]
        percents = [float(high - low) for low, high in itertools.pairwise(cuts)]
        return {"versions": versions, "traffic": dict(zip(versions, percents, strict=True))}

    # -- whether it has come to rest ----------------------------------------------------------------------

    def _is_settled(self) -> bool:
        return not self._unsettled()

    def _unsettled(self) -> str:
        """What is still to happen."""
        if sum(controller.leads for controller in self.controllers) != 1:
            return "nobody leads, or more than one"
        current = self.kept.current()
        assert current is not None
        endpoints = json.loads(current.document)["endpoints"]
        (leader,) = [controller for controller in self.controllers if controller.leads]
        for name, endpoint in endpoints.items():
            wanted = set(endpoint["versions"].items())
            there = {
                (one.version, one.key): one.phase for one in self.workers.versions.values() if one.endpoint == name
            }
            if Phase.LOADING in there.values() or not wanted <= set(there):
                return f"{name} has {there} of {wanted}"
            _, state = leader.rollout(name)
            if state is not None and state.phase in RUNNING:
                return f"the rollout of {name} is {state.phase}"
            if any(there[one] is Phase.FAILED for one in wanted):
                continue  # what cannot be loaded cannot come into force; what was there goes on, and that was looked at
            if {one for one, phase in there.items() if phase is not Phase.KEPT} != wanted:
                return f"{name} has {there}, which is more than {wanted}"
            shown = [weights_of(router.routings[name]) if name in router.routings else None for router in self.routers]
            if shown != [endpoint["traffic"]] * len(self.routers):
                return f"the routers have {shown} for {name}, which should be {endpoint['traffic']}"
        return ""


def main() -> None:
    simulation = Simulation(int(sys.argv[1]), trace=[])
    try:
        simulation.run()
    except Broken as broken:
        print(*simulation.trace or [], f"BROKEN: {broken}", sep="\n")
        sys.exit(1)
    print(*simulation.trace or [], "all promises were kept", sep="\n")


if __name__ == "__main__":
    main()
