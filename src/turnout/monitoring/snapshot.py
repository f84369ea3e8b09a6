"""The numbers of one process as plain data, and the sum of several processes.

Routers that share a port count apart. Whichever of them answers a scrape adds up what all have sent it.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import add

#: Label values, then one number, or for a histogram the sum and the counts below each bound and above the last.
#: JSON makes lists of both tuples; that changes nothing for a reader.
Values = tuple[list[str], list[float]]

#: By name of the family. JSON can carry it.
Snapshot = dict[str, list[Values]]


def merge(snapshots: Iterable[Snapshot]) -> Snapshot:
    """One snapshot that holds the sum of all: values with the same name and labels are added."""
    sums: dict[str, dict[tuple[str, ...], list[float]]] = {}
    for snapshot in snapshots:
        for name, rows in snapshot.items():
            family = sums.setdefault(name, {})
            for labels, values in rows:
                key = tuple(labels)
                before = family.get(key)
                family[key] = list(values) if before is None else list(map(add, before, values))
    return {name: [(list(labels), values) for labels, values in family.items()] for name, family in sums.items()}
