"""Only rows that a cheap step is not sure of go on, and each comes back as the last step that it came to answered."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout.core.errors import DeadlineExceeded, InvalidInput, ModelFailed
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
    ],
)
def test_how_sure_a_row_is(values: Any, measure: Any, wanted: list[float]) -> None:
    np.testing.assert_allclose(confidence(np.asarray(values), measure), wanted, atol=1e-12)


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
