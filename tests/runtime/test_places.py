"""The shipped conformance suite over every place there is."""

from __future__ import annotations

import asyncio

import pytest

from tests.runtime.places import PLACES
from turnout.testing.places import PLACE_CHECKS, Check


@pytest.mark.parametrize("check", PLACE_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("place", PLACES)
def test_place(place: str, check: Check) -> None:
    asyncio.run(check(PLACES[place]))
