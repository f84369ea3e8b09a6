"""What is said when nothing else can be: checked when it is built, and shaped like the model's own answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.graph.steps import SIGNATURE, asking, driven, run
from turnout.core.errors import InvalidInput
from turnout.core.signature import Signature, TensorSpec
from turnout.graph.constant import Constant

VALUES = {"score": 0.25, "label": "unknown"}


def of(*outputs: TensorSpec, batched: bool = True) -> Signature:
    return Signature((TensorSpec("x", "FP32", (-1, 2)),), outputs, batched=batched)


@pytest.mark.parametrize("rows", [1, 3, 500])
def test_it_is_what_the_signature_says_for_every_number_of_rows(rows: int) -> None:
    async def main() -> None:
        answer = await driven(Constant(VALUES, SIGNATURE), asking(*range(rows)))
        SIGNATURE.check_outputs(answer.outputs, rows)
        assert answer.outputs["score"].dtype == np.float32
        assert answer.outputs["score"].tolist() == [0.25] * rows
        assert answer.outputs["label"].tolist() == [b"unknown"] * rows
        assert (answer.model, answer.version) == ("m", "default")

    run(main)


def test_only_what_was_asked_for() -> None:
    async def main() -> None:
        answer = await driven(Constant(VALUES, SIGNATURE), asking(1.0, 2.0, outputs=("label",)))
        assert list(answer.outputs) == ["label"]

    run(main)


def test_nobody_can_change_it() -> None:
    async def main() -> None:
        node = Constant(VALUES, SIGNATURE)
        with pytest.raises(ValueError, match="read-only"):
            (await driven(node, asking())).outputs["score"][0] = 1.0

    run(main)


@pytest.mark.parametrize(
    ("spec", "value", "expected"),
    [
        (TensorSpec("y", "FP32", (-1, 3)), 0.0, [[0.0, 0.0, 0.0]]),
        (TensorSpec("y", "FP32", (-1, 3)), [0.1, 0.2, 0.7], [[0.1, 0.2, 0.7]]),
        (TensorSpec("y", "FP64", (-1, -1)), [1, 2], [[1.0, 2.0]]),
        (TensorSpec("y", "FP64", (-1, -1)), 4, [[4.0]]),
        (TensorSpec("y", "INT64", (-1, 2, 2)), [[1, 2], [3, 4]], [[[1, 2], [3, 4]]]),
        (TensorSpec("y", "BOOL", (-1,)), False, [False]),
        (TensorSpec("y", "BYTES", (-1, 2)), ["a", "ü"], [[b"a", "ü".encode()]]),
        (TensorSpec("y", "FP32", (4, 2)), 1.0, [[1.0, 1.0]]),
    ],
)
def test_values_of_every_shape_and_type(spec: TensorSpec, value: Any, expected: Any) -> None:
    async def main() -> None:
        found = (await driven(Constant({"y": value}, of(spec)), asking())).outputs["y"]
        assert found.dtype == spec.dtype
        if spec.dtype.kind == "f":
            np.testing.assert_allclose(found, expected, rtol=1e-6)
        else:
            assert found.tolist() == expected

    run(main)


def test_a_model_without_rows() -> None:
    async def main() -> None:
        node = Constant({"total": 3.0}, of(TensorSpec("total", "FP64", ()), batched=False))
        assert (await driven(node, asking(1.0, 2.0))).outputs["total"].shape == ()

    run(main)


@pytest.mark.parametrize(
    ("spec", "value", "says"),
    [
        (TensorSpec("y", "FP32", (-1,)), "high", "FP32"),
        (TensorSpec("y", "FP32", (-1,)), True, "FP32"),
        (TensorSpec("y", "FP32", (-1,)), float("nan"), "finite"),
        (TensorSpec("y", "INT8", (-1,)), 300, "range"),
        (TensorSpec("y", "INT64", (-1,)), 0.5, "INT64"),
        (TensorSpec("y", "BYTES", (-1,)), 7, "BYTES"),
        (TensorSpec("y", "BOOL", (-1,)), 1, "BOOL"),
        (TensorSpec("y", "FP32", (-1, 3)), [1.0, 2.0], "[3] a row"),
        (TensorSpec("y", "FP32", (-1, 2, 2)), [[1.0, 2.0], [3.0]], "lengths"),
        (TensorSpec("y", "FP32", (-1,)), [1.0], "[] a row"),
    ],
)
def test_what_does_not_fit_is_refused_when_it_is_built(spec: TensorSpec, value: Any, says: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Constant({"y": value}, of(spec))
    assert caught.value.field == "default.y"
    assert says in str(caught.value)


def test_names_are_those_of_the_signature_and_an_example_shows_them() -> None:
    with pytest.raises(InvalidInput, match="no output 'scroe'") as caught:
        Constant({"scroe": 0.0}, SIGNATURE)
    assert "score: FP32" in str(caught.value)
    with pytest.raises(InvalidInput, match="nothing is said for 'label'") as caught:
        Constant({"score": 0.0}, SIGNATURE)
    assert caught.value.example == 'default: {score: 0.0, label: "unknown"}'
