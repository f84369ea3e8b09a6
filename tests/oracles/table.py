"""Prints what each server does with each request, and who accounts for what differs.

python -m tests.oracles.table            every case in which some server differs from Turnout
python -m tests.oracles.table --counts   how many cases each server answers with the same status
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import NamedTuple

from .battery import CASES
from .decisions import CLAIMS, DECISIONS
from .ledger import expectation, unclaimed
from .outcome import Outcome, differences
from .record import ORACLES, load


class Row(NamedTuple):
    """One case at one oracle: what Turnout does, what the oracle does, and the decisions between the two."""

    name: str
    oracle: str
    ours: str
    theirs: str
    decisions: tuple[str, ...]


def rows() -> Iterator[Row]:
    """Every case at every oracle."""
    goldens = {oracle: load(oracle) for oracle in ORACLES}
    for case in CASES:
        want, made = expectation(case, goldens[case.follows][case.name], DECISIONS)
        for oracle in case.oracles:
            got = goldens[oracle][case.name]
            if not differences(want, got):
                ids: set[str] = set()
            elif oracle == case.follows:
                ids = {decision.id for decision in made}
            else:
                ids = {claim.id for claim in unclaimed(case, want, oracle, got, CLAIMS)[1]}
            yield Row(case.name, oracle, _short(want), _short(got), tuple(sorted(ids)))


def _short(fact: Outcome) -> str:
    return str(fact.get("failure") or fact.get("status") or fact.get("code"))


def counts() -> dict[str, tuple[int, int]]:
    """For each oracle, how many requests it was sent and how many it answers with the same status."""
    found = dict.fromkeys(ORACLES, (0, 0))
    for row in rows():
        sent, same = found[row.oracle]
        found[row.oracle] = (sent + 1, same + (row.ours == row.theirs))
    return found


def _counts() -> None:
    for oracle, (sent, same) in counts().items():
        print(f"{oracle:9} {sent:4} requests, {same:4} with the same status")


def _differences() -> None:
    for row in rows():
        if row.decisions:
            print(f"{row.name:52.52} {row.oracle:9} {row.ours:>18} {row.theirs:>18}  {' '.join(row.decisions)}")


if __name__ == "__main__":
    if "--counts" in sys.argv:
        _counts()
    else:
        _differences()
