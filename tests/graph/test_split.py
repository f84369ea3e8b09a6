"""A split: who may choose, in which order, who is counted, and what it says of itself."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from tests.graph.callers import Named, Raises, asked
from tests.runtime.places import PLACES, batched
from turnout.core.errors import (
    DeadlineExceeded,
    InvalidInput,
    InvalidOutput,
    ModelFailed,
    PermissionDenied,
    QueueFull,
    VersionNotFound,
)
from turnout.core.messages import InferRequest, Journey
from turnout.core.servable import Servable
from turnout.graph.allocation import allocate
from turnout.graph.evidence import Evidence
from turnout.graph.split import Split, SplitPolicy, SplitState, target_of
from turnout.graph.tree import tree
from turnout.testing.servables import SERVABLE_CHECKS, Check

POLICY = {
    "sticky": {"header": "x-account-id"},
    "rules": [{"when": {"header": {"x-cohort": "beta"}}, "to": "v8"}, {"when": {"query": {"dark": 1}}, "to": "v9"}],
}


class Made:
    """A split over versions that are nothing but their name, and all that it writes to."""

    def __init__(self, policy: Any = None, seed: int = 1, **arms: Servable) -> None:
        self.arms: dict[str, Any] = {name: Named(name) for name in ("v7", "v8", "v9")} | arms
        self.evidence = {name: Evidence() for name in self.arms}
        self.state = SplitState(seed)
        self.now = 0.0
        self.split = Split(
            "fraud",
            self.arms,
            allocate({"v7": 90, "v8": 10, "v9": 0}),
            self.evidence,
            msgspec.convert(POLICY if policy is None else policy, SplitPolicy),
            self.state,
            clock=lambda: self.now,
        )

    def infer(self, request: InferRequest) -> str:
        """The version that answers; nothing here waits, so one step is all."""
        try:
            self.split.infer(request).send(None)
        except StopIteration as stop:
            return str(stop.value.version)
        raise AssertionError("it waits")

    @property
    def counted(self) -> dict[str, int]:
        return {name: one.requests for name, one in self.evidence.items() if one.requests}


def journey_of(request: InferRequest) -> Journey:
    assert request.context.journey is not None
    return request.context.journey


def test_a_unit_always_goes_to_the_same_variant() -> None:
    made = Made()
    found = {str(i): made.infer(asked(header={"x-account-id": str(i)})) for i in range(300)}
    again = Made(seed=2)
    assert {unit: again.infer(asked(header={"x-account-id": unit})) for unit in found} == found
    assert set(found.values()) == {"v7", "v8"}
    assert made.state.to_json() == {"direct": 0, "rule": 0, "sticky": 300, "random": 0}


def test_without_a_unit_chance_decides_by_weight_and_says_so() -> None:
    made = Made()
    drawn = [made.infer(asked()) for _ in range(5000)]
    assert abs(drawn.count("v8") - 500) < 4 * math.sqrt(5000 * 0.1 * 0.9)
    assert "v9" not in drawn
    assert made.state.to_json() == {"direct": 0, "rule": 0, "sticky": 0, "random": 5000}
    assert made.counted == {"v7": drawn.count("v7"), "v8": drawn.count("v8")}
    again = Made()
    assert [again.infer(asked()) for _ in range(100)] == drawn[:100], "the same seed"


def test_a_rule_comes_before_the_bucket_and_is_no_evidence() -> None:
    made = Made()
    for i in range(50):
        request = asked(header={"x-account-id": str(i), "x-cohort": "beta"})
        assert made.infer(request) == "v8"
        assert journey_of(request).variant == "v8"
        assert not journey_of(request).direct
        assert not journey_of(request).counted
    request = asked(header={"x-account-id": "1"})
    made.infer(request)
    assert journey_of(request).counted
    made = Made()
    assert made.infer(asked(query={"dark": "1"})) == "v9", "a version without a share is reached by rule"
    assert made.counted == {}
    assert made.state.rule == 1


def test_a_named_version_comes_before_everything_and_is_no_evidence() -> None:
    made = Made()
    for name in ("v7", "v9"):
        request = asked(header={"x-route-to": name, "x-cohort": "beta", "x-account-id": "1"})
        assert made.infer(request) == name
        assert (journey_of(request).variant, journey_of(request).direct) == (name, True)
        assert target_of(request) == name
    assert made.counted == {}
    assert made.state.direct == 2


def test_a_node_before_it_may_have_found_the_name_elsewhere() -> None:
    made = Made()
    request = asked(header={"x-route-to": "v7"})
    journey_of(request).direct, journey_of(request).variant = True, "v9"
    assert made.infer(request) == "v9"


def test_an_unknown_version_is_the_callers_mistake_with_the_known_ones() -> None:
    made = Made()
    with pytest.raises(VersionNotFound, match="'fraud' has no version 'v6'; there are: v7, v8, v9"):
        made.infer(asked(header={"x-route-to": "v6"}))
    assert made.counted == {}


def test_naming_a_version_is_a_right_of_its_own() -> None:
    made = Made({"direct": False})
    for name in ("v8", "v6"):
        with pytest.raises(PermissionDenied, match="leave x-route-to out"):
            made.infer(asked(header={"x-route-to": name}))
    assert made.counted == {}
    assert made.infer(asked()) in {"v7", "v8"}


def test_evidence_of_what_became_of_requests() -> None:
    for problem, errors, invalid, late in (
        (QueueFull("full"), 1, 0, 0),
        (InvalidOutput("NaN"), 1, 1, 0),
        (DeadlineExceeded("late"), 1, 0, 1),
        (ZeroDivisionError("a bug"), 1, 0, 0),
        (InvalidInput("the caller's"), 0, 0, 0),
    ):
        made = Made(v7=Raises(problem), v8=Raises(problem))
        with pytest.raises(type(problem)):
            made.infer(asked())
        both = made.evidence["v7"].plus(made.evidence["v8"])
        assert (both.requests, both.errors, both.invalid, both.late) == (1, errors, invalid, late)
        assert sum(both.latency) == 0


class Waits:
    """Takes as long as it is told; the clock is the test's."""

    def __init__(self) -> None:
        self.future: asyncio.Future[None] | None = None

    async def infer(self, request: InferRequest) -> Any:
        self.future = asyncio.get_running_loop().create_future()
        await self.future
        return await Named("v7").infer(request)


@pytest.mark.parametrize(("now", "late"), [(0.5, 0), (1.0, 1)])
def test_who_is_broken_off_at_the_deadline_was_too_slow_and_who_goes_away_was_not(now: float, late: int) -> None:
    waits = Waits()
    made = Made(v7=waits, v8=waits)

    async def run() -> None:
        task = asyncio.ensure_future(made.split.infer(asked(deadline=1.0)))
        await asyncio.sleep(0)
        made.now = now
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    asyncio.run(run())
    both = made.evidence["v7"].plus(made.evidence["v8"])
    assert (both.requests, both.errors, both.late) == (1, late, late)


def test_latency_is_the_arms() -> None:
    waits = Waits()
    made = Made(v7=waits, v8=waits)

    async def run() -> None:
        task = asyncio.ensure_future(made.split.infer(asked()))
        await asyncio.sleep(0)
        made.now = 0.25
        assert waits.future is not None
        waits.future.set_result(None)
        await task

    asyncio.run(run())
    assert made.evidence["v7"].plus(made.evidence["v8"]).quantile(0.5) == pytest.approx(0.25, rel=0.11)


@pytest.mark.parametrize(
    ("request_", "kind", "why"),
    [
        (asked(header={"x-route-to": "v9"}), "direct", "the caller has named v9"),
        (asked(header={"x-cohort": "beta"}), "rule", "rule 1 sends it to v8: header x-cohort is 'beta'"),
        (asked(header={"x-account-id": "1"}), "sticky", "its header x-account-id is in bucket "),
        (asked(), "random", "it has no header x-account-id, so by chance: v7 90 %, v8 10 %"),
    ],
)
def test_it_explains_without_doing(request_: InferRequest, kind: str, why: str) -> None:
    made = Made()
    route = made.split.explain_route(request_)
    assert route.kind == kind
    assert route.why.startswith(why)
    assert sum(made.state.to_json().values()) == 0
    assert not any(arm.requests for arm in made.arms.values())
    if kind != "random":
        assert made.infer(request_) == route.variant
    assert Made({}).split.explain_route(asked()).why == "each request by chance: v7 90 %, v8 10 %"


def test_it_traces_for_who_asks() -> None:
    made = Made()
    request = asked(explain=True)
    variant = made.infer(request)
    (step,) = journey_of(request).steps or []
    assert (step.node, step.name, step.outcome) == ("split", variant, "answered")
    assert step.detail.endswith(f"by chance: v7 90 %, v8 10 %; it was {variant}")
    assert made.counted == {variant: 1}
    made = Made(v7=Raises(QueueFull("full")), v8=Raises(QueueFull("full")))
    request = asked(explain=True)
    with pytest.raises(QueueFull):
        made.infer(request)
    assert [step.outcome for step in journey_of(request).steps or []] == ["QueueFull"]
    assert sum(one.errors for one in made.evidence.values()) == 1


def test_one_version_needs_no_choice() -> None:
    evidence = {"v7": Evidence()}
    split = Split("fraud", {"v7": Named("v7")}, allocate({"v7": 100}), evidence)
    request = asked()
    assert asyncio.run(split.infer(request)).version == "v7"
    assert journey_of(request).variant == "v7"
    assert evidence["v7"].requests == 1
    assert split.explain_route(request) == ("v7", "only", "v7 has all of the traffic")


def test_a_request_of_the_library_has_neither_door_nor_journey() -> None:
    made = Made()
    request = asked()
    assert made.infer(request._replace(context=request.context._replace(attributes=None, journey=None)))


@pytest.mark.parametrize(
    ("policy", "weights", "field"),
    [
        ({"rules": [{"when": {"header": {"a": "b"}}, "to": "v6"}]}, {"v7": 100}, "rules[0].to"),
        ({}, {"v7": 90, "v6": 10}, "traffic.v6"),
    ],
)
def test_what_leads_nowhere_is_refused_when_it_is_built(policy: Any, weights: dict[str, float], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        Split("fraud", {"v7": Named("v7")}, allocate(weights), {"v7": Evidence()}, msgspec.convert(policy, SplitPolicy))
    assert refused.value.field == field


def test_it_is_one_line_of_a_tree() -> None:
    made = Made()
    assert list(tree(made.split)) == [
        "Split(v7=90% v8=10% v9=0% sticky by header x-account-id after 2 rules)",
        "  v7: Named(v7)",
        "  v8: Named(v8)",
        "  v9: Named(v9)",
    ]


@asynccontextmanager
async def split_over_batching(model: type[Any]) -> AsyncIterator[Servable]:
    """All to one version, as another would count its own calls; the other is dark."""
    async with batched([PLACES["thread-memory"]])(model) as inner:
        arms = {"v7": inner, "v8": Raises(ModelFailed("dark"))}
        evidence = {name: Evidence() for name in arms}
        policy = msgspec.convert({"sticky": {"column": "x"}}, SplitPolicy)
        yield Split("trial", arms, allocate({"v7": 100, "v8": 0}), evidence, policy)


@asynccontextmanager
async def split_between_equals(model: type[Any]) -> AsyncIterator[Servable]:
    async with batched([PLACES["thread-memory"]])(model) as inner:
        evidence = {name: Evidence() for name in ("v7", "v8")}
        policy = msgspec.convert({"sticky": {"column": "nonce"}}, SplitPolicy)
        yield Split("trial", {"v7": inner, "v8": inner}, allocate({"v7": 50, "v8": 50}), evidence, policy)


@pytest.mark.parametrize("check", SERVABLE_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("make", [split_over_batching, split_between_equals])
def test_it_is_a_servable(make: Any, check: Check) -> None:
    asyncio.run(check(make))
