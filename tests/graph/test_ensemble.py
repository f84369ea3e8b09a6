"""Graphs of steps against a plain evaluation of the same graph, their proof, and what happens when members fail."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turnout.core.errors import DeadlineExceeded, InvalidInput, ModelFailed, QueueFull
from turnout.core.messages import Context, InferRequest, InferResponse, Journey
from turnout.core.signature import Signature, TensorSpec
from turnout.core.tensors import Tensors
from turnout.graph.ensemble import Ensemble, EnsemblePolicy
from turnout.graph.ensemble_proof import prove

NUMBERS = TensorSpec("x", "FP64", (-1,))
ONE = Signature((NUMBERS,), (TensorSpec("y", "FP64", (-1,)),))


def in_a_loop(test: Callable[..., Any]) -> Callable[..., None]:
    @wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        asyncio.run(test(*arguments, **named))

    return run


class Part:
    """Answers with a function of its inputs; may be slow, may fail, remembers what it was given."""

    def __init__(self, act: Callable[[Tensors], Tensors], seconds: float = 0.0, fails: Exception | None = None) -> None:
        self.act, self.seconds, self.fails = act, seconds, fails
        self.given: list[Tensors] = []
        self.cancelled = 0

    async def infer(self, request: InferRequest) -> InferResponse:
        self.given.append(request.inputs)
        if self.seconds:
            try:
                await asyncio.sleep(self.seconds)
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        if self.fails is not None:
            raise self.fails
        return InferResponse(self.act(request.inputs), request.model, "1")


def times(factor: float) -> Part:
    return Part(lambda inputs: {"y": inputs["x"] * factor})


def policy(said: Mapping[str, Any]) -> EnsemblePolicy:
    return msgspec.convert(said, EnsemblePolicy)


def ensemble(said: Mapping[str, Any], parts: Mapping[str, Part]) -> Ensemble:
    made = policy(said)
    prove(made, dict.fromkeys(parts, ONE))
    return Ensemble("both", made, parts, dict.fromkeys(parts, ("x",)))


def asked(values: Any, deadline: float = float("inf"), journey: Journey | None = None) -> InferRequest:
    x = np.asarray(values, float)
    return InferRequest("m", {"x": x}, len(x), Context(deadline=deadline, journey=journey))


@in_a_loop
async def test_a_chain_passes_arrays_by_reference() -> None:
    last = Part(lambda inputs: {"y": inputs["x"]})
    made = {"y": np.array([7.0])}
    first = Part(lambda inputs: made)
    said = {"steps": {"a": {"use": "f"}, "b": {"use": "g", "inputs": {"x": "a.y"}}}, "outputs": {"out": "b.y"}}
    tree = ensemble(said, {"f": first, "g": last})
    response = await tree.infer(asked([1.0]))
    assert response.outputs["out"] is made["y"]
    assert last.given[0]["x"] is made["y"]
    assert response.parameters["steps"] == "a=f@1, b=g@1"


@st.composite
def graphs(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, float]]:
    """Steps that each multiply an input or an earlier step's output, joined in the end."""
    factors = {f"p{i}": draw(st.sampled_from((-1.0, 0.5, 2.0, 3.0))) for i in range(draw(st.integers(1, 6)))}
    steps: dict[str, Any] = {}
    for number, use in enumerate(factors):
        places = ["x", *[f"s{i}.y" for i in range(number)]]
        steps[f"s{number}"] = {"use": use, "inputs": {"x": draw(st.sampled_from(places))}}
    way = draw(st.sampled_from(("mean", "median", "min", "max", "stack", "weighted_mean")))
    of = [f"{name}.y" for name in steps]
    outputs = {"out": {"combine": way, "of": of, "weights": [float(i + 1) for i in range(len(of))]}}
    return {"steps": steps, "outputs": outputs}, factors


@settings(max_examples=60)
@given(graphs(), st.lists(st.floats(-100, 100), min_size=1, max_size=5))
def test_any_graph_gives_what_its_plain_evaluation_gives(
    graph: tuple[dict[str, Any], dict[str, float]], values: list[float]
) -> None:
    said, factors = graph
    made = policy(said)
    signature = prove(made, dict.fromkeys(factors, ONE))
    tree = Ensemble("g", made, {use: times(factor) for use, factor in factors.items()}, dict.fromkeys(factors, ("x",)))
    got = asyncio.run(tree.infer(asked(values))).outputs["out"]
    known = {"x": np.asarray(values, float)}
    for name, step in said["steps"].items():
        known[f"{name}.y"] = known[step["inputs"]["x"]] * factors[step["use"]]
    out = said["outputs"]["out"]
    members = np.stack([known[place] for place in out["of"]])
    wanted = {
        "mean": lambda: members.mean(axis=0),
        "median": lambda: np.median(members, axis=0),
        "min": lambda: members.min(axis=0),
        "max": lambda: members.max(axis=0),
        "stack": lambda: members.T,
        "weighted_mean": lambda: np.average(members, axis=0, weights=out["weights"]),
    }[out["combine"]]()
    np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-9)
    signature.check_outputs({"out": got}, len(values))


@in_a_loop
async def test_rows_go_their_own_ways_and_come_back_in_order() -> None:
    small, large = times(1.0), times(100.0)
    switch = [{"when": {"tensor": "x", "above": 10}, "use": "large"}, {"use": "small"}]
    tree = ensemble(
        {"steps": {"pick": {"switch": switch}}, "outputs": {"y": "pick.y"}}, {"small": small, "large": large}
    )
    response = await tree.infer(asked([1, 20, 3, 40, 5]))
    np.testing.assert_array_equal(response.outputs["y"], [1, 2000, 3, 4000, 5])
    assert [len(one["x"]) for one in (*small.given, *large.given)] == [3, 2]
    await tree.infer(asked([1, 2]))
    assert len(large.given) == 1, "a way that no row goes is not asked"


_JOINED = {
    "steps": {"a": {"use": "f"}, "b": {"use": "g", "soft": True}},
    "outputs": {"y": {"combine": "mean", "of": ["a.y", "b.y"]}},
}


@in_a_loop
async def test_members_run_side_by_side_and_a_soft_one_may_fail() -> None:
    there: list[str] = []

    def together(name: str, factor: float) -> Part:
        def act(inputs: Tensors) -> Tensors:
            there.append(f"{name} ends after {len(parts['f'].given)} and {len(parts['g'].given)} began")
            return {"y": inputs["x"] * factor}

        return Part(act, 0.02)

    parts = {"f": together("f", 1.0), "g": together("g", 3.0)}
    tree = ensemble(_JOINED, parts)
    response = await tree.infer(asked([2.0]))
    assert response.outputs["y"] == [4.0]
    assert all(one.endswith("after 1 and 1 began") for one in there), there
    parts["g"].fails = ModelFailed("it raised")
    journey = Journey()
    response = await tree.infer(asked([2.0], journey=journey))
    assert response.outputs["y"] == [2.0], "weights are renormalised"
    assert (journey.degraded, response.parameters["missing"]) == ("partial", "b")
    parts["f"].fails = QueueFull("full")
    with pytest.raises(QueueFull, match=r"step 'a': full"):
        await tree.infer(asked([2.0]))


@in_a_loop
async def test_a_callers_mistake_stays_one_even_in_a_soft_step() -> None:
    parts = {"f": times(1.0), "g": Part(lambda i: i, fails=InvalidInput("odd", field="x"))}
    with pytest.raises(InvalidInput, match=r"step 'b': odd"):
        await ensemble(_JOINED, parts).infer(asked([1.0]))


@in_a_loop
async def test_a_hard_failure_ends_the_others() -> None:
    said = {**_JOINED, "steps": {"a": {"use": "f"}, "b": {"use": "g"}}}
    slow = Part(lambda i: i, 30.0)
    tree = ensemble(said, {"f": Part(lambda i: i, 0.01, ModelFailed("it raised")), "g": slow})
    with pytest.raises(ModelFailed, match=r"step 'a'"):
        await tree.infer(asked([1.0]))
    await asyncio.sleep(0)
    assert slow.cancelled == 1
    assert len(asyncio.all_tasks()) == 1


@in_a_loop
async def test_partial_answers_come_by_the_deadline() -> None:
    said = {**_JOINED, "partial": True}
    tree = ensemble(said, {"f": Part(lambda i: {"y": i["x"]}, 0.01), "g": Part(lambda i: i, 30.0)})
    journey = Journey()
    begun = time.monotonic()
    response = await tree.infer(asked([2.0], begun + 0.2, journey))
    assert time.monotonic() - begun < 0.2
    assert (response.outputs["y"], journey.degraded) == ([2.0], "partial")
    both = ensemble(said, {"f": Part(lambda i: i, 30.0), "g": Part(lambda i: i, 30.0)})
    with pytest.raises(DeadlineExceeded):
        await both.infer(asked([2.0], time.monotonic() + 0.05))


@in_a_loop
async def test_a_cancelled_caller_leaves_nothing_behind() -> None:
    parts = {"f": Part(lambda i: i, 30.0), "g": Part(lambda i: i, 30.0)}
    task = asyncio.ensure_future(ensemble(_JOINED, parts).infer(asked([1.0])))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)
    assert [part.cancelled for part in parts.values()] == [1, 1]
    assert len(asyncio.all_tasks()) == 1


@in_a_loop
async def test_a_step_is_tried_again_where_that_may_help() -> None:
    def heal(inputs: Tensors) -> Tensors:
        return {"y": inputs["x"] * 2}

    class Once(Part):
        async def infer(self, request: InferRequest) -> InferResponse:
            self.fails = None if self.given else QueueFull("full")
            return await super().infer(request)

    tree = ensemble({"steps": {"a": {"use": "f", "retries": 1}}, "outputs": {"y": "a.y"}}, {"f": Once(heal)})
    assert (await tree.infer(asked([1.0]))).outputs["y"] == [2.0]


def refused(said: Mapping[str, Any], **signatures: Signature) -> str:
    with pytest.raises(InvalidInput) as found:
        prove(policy(said), signatures or {"f": ONE, "g": ONE})
    return str(found.value)


TEXT = Signature((TensorSpec("x", "BYTES", (-1,)),), (TensorSpec("y", "BYTES", (-1,)),))
WIDE = Signature((TensorSpec("x", "FP64", (-1, 3)),), (TensorSpec("y", "FP64", (-1, 3)),))


@pytest.mark.parametrize(
    ("said", "signatures", "words"),
    [
        ({"steps": {"a": {"use": "h"}}, "outputs": {"y": "a.y"}}, {}, "steps.a.use: there is no such version or model"),
        (
            {"steps": {"a": {"use": "f", "inputs": {"x": "b.y"}}, "b": {"use": "g", "inputs": {"x": "a.y"}}},
             "outputs": {"y": "a.y"}},
            {}, "a circle: a -> b -> a",
        ),
        ({"steps": {"a": {"use": "f"}}, "outputs": {"y": "a.z"}}, {}, "outputs.y: there is no such tensor; expected a"),
        ({"steps": {"a": {"use": "f"}}, "outputs": {"y": "q.z"}}, {}, "outputs.y: there is no such tensor"),
        (
            {"steps": {"a": {"use": "f"}, "b": {"use": "g", "inputs": {"x": "a.y"}}}, "outputs": {"y": "b.y"}},
            {"f": ONE, "g": TEXT}, "steps.b.inputs.x: the tensors do not fit together; expected BYTES[n]; got FP64[n]",
        ),
        (
            {"steps": {"a": {"use": "f"}, "b": {"use": "g", "inputs": {"x": "a.y"}}}, "outputs": {"y": "b.y"}},
            {"f": ONE, "g": WIDE}, "expected FP64[n, 3]; got FP64[n]",
        ),
        ({"steps": {"a": {"use": "f"}, "b": {"use": "g"}}, "outputs": {"y": "a.y"}}, {}, "steps.b: nothing needs this"),
        ({"steps": {"a": {"use": "f", "inputs": {"z": "x"}}}, "outputs": {"y": "a.y"}}, {}, "f has no such input"),
        (
            {"steps": {"a": {"use": "f"}, "b": {"use": "g"}},
             "outputs": {"y": {"combine": "mean", "of": ["a.y", "b.y"]}}},
            {"f": ONE, "g": WIDE}, "the input 'x' is used in two ways",
        ),
        (
            {"steps": {"a": {"use": "f"}}, "outputs": {"y": {"combine": "mean", "of": ["a.y"]}}},
            {"f": TEXT}, "mean needs numbers",
        ),
        ({"steps": {}, "outputs": {}}, {}, "at least one step"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_before_it_is_served(
    said: dict[str, Any], signatures: dict[str, Signature], words: str
) -> None:
    assert words in refused(said, **signatures)


def test_the_whole_has_a_signature_of_its_own() -> None:
    said = {
        "steps": {"a": {"use": "f"}, "b": {"use": "g", "inputs": {"x": "other"}}},
        "outputs": {"y": {"combine": "stack", "of": ["a.y", "b.y"]}, "plain": "a.y"},
    }
    found = prove(policy(said), {"f": ONE, "g": ONE})
    assert [spec.name for spec in found.inputs] == ["x", "other"]
    assert [(spec.name, spec.shape) for spec in found.outputs] == [("y", (-1, 2)), ("plain", (-1,))]
