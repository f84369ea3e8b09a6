"""Which format a file, a directory or a reference is; and what is said beside the model about its inputs."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import skops.io
from sklearn.linear_model import LinearRegression, LogisticRegression

from tests.formats.data import cancer, diabetes, iris
from turnout import formats
from turnout.core.errors import FormatMismatch, FormatUnknown, LoadFailed, MissingExtra
from turnout.core.signature import Signature, TensorSpec
from turnout.formats import Artifact, LoadOptions
from turnout.formats.mlmodel import read_mlmodel
from turnout.formats.refusals import library


def linear(path):
    features, target = diabetes()
    skops.io.dump(LinearRegression().fit(features, target), path)
    return path


@pytest.mark.parametrize(
    ("name", "content", "kind", "said"),
    [
        ("m.h5", b"\x89HDF\r\n\x1a\n" + bytes(50), FormatMismatch, "HDF5"),
        ("m.bin", b"PAR1" + bytes(50), FormatUnknown, "Parquet"),
        ("m.npy", b"\x93NUMPY" + bytes(50), FormatUnknown, "NumPy"),
        ("m.bin", b"binf" + bytes(50), FormatUnknown, "old binary form"),
        ("m.json", b'{"hello": 1}', FormatMismatch, "JSON"),
        ("m.skops", b"PK\x03\x04" + bytes(50), FormatMismatch, "damaged"),
        ("m.onnx", b"\x80\x04K\x01.", FormatMismatch, "sklearn"),
        ("m", b"", LoadFailed, "empty"),
        ("m.txt", b"some words", FormatMismatch, "lightgbm"),
        ("m.safetensors", b"\x40\0\0\0\0\0\0\0{" + bytes(90), LoadFailed, "header is damaged"),
    ],
)
def test_what_is_no_model_is_named_for_what_it_is(tmp_path, name, content, kind, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(kind, match=said):
        formats.load(tmp_path / name)


def test_a_zip_of_other_things_lists_them(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        archive.writestr("photo.jpg", b"x")
    with pytest.raises(FormatUnknown, match=r"photo\.jpg"):
        formats.load(tmp_path / "m.zip")


def test_what_is_no_known_format_is_told_how_to_be_served(tmp_path):
    (tmp_path / "notes").write_bytes(b"\x01\x02\xff\xfe" * 20)
    with pytest.raises(FormatUnknown, match=r"a file model\.py: example = .* predict\(x\)"):
        formats.load(tmp_path / "notes")


def test_a_directory_of_versions_says_to_name_one(tmp_path):
    for number in ("2", "10"):
        (tmp_path / number).mkdir()
    with pytest.raises(FormatUnknown, match=r"holds versions \(2, 10\).*/10$"):
        formats.load(tmp_path)


@pytest.mark.parametrize("meant", ["models_:iris", "file:iris.onnx", "s3//bucket/iris", "s3:bucket/iris.onnx"])
def test_what_may_have_been_meant_as_a_uri_is_told_how_those_look(meant):
    with pytest.raises(LoadFailed, match="A URI is written as"):
        formats.load(meant)


def test_content_decides_where_the_ending_says_nothing(tmp_path):
    assert formats.detect(Artifact.of(linear(tmp_path / "model.v3"))).name == "sklearn"


def test_a_format_the_user_names_must_be_the_contents(tmp_path):
    path = linear(tmp_path / "m.skops")
    assert formats.detect(Artifact.of(path), LoadOptions(format="sklearn")).name == "sklearn"
    with pytest.raises(FormatMismatch, match="said to be onnx"):
        formats.load(path, LoadOptions(format="onnx"))
    with pytest.raises(FormatUnknown, match="no format 'coreml'; one of compiled, onnx"):
        formats.load(path, LoadOptions(format="coreml"))


def test_a_directory_stands_for_its_one_model(tmp_path):
    linear(tmp_path / "weights.skops")
    (tmp_path / "README.md").write_text("hello")
    (tmp_path / "requirements.txt").write_text("scikit-learn")
    assert formats.load(tmp_path).signature.inputs[0].shape == (-1, 10)
    linear(tmp_path / "other.skops")
    with pytest.raises(FormatUnknown, match=r"other\.skops, weights\.skops"):
        formats.load(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FormatUnknown, match="holds nothing"):
        formats.load(tmp_path / "empty")


def test_what_is_not_there_is_said_so(tmp_path):
    with pytest.raises(LoadFailed, match="there is no file or directory"):
        formats.load(tmp_path / "nothing.onnx")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fraud v2.onnx", "fraud_v2"),
        ("über.skops", "ber"),
        ("a.b.onnx", "a.b"),
        ("__.onnx", "model"),
        ("x-1_2.txt", "x-1_2"),
    ],
)
def test_a_name_is_suggested_from_the_files(tmp_path, name, expected):
    (tmp_path / name).write_bytes(b"x")
    assert Artifact.of(tmp_path / name).name == expected


def test_a_missing_library_is_named_with_the_command():
    with pytest.raises(MissingExtra, match=r"pip install 'turnout\[sklearn\]'"):
        library("sklearn.no_such_part", "this")


@pytest.mark.parametrize("kind", ["xgboost", "lightgbm", "catboost", "onnxruntime", "torch"])
def test_every_format_names_its_own_extra(kind):
    program = (
        "import sys\nfrom turnout.formats.refusals import library\n"
        f"sys.modules[{kind!r}] = None\n"
        f"try:\n    library({kind!r}, 'the model')\n"
        "except Exception as failure:\n    print(type(failure).__name__, failure)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    extra = {"onnxruntime": "onnx"}.get(kind, kind)
    assert ended.stdout.startswith("MissingExtra")
    assert f"pip install 'turnout[{extra}]'" in ended.stdout


MLMODEL = """\
flavors:
  sklearn:
    pickled_model: model.skops
signature:
  inputs: '[{"type": "double", "name": "a", "required": true}, {"type": "string", "name":
    "it''s", "required": false}, {"type": "long", "name": "c"}]'
  outputs: '[{"type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1]}}]'
  params: null
utc_time_created: '2026-01-01'
"""


def test_the_columns_of_an_mlmodel_file(tmp_path):
    (tmp_path / "MLmodel").write_text(MLMODEL)
    found = read_mlmodel(tmp_path / "MLmodel")
    assert found.inputs == (
        TensorSpec("a", "FP64", (-1,), ("a",)),
        TensorSpec("it's", "BYTES", (-1,), ("it's",), optional=True),
        TensorSpec("c", "INT64", (-1,), ("c",)),
    )
    (tmp_path / "MLmodel").write_text(
        'signature:\n  inputs: "[{\\"type\\": \\"double\\",\\\n    \\ \\"name\\": \\"gr\\xFCn\\"}]"\n'
    )
    assert read_mlmodel(tmp_path / "MLmodel").inputs[0].name == "grün"
    (tmp_path / "MLmodel").write_text("flavors: {}\n")
    assert read_mlmodel(tmp_path / "MLmodel") is None
    (tmp_path / "MLmodel").write_text("signature:\n  inputs: '[{'\n")
    with pytest.raises(LoadFailed, match="not JSON"):
        read_mlmodel(tmp_path / "MLmodel")


def test_an_mlmodel_file_names_the_columns_of_a_model_of_arrays(tmp_path):
    features, target = iris()
    skops.io.dump(LogisticRegression(max_iter=1000).fit(features, target), tmp_path / "model.skops")
    columns = [{"type": "double", "name": name} for name in ("a", "b", "c", "d")]
    (tmp_path / "MLmodel").write_text(f"path: model.skops\nsignature:\n  inputs: '{json.dumps(columns)}'\n")
    for given in (tmp_path, tmp_path / "model.skops"):
        assert formats.load(given).signature.inputs == (TensorSpec("x", "FP64", (-1, 4), ("a", "b", "c", "d")),)


def test_an_example_of_another_width_is_refused(tmp_path):
    path = linear(tmp_path / "m.skops")
    with pytest.raises(LoadFailed, match="takes 10 columns"):
        formats.load(path, LoadOptions(example={"x": np.ones((2, 3))}))


def test_another_order_of_columns_in_an_example_changes_nothing(tmp_path):
    frame, target = cancer()
    model = LogisticRegression().fit((frame - frame.mean()) / frame.std(), target)  # unscaled, it takes seconds
    skops.io.dump(model, tmp_path / "m.skops")
    backwards = {name: frame[name].to_numpy()[:2] for name in reversed(frame.columns)}
    loaded = formats.load(tmp_path / "m.skops", LoadOptions(example=backwards))
    assert loaded.signature.inputs[0].columns == tuple(frame.columns)


def test_adding_a_format_is_one_entry_in_the_list(tmp_path, monkeypatch):
    class Constant:
        name, extra, suffixes = "constant", "", (".constant",)
        signature = Signature((TensorSpec("x", "FP64", (-1,)),), (TensorSpec("y", "FP64", (-1,)),))

        def recognise(self, artifact):
            return artifact.head.startswith(b"constant")

        def load(self, artifact, options):
            return self

        def predict(self, inputs):
            return {"y": inputs["x"] * 0}

    monkeypatch.setattr(formats, "FORMATS", [*formats.FORMATS, Constant()])
    (tmp_path / "m.constant").write_bytes(b"constant 0")
    assert formats.load(tmp_path / "m.constant").predict({"x": np.ones(2)})["y"].tolist() == [0.0, 0.0]
