"""What of an ensemble is refused before it is served, by its path; and what the whole takes and gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from turnout.core.errors import InvalidInput
from turnout.core.signature import Signature, TensorSpec
from turnout.graph.ensemble import EnsemblePolicy
from turnout.graph.ensemble_proof import prove

ONE = Signature((TensorSpec("x", "FP64", (-1,)),), (TensorSpec("y", "FP64", (-1,)),))


def policy(said: Mapping[str, Any]) -> EnsemblePolicy:
    return msgspec.convert(said, EnsemblePolicy)


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
        ({"steps": {"a": {"use": "f"}}, "outputs": {"y": "q.z"}}, {}, "outputs.y: there is no such step; expected a"),
        (
            {"steps": {"a": {"use": "f"}, "b": {"use": "g", "inputs": {"x": "a.y"}}}, "outputs": {"y": "b.y"}},
            {"f": ONE, "g": TEXT}, "steps.b.inputs.x: the tensors do not fit together: a.y is of another data",
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


def made(*inputs: TensorSpec, lenient: bool = False, batched: bool = True, **outputs: Any) -> Signature:
    specs = tuple(TensorSpec(name, *kind) for name, kind in outputs.items())
    return Signature(inputs, specs or (TensorSpec("y", "FP64", (-1,)),), lenient=lenient, batched=batched)


def chain(**more: Any) -> dict[str, Any]:
    return {"steps": {"a": {"use": "f"}, "b": {"use": "g", "inputs": {"x": "a.y"}, **more}}, "outputs": {"y": "b.y"}}


def alone(use: str = "f", **more: Any) -> dict[str, Any]:
    return {"steps": {"a": {"use": use, **more}}, "outputs": {"y": "a.y"}}


@pytest.mark.parametrize(
    ("said", "signatures", "words"),
    [
        (alone(switch=[{"when": {"tensor": "k", "equals": 1}, "use": "f"}, {"use": "g"}], use=""), {},
         "steps.a.switch[0].when.tensor: there is no such input"),
        (alone(switch=[{"when": {"tensor": "x", "equals": "big"}, "use": "f"}, {"use": "g"}], use=""), {},
         "steps.a.switch[0].when.equals: x is FP64[n]; expected a number; got 'big'"),
        (alone(switch=[{"when": {"tensor": "x", "above": 1}, "use": "f"}, {"use": "h"}], use=""), {},
         "steps.a.switch[1].use: there is no such version or model; expected f, g; got 'h'"),
        (alone(switch=[{"when": {"tensor": "x", "above": 1}, "use": "f"}, {"use": "g"}], use=""),
         {"f": ONE, "g": made(TensorSpec("x", "FP64", (-1,)), y=("FP32", (-1,)))},
         "steps.a: the ways differ in their output 'y'; expected FP64[n]; got FP32[n]"),
        (alone(outputs={"z": "w"}), {}, "steps.a.outputs.z: f has no such output; expected y; got 'w'"),
        (alone(weight=2), {}, "steps.a.weight: nothing weighs with it"),
        (alone() | {"inputs": {"z": {"datatype": "FP64", "shape": [-1]}}}, {},
         "steps.a.inputs.x: nobody gives this input; expected one of z"),
        (alone() | {"inputs": {n: {"datatype": "FP64", "shape": [-1]} for n in ("x", "z")}}, {},
         "inputs.z: nothing takes this input"),
        (alone() | {"inputs": {"x": {"datatype": "FP32", "shape": [-1]}}}, {},
         "steps.a.inputs.x: the tensors do not fit together: x is of another data type; expected FP64[n]; got FP32[n]"),
        (alone() | {"inputs": {"x": {"datatype": "FP64", "shape": [-1], "optional": True}}}, {},
         "steps.a.inputs.x: callers may leave it out"),
        (alone() | {"inputs": {"x": {"datatype": "FP64", "shape": [4]}}}, {}, "inputs.x.shape: its first axis is the"),
        (chain(), {"f": made(TensorSpec("x", "FP64", (-1,)), y=("FP64", (-1, 2), ("age", "income"))),
                   "g": made(TensorSpec("x", "FP64", (-1, 2), ("income", "age")))},
         "a.y has its columns in another order"),
        (chain(), {"f": ONE, "g": made(TensorSpec("x", "FP64", (-1,)), batched=False)},
         "steps.b.use: models with and without a row axis"),
        (chain(inputs={"x": "aa.y"}), {}, "steps.b.inputs.x: there is no such step; expected a, b; got 'aa'"),
        ({"steps": {"a": {"use": "f"}, "b": {"use": "g"}},
          "outputs": {"y": {"combine": "mean", "of": ["a.y", "b.y"]}}},
         {"f": made(TensorSpec("x", "FP64", (-1,)), y=("FP64", (-1, 3))),
          "g": made(TensorSpec("x", "FP64", (-1,)), y=("FP64", (-1, 2)))},
         "outputs.y.of[1]: of another shape than the first; expected FP64[n, 3]; got FP64[n, 2]"),
        ({"steps": {"a": {"use": "f"}}, "outputs": {"y": {"combine": "argmax", "of": ["a.y"]}}}, {},
         "outputs.y.of[0]: argmax needs a score for each class"),
        ({"steps": {"a": {"use": "f"}, "b": {"use": "g"}},
          "outputs": {"y": {"combine": "mean", "of": ["a.y", "b.y"]}}},
         {"f": made(TensorSpec("x", "FP64", (-1, 2), ("age", "income"))),
          "g": made(TensorSpec("x", "FP64", (-1, 2), ("income", "age")))},
         "steps.b.inputs.x: the input 'x' is used in two ways"),
    ],
)  # fmt: skip
def test_more_of_what_does_not_fit(said: dict[str, Any], signatures: dict[str, Signature], words: str) -> None:
    assert words in refused(said, **signatures)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"use": "f", "switch": [{"use": "f"}]}, "exactly one of use, switch"),
        ({"switch": [{"when": {"tensor": "x", "above": 1}, "use": "f"}]}, "a condition for all but the last"),
        ({"switch": [{"when": {"tensor": "x"}, "use": "f"}, {"use": "g"}]}, "equals, above or below"),
        ({"use": "f", "deadline": 0}, "seconds above 0"),
        ({"use": "f", "retries": 9}, "0 to 5"),
        ({"use": "f", "weight": 0}, "a number above 0"),
    ],
)
def test_a_step_that_means_nothing_is_refused(said: dict[str, Any], words: str) -> None:
    with pytest.raises((InvalidInput, msgspec.ValidationError)) as found:
        policy({"steps": {"a": said}, "outputs": {"y": "a.y"}})
    assert words in str(found.value.__cause__ or found.value)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"combine": "sum", "of": ["a.y"]}, "no way to combine"),
        ({"combine": "mean", "of": []}, "at least one STEP.OUTPUT"),
        ({"combine": "mean", "of": ["a.y"], "weights": [1]}, "mean has no weights"),
        ({"combine": "vote", "of": ["a.y"], "weights": [1, 2]}, "1 numbers above 0"),
    ],
)
def test_a_combination_that_means_nothing_is_refused(said: dict[str, Any], words: str) -> None:
    with pytest.raises((InvalidInput, msgspec.ValidationError)) as found:
        policy({"steps": {"a": {"use": "f"}}, "outputs": {"y": said}})
    assert words in str(found.value.__cause__ or found.value)


def test_numbers_of_lenient_models_are_made_to_fit() -> None:
    """As scikit-learn takes FP64 and XGBoost FP32: the whole takes what holds both."""
    wide = made(TensorSpec("x", "FP64", (-1, -1)), lenient=True)
    narrow = made(TensorSpec("x", "FP32", (-1, 4)), lenient=True)
    said = {
        "steps": {"a": {"use": "f"}, "b": {"use": "g"}},
        "outputs": {"y": {"combine": "mean", "of": ["a.y", "b.y"]}},
    }
    found = prove(policy(said), {"f": wide, "g": narrow})
    assert (found.inputs, found.lenient) == ((TensorSpec("x", "FP64", (-1, 4)),), True)
    strict = made(TensorSpec("x", "FP32", (-1, 4)))
    assert "used in two ways" in refused(said, f=wide, g=strict)
    assert prove(policy(chain()), {"f": made(TensorSpec("x", "INT64", (-1,))), "g": made(*narrow_one(), lenient=True)})


def narrow_one() -> tuple[TensorSpec, ...]:
    return (TensorSpec("x", "FP32", (-1,)),)


def test_names_with_dots_are_inputs_where_no_step_is_called_so() -> None:
    dotted = made(TensorSpec("input.1", "FP64", (-1,)), TensorSpec("params.top", "INT64", (), optional=True))
    found = prove(policy(alone()), {"f": dotted})
    assert [(spec.name, spec.optional) for spec in found.inputs] == [("input.1", False), ("params.top", True)]
    declared = {"inputs": {"in.1": {"datatype": "FP64", "shape": [-1]}}}
    assert prove(policy(alone(inputs={"input.1": "in.1"}) | declared), {"f": dotted}).inputs[0].name == "in.1"


def test_a_fixed_batch_size_is_no_matter_of_the_whole() -> None:
    fixed = made(TensorSpec("x", "FP64", (8, 2)), y=("FP64", (8,)))
    found = prove(policy(alone()), {"f": fixed})
    assert (found.inputs[0].shape, found.outputs[0].shape) == ((-1, 2), (-1,))
    other = made(TensorSpec("x", "FP64", (4,)), y=("FP64", (4,)))
    assert prove(policy(chain()), {"f": fixed, "g": other}).outputs[0].shape == (-1,)
