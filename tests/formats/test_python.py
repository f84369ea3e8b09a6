"""Plain Python: classes and functions, how they are found, called and refused."""

from __future__ import annotations

import textwrap

import numpy as np
import pytest

from tests.formats.data import as_bytes
from turnout import formats
from turnout.core.errors import InvalidInput, InvalidOutput, LoadFailed
from turnout.core.signature import TensorSpec
from turnout.formats import Artifact, LoadOptions
from turnout.testing.formats import check_format

TWO = {"x": np.array([[1.0, 2.0], [3.0, 4.0]])}


def written(path, code):
    path.write_text(textwrap.dedent(code))
    return path


def load(tmp_path, code, attribute="", **options):
    path = written(tmp_path / "code.py", code)
    return formats.load(f"python:{path}:{attribute}" if attribute else path, LoadOptions(**options))


CLASS = """
    import numpy as np
    from turnout.core.signature import Signature, TensorSpec

    class Scale:
        signature = Signature((TensorSpec("x", "FP64", (-1, 2)),), (TensorSpec("y", "FP32", (-1, 2)),))

        def load(self):
            self.factor = 2.0

        def predict(self, inputs):
            return {"y": inputs["x"] * self.factor}
"""


def test_a_class_with_a_signature_in_a_directory(tmp_path):
    place = tmp_path / "scale"
    place.mkdir()
    written(place / "model.py", CLASS)
    model = check_format(
        place, format="python", rows=TWO, expected={"y": (TWO["x"] * 2).astype(np.float32)}, damage=False
    )
    assert model.signature.outputs == (TensorSpec("y", "FP32", (-1, 2)),)


def test_a_function_of_one_array_takes_its_inputs_name(tmp_path):
    model = load(tmp_path, "def double(values):\n    return values * 2\n", "double", example={"whatever": TWO["x"]})
    assert [spec.name for spec in model.signature.inputs] == ["values"]
    assert [(s.name, s.datatype, s.shape) for s in model.signature.outputs] == [("output", "FP64", (-1, 2))]
    assert model.signature.batched
    assert model.predict({"values": TWO["x"][:1]})["output"].tolist() == [[2.0, 4.0]]


def test_a_function_of_two_arrays_gets_them_by_name(tmp_path):
    code = "def area(width, height):\n    return width * height\n"
    model = load(tmp_path, code, "area", example={"height": np.array([2.0]), "width": np.array([3.0])})
    assert model.predict({"height": np.array([5.0]), "width": np.array([7.0])})["output"].tolist() == [35.0]


def test_a_function_of_inputs_gets_them_as_a_dict_with_text_as_text(tmp_path):
    code = """
        def predict(inputs):
            return {"upper": [name.upper() for name in inputs["name"]], "n": inputs["n"] + 1}
    """
    model = load(tmp_path, code, example={"name": as_bytes(["a"]), "n": np.array([1])})
    answer = model.predict({"name": as_bytes(["grün", "b"]), "n": np.array([1, 2])})
    assert answer["upper"].tolist() == ["GRÜN".encode(), b"B"]
    assert answer["n"].tolist() == [2, 3]


def test_a_module_reference_is_looked_up_in_the_current_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "my_own_model_module.py", CLASS)
    model = formats.load("my_own_model_module:Scale")
    assert model.predict(TWO)["y"].tolist() == [[2.0, 4.0], [6.0, 8.0]]
    assert Artifact.of("my_own_model_module:Scale").name == "Scale"


def test_the_rows_of_an_answer_that_are_not_those_of_the_inputs_end_batching(tmp_path):
    model = load(tmp_path, "def mean(x):\n    return x.mean(axis=0)\n", "mean", example=TWO)
    assert not model.signature.batched


def test_an_example_attribute_does(tmp_path):
    code = "def double(x):\n    return x * 2\ndouble.example = [[1.0, 2.0, 3.0]]\n"
    assert load(tmp_path, code, "double").signature.inputs[0].shape == (-1, 3)


def test_an_example_file_in_the_directory_does(tmp_path):
    written(tmp_path / "model.py", "def predict(inputs):\n    return inputs['a'] + inputs['b']\n")
    (tmp_path / "example.json").write_text('[{"a": 1.5, "b": 2}]')
    model = formats.load(tmp_path)
    assert [(s.name, s.datatype) for s in model.signature.inputs] == [("a", "FP64"), ("b", "INT64")]


def test_invalid_input_from_the_model_is_the_callers_fault(tmp_path):
    code = """
        from turnout.core.errors import InvalidInput

        def predict(inputs):
            if (inputs["x"] < 0).any():
                raise InvalidInput("negative", field="x")
            return inputs["x"]
    """
    model = load(tmp_path, code, example=TWO)
    with pytest.raises(InvalidInput, match="x: negative"):
        model.predict({"x": -TWO["x"]})


REFUSED = [
    ("async def predict(inputs):\n    return inputs\n", "asynchronous"),
    ("def predict(inputs):\n    yield inputs\n", "generator"),
    ("class Model:\n    async def predict(self, inputs):\n        return 1\n", "asynchronous"),
    ("class Model:\n    async def __call__(self, inputs):\n        return 1\n", "asynchronous"),
    (
        "class Model:\n    def __init__(self, path):\n        pass\n    def predict(self, inputs):\n        return 1\n",
        "Model",
    ),
    (
        "class Model:\n    def load(self):\n        raise OSError('no file')\n    def predict(self, i):\n        ...\n",
        "no file",
    ),
    ("model = 3\n", "a model is a function"),
    ("x = 1\n", "none of"),
    ("import no_such_module_at_all\n", "no_such_module_at_all"),
    ("def predict(:\n", "SyntaxError"),
    ("raise RuntimeError('boom')\n", "boom"),
    ("def predict():\n    return 1\n", "no argument"),
    ("def predict(a, b):\n    return a\n", "takes"),
    ("def predict(inputs):\n    return None\n", "NoneType"),
    ("def predict(inputs):\n    return {'y': [object()]}\n", "objects"),
    ("def predict(inputs):\n    return [[1], [2, 3]]\n", "different length"),
    ("signature = 3\ndef predict(inputs):\n    return 1\n", "not a turnout.core.signature.Signature"),
]


@pytest.mark.parametrize(("code", "said"), REFUSED)
def test_what_cannot_be_a_model_is_refused_clearly(tmp_path, code, said):
    with pytest.raises(LoadFailed, match=said):
        load(tmp_path, code, example=TWO)


def test_without_signature_and_example_the_refusal_says_what_to_give(tmp_path):
    with pytest.raises(LoadFailed, match="--example"):
        load(tmp_path, "def predict(inputs):\n    return inputs\n")


def test_an_answer_that_is_none_later_is_the_models_fault(tmp_path):
    code = "def f(x):\n    return x if (x > 0).all() else None\n"
    model = load(tmp_path, code, "f", example=TWO)
    with pytest.raises(InvalidOutput, match="NoneType"):
        model.predict({"x": -TWO["x"]})


def test_a_reference_to_nothing_names_what_there_is(tmp_path):
    with pytest.raises(LoadFailed, match="it has predict"):
        load(tmp_path, "def predict(inputs):\n    return 1\n", "missing", example=TWO)
    with pytest.raises(LoadFailed, match="no module"):
        formats.load("no_such_module_at_all:model")
    with pytest.raises(LoadFailed, match="no file"):
        formats.load("python:nowhere.py:model")
