"""A made-up endpoint under a rollout: requests by chance, decided over by the real state machine, many times.

    python -m tools.simulate_rollouts            # the tables of docs/explanation/rollouts.md

Everything is drawn from one seed, so the figures are the same wherever it runs.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec
import numpy as np

from turnout.deploy.rollout.commands import command, new_rollout
from turnout.deploy.rollout.machine import decide
from turnout.deploy.rollout.policy import JudgePolicy, RolloutPolicy
from turnout.deploy.rollout.state import Decision, Observed, Pairs, Phase, RolloutState
from turnout.deploy.rollout.statistics import Sums
from turnout.graph.evidence import BOUNDS, Evidence

START = 1_000_000.0
_BOUNDS = np.array(BOUNDS)
Draw = Callable[[np.random.Generator, int], np.ndarray]


@dataclass
class Version:
    """How a version behaves. Latency in seconds is lognormal: its median, and the spread of its logarithm."""

    errors: float = 0.0
    invalid: float = 0.0
    fallback: float = 0.0
    latency: float = 0.010
    spread: float = 0.25
    values: Draw | None = None


@dataclass
class World:
    """An endpoint whose requests fall to versions by their weights. rate: requests a second."""

    versions: Mapping[str, Version]
    rate: float
    seed: int = 0
    weights: dict[str, float] = field(default_factory=dict)
    evidence: dict[str, Evidence] = field(default_factory=dict)
    judge: dict[str, Sums] = field(default_factory=dict)
    readiness: dict[str, str] = field(default_factory=dict)
    pairs: Pairs = field(default_factory=Pairs)
    bias: Mapping[str, float] = field(default_factory=dict)
    age: float = 0.0

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)
        self.readiness = self.readiness or dict.fromkeys(self.versions, "ready")
        for name in self.versions:
            self.evidence.setdefault(name, Evidence())
            self.judge.setdefault(name, Sums(0, 0.0, 0.0))

    def serve(self, seconds: float) -> None:
        """So many seconds of traffic."""
        names = list(self.versions)
        shares = np.array([self.weights.get(name, 0.0) * self.bias.get(name, 1.0) for name in names])
        counts = self.random.multinomial(self.random.poisson(self.rate * seconds), shares / shares.sum())
        for name, count in zip(names, counts.tolist(), strict=True):
            if count:
                self._answer(name, count)

    def _answer(self, name: str, count: int) -> None:
        version, seen = self.versions[name], Evidence().plus(self.evidence[name])
        invalid = int(self.random.binomial(count, version.invalid))
        errors = invalid + int(self.random.binomial(count - invalid, version.errors))
        seen.requests += count
        seen.errors += errors
        seen.invalid += invalid
        seen.degraded += int(self.random.binomial(count, version.fallback))
        seconds = version.latency * np.exp(version.spread * self.random.standard_normal(count - errors))
        buckets = np.bincount(np.searchsorted(_BOUNDS, seconds), minlength=len(seen.latency))
        seen.latency = (np.array(seen.latency) + buckets).tolist()
        self.evidence[name] = seen
        if version.values is not None:
            values = version.values(self.random, count)
            self.judge[name] = self.judge[name].plus(Sums(count, float(values.sum()), float((values**2).sum())))

    def observed(self) -> Observed:
        """What a controller would see now."""
        return Observed(
            evidence=dict(self.evidence),
            judge=dict(self.judge),
            pairs=self.pairs,
            versions=dict(self.readiness),
            age=self.age,
            weights=dict(self.weights),
        )


class Run:
    """One rollout over a world: looked at every `look` seconds, its weights set at once."""

    def __init__(self, policy: RolloutPolicy, world: World, look: float = 1.0, traffic: dict[str, float] | None = None):
        self.world, self.look, self.now = world, look, START
        world.weights = traffic or {name: 0.0 if name == policy.to else 100.0 for name in world.versions}
        self.state = new_rollout(policy, world.weights)
        self.decision = self.take(command(self.state, "start", world.observed(), self.now))

    def take(self, decision: Decision) -> Decision:
        """Carries a decision out."""
        self.state = decision.state
        if decision.weights is not None:
            self.world.weights = dict(decision.weights)
        self.decision = decision
        return decision

    def tick(self, *, traffic: bool = True) -> RolloutState:
        """Some traffic and a look."""
        if traffic:
            self.world.serve(self.look)
        self.now += self.look
        self.take(decide(self.state, self.world.observed(), self.now))
        return self.state

    def until(self, phases: set[Phase], seconds: float) -> Phase:
        """On until a phase is reached or the time is over."""
        end = self.now + seconds
        while self.state.phase not in phases and self.now < end:
            self.tick()
        return self.state.phase


ENDS = {Phase.STABLE, Phase.ROLLED_BACK, Phase.PAUSED, Phase.INCONCLUSIVE}


def at_share(share: float, **settings: object) -> RolloutPolicy:
    """A rollout that stays at one share for as long as it is looked at."""
    said = {"to": "v8", "steps": [share, 100], "min_seconds": 1e9, "max_seconds": 1e10, **settings}
    return msgspec.convert(said, RolloutPolicy)


def times(share: float, canary: Version, rate: float, runs: int, seconds: float, look: float = 1.0) -> list[float]:
    """Seconds from the canary's first request to its being rolled back, by run; infinite where it was not."""
    found = []
    for seed in range(runs):
        run = Run(at_share(share), World({"v7": Version(spread=canary.spread), "v8": canary}, rate, seed), look)
        while run.state.phase is not Phase.CANARY:
            run.tick(traffic=False)
        begun = run.now
        ended = run.until({Phase.ROLLED_BACK}, seconds) is Phase.ROLLED_BACK
        found.append(run.now - begun if ended else float("inf"))
    return found


def bad_answers(share: float, errors: float, runs: int) -> list[int]:
    """Errors of a canary before it is out, by run, looked at every 0.25 s at 50 requests a second."""
    found = []
    for seed in range(runs):
        run = Run(at_share(share), World({"v7": Version(), "v8": Version(errors=errors)}, 50.0, seed), 0.25)
        run.until({Phase.ROLLED_BACK}, 600.0)
        found.append(run.world.evidence["v8"].errors if run.state.phase is Phase.ROLLED_BACK else 10**9)
    return found


def revenue(random: np.random.Generator, count: int) -> np.ndarray:
    """Values of a judge's metric, as skewed as money is."""
    return random.exponential(2.0, count)


def clicks(rate: float) -> Draw:
    """Values of a judge's metric that are 1 so often, and else 0."""
    return lambda random, count: (random.random(count) < rate).astype(float)


def alike(
    seeds: range, judge: JudgePolicy | None, values: Draw | None, look: float = 2.0, seconds: float = 300.0
) -> dict[str, int]:
    """How rollouts of two versions end that do not differ: 20 requests a second, short steps, all guards on."""
    ends: dict[str, int] = {}
    policy = RolloutPolicy(to="v8", min_seconds=20.0, interval=5.0, min_samples=10, max_seconds=seconds, judge=judge)
    for seed in seeds:
        made = {name: Version(0.01, 0.005, 0.01, values=values) for name in ("v7", "v8")}
        run = Run(policy, World(made, 20.0, seed), look)
        run.until(ENDS, 2.0 * seconds)
        ends[run.state.phase.value] = ends.get(run.state.phase.value, 0) + 1
    return ends


def judged(gain: float, runs: int, seconds: float = 3600.0) -> dict[str, int]:
    """How rollouts end whose new version is clicked so many points more often than 20 %, at 20 requests a second."""
    ends: dict[str, int] = {}
    policy = RolloutPolicy(
        to="v8", min_seconds=60.0, interval=5.0, min_samples=50, max_seconds=seconds,
        judge=JudgePolicy(metric="clicks", kind="rate"),
    )  # fmt: skip
    for seed in range(runs):
        made = {"v7": Version(values=clicks(0.2)), "v8": Version(values=clicks(0.2 + gain))}
        run = Run(policy, World(made, 20.0, seed), 5.0)
        run.until(ENDS, 2.0 * seconds)
        ends[run.state.phase.value] = ends.get(run.state.phase.value, 0) + 1
    return ends


def print_alike(runs: int) -> None:
    money, clicked = JudgePolicy(metric="revenue"), JudgePolicy(metric="clicks", kind="rate")
    for name, judge, values in (("none", None, None), ("a mean", money, revenue), ("a rate", clicked, clicks(0.05))):
        print(f"| {name} |", alike(range(runs), judge, values), "|", flush=True)


def print_judged(runs: int) -> None:
    for gain in (-0.02, 0.0, 0.02, 0.04):
        print(f"| {gain * 100:+g} points |", judged(gain, runs), "|", flush=True)


def print_errors(runs: int) -> None:
    for share in (1.0, 5.0, 25.0):
        row = [bad_answers(share, errors, runs) for errors in (1.0, 0.5, 0.1)]
        cells = " | ".join(f"{statistics.median(one):g}, at most {max(one)}" for one in row)
        print(f"| {share:g} % | {cells} |", flush=True)


def print_latency(runs: int) -> None:
    for share in (1.0, 5.0, 10.0, 25.0, 50.0):
        row = [times(share, Version(latency=0.015, spread=spread), 50.0, runs, 300.0) for spread in (0.1, 0.25, 0.5)]
        cells = " | ".join(f"{np.median(one):.0f}, {np.sort(one)[int(0.9 * len(one)) - 1]:.0f}" for one in row)
        print(f"| {share:g} % | {cells} |", flush=True)


TABLES: Mapping[str, tuple[str, int, Callable[[int], None]]] = {
    "alike": ("how rollouts of two versions end that are alike, by judge", 1000, print_alike),
    "judged": ("how rollouts end within an hour whose clicks differ from 20 % by so much", 100, print_judged),
    "errors": ("bad answers before a canary is out that fails all, half or a tenth: median, worst", 100, print_errors),
    "latency": ("seconds until +50 % latency is found at 50 requests/s: median, 9 of 10 runs", 100, print_latency),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=", ".join(TABLES))
    parser.add_argument("--runs", type=int, help="rollouts for each figure")
    said = parser.parse_args()
    for name in said.tables or TABLES:
        title, usual, show = TABLES[name]
        runs = said.runs or usual
        print(f"\n{title} ({runs} rollouts each)")
        show(runs)


if __name__ == "__main__":
    main()
