"""ONNX: signatures from graphs, batching that is true, external data that stays inside, and what is refused."""

from __future__ import annotations

import os

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression

from tests.formats.data import as_bytes, cancer
from turnout import formats
from turnout.core.errors import FormatMismatch, InvalidInput, LoadFailed
from turnout.core.signature import TensorSpec
from turnout.formats import LoadOptions
from turnout.testing.formats import Tolerance, check_format

FLOAT, INT, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING


def graph(nodes, inputs, outputs, constants=(), opset=17):
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(*one) for one in inputs],
        [helper.make_tensor_value_info(*one) for one in outputs],
        initializer=list(constants),
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def saved(model, path):
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("zipmap", [True, False])
def test_a_classifier_answers_as_onnxruntime(tmp_path, zipmap):
    frame, target = cancer()
    rows = frame.to_numpy(dtype=np.float32)
    fitted = LogisticRegression(max_iter=5000).fit(rows, target)
    path = saved(to_onnx(fitted, rows[:1], options={"zipmap": zipmap}), tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    label, probabilities = session.run(None, {"X": rows})
    if zipmap:
        probabilities = np.array([list(row.values()) for row in probabilities], dtype=np.float32)
    names = [node.name for node in session.get_outputs()]
    model = check_format(
        path,
        format="onnx",
        rows={"X": rows},
        expected=dict(zip(names, (label, probabilities), strict=True)),
        split=Tolerance(1e-5, 1e-6),
        wrong_suffix=".cbm",
    )
    assert model.signature.inputs == (TensorSpec("X", "FP32", (-1, 30)),)
    assert [(s.datatype, s.shape) for s in model.signature.outputs] == [("INT64", (-1,)), ("FP32", (-1, 2))]
    assert model.signature.batched


CASES = [
    # first axes of the inputs, of the output, whether rows may be joined, the only batch size
    ((["n", 3], ["n", 3]), ["n", 3], True, None),
    (([None, 3], [None, 3]), [None, 3], True, None),
    ((["n", 3], ["m", 3]), ["n", 3], False, None),
    (([4, 3], [4, 3]), [4, 3], True, 4),
    ((["n", 3], [1, 3]), ["n", 3], False, None),
    (([], []), [], False, None),
]


@pytest.mark.parametrize(("inputs", "output", "batched", "limit"), CASES)
def test_rows_may_be_joined_only_if_the_first_axis_is_the_same_everywhere(tmp_path, inputs, output, batched, limit):
    a, b = inputs
    model = graph(
        [helper.make_node("Add", ["a", "b"], ["c"])], [("a", FLOAT, a), ("b", FLOAT, b)], [("c", FLOAT, output)]
    )
    signature = formats.load(saved(model, tmp_path / "m.onnx")).signature
    assert (signature.batched, signature.rows_limit) == (batched, limit)


def test_a_free_first_axis_that_is_not_the_row_shows_itself(tmp_path):
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["x", "m"], ["y"]),
    ]
    model = graph(nodes, [("x", FLOAT, ["points", 3])], [("y", FLOAT, ["points", 3])], opset=13)
    assert not formats.load(saved(model, tmp_path / "m.onnx")).signature.batched


def test_text_goes_in_and_comes_out(tmp_path):
    model = graph([helper.make_node("Identity", ["x"], ["y"])], [("x", STRING, ["n", 2])], [("y", STRING, ["n", 2])])
    loaded = formats.load(saved(model, tmp_path / "m.onnx"))
    text = as_bytes(["grün", "", "a", "b"]).reshape(2, 2)
    assert loaded.predict({"x": text})["y"].tolist() == text.tolist()
    with pytest.raises(InvalidInput, match="UTF-8"):
        loaded.predict({"x": np.array([[b"\xff", b""]], dtype=object)})


def test_outputs_that_are_no_tensors_are_refused_with_advice(tmp_path):
    node = helper.make_node("SequenceConstruct", ["x"], ["y"])
    out = helper.make_tensor_sequence_value_info("y", FLOAT, None)
    model = graph([node], [("x", FLOAT, ["n"])], [])
    model.graph.output.append(out)
    with pytest.raises(LoadFailed, match="not a tensor"):
        formats.load(saved(model, tmp_path / "m.onnx"))


def test_an_input_of_a_type_without_a_wire_form_is_refused(tmp_path):
    node = helper.make_node("Cast", ["x"], ["y"], to=FLOAT)
    model = graph([node], [("x", TensorProto.BFLOAT16, ["n"])], [("y", FLOAT, ["n"])])
    with pytest.raises(LoadFailed, match="bfloat16"):
        formats.load(saved(model, tmp_path / "m.onnx"))


def test_sizes_that_do_not_fit_the_graph_are_the_callers_fault(tmp_path):
    model = graph(
        [helper.make_node("MatMul", ["a", "b"], ["c"])],
        [("a", FLOAT, ["n", "k"]), ("b", FLOAT, ["n", "k"])],
        [("c", FLOAT, ["n", "n"])],
    )
    loaded = formats.load(
        saved(model, tmp_path / "m.onnx"), LoadOptions(example={"a": np.ones((2, 2)), "b": np.ones((2, 2))})
    )
    with pytest.raises(InvalidInput, match="graph does not take"):
        loaded.predict({"a": np.ones(3, np.float32), "b": np.ones((2, 2), np.float32)})


def external(directory, location, name="m.onnx"):
    weight = numpy_helper.from_array(np.arange(3, dtype=np.float32), "w")
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "12")):
        weight.external_data.add(key=key, value=value)
    model = graph(
        [helper.make_node("Add", ["x", "w"], ["y"])], [("x", FLOAT, ["n", 3])], [("y", FLOAT, ["n", 3])], [weight]
    )
    return saved(model, directory / name)


def test_external_data_beside_the_model_is_read(tmp_path):
    (tmp_path / "w.data").write_bytes(np.arange(3, dtype=np.float32).tobytes())
    external(tmp_path, "w.data")
    model = formats.load(tmp_path)
    assert model.predict({"x": np.zeros((1, 3), np.float32)})["y"].tolist() == [[0.0, 1.0, 2.0]]


@pytest.mark.parametrize(
    "way", ["../secret", "/etc/hostname", "sub/../../secret", "..\\secret", "link", "dir/w", "hard", "none"]
)
def test_external_data_does_not_leave_the_directory(tmp_path, way):
    place = tmp_path / "model"
    place.mkdir()
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(12))
    (place / "link").symlink_to(secret)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "w").write_bytes(bytes(12))
    (place / "dir").symlink_to(tmp_path / "outside", target_is_directory=True)
    os.link(secret, place / "hard")
    with pytest.raises(LoadFailed, match="keeps weights in"):
        formats.load(external(place, way))


def test_external_data_in_a_nested_graph_is_found_too(tmp_path):
    weight = numpy_helper.from_array(np.arange(3, dtype=np.float32), "w")
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../secret")
    out = [helper.make_tensor_value_info("v", FLOAT, [3])]
    branch = helper.make_graph([helper.make_node("Constant", [], ["v"], value=weight)], "b", [], out)
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    model = graph([node], [("c", TensorProto.BOOL, [])], [("y", FLOAT, [3])])
    with pytest.raises(LoadFailed, match=r"\.\./secret"):
        formats.load(saved(model, tmp_path / "m.onnx"))


def test_a_file_that_is_no_onnx_is_not_taken_for_one(tmp_path):
    for content in (b"\x08\x07hello there, this is text", b"\x08\x08\x12", os.urandom(300)):
        path = tmp_path / "m.onnx"
        path.write_bytes(content)
        with pytest.raises(LoadFailed):
            formats.load(path)
    (tmp_path / "m.onnx").write_text("hello")
    with pytest.raises(FormatMismatch, match=r"\.onnx promises onnx"):
        formats.load(tmp_path / "m.onnx")


def test_the_checker_of_onnx_agrees_that_these_graphs_are_valid(tmp_path):
    (tmp_path / "w.data").write_bytes(bytes(12))
    onnx.checker.check_model(str(external(tmp_path, "w.data")))
