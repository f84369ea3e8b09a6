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
from turnout.deploy.plan import Routing
from turnout.deploy.version import VersionSpec
from turnout.graph.tree import tree
from turnout.runtime.batch import Batch
from turnout.runtime.replica import Inline
from turnout.testing.trials import Trial, check_trial, request, trial_inputs


def in_a_loop(test: Callable[[], Any]) -> Callable[[], None]:
    @wraps(test)
    def run() -> None:
        asyncio.run(test())

    return run


def version(name: str, number: str = "1") -> LiveVersion:
    return build_version(VersionSpec(name, "x", number), Trial.signature, "python")


def give_place(served: LiveVersion) -> Inline:
    place = Inline(served.name, Trial(), served.batching.done)
    served.batching.add_place(place)
    return place


def show(live: Live, *served: LiveVersion, default: LiveVersion | None = None, **labels: LiveVersion) -> None:
    for one in served:
        live.add(one)
    routing = Routing(
        (default or served[-1]).uid,
        {one.version: one.uid for one in served},
        {label: one.uid for label, one in labels.items()},
    )
    live.show(served[0].name, routing)


@in_a_loop
async def test_ready_is_when_every_model_has_a_worker() -> None:
    live = Live(["a", "b"])
    assert not live.ready
    first, second = version("a"), version("b")
    show(live, first)
    assert (live.ready, first.state) == (False, State.STARTING)
    one = give_place(first)
    give_place(second)
    assert (live.ready, first.state) == (False, State.READY)
    show(live, second)
    assert live.ready
    first.batching.lost(one, _nothing())
    assert (live.ready, first.state) == (False, State.STARTING)
    give_place(first)
    assert live.ready
    live.expect(["a"])
    live.show("b", Routing())
    assert live.ready, "what nobody expects any more does not matter"
    live.drain()
    assert not live.ready


def _nothing() -> Sequence[Batch]:
    return ()


@in_a_loop
async def test_versions_are_found_by_name_and_number() -> None:
    live = Live(["a"])
    with pytest.raises(NotReady, match="not loaded yet"):
        live.find("a")
    with pytest.raises(ModelNotFound, match="none yet"):
        live.find("b")
    show(live, version("a", "1"), version("a", "2"))
    assert live.find("a").version == "2", "the default where none is named"
    assert live.find("a", "1").version == "1"
    assert live.find("").name == "a", "the only model there is"
    with pytest.raises(VersionNotFound, match="no version '3'; there is 1, 2"):
        live.find("a", "3")
    with pytest.raises(ModelNotFound, match="'b'"):
        live.find("b")
    show(live, version("b"))
    with pytest.raises(ModelNotFound, match="must name one"):
        live.find("")
    assert [(one.name, one.version) for one in live.models()] == [("a", "1"), ("a", "2"), ("b", "1")]


@in_a_loop
async def test_a_version_is_seen_when_it_is_shown_and_by_its_labels() -> None:
    live = Live(["a"])
    old, new = version("a", "1"), version("a", "2")
    show(live, old, new, default=old, stable=old, canary=new)
    assert (live.find("a"), live.find("a", "stable"), live.find("a", "canary")) == (old, old, new)
    with pytest.raises(VersionNotFound, match="there is 1, 2, stable, canary"):
        live.find("a", "nightly")
    live.show("a", Routing(new.uid, {"2": new.uid}, {"stable": new.uid}))
    assert (live.find("a"), live.find("a", "stable")) == (new, new)
    with pytest.raises(VersionNotFound):
        live.find("a", "1")
    assert live.loaded(old.uid) is old, "what is in flight there goes on"
    assert live.remove(old.uid) is old
    assert live.versions() == [new]
    live.show("a", Routing())
    with pytest.raises(NotReady):
        live.find("a")


@in_a_loop
async def test_a_built_version_answers_and_counts() -> None:
    counted: list[tuple[str, str, int]] = []
    spec = VersionSpec("a", "x", "7")
    served = build_version(spec, Trial.signature, "python", lambda *batch: counted.append(batch[:3]))
    give_place(served)
    response = await served.servable.infer(request(trial_inputs([1, 2])))
    check_trial(trial_inputs([1, 2]), response.outputs)
    assert (response.model, response.version, response.batch_rows) == ("a", "7", 2)
    assert counted == [("a", "7", 2)]
    assert list(tree(served.servable)) == [
        "Endpoint(a, revision 0, versions 7)",
        "  Batching(a@7, 1 places, 0 rows waiting)",
    ]
