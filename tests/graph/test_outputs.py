"""What is no valid answer is refused, and what is valid passes as it is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tests.graph.steps import SIGNATURE, Answers, asking, driven, failing, run
from turnout.core.errors import InvalidInput, InvalidOutput
from turnout.core.messages import InferResponse
from turnout.core.signature import Signature, TensorSpec
from turnout.graph.outputs import OutputCheck, OutputRange, OutputsPolicy, is_finite


def giving(**outputs: Any) -> Answers:
    arrays = {"score": np.array([0.5], dtype=np.float32), "label": np.array([b"yes"], dtype=object)} | outputs
    return Answers(lambda request: InferResponse(arrays, "m", "1"))


def scores(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


@pytest.mark.parametrize("size", [0, 1, 32, 33, 5000])
@pytest.mark.parametrize("shape", ["flat", "table"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_is_finite_sees_every_place(size: int, shape: str, dtype: Any) -> None:
    array = np.linspace(-1, 1, size).astype(dtype)
    array = array if shape == "flat" else array.reshape(size, 1)
    assert is_finite(array)
    for place in {0, size // 2, size - 1} if size else ():
        for odd in (np.nan, np.inf, -np.inf):
            broken = array.copy()
            broken[place] = odd
            assert not is_finite(broken)


def test_large_numbers_and_opposite_infinities_are_told_apart() -> None:
    assert is_finite(np.array([1.7e308, 1.7e308])), "their sum is not finite, they are"
    assert not is_finite(np.array([np.inf, -np.inf]))


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_refused(odd: float) -> None:
    async def main() -> None:
        child = giving(score=scores(odd))
        found = await failing(OutputCheck(child, OutputsPolicy(), SIGNATURE), asking())
        assert isinstance(found, InvalidOutput)
        assert "'score'" in found.message
        assert await driven(OutputCheck(child, OutputsPolicy(finite=False), SIGNATURE), asking())

    run(main)


@pytest.mark.parametrize(
    ("allowed", "good", "bad"),
    [
        (OutputRange(min=0, max=1), scores(0.0, 1.0), scores(0.5, 1.01)),
        (OutputRange(min=0), scores(1e9), scores(-0.001)),
        (OutputRange(max=3), scores(-7), scores(3.5)),
        (OutputRange(values=(0.1, 0.2)), scores(0.1, 0.2), scores(0.3)),
    ],
)
def test_ranges_and_values(allowed: OutputRange, good: np.ndarray, bad: np.ndarray) -> None:
    async def main() -> None:
        policy = OutputsPolicy(each={"score": allowed})
        assert await driven(OutputCheck(giving(score=good), policy, SIGNATURE), asking())
        found = await failing(OutputCheck(giving(score=bad), policy, SIGNATURE), asking())
        assert isinstance(found, InvalidOutput)

    run(main)


@pytest.mark.parametrize("size", [1, 32, 33, 1000])
def test_a_range_sees_every_place_of_any_size(size: int) -> None:
    async def main() -> None:
        policy = OutputsPolicy(each={"score": OutputRange(min=0, max=1)})
        for place in {0, size // 2, size - 1}:
            for odd in (-0.5, 1.5):
                array = np.linspace(0, 1, size, dtype=np.float32)
                assert await driven(OutputCheck(giving(score=array), policy, SIGNATURE), asking())
                array[place] = odd
                found = await failing(OutputCheck(giving(score=array), policy, SIGNATURE), asking())
                assert f"{odd:g}" in found.message

    run(main)


def test_text_has_allowed_values_too() -> None:
    async def main() -> None:
        policy = OutputsPolicy(each={"label": OutputRange(values=("yes", "no"))})
        assert await driven(OutputCheck(giving(), policy, SIGNATURE), asking())
        found = await failing(
            OutputCheck(giving(label=np.array([b"perhaps"], dtype=object)), policy, SIGNATURE), asking()
        )
        assert "perhaps" in found.message
        assert "no, yes" in found.message

    run(main)


def test_nan_that_is_allowed_is_out_of_no_range() -> None:
    async def main() -> None:
        policy = OutputsPolicy(finite=False, each={"score": OutputRange(min=0, max=1)})
        assert await driven(OutputCheck(giving(score=scores(math.nan, 0.5)), policy, SIGNATURE), asking())
        assert await driven(OutputCheck(giving(score=scores(math.nan)), policy, SIGNATURE), asking())
        assert await driven(OutputCheck(giving(score=scores()), policy, SIGNATURE), asking())
        assert await failing(OutputCheck(giving(score=scores(math.nan, 1.5)), policy, SIGNATURE), asking())

    run(main)


def test_another_shape_is_refused_and_an_output_that_nobody_asked_for_may_be_missing() -> None:
    async def main() -> None:
        found = await failing(OutputCheck(giving(score=scores(1)[:, None]), OutputsPolicy(), SIGNATURE), asking())
        assert "shape" in found.message
        wide = Signature(SIGNATURE.inputs, (TensorSpec("score", "FP32", (-1, 3)),))
        assert await failing(OutputCheck(giving(score=np.zeros((1, 2), np.float32)), OutputsPolicy(), wide), asking())
        only = Answers(lambda request: InferResponse({"label": np.array([b"a"], dtype=object)}, "m", "1"))
        assert await driven(OutputCheck(only, OutputsPolicy(), SIGNATURE), asking())

    run(main)


def test_the_short_form_of_a_spec() -> None:
    policy = OutputsPolicy.from_spec(
        {"finite": False, "score": {"min": 0, "max": 1}, "each": {"label": {"values": ["a"]}}}
    )
    assert policy == OutputsPolicy(
        finite=False, each={"score": OutputRange(min=0, max=1), "label": OutputRange(values=("a",))}
    )
    for wrong in ({"score": {"mni": 0}}, {"finite": "perhaps"}, {"score": 3}):
        with pytest.raises(InvalidInput):
            OutputsPolicy.from_spec(wrong)


@pytest.mark.parametrize(
    ("each", "field"),
    [
        ({"scroe": OutputRange(min=0)}, "outputs.scroe"),
        ({"label": OutputRange(min=0)}, "outputs.label"),
        ({"label": OutputRange(values=(3,))}, "outputs.label.values"),
        ({"score": OutputRange(values=("high",))}, "outputs.score.values"),
    ],
)
def test_what_the_signature_has_not_is_refused_when_it_is_built(each: dict[str, OutputRange], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        OutputCheck(giving(), OutputsPolicy(each=each), SIGNATURE)
    assert caught.value.field == field


def test_an_empty_range_is_refused() -> None:
    for settings in ({"min": 2, "max": 1}, {"values": ()}, {"min": math.nan}):
        with pytest.raises(InvalidInput):
            OutputRange(**settings)  # type: ignore[arg-type]
