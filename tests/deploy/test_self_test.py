"""What a model's own example has to show before the model is ready."""

from __future__ import annotations

import json

import numpy as np
import pytest

from turnout.core.errors import LoadFailed, SelfTestFailed
from turnout.core.signature import PARAMETERS, Signature, TensorSpec
from turnout.deploy.load import load_model
from turnout.deploy.self_test import self_test
from turnout.deploy.version import VersionSpec
from turnout.formats import Artifact

CODE = """
import numpy as np
from turnout.core.signature import Signature, TensorSpec

class Model:
    signature = Signature(
        (TensorSpec("size", "FP64", (-1,), ("size",)), TensorSpec("name", "BYTES", (-1,), ("name",))),
        (TensorSpec("label", "BYTES", (-1,)), TensorSpec("scores", "FP64", (-1, 2), ("no", "yes")),
         TensorSpec("count", "INT64", (-1,))),
    )

    def predict(self, inputs):
        size = inputs["size"]
        if (size < 0).any():
            raise ValueError("a size below 0")
        return {
            "label": np.array([name.upper() for name in inputs["name"]], dtype=object),
            "scores": np.stack([size, 1 - size], 1),
            "count": size.astype(np.int64),
        }
"""
ROWS = [{"size": 0.25, "name": "a"}, {"size": 2.0, "name": "grün"}, {"size": None, "name": "c"}]
ANSWERS = [
    {"label": "A", "scores": [0.25, 0.75], "count": 0},
    {"label": "GRÜN", "scores": [2.0, -1.0], "count": 2},
    {"label": "C", "scores": [None, None], "count": -(2**63)},
]


@pytest.fixture
def model(tmp_path):
    """A directory with a model and an example, and the means to write what is expected of it."""
    path = tmp_path / "m"
    path.mkdir()
    (path / "model.py").write_text(CODE)
    (path / "example.json").write_text(json.dumps(ROWS[:2]))
    return path


def expecting(path, document):
    (path / "expected.json").write_text(json.dumps(document))
    return load_model(VersionSpec("m", str(path)))


def refusal(path, document):
    with pytest.raises(SelfTestFailed) as refused:
        expecting(path, document)
    return str(refused.value)


def test_the_example_is_predicted_and_measured(model):
    loaded = load_model(VersionSpec("m", str(model)))
    assert loaded.self_test == "2 rows predicted"
    assert {rows for rows, _ in loaded.measured} == {1, 2}
    assert all(seconds > 0 for _, seconds in loaded.measured)


def test_nothing_is_said_where_nothing_is_stored(model):
    (model / "example.json").unlink()
    loaded = load_model(VersionSpec("m", str(model)))
    assert loaded.self_test == ""
    assert loaded.measured


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
@pytest.mark.parametrize(
    "document",
    [
        ANSWERS,
        {"predictions": ANSWERS},
        {"outputs": {"label": ["A", "GRÜN", "C"], "count": [0, 2, -(2**63)]}, "max_seconds": 60},
        {"scores": [[0.25, 0.75], [2.0000001, -1.0], [None, None]], "tolerance": {"scores": 1e-6}},
        {"outputs": [{"name": "count", "datatype": "INT64", "shape": [3], "data": [0, 2, -(2**63)]}]},
        ["A", "GRÜN", "C"],
        [
            {"label": "A", "scores": {"yes": 0.75, "no": 0.25}},
            *({"scores": {"no": a, "yes": b}, "label": c} for a, b, c in [(2.0, -1.0, "GRÜN"), (None, None, "C")]),
        ],
    ],
    ids=["records", "an answer", "by name", "a tolerance", "version 2", "the first output", "for people"],
)
def test_what_is_expected_may_be_written_as_an_answer(model, document):
    (model / "example.json").write_text(json.dumps(ROWS))
    assert expecting(model, document).self_test == "3 rows predicted, 3 compared"


def test_a_difference_names_output_row_and_values(model):
    said = refusal(model, {"label": ["A", "ROT"], "scores": [[0.25, 0.75], [2.0, -1.5]], "count": [0, 3]})
    assert said == (
        "m, asked for the 2 rows of example.json, does not answer what expected.json expects:\n"
        '  label, row 1: expected "ROT", got "GRÜN"\n'
        "  scores, row 1, column 'yes': expected -1.5, got -1, difference 0.5 (tolerance 1e-05)\n"
        "  count, row 1: expected 3, got 2"
    )


def test_a_few_differences_are_shown_and_the_others_counted(model):
    (model / "example.json").write_text(json.dumps({"size": [float(i) for i in range(40)], "name": ["a"] * 40}))
    said = refusal(model, {"count": [i + 1 for i in range(40)]})
    assert len(said.splitlines()) == 7
    assert said.endswith("... and 35 more")


def test_missing_numbers_and_infinities_are_compared_too(model):
    said = refusal(model, {"scores": [[None, 0.75], [2.0, -1.0]]})
    assert "scores, row 0, column 'no': expected nan, got 0.25" in said
    (model / "expected.json").write_text('{"scores": [[0.25, Infinity], [2.0, -1.0]]}')
    with pytest.raises(SelfTestFailed, match=r"expected inf, got 0\.75"):
        load_model(VersionSpec("m", str(model)))


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"labels": ["A", "B"]}, "names the output 'labels'; the model gives label, scores, count"),
        ({"label": ["A"]}, r"shape \[1\] for 'label', and the model answered \[2\]"),
        ({"label": [1, 2]}, 'expected 1, got "A"'),
        ({"tolerance": 1}, "no outputs by name"),
        ({"label": ["A", "GRÜN"], "tolerance": "much"}, "tolerance is a number"),
        ({"label": ["A", "GRÜN"], "tolerance": {"lable": 1}}, "tolerance for 'lable'"),
        ({"label": ["A", "GRÜN"], "max_seconds": 0}, "max_seconds is a number"),
        ({"label": ["A", "GRÜN"], "max_seconds": 1e-9}, "expected.json allows 1e-09 s"),
        ("text", r"shape \[\] for .label."),
        ([], r"shape \[0\] for .label."),
    ],
)
def test_what_cannot_be_compared_is_refused(model, document, said):
    with pytest.raises(SelfTestFailed, match=said):
        expecting(model, document)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('[{"size": -1, "name": "a"}]', "fails on its own example .*ValueError: a size below 0"),
        ('[{"size": "x", "name": "a"}]', r"example\.json does not fit the model: .*size"),
        ('[{"size": 1}]', "does not fit the model: .*name"),
        ("{", "cannot be read"),
        ("[]", "there are no rows"),
    ],
)
def test_an_example_that_does_not_work_refuses_the_model(model, content, said):
    (model / "example.json").write_text(content)
    with pytest.raises(LoadFailed, match=said):
        load_model(VersionSpec("m", str(model)))


def test_expected_answers_need_an_example(model):
    (model / "example.json").unlink()
    assert "no example to predict: put its rows into example.json" in refusal(model, ANSWERS[:2])
    rows = model.parent / "rows.json"
    rows.write_text(json.dumps(ROWS[:2]))
    spec = VersionSpec("m", str(model), example=str(rows))
    assert load_model(spec).self_test == "2 rows predicted, 2 compared"


def test_a_single_file_has_its_example_under_its_own_name(tmp_path):
    (tmp_path / "shout.py").write_text(CODE.replace("class Model", "class Shout"))
    (tmp_path / "shout.example.json").write_text(json.dumps(ROWS[:1]))
    (tmp_path / "shout.expected.json").write_text(json.dumps(["B"]))
    (tmp_path / "example.json").write_text("of another model")
    with pytest.raises(SelfTestFailed, match='label, row 0: expected "B", got "A"'):
        load_model(VersionSpec("m", str(tmp_path / "shout.py")))


class Scaled:
    """Takes a parameter, and requests as they come."""

    signature = Signature(
        (TensorSpec("v", "FP64", (-1,), ("v",)), TensorSpec(f"{PARAMETERS}k", "FP64", (1,), optional=True)),
        (TensorSpec("y", "FP64", (-1,)),),
        batched=False,
    )

    def predict(self, inputs):
        return {"y": inputs["v"] * inputs.get(f"{PARAMETERS}k", np.array([1.0]))}


def test_the_parameters_of_an_example_are_used(tmp_path):
    (tmp_path / "input_example.json").write_text(
        json.dumps({"inputs": {"columns": ["v"], "data": [[1.0], [2.0]]}, "params": {"k": 3.0, "other": 1}})
    )
    (tmp_path / "expected.json").write_text(json.dumps({"y": [3.0, 6.0]}))
    assert self_test(Scaled(), Artifact.of(tmp_path)).said == "2 rows predicted, 2 compared"
    (tmp_path / "expected.json").write_text(json.dumps({"y": [3.0, 7.0]}))
    with pytest.raises(SelfTestFailed, match=r"y, \[1\]: expected 7, got 6"):
        self_test(Scaled(), Artifact.of(tmp_path))
