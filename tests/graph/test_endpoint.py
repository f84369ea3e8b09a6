"""The root of a tree says who answered; whatever happens below, each request gets one id that can be attributed."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.runtime.places import PLACES, batched
from turnout.core.errors import DeadlineExceeded, Failure, InvalidInput, ModelFailed, QueueFull
from turnout.core.messages import Context, InferRequest, InferResponse, Journey, StepTrace
from turnout.graph.endpoint import Endpoint, EndpointCounts, EndpointPolicy, parse_prediction_id, tokens
from turnout.graph.evidence import Evidence
from turnout.graph.tree import tree
from turnout.testing.protocols import run
from turnout.testing.servables import SERVABLE_CHECKS, Check

VERSIONS = {"v8": "sha256:88", "v7": "sha256:77"}


class Guided:
    """What a split and a fallback leave behind: it assigns one version, and another one answers."""

    def __init__(self, variant: str = "", version: str = "v7", degraded: str = "") -> None:
        self.variant, self.version, self.degraded = variant, version, degraded
        self.seen: list[Context] = []
        self.raises: BaseException | None = None

    def __repr__(self) -> str:
        return "Guided"

    async def infer(self, request: InferRequest) -> InferResponse:
        self.seen.append(request.context)
        journey = request.context.journey
        assert journey is not None
        journey.variant, journey.degraded = self.variant, self.degraded
        journey.counted = not journey.direct
        if self.raises is not None:
            raise self.raises
        return InferResponse({"y": np.zeros(1)}, "inner", self.version, batch_rows=3, predict_seconds=0.5)


def asked(journey: Journey | None, deadline: float = math.inf) -> InferRequest:
    return InferRequest("fraud", {}, 1, Context("id", deadline, journey=journey))


def endpoint(child: Any, **settings: Any) -> Endpoint:
    return Endpoint("fraud", child, **{"revision": 3, "versions": VERSIONS, **settings})


def ended(counts: EndpointCounts) -> dict[tuple[str, ...], int]:
    return {(k.variant, k.version, k.degraded, k.outcome): k.count for k in counts.all() if k.count}


def test_an_answer_says_who_gave_it() -> None:
    journey = Journey()
    root = endpoint(Guided("v8", "v8"))
    response = run(root.infer(asked(journey)))
    assert (response.model, response.version) == ("fraud", "v8")
    assert (journey.served_by, journey.digest, journey.variant, journey.revision) == ("fraud@v8", "sha256:88", "v8", 3)
    assert journey.degraded == ""
    found = parse_prediction_id(journey.prediction_id)
    assert (found.revision, found.variant) == (3, 1)  # v7 is before v8
    assert found.version(tuple(VERSIONS)) == "v8"
    assert ended(root.counts) == {("v8", "v8", "", "answered"): 1}


def test_a_plain_model_needs_no_split() -> None:
    journey = Journey()
    root = Endpoint("iris", Guided("", "1"), versions={"1": "sha256:11"})
    run(root.infer(asked(journey)))
    assert (journey.served_by, journey.variant, journey.digest) == ("iris@1", "1", "sha256:11")
    assert parse_prediction_id(journey.prediction_id)[:2] == (0, 0)


def test_a_fallback_is_told_and_counted_with_the_variant_that_was_meant() -> None:
    evidence = {"v8": Evidence(), "v7": Evidence()}
    root = endpoint(Guided("v8", "v7", "timeout"), evidence=evidence)
    journey = Journey()
    run(root.infer(asked(journey)))
    assert (journey.served_by, journey.variant, journey.digest) == ("fraud@v7", "v8", "sha256:77")
    assert (evidence["v8"].degraded, evidence["v7"].degraded) == (1, 0)
    assert ended(root.counts) == {("v8", "v7", "timeout", "degraded"): 1}
    direct = Journey()
    direct.direct = True
    run(root.infer(asked(direct)))
    assert evidence["v8"].degraded == 1  # who names a version says nothing about the split
    run(root.infer(asked(None)))
    assert evidence["v8"].degraded == 2  # nobody wants to read a journey, but the counts need one


def test_an_answer_of_no_version_has_no_digest() -> None:
    journey = Journey()
    run(endpoint(Guided("v8", "default", "error")).infer(asked(journey)))
    assert (journey.served_by, journey.digest, journey.variant) == ("fraud@default", "", "v8")


@pytest.mark.parametrize(
    ("problem", "outcome"),
    [
        (ModelFailed("ValueError"), "INTERNAL"),
        (InvalidInput("odd"), "INVALID_ARGUMENT"),
        (asyncio.CancelledError(), "CANCELLED"),
        (ZeroDivisionError("odd"), "INTERNAL"),
    ],
)
def test_a_failure_says_who_failed(problem: BaseException, outcome: str) -> None:
    child = Guided("v8")
    child.raises = problem
    root = endpoint(child)
    journey = Journey(explain=True)
    with pytest.raises(type(problem)):
        run(root.infer(asked(journey)))
    assert (journey.served_by, journey.variant, journey.revision) == ("fraud@v8", "v8", 3)
    assert parse_prediction_id(journey.prediction_id).variant == 1
    assert ended(root.counts) == {("v8", "v8", "", outcome): 1}
    assert journey.steps is not None
    assert [(step.node, step.outcome) for step in journey.steps] == [("endpoint", type(problem).__name__)]


def test_whoever_cancels_a_late_request_means_its_deadline() -> None:
    child = Guided("v8")
    child.raises = asyncio.CancelledError()
    root = endpoint(child)
    with pytest.raises(asyncio.CancelledError):
        run(root.infer(asked(Journey(), monotonic() - 1.0)))
    assert ended(root.counts) == {("v8", "v8", "", "DEADLINE_EXCEEDED"): 1}


def test_a_request_that_was_refused_before_any_split_is_attributed_to_nobody() -> None:
    child = Guided("")
    child.raises = QueueFull("full")
    journey = Journey()
    with pytest.raises(QueueFull):
        run(endpoint(child).infer(asked(journey)))
    assert (journey.served_by, journey.variant) == ("", "")
    found = parse_prediction_id(journey.prediction_id)
    assert (found.variant, found.version(tuple(VERSIONS))) == (None, "")
    only = Journey()
    with pytest.raises(QueueFull):
        run(Endpoint("iris", child, versions={"1": ""}).infer(asked(only)))
    assert (only.served_by, only.variant) == ("iris@1", "1")  # there is but one that can have been meant


def test_the_endpoint_bounds_the_deadline() -> None:
    child = Guided("v7")
    root = endpoint(child, policy=EndpointPolicy(deadline=0.15))
    before = monotonic()
    run(root.infer(asked(Journey())))
    run(root.infer(asked(Journey(), before + 3600.0)))
    run(root.infer(asked(Journey(), before + 0.05)))
    bounds = [context.deadline - before for context in child.seen]
    assert 0.15 <= bounds[0] < 60.0
    assert 0.15 <= bounds[1] < 60.0
    assert bounds[2] == pytest.approx(0.05)  # a shorter one of the caller's stands
    assert (root.deadline, endpoint(child).deadline) == (0.15, math.inf)


@pytest.mark.parametrize("deadline", [0.0, -1.0, math.nan, math.inf])
def test_a_deadline_is_a_duration(deadline: float) -> None:
    with pytest.raises(InvalidInput, match="deadline: not a duration"):
        EndpointPolicy(deadline=deadline)


def test_the_steps_end_with_the_version_and_the_whole() -> None:
    journey = Journey(explain=True)
    run(endpoint(Guided("v8", "v8")).infer(asked(journey)))
    assert journey.steps is not None
    version, whole = journey.steps
    assert version == StepTrace("version", "fraud@v8", "answered", 0.5, 0.0, "in a batch of 3 rows")
    assert (whole.node, whole.name, whole.outcome) == ("endpoint", "fraud", "answered")
    assert 0 <= whole.seconds < 60


def test_what_was_kept_from_another_request_is_no_step_of_this_one() -> None:
    class Kept(Guided):
        async def infer(self, request: InferRequest) -> InferResponse:
            assert request.context.journey is not None
            assert request.context.journey.steps is not None
            request.context.journey.steps.append(StepTrace("cache", "fraud", "hit", 0.0))
            return await super().infer(request)

    journey = Journey(explain=True)
    run(endpoint(Kept("v8", "v8")).infer(asked(journey)))
    assert [step.node for step in journey.steps or ()] == ["cache", "endpoint"]


def test_a_refusal_is_told_in_advance_only_where_the_child_does() -> None:
    class Full(Guided):
        def refuse_now(self, deadline: float) -> Failure | None:
            return DeadlineExceeded("no") if deadline < 1 else None

    assert endpoint(Guided()).refuse_now is None
    refuse = endpoint(Full()).refuse_now
    assert refuse is not None
    assert isinstance(refuse(0.0), DeadlineExceeded)
    assert refuse(2.0) is None


def test_counts_outlive_the_tree() -> None:
    counts = EndpointCounts()
    for revision in (1, 2):
        run(endpoint(Guided("v8", "v8"), revision=revision, counts=counts).infer(asked(Journey())))
    assert ended(counts) == {("v8", "v8", "", "answered"): 2}


def test_a_faulty_node_cannot_fill_the_memory() -> None:
    root, child = endpoint(Guided()), Guided()
    root._child = child
    for number in range(5000):
        child.version = str(number)
        run(root.infer(asked(Journey())))
    assert len(root.counts.all()) <= 4097
    assert len(root._seals) <= 4096
    assert sum(ended(root.counts).values()) == 5000


def test_it_is_one_line_of_a_tree() -> None:
    root = endpoint(Guided(), policy=EndpointPolicy(deadline=0.15))
    assert list(tree(root)) == ["Endpoint(fraud, revision 3, versions v7, v8, deadline 0.15 s)", "  Guided"]


def test_ids_are_never_twice_the_same() -> None:
    root = endpoint(Guided("v7"))
    found = set()
    for _ in range(1000):
        journey = Journey()
        run(root.infer(asked(journey)))
        found.add(journey.prediction_id)
    assert len(found) == 1000
    other = tokens()
    assert not {one[-24:] for one in found} & {next(other) for _ in range(1000)}


def test_a_token_is_what_was_drawn() -> None:
    drawn: Iterator[int] = iter(range(256))
    found = tokens(lambda size: bytes(next(drawn) for _ in range(12)) * (size // 12))
    assert next(found) == "000102030405060708090a0b"


@given(st.integers(0, 10**15 - 1), st.none() | st.integers(0, 10**6 - 1), st.binary(min_size=12, max_size=12))
def test_an_id_can_be_read(revision: int, variant: int | None, token: bytes) -> None:
    text = f"R{revision}-{'x' if variant is None else variant}-{token.hex()}"
    assert parse_prediction_id(text) == (revision, variant, token.hex())


@pytest.mark.parametrize("text", ["", "R1-0-", "R1-0-5f1b8c0e9d7a4b3c2d1e0f9a\n", "r1-0-00", "R-0-00"])
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="not a prediction id"):
        parse_prediction_id(text)


@asynccontextmanager
async def served(model: type[Any]) -> AsyncIterator[Endpoint]:
    async with batched([PLACES["inline"]])(model) as batching:
        yield Endpoint("trial", batching, versions={"1": "sha256:11"}, policy=EndpointPolicy(deadline=60.0))


@pytest.mark.parametrize("check", SERVABLE_CHECKS, ids=lambda check: check.__name__)
def test_servable(check: Check) -> None:
    asyncio.run(check(served))
