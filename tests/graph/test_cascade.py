"""Only rows that a cheap step is not sure of go on, and each comes back as the last step that it came to answered."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.graph.steps import driven, run
from turnout.core.errors import DeadlineExceeded, InvalidInput, InvalidOutput, ModelFailed
from turnout.core.messages import Context, InferRequest, InferResponse, Journey
from turnout.core.signature import Signature, TensorSpec
from turnout.graph.cascade import Cascade, CascadeMemory, CascadePolicy, confidence, prove

SIGNATURE = Signature(
    (TensorSpec("x", "FP64", (-1,)),), (TensorSpec("p", "FP64", (-1, 2)), TensorSpec("who", "INT64", (-1,)))
)


class Classifier:
    """As sure as its input says, within what it can be; says who it is."""

    def __init__(self, who: int, surer: float, fails: Exception | None = None) -> None:
        self.who, self.surer, self.fails = who, surer, fails
        self.rows: list[int] = []

    async def infer(self, request: InferRequest) -> InferResponse:
        self.rows.append(request.rows)
        if self.fails is not None:
            raise self.fails
        p = np.clip(request.inputs["x"] + self.surer, 0.5, 1.0)
        outputs = {"p": np.stack([p, 1 - p], axis=1), "who": np.full(request.rows, self.who)}
        return InferResponse(outputs, request.model, "1", predict_seconds=0.5)


def asked(values: list[float], journey: Journey | None = None) -> InferRequest:
    return InferRequest("m", {"x": np.asarray(values, float)}, len(values), Context(journey=journey))


@given(
    st.lists(st.floats(0.0, 1.0), min_size=1, max_size=20),
    st.floats(0.5, 1.0),
    st.floats(0.5, 1.0),
)
def test_each_row_is_answered_as_if_it_were_alone(values: list[float], first: float, second: float) -> None:
    surer = (0.0, 0.2, 0.4)
    policy = CascadePolicy(steps=("a", "b", "c"), output="p", threshold=(first, second))
    memory = CascadeMemory()
    parts = {name: Classifier(i, surer[i]) for i, name in enumerate(policy.steps)}
    response = asyncio.run(
        Cascade("c", policy, parts, dict.fromkeys(policy.steps, SIGNATURE), memory).infer(asked(values))
    )
    for row, value in enumerate(values):
        p = [float(np.clip(value + more, 0.5, 1.0)) for more in surer]
        who = 0 if p[0] >= first else 1 if p[1] >= second else 2
        assert response.outputs["who"][row] == who
        assert response.outputs["p"][row][0] == p[who]
    assert sum(memory.rows.values()) == len(values)
    assert memory.unsure == 0


def test_where_nobody_is_unsure_nobody_else_is_asked() -> None:
    parts = {"a": Classifier(0, 0.5), "b": Classifier(1, 0.5)}
    policy = CascadePolicy(steps=("a", "b"), output="p", threshold=0.8)
    response = asyncio.run(Cascade("c", policy, parts, dict.fromkeys(policy.steps, SIGNATURE)).infer(asked([0.5, 0.5])))
    assert (parts["a"].rows, parts["b"].rows, response.predict_seconds) == ([2], [], 0.5)


def test_where_the_dear_one_cannot_answer_what_is_known_stands() -> None:
    policy = CascadePolicy(steps=("a", "b"), output="p", threshold=0.8)
    for problem, why in ((DeadlineExceeded("late"), "partial"), (ModelFailed("it raised"), "error")):
        journey, memory = Journey(), CascadeMemory()
        parts = {"a": Classifier(0, 0.0), "b": Classifier(1, 0.0, problem)}
        response = asyncio.run(
            Cascade("c", policy, parts, dict.fromkeys(policy.steps, SIGNATURE), memory).infer(
                asked([0.9, 0.6], journey)
            )
        )
        assert list(response.outputs["who"]) == [0, 0]
        assert (journey.degraded, memory.unsure) == (why, 1)
    parts = {"a": Classifier(0, 0.0), "b": Classifier(1, 0.0, InvalidInput("odd"))}
    with pytest.raises(InvalidInput):
        asyncio.run(Cascade("c", policy, parts, dict.fromkeys(policy.steps, SIGNATURE)).infer(asked([0.6])))


@pytest.mark.parametrize(
    ("values", "measure", "wanted"),
    [
        ([[0.7, 0.3], [0.5, 0.5]], "max", [0.7, 0.5]),
        ([[0.7, 0.2, 0.1]], "margin", [0.5]),
        ([[0.5, 0.5], [1.0, 0.0]], "entropy", [0.0, 1.0]),
        ([[0.1], [0.9]], "max", [0.9, 0.9]),
        ([[3.0], [-1.0]], "value", [3.0, -1.0]),
        ([[np.nan, 1.0]], "max", [-np.inf]),
        ([[np.nan], [np.inf]], "value", [-np.inf, np.inf]),
        ([[3.0, -1.0]], "max", [-np.inf]),
        ([[0.5], [1.0]], "entropy", [0.0, 1.0]),
        ([[0.75], [0.25]], "margin", [0.5, 0.5]),
        ([0.9, 0.2], "max", [0.9, 0.8]),
    ],
)
def test_how_sure_a_row_is(values: Any, measure: Any, wanted: list[float]) -> None:
    np.testing.assert_allclose(confidence(np.asarray(values), measure), wanted, atol=1e-12)


def test_a_step_that_hangs_is_given_up_in_time() -> None:
    class Hangs(Classifier):
        async def infer(self, request: InferRequest) -> InferResponse:
            self.rows.append(request.rows)
            await asyncio.Event().wait()
            raise AssertionError

    async def main() -> None:
        policy = CascadePolicy(steps=("a", "b"), output="p", threshold=0.8)
        parts = {"a": Classifier(0, 0.0), "b": Hangs(1, 0.0)}
        tree = Cascade("c", policy, parts, dict.fromkeys(policy.steps, SIGNATURE))
        for deadline, asked_too in ((time.monotonic() + 0.2, [1]), (time.monotonic() + 0.001, [])):
            journey = Journey(explain=True)
            parts["b"].rows.clear()
            request = asked([0.9, 0.6], journey)
            request = request._replace(context=request.context._replace(deadline=deadline))
            response = await driven(tree, request)
            assert (list(response.outputs["who"]), journey.degraded) == ([0, 0], "partial")
            assert parts["b"].rows == asked_too
            assert journey.steps is not None
            assert [(one.name, one.outcome) for one in journey.steps][-1] == ("b", "DeadlineExceeded")

    run(main)


def test_who_wants_all_or_nothing_gets_the_failure() -> None:
    policy = CascadePolicy(steps=("a", "b"), output="p", threshold=0.8)
    parts = {"a": Classifier(0, 0.0), "b": Classifier(1, 0.0, ModelFailed("it raised"))}
    tree = Cascade("c", policy, parts, dict.fromkeys(policy.steps, SIGNATURE))
    with pytest.raises(ModelFailed, match="step 'b': it raised"):
        asyncio.run(tree.infer(asked([0.6])._replace(parameters={"fail_on_degraded": True})))
    parts["a"].fails = ModelFailed("it raised too")
    with pytest.raises(ModelFailed, match="step 'a': it raised too"):
        asyncio.run(tree.infer(asked([0.6])))


def test_how_many_go_on_is_counted_and_said() -> None:
    policy = CascadePolicy(steps=("a", "b", "c"), output="p", threshold=(0.8, 0.95))
    memory = CascadeMemory()
    assert memory.escalated == 0.0
    parts = {name: Classifier(i, 0.1 * i) for i, name in enumerate(policy.steps)}
    tree = Cascade("c", policy, parts, dict.fromkeys(policy.steps, SIGNATURE), memory)
    response = asyncio.run(tree.infer(asked([0.9, 0.6, 0.7, 0.5])))
    assert response.parameters == {"rows_by_step": "a=1, c=3"}
    asyncio.run(tree.infer(asked([0.9] * 4)))
    assert memory.to_json() == {
        "asked": {"a": 8, "b": 3, "c": 3}, "rows": {"a": 5, "b": 0, "c": 3}, "unsure": 0, "escalated": 0.375
    }  # fmt: skip
    parts["c"].fails = ModelFailed("it raised")
    asyncio.run(tree.infer(asked([0.5])))
    assert (memory.unsure, memory.asked["c"], memory.rows["b"]) == (1, 4, 1)


def test_some_outputs_only_and_none_that_is_not_there() -> None:
    policy = CascadePolicy(steps=("a", "b"), output="p", threshold=0.8)
    parts = {"a": Classifier(0, 0.0), "b": Classifier(1, 0.5)}
    tree = Cascade("c", policy, parts, dict.fromkeys(policy.steps, SIGNATURE))
    response = asyncio.run(tree.infer(asked([0.9, 0.6])._replace(outputs=("who",))))
    assert {name: list(array) for name, array in response.outputs.items()} == {"who": [0, 1]}
    with pytest.raises(InvalidInput, match="there is no such output"):
        asyncio.run(tree.infer(asked([0.9])._replace(outputs=("whose",))))


def test_a_dear_step_may_take_more_and_each_gets_its_own() -> None:
    """The cheap one takes FP32 and has an output of its own, the dear one wants one more input."""
    cheap = Signature(
        (TensorSpec("x", "FP32", (-1,)),),
        (TensorSpec("p", "FP32", (-1, 2)), TensorSpec("who", "INT64", (-1,)), TensorSpec("sure", "FP32", (-1,))),
        lenient=True,
    )
    dear = Signature((TensorSpec("x", "FP64", (-1,)), TensorSpec("z", "FP64", (-1,))), SIGNATURE.outputs, lenient=True)
    policy = CascadePolicy(steps=("a", "b"), output="sure", measure="value", threshold=0.5)
    signature = prove(policy, {"a": cheap, "b": dear})
    assert [(spec.name, spec.datatype) for spec in signature.inputs] == [("x", "FP64"), ("z", "FP64")]
    assert [(spec.name, spec.datatype) for spec in signature.outputs] == [("p", "FP64"), ("who", "INT64")]
    seen: list[Any] = []

    class Sees(Classifier):
        async def infer(self, request: InferRequest) -> InferResponse:
            seen.append({name: (array.dtype.name, list(array)) for name, array in request.inputs.items()})
            response = await super().infer(request)
            narrow = np.float32 if self.who == 0 else np.float64
            outputs = {**response.outputs, "p": response.outputs["p"].astype(narrow), "sure": request.inputs["x"]}
            return response._replace(outputs=outputs)

    tree = Cascade("c", policy, {"a": Sees(0, 0.0), "b": Sees(1, 0.0)}, {"a": cheap, "b": dear})
    request = asked([0.25, 0.75])
    response = asyncio.run(tree.infer(request._replace(inputs={**request.inputs, "z": np.array([7.0, 8.0])})))
    assert seen == [{"x": ("float32", [0.25, 0.75])}, {"x": ("float64", [0.25]), "z": ("float64", [7.0])}]
    assert list(response.outputs["who"]) == [1, 0]
    assert response.outputs["p"].dtype == np.float64
    only = asyncio.run(tree.infer(asked([0.75])._replace(inputs={"x": np.array([0.75]), "z": np.array([8.0])})))
    assert only.outputs["p"].dtype == np.float64, "of one type, whoever answers"


def test_what_is_no_answer_is_the_steps_fault() -> None:
    class Odd(Classifier):
        async def infer(self, request: InferRequest) -> InferResponse:
            response = await super().infer(request)
            return response._replace(outputs={**response.outputs, "p": np.ones((request.rows, 3)) / 3})

    policy = CascadePolicy(steps=("a", "b"), output="p", threshold=0.8)
    free = Signature(SIGNATURE.inputs, (TensorSpec("p", "FP64", (-1, -1)), TensorSpec("who", "INT64", (-1,))))
    parts = {"a": Classifier(0, 0.0), "b": Odd(1, 0.0)}
    with pytest.raises(InvalidOutput, match=r"differ in the shape of 'p': \[1, 2\] and \[1, 3\]"):
        asyncio.run(Cascade("c", policy, parts, dict.fromkeys("ab", free)).infer(asked([0.6])))


def test_steps_that_are_not_alike_are_refused() -> None:
    policy = CascadePolicy(steps=("a", "b"), output="p")
    assert prove(policy, {"a": SIGNATURE, "b": SIGNATURE}).outputs == SIGNATURE.outputs
    other = Signature(SIGNATURE.inputs, (TensorSpec("p", "FP64", (-1, 3)), TensorSpec("who", "INT64", (-1,))))
    with pytest.raises(InvalidInput, match=r"steps\[1\]: it differs in its output 'p'"):
        prove(policy, {"a": SIGNATURE, "b": other})
    with pytest.raises(InvalidInput, match=r"steps\[1\]: no such version"):
        prove(policy, {"a": SIGNATURE})
    with pytest.raises(InvalidInput, match="output: no such output; expected p, who, which a has"):
        prove(CascadePolicy(steps=("a", "b"), output="q"), {"a": SIGNATURE, "b": SIGNATURE})
    with pytest.raises(InvalidInput, match="at least two"):
        CascadePolicy(steps=("a",), output="p")
    with pytest.raises(InvalidInput, match="0 to 1"):
        CascadePolicy(steps=("a", "b"), output="p", threshold=2.0)


@pytest.mark.parametrize(
    ("outputs", "measure", "words"),
    [
        ([TensorSpec("p", "BYTES", (-1,))], "max", "output: not a number"),
        ([TensorSpec("p", "FP64", (-1, 2))], "value", "output: of another shape; expected one number a row"),
        ([TensorSpec("p", "FP64", (-1, 2, 2))], "max", "output: of another shape; expected one probability a row"),
    ],
)
def test_an_output_that_says_nothing_is_refused(outputs: list[TensorSpec], measure: Any, words: str) -> None:
    signature = Signature(SIGNATURE.inputs, tuple(outputs))
    with pytest.raises(InvalidInput) as found:
        prove(CascadePolicy(steps=("a", "b"), output="p", measure=measure), dict.fromkeys("ab", signature))
    assert words in str(found.value)


def test_what_has_no_rows_or_nothing_in_common_is_refused() -> None:
    policy = CascadePolicy(steps=("a", "b"), output="p")
    whole = Signature(SIGNATURE.inputs, SIGNATURE.outputs, batched=False)
    with pytest.raises(InvalidInput, match=r"steps\[1\]: it has no rows that could go on"):
        prove(policy, {"a": SIGNATURE, "b": whole})
    with pytest.raises(InvalidInput, match="no output in common"):
        prove(policy, {"a": SIGNATURE, "b": Signature(SIGNATURE.inputs, (TensorSpec("q", "FP64", (-1,)),))})
    with pytest.raises(InvalidInput, match="one stands twice"):
        CascadePolicy(steps=("a", "a"), output="p")
    with pytest.raises(InvalidInput, match="expected 1 numbers; got 2"):
        CascadePolicy(steps=("a", "b"), output="p", threshold=(0.5, 0.6))
