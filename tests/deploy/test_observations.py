"""Counts of several routers, one of which is started again, are never counted twice and never lost."""

from __future__ import annotations

import math

from turnout.deploy.observations import Observations
from turnout.graph.evidence import Evidence


def seen(requests: int, errors: int = 0) -> dict[str, object]:
    found = Evidence()
    found.requests, found.errors = requests, errors
    return found.to_json()


def test_routers_add_up_and_their_ends_are_kept() -> None:
    observed = Observations()
    observed.take("0:100", "fraud", {"v7": seen(5), "v8": seen(1, 1)})
    observed.take("1:101", "fraud", {"v7": seen(7)})
    observed.take("0:100", "fraud", {"v7": seen(6), "v8": seen(2, 1)})
    observed.take("0:100", "other", {"v7": seen(99)})
    assert {name: counts.requests for name, counts in observed.of("fraud").items()} == {"v7": 13, "v8": 2}
    observed.ended("0:100")
    observed.take("0:200", "fraud", {"v7": seen(1)})
    found = observed.of("fraud")
    assert (found["v7"].requests, found["v8"].requests, found["v8"].errors) == (14, 2, 1)


def test_what_was_never_heard_of_is_endlessly_old() -> None:
    assert math.isinf(Observations().age("fraud", 0.0))
