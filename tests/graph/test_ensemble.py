"""Graphs of steps against a plain evaluation of the same graph, and what they do side by side."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.graph.callers import Said
from tests.graph.parts import ONE, Part, asked, ensemble, hangs, times, two, until
from tests.graph.steps import driven, run
from turnout.core.errors import Failure, InvalidInput, InvalidOutput, ModelFailed
from turnout.core.messages import InferResponse, Journey
from turnout.core.signature import Signature, TensorSpec
from turnout.core.tensors import Tensors, bytes_array
from turnout.graph.ensemble import Ensemble, EnsemblePolicy

WAYS = ("mean", "weighted_mean", "median", "min", "max", "vote", "stack", "first")


@st.composite
def graphs(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, float], set[str]]:
    """Steps that each multiply an input or an earlier step's output, joined in the end; some are soft and fail."""
    factors = {f"p{i}": draw(st.sampled_from((-1.0, 0.5, 2.0, 3.0))) for i in range(draw(st.integers(1, 6)))}
    fails = {use for use in factors if draw(st.integers(0, 3)) == 0}
    steps: dict[str, Any] = {}
    for number, use in enumerate(factors):
        places = ["x", *[f"s{i}.y" for i in range(number)]]
        steps[f"s{number}"] = {"use": use, "inputs": {"x": draw(st.sampled_from(places))}, "soft": use in fails}
    way = draw(st.sampled_from(WAYS))
    said: dict[str, Any] = {"combine": way, "of": draw(st.permutations([f"{name}.y" for name in steps]))}
    if way in {"weighted_mean", "vote"}:
        said["weights"] = [draw(st.sampled_from((0.5, 1.0, 3.0))) for _ in said["of"]]
    return {"steps": steps, "outputs": {"out": said}}, factors, fails


def plainly(said: dict[str, Any], factors: dict[str, float], fails: set[str], x: np.ndarray[Any, Any]) -> Any:
    """The same, step by step and row by row; None where there is no answer."""
    known: dict[str, Any] = {"x": x}
    for name, step in said["steps"].items():
        source = known[step["inputs"]["x"]]
        known[f"{name}.y"] = None if source is None or step["use"] in fails else source * factors[step["use"]]
    out = said["outputs"]["out"]
    weights = out.get("weights", [1.0] * len(out["of"]))
    members = [(known[place], weight) for place, weight in zip(out["of"], weights, strict=True)]
    there = [(values, weight) for values, weight in members if values is not None]
    if not there or (out["combine"] == "stack" and len(there) < len(members)):
        return None
    rows = []
    for row in range(len(x)):
        values = [float(one[row]) for one, _ in there]
        shares = [weight for _, weight in there]
        votes = {value: sum(w for v, w in zip(values, shares, strict=True) if v == value) for value in values}
        rows.append(
            {
                "mean": lambda v=values: sum(v) / len(v),
                "weighted_mean": lambda v=values, s=shares: sum(a * b for a, b in zip(v, s, strict=True)) / sum(s),
                "median": lambda v=values: float(np.median(v)),
                "min": lambda v=values: min(v),
                "max": lambda v=values: max(v),
                "stack": lambda v=values: v,
                "first": lambda v=values: v[0],
                "vote": lambda c=votes: max(c, key=c.__getitem__),
            }[out["combine"]]()
        )
    return rows


@settings(max_examples=150)
@given(graphs(), st.lists(st.floats(-100, 100), min_size=1, max_size=5))
def test_any_graph_gives_what_its_plain_evaluation_gives(
    graph: tuple[dict[str, Any], dict[str, float], set[str]], values: list[float]
) -> None:
    said, factors, fails = graph
    parts = {use: times(factor, fails=ModelFailed("it") if use in fails else None) for use, factor in factors.items()}
    tree = ensemble(said, parts)
    wanted = plainly(said, factors, fails, np.asarray(values))
    journey = Journey()
    if wanted is None:
        with pytest.raises(ModelFailed, match=r"^step 's\d': it$"):
            asyncio.run(driven_once(tree, values, journey))
        return
    got = asyncio.run(driven_once(tree, values, journey)).outputs["out"]
    np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-9)
    tree.signature.check_outputs({"out": got}, len(values))
    assert (journey.degraded == "partial") or not fails or said["outputs"]["out"]["combine"] == "first"


async def driven_once(tree: Ensemble, values: Any, journey: Journey) -> InferResponse:
    return await driven(tree, asked(values, journey=journey))


def test_a_chain_passes_arrays_by_reference_and_makes_no_task() -> None:
    made = {"y": np.array([7.0])}
    first, last = Part(lambda inputs: made), Part(lambda inputs: {"y": inputs["x"]})
    said = {"steps": {"a": {"use": "f"}, "b": {"use": "g", "inputs": {"x": "a.y"}}}, "outputs": {"out": "b.y"}}
    tree = ensemble(said, {"f": first, "g": last})
    coroutine = tree.infer(asked([1.0]))
    with pytest.raises(StopIteration) as ended:  # there is no event loop at all
        coroutine.send(None)
    response = ended.value.value
    assert response.outputs["out"] is made["y"]
    assert last.given[0].inputs["x"] is made["y"]
    assert response.parameters == {"steps": "a=f@1, b=g@1"}
    assert (response.queue_seconds, response.predict_seconds) == (0.5, 1.0)


def test_a_step_begins_when_its_own_inputs_are_there() -> None:
    """Of two chains side by side the quick one does not wait for the slow one."""

    async def main() -> None:
        slow, quick, behind = times(1.0), times(2.0), times(3.0)
        slow.gate = asyncio.Event()
        said = {
            "steps": {"a": {"use": "f"}, "b": {"use": "g"}, "c": {"use": "h", "inputs": {"x": "b.y"}}},
            "outputs": {"y": {"combine": "max", "of": ["a.y", "c.y"]}},
        }
        answer = asyncio.ensure_future(driven(ensemble(said, {"f": slow, "g": quick, "h": behind}), asked([1.0])))
        await until(lambda: behind.given)
        slow.gate.set()
        assert (await answer).outputs["y"] == [6.0]

    run(main)


def test_what_nobody_asks_for_is_not_run() -> None:
    said = {"steps": {"a": {"use": "f"}, "b": {"use": "g"}}, "outputs": {"y": "a.y", "z": "b.y"}}
    parts = {"f": times(2.0), "g": times(3.0)}

    async def main() -> None:
        tree = ensemble(said, parts)
        response = await driven(tree, asked([1.0], outputs=("z",)))
        assert (list(response.outputs), len(parts["f"].given), len(parts["g"].given)) == (["z"], 0, 1)
        with pytest.raises(InvalidInput, match="there is no such output"):
            await driven(tree, asked([1.0], outputs=("w",)))

    run(main)


def test_what_no_output_needs_any_more_is_ended() -> None:
    """`first` is settled with its first member, whoever still runs."""
    said = {
        "steps": {"a": {"use": "f"}, "b": {"use": "g", "soft": True}},
        "outputs": {"y": {"combine": "first", "of": ["a.y", "b.y"]}},
    }

    async def main() -> None:
        parts = {"f": times(2.0, 0.01), "g": hangs()}
        journey = Journey()
        response = await driven(ensemble(said, parts), asked([1.0], journey=journey))
        assert (response.outputs["y"], journey.degraded) == ([2.0], "")
        await until(lambda: parts["g"].cancelled)

    run(main)


def test_rows_go_their_own_ways_side_by_side_and_come_back_in_order() -> None:
    switch = [{"when": {"tensor": "x", "above": 10}, "use": "large"}, {"use": "small"}]
    said = {"steps": {"pick": {"switch": switch}}, "outputs": {"y": "pick.y"}}

    async def main() -> None:
        small, large = times(1.0), times(100.0)
        tree = ensemble(said, {"small": small, "large": large})
        small.gate = large.gate = asyncio.Event()
        answer = asyncio.ensure_future(driven(tree, asked([1, 20, 3, 40, 5])))
        await until(lambda: small.given and large.given)
        small.gate.set()
        np.testing.assert_array_equal((await answer).outputs["y"], [1, 2000, 3, 4000, 5])
        assert [one.rows for one in (*small.given, *large.given)] == [3, 2]
        await driven(tree, asked([1, 2]))
        assert len(large.given) == 1, "a way that no row goes is not asked"
        small.gate, large.fails = None, ModelFailed("it raised")
        with pytest.raises(ModelFailed, match=r"^step 'pick': it raised$"):
            await driven(tree, asked([1, 20]))

    run(main)


@pytest.mark.parametrize(
    ("condition", "values", "fits"),
    [
        ({"equals": "gold"}, bytes_array(["gold", "tin", "gold"], (3,)), [True, False, True]),
        ({"equals": 1}, np.array([1, 2, 1]), [True, False, True]),
        ({"equals": True}, np.array([True, False, True]), [True, False, True]),
        ({"above": 0.5, "below": 1.5}, np.array([1.0, 2.0, 0.0]), [True, False, False]),
        ({"above": 0.0}, np.array([1.0, np.nan, -1.0]), [True, False, False]),
        ({"above": 0.0}, np.array([[1.0, 1.0], [1.0, -1.0], [2.0, 3.0]]), [True, False, True]),
    ],
)
def test_conditions(condition: dict[str, Any], values: Any, fits: list[bool]) -> None:
    datatype = {"O": "BYTES", "i": "INT64", "b": "BOOL", "f": "FP64"}[values.dtype.kind]
    said = {
        "inputs": {
            "x": {"datatype": "FP64", "shape": [-1]},
            "kind": {"datatype": datatype, "shape": [-1, *values.shape[1:]]},
        },
        "steps": {"pick": {"switch": [{"when": {"tensor": "kind", **condition}, "use": "yes"}, {"use": "no"}]}},
        "outputs": {"y": "pick.y"},
    }
    tree = ensemble(said, {"yes": times(1.0), "no": times(0.0)})
    request = asked([1.0] * len(values))
    request = request._replace(inputs={**request.inputs, "kind": values})

    async def main() -> None:
        assert [bool(one) for one in (await driven(tree, request)).outputs["y"]] == fits

    run(main)


def test_names_are_those_that_the_steps_say() -> None:
    said = {
        "steps": {
            "clean": {"use": "f", "inputs": {"x": "raw"}, "outputs": {"features": "y"}},
            "a": {"use": "g", "inputs": {"x": "clean.features"}},
        },
        "outputs": {"score": "a.y", "features": "clean.features", "raw": "raw"},
    }
    tree = ensemble(said, {"f": times(2.0), "g": times(3.0)})
    raw = np.array([1.0])

    async def main() -> None:
        response = await driven(tree, asked([1.0])._replace(inputs={"raw": raw}))
        assert {name: float(one[0]) for name, one in response.outputs.items()} == {
            "score": 6.0, "features": 2.0, "raw": 1.0
        }  # fmt: skip
        assert response.outputs["raw"] is raw

    run(main)


def test_numbers_are_cast_for_lenient_models_and_looked_at_where_shapes_are_not_sure() -> None:
    narrow = Signature((TensorSpec("x", "FP32", (-1, 2)),), (TensorSpec("y", "FP32", (-1,)),), lenient=True)
    free = Signature((TensorSpec("x", "FP64", (-1,)),), (TensorSpec("y", "FP64", (-1, -1)),))
    said = {"steps": {"a": {"use": "f"}, "b": {"use": "g", "inputs": {"x": "a.y"}}}, "outputs": {"y": "b.y"}}
    seen: list[Any] = []

    def last(inputs: Tensors) -> Tensors:
        seen.append(inputs["x"].dtype)
        return {"y": inputs["x"].sum(axis=1)}

    first = Part(lambda inputs: {"y": np.stack([inputs["x"], inputs["x"]], axis=1)})
    tree = ensemble(said, {"f": first, "g": Part(last)}, {"f": free, "g": narrow})

    async def main() -> None:
        assert (await driven(tree, asked([2.0]))).outputs["y"] == [4.0]
        assert seen == [np.float32]
        first.act = lambda inputs: {"y": np.ones((1, 3))}
        with pytest.raises(InvalidOutput, match=r"step 'b': a.y has shape \[1, 3\], and FP32\[n, 2\] is needed"):
            await driven(tree, asked([2.0]))

    run(main)


def test_members_of_other_shapes_are_the_models_fault() -> None:
    free = Signature((TensorSpec("x", "FP64", (-1,)),), (TensorSpec("y", "FP64", (-1, -1)),))
    parts = {"f": Part(lambda i: {"y": np.ones((1, 2))}), "g": Part(lambda i: {"y": np.ones((1, 3))})}

    async def main() -> None:
        tree = ensemble(two(), parts, dict.fromkeys(parts, free))
        with pytest.raises(InvalidOutput, match=r"a.y \[1, 2\], b.y \[1, 3\]"):
            await driven(tree, asked([1.0]))

    run(main)


def test_a_version_that_the_caller_names_is_not_asked_for_inside() -> None:
    part = times(1.0)
    request = asked([1.0])
    said = Said({"x-route-to": "v8", "x-account-id": "7"}, {"c": "1"}, {"q": "2"})
    request = request._replace(context=request.context._replace(attributes=said))

    async def main() -> None:
        await driven(ensemble({"steps": {"a": {"use": "f"}}, "outputs": {"y": "a.y"}}, {"f": part}), request)
        inner = part.given[0].context.attributes
        assert inner is not None
        assert [inner.header("x-route-to"), inner.header("x-account-id")] == [None, "7"]
        assert [inner.cookie("c"), inner.argument("q")] == ["1", "2"]

    run(main)


def test_a_thousand_at_once_get_their_own_answers() -> None:
    async def main() -> None:
        parts = {"f": times(1.0, 0.001), "g": times(3.0, 0.002)}
        tree = ensemble(two(), parts)
        answers = await asyncio.gather(*(driven(tree, asked([float(i), float(-i)])) for i in range(1000)))
        for i, answer in enumerate(answers):
            np.testing.assert_allclose(answer.outputs["y"], [2.0 * i, -2.0 * i])

    run(main)


def test_it_is_as_long_as_its_longest_way() -> None:
    class Known(Part):
        def expected_seconds(self) -> float:
            return self.seconds

    said = {
        "steps": {"a": {"use": "f"}, "b": {"use": "g"}, "c": {"use": "h", "inputs": {"x": "b.y"}}},
        "outputs": {"y": {"combine": "max", "of": ["a.y", "c.y"]}},
    }
    parts = {name: Known(lambda i: i, seconds) for name, seconds in (("f", 0.5), ("g", 0.2), ("h", 0.1))}
    assert ensemble(said, parts).expected_seconds() == 0.5
    parts["h"].seconds = 0.4
    assert ensemble(said, parts).expected_seconds() == pytest.approx(0.6)


def test_what_does_not_fit_cannot_be_built() -> None:
    policy = msgspec.convert({"steps": {"a": {"use": "f"}}, "outputs": {"y": "a.z"}}, EnsemblePolicy)
    with pytest.raises(Failure, match="no such tensor"):
        Ensemble("both", policy, {"f": times(1.0)}, {"f": ONE})
