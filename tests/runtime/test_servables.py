"""The shipped conformance suite over batching, on every place and on several places at once."""

from __future__ import annotations

import asyncio

import pytest

from tests.runtime.places import PLACES, batched
from turnout.runtime.batch_policy import BatchPolicy
from turnout.testing.servables import SERVABLE_CHECKS, Check

SERVABLES = {
    **{name: batched([make]) for name, make in PLACES.items()},
    "two places": batched([PLACES["thread-memory"], PLACES["thread-socket"]]),
    "waiting for more": batched([PLACES["thread-memory"]], BatchPolicy(max_rows=64, max_wait=0.01)),
    "one row a batch": batched([PLACES["thread-memory"]], BatchPolicy(max_rows=1)),
}


@pytest.mark.parametrize("check", SERVABLE_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("servable", SERVABLES)
def test_servable(servable: str, check: Check) -> None:
    asyncio.run(check(SERVABLES[servable]))
