"""Ten thousand histories of a control plane in which all fails that can: each keeps every promise, and ends well.

Store, reconcile loop and rollouts run on one clock and one source of chance, so a seed is a whole history. To see the
one that a test names: `python -m tests.simulation.run SEED`.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.simulation.run import Simulation
from tests.simulation.world import Broken, ForgetfulStore, SimulatedStore, TrustingStore
from turnout.deploy import plan as plans
from turnout.deploy.plan import Action, Have, Manner, Routing, Unload, Wanted

_AT_ONCE = 50
_SEEDS = 10_000
_PARTS = 4


def first_broken(seeds: Sequence[int]) -> str:
    """What went wrong first, and how to see it; "" where nothing did."""
    for seed in seeds:
        try:
            Simulation(seed).run()
        except Broken as broken:
            return f"seed {seed}: {broken}. To see it: python -m tests.simulation.run {seed}"
    return ""


def test_a_hundred_histories() -> None:
    assert first_broken(range(100)) == ""


@pytest.mark.simulated
@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", range(_PARTS))
def test_ten_thousand_histories(part: int) -> None:
    begin, end = part * _SEEDS // _PARTS, (part + 1) * _SEEDS // _PARTS
    parts = [range(first, min(first + _AT_ONCE, end)) for first in range(begin, end, _AT_ONCE)]
    with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn")) as processes:
        assert [found for found in processes.map(first_broken, parts) if found] == []


@pytest.mark.parametrize("seed", [3, 7])
def test_a_seed_is_a_history_in_whatever_process(seed: int) -> None:
    told = {
        subprocess.run(
            [sys.executable, "-m", "tests.simulation.run", str(seed)],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONHASHSEED": hashes},
            capture_output=True,
            check=True,
        ).stdout
        for hashes in ("1", "2")
    }
    assert len(told) == 1
    assert b"all promises were kept" in told.pop()


def test_what_a_hundred_histories_see() -> None:
    """A simulation in which nothing happens would keep every promise."""
    seen: dict[str, int] = {}
    words = ("dies", "has the lease", "does not lead", "was not saved", "nobody was told", "is gone", "FAILED")
    words += ("nothing speaks against", "rolled back", "proved itself", "started again", "'undo'", "was told (")
    for seed in range(100):
        simulation = Simulation(seed, trace=[])
        simulation.run()
        for line in simulation.trace or []:
            for word in words:
                seen[word] = seen.get(word, 0) + (word in line)
    assert {word: count for word, count in seen.items() if count < 5} == {}


# -- positive controls ------------------------------------------------------------------------------------------------


def hasty_plan(wanted: Sequence[Wanted], have: Sequence[Have], manner: Manner) -> list[Action]:
    """Unloads what is not wanted any more before what is wanted is there."""
    goal = {(one.version, one.key) for one in wanted}
    surplus = [one for one in have if (one.version, one.key) not in goal]
    planned = plans.plan(wanted, have, manner)
    return planned + [Unload(one.uid) for one in surplus if Unload(one.uid) not in planned]


def hasty_guided(routing: Routing, wanted: Any, now: Any) -> Routing:
    """Puts weights in force before their versions are ready."""
    return plans.replace(routing, guide=wanted)


def broken_among(seeds: Sequence[int], **parts: Any) -> str:
    for seed in seeds:
        try:
            Simulation(seed, **parts).run()
        except Broken as broken:
            return str(broken)
    return ""


@pytest.mark.parametrize(
    ("store", "words"), [(ForgetfulStore, "acknowledged"), (TrustingStore, "was given since"), (SimulatedStore, "")]
)
def test_a_store_that_does_not_keep_its_promises_is_found(store: type[SimulatedStore], words: str) -> None:
    found = broken_among(range(60), store=store)
    assert words in found
    assert bool(found) == bool(words)


def test_a_plan_that_leaves_nothing_ready_is_found() -> None:
    found = broken_among(range(60), plan=hasty_plan)
    assert "nothing is left" in found or "is not any more" in found


def test_weights_that_are_in_force_too_early_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "guided", hasty_guided)
    assert "is not any more" in broken_among(range(60))
