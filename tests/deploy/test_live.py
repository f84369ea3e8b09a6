"""What doors see of the versions that are served: ready, found, or refused with a name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import pytest

from turnout.core.errors import ModelNotFound, NotReady, VersionNotFound
from turnout.core.servable import State
from turnout.deploy.build import build_version
from turnout.deploy.live import Live, LiveVersion
from turnout.deploy.spec import ModelSpec
from turnout.runtime.batch import Batch
from turnout.runtime.replica import Inline
from turnout.testing.trials import Trial, check_trial, request, trial_inputs


def in_a_loop(test: Callable[[], Any]) -> Callable[[], None]:
    @wraps(test)
    def run() -> None:
        asyncio.run(test())

    return run


def version(name: str, number: str = "1") -> LiveVersion:
    return build_version(ModelSpec(name, "x", number), Trial.signature, "python")


def give_place(served: LiveVersion) -> Inline:
    place = Inline(served.name, Trial(), served.batching.done)
    served.batching.add_place(place)
    return place


@in_a_loop
async def test_ready_is_when_every_model_has_a_worker() -> None:
    live = Live(["a", "b"])
    assert not live.ready
    first, second = version("a"), version("b")
    live.add(first)
    assert (live.ready, first.state) == (False, State.STARTING)
    one = give_place(first)
    give_place(second)
    assert (live.ready, first.state) == (False, State.READY)
    live.add(second)
    assert live.ready
    first.batching.lost(one, _nothing())
    assert (live.ready, first.state) == (False, State.STARTING)
    give_place(first)
    assert live.ready
    live.drain()
    assert not live.ready


def _nothing() -> Sequence[Batch]:
    return ()


@in_a_loop
async def test_versions_are_found_by_name_and_number() -> None:
    live = Live(["a"])
    with pytest.raises(NotReady, match="still loading"):
        live.find("a")
    with pytest.raises(ModelNotFound, match="none yet"):
        live.find("b")
    for number in ("1", "2"):
        live.add(version("a", number))
    assert live.find("a").version == "2", "the newest where none is named"
    assert live.find("a", "1").version == "1"
    assert live.find("").name == "a", "the only model there is"
    with pytest.raises(VersionNotFound, match="no version '3'"):
        live.find("a", "3")
    with pytest.raises(ModelNotFound, match="'b'"):
        live.find("b")
    live.add(version("b"))
    with pytest.raises(ModelNotFound, match="must name one"):
        live.find("")
    assert [(one.name, one.version) for one in live.models()] == [("a", "1"), ("a", "2"), ("b", "1")]


@in_a_loop
async def test_a_built_version_answers_and_counts() -> None:
    counted: list[tuple[str, str, int]] = []
    spec = ModelSpec("a", "x", "7")
    served = build_version(spec, Trial.signature, "python", lambda *batch: counted.append(batch[:3]))
    give_place(served)
    response = await served.servable.infer(request(trial_inputs([1, 2])))
    check_trial(trial_inputs([1, 2]), response.outputs)
    assert (response.model, response.version, response.batch_rows) == ("a", "7", 2)
    assert counted == [("a", "7", 2)]
    assert "a@7" in repr(served.servable)
