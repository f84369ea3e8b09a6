"""What heavy frameworks' artifacts are recognised by, and what is refused of them before any framework is imported."""

from __future__ import annotations

import json
import struct
import zipfile

import numpy as np
import pytest

from turnout import formats
from turnout.core.errors import FormatMismatch, LoadFailed, MissingExtra, PickleRefused
from turnout.formats import Artifact, LoadOptions, jax_content
from turnout.formats.protobuf_fields import BYTES
from turnout.formats.transformers_tasks import Labels, Pooling, Tokens, classified, embedded, entities


def field(number, content):
    """A protobuf field of bytes, or a number."""
    if isinstance(content, int):
        return bytes([number << 3, content])
    size = len(content)
    length = bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])
    return bytes([number << 3 | BYTES]) + length + content


def saved_model(folder, *operations, signatures=("serving_default",), assets=()):
    nodes = b"".join(field(1, field(1, b"node") + field(2, name.encode())) for name in operations)
    graph = field(1, field(4, b"serve")) + field(2, nodes)
    graph += b"".join(field(5, field(1, name.encode())) for name in signatures)
    graph += b"".join(field(6, field(2, name.encode())) for name in assets)
    folder.mkdir(exist_ok=True)
    (folder / "saved_model.pb").write_bytes(field(1, 1) + field(2, graph))
    return folder


def refusal(path, kind=LoadFailed, **options):
    with pytest.raises(kind) as caught:
        formats.load(path, LoadOptions(**options))
    assert type(caught.value) is kind
    return str(caught.value)


def test_a_saved_model_needs_its_library_and_says_how_to_install_it(tmp_path):
    path = saved_model(tmp_path / "m", "MatMul")
    assert formats.detect(Artifact.of(path)).name == "tensorflow"
    assert "pip install 'turnout[tensorflow]'" in refusal(path, MissingExtra)


def test_the_signatures_that_there_are_are_named(tmp_path):
    path = saved_model(tmp_path / "m", signatures=("encode", "score", "__saved_model_init_op"))
    assert "no signature 'serving_default'; it has encode, score" in refusal(path)
    assert "no signature 'rank'; it has encode, score" in refusal(f"{path}#rank")
    assert "turnout[tensorflow]" in refusal(f"{path}#score", MissingExtra)
    assert "has no signature" in refusal(saved_model(tmp_path / "n", signatures=()))


@pytest.mark.parametrize("operation", ["WriteFile", "ReadFile", "EagerPyFunc", "PrintV2"])
def test_a_graph_that_reaches_outside_needs_trust(tmp_path, operation):
    path = saved_model(tmp_path / "m", "MatMul", operation)
    assert operation in refusal(path, PickleRefused)
    refusal(path, MissingExtra, trust_pickle=True)


def test_an_asset_outside_the_directory_is_refused(tmp_path):
    for name in ("../../secret", "/etc/passwd"):
        assert name in refusal(saved_model(tmp_path / "m", assets=(name,)), trust_pickle=True)


@pytest.mark.parametrize("content", [b"", b"\x08\x01", b"\x08\x01\x12\x7f", b"words and words"])
def test_a_damaged_saved_model_is_refused(tmp_path, content):
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(content)
    assert "saved_model.pb" in refusal(folder)


def test_a_format_with_one_signature_takes_no_name_of_one(tmp_path):
    (tmp_path / "model.py").write_text("def predict(x):\n    return x\n")
    assert "leave out #score" in refusal(f"{tmp_path}#score")


def keras(path, config, members=()):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {"metadata.json": "{}", "config.json": json.dumps(config), **dict(members)}.items():
            archive.writestr(name, content)
    return path


def dense(**more):
    return {"module": "keras", "class_name": "Sequential", "config": {"layers": [{"module": "keras.layers", **more}]}}


def test_a_keras_archive_is_known_by_its_members(tmp_path):
    path = keras(tmp_path / "m.keras", dense(class_name="Dense", config={}))
    assert formats.detect(Artifact.of(path)).name == "keras"
    refusal(path, MissingExtra)
    assert ".onnx" in refusal(path.rename(tmp_path / "m.onnx"), FormatMismatch)


@pytest.mark.parametrize(
    ("inner", "said"),
    [
        ({"class_name": "Lambda", "config": {"function": {"class_name": "__lambda__"}}}, "ambda"),
        ({"class_name": "TorchModuleWrapper", "config": {}}, "TorchModuleWrapper"),
        ({"class_name": "StringLookup", "config": {"vocabulary": "/etc/passwd"}}, "/etc/passwd"),
    ],
)
def test_a_keras_layer_that_brings_code_or_reads_files_needs_trust(tmp_path, inner, said):
    path = keras(tmp_path / "m.keras", dense(**inner))
    assert said in refusal(path, PickleRefused)
    refusal(path, MissingExtra, trust_pickle=True)


@pytest.mark.parametrize(
    ("inner", "said"),
    [
        ({"class_name": "Mine", "module": None, "registered_name": "mine>Mine"}, "mine>Mine"),
        ({"class_name": "system", "module": "os"}, "os.system"),
        ({"class_name": "get_file", "module": "keras.utils"}, "keras.utils.get_file"),
    ],
)
def test_what_is_no_part_of_keras_is_refused_even_with_trust(tmp_path, inner, said):
    assert said in refusal(keras(tmp_path / "m.keras", dense(**inner)), trust_pickle=True)


def test_hostile_and_damaged_keras_archives_are_refused(tmp_path):
    path = keras(tmp_path / "a.keras", dense(class_name="Dense"), [("../../evil", "x")])
    assert "../../evil" in refusal(path)
    path = keras(tmp_path / "b.keras", dense(class_name="Dense"), [("model.weights.h5", "weights of some length")])
    path.write_bytes(path.read_bytes().replace(b"of some", b"of none"))
    assert "model.weights.h5 is not what its checksum says" in refusal(path)


def test_hdf5_needs_trust_and_a_model(tmp_path):
    path = tmp_path / "m.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64) + b"keras_version model_config")
    assert "model.keras" in refusal(path, PickleRefused)
    refusal(path, MissingExtra, trust_pickle=True)
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64) + b"keras_version layer_names")
    assert "weights without a model" in refusal(path)


def exported(version=3, name=b"network", magic=b"ML\xefR"):
    """A FlatBuffer with three fields: a version, a name and MLIR bytecode."""
    slots = 32
    table = struct.pack("<HH", slots, 16) + bytes(slots - 4)
    table = bytearray(table)
    for slot, offset in ((4, 4), (6, 8), (30, 12)):
        struct.pack_into("<H", table, slot, offset)
    root = 4 + len(table)
    text = struct.pack("<I", len(name)) + name
    program = struct.pack("<I", 40) + magic + bytes(36)
    at = root + 16
    body = struct.pack("<iHHII", len(table), version, 0, at - (root + 8), at + len(text) - (root + 12))
    return struct.pack("<I", root) + bytes(table) + body + text + program


def test_an_exported_jax_function_is_known_by_what_is_in_its_places(tmp_path):
    path = tmp_path / "m.jax"
    path.write_bytes(exported())
    assert formats.detect(Artifact.of(path)).name == "jax"
    refusal(path, MissingExtra)
    path.write_bytes(exported()[:-1])
    assert "cut off" in refusal(path)
    for other in (exported(version=0), exported(name=b"\xff\xfe"), exported(magic=b"ELF!"), exported()[:50]):
        path.write_bytes(other)
        assert not jax_content.looks_like(Artifact.of(path))
        refusal(path, FormatMismatch)


def safetensors(path, *, lie=0, cut=0):
    values = np.arange(6, dtype=np.float32)
    entry = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24 + lie]}
    header = json.dumps({"__metadata__": {"format": "np"}, "w": entry}).encode()
    content = struct.pack("<Q", len(header)) + header + values.tobytes()
    path.write_bytes(content[: len(content) - cut])
    return path


def test_safetensors_need_an_architecture_beside_them(tmp_path):
    path = safetensors(tmp_path / "w.safetensors")
    assert "architecture.json" in refusal(path)
    (tmp_path / "architecture.json").write_text('{"class": "net.py:Net"}')
    assert "no such file beside it" in refusal(tmp_path)
    (tmp_path / "net.py").write_text("class Net:\n    def __init__(self, weights):\n        pass\n")
    assert "turnout[safetensors]" in refusal(tmp_path, MissingExtra)
    for text in ("{", "[]", '{"class": "../net.py:Net"}', '{"class": "net.py:Net", "more": 1}', "{}"):
        (tmp_path / "architecture.json").write_text(text)
        assert "architecture.json" in refusal(tmp_path)


def test_damaged_safetensors_are_refused(tmp_path):
    (tmp_path / "architecture.json").write_text('{"class": "net.py:Net"}')
    safetensors(tmp_path / "w.safetensors", cut=1)
    assert "cut off" in refusal(tmp_path)
    safetensors(tmp_path / "w.safetensors", lie=4)
    assert "does not fit its shape" in refusal(tmp_path)


def hugging_face(folder, architecture="BertModel", weights="model.safetensors"):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"architectures": [architecture], "model_type": "bert"}))
    safetensors(folder / weights)
    return folder


def test_a_hugging_face_directory_is_known_by_its_files(tmp_path):
    path = hugging_face(tmp_path / "m")
    assert formats.detect(Artifact.of(path)).name == "transformers"
    refusal(path, MissingExtra)


def test_pickled_weights_and_other_architectures_are_refused(tmp_path):
    path = hugging_face(tmp_path / "m", weights="pytorch_model.bin")
    assert "save_pretrained" in refusal(path, PickleRefused)
    refusal(path, MissingExtra, trust_pickle=True)
    assert "LlamaForCausalLM" in refusal(hugging_face(tmp_path / "n", "LlamaForCausalLM"))
    (path / "config.json").write_text("{")
    assert "config.json cannot be read" in refusal(path, trust_pickle=True)


LOGITS = np.array([[0.0, 1.0, -1.0], [2.0, 0.0, 0.0]], np.float32)


def test_answers_of_a_classifier_follow_what_it_was_trained_for():
    one = classified(LOGITS, Labels(("a", "b", "c"), None))
    assert one["label"].tolist() == [b"b", b"a"]
    assert np.allclose(one["probabilities"].sum(1), 1)
    several = classified(LOGITS, Labels(("a", "b", "c"), "multi_label_classification"))
    assert np.allclose(several["probabilities"][0], [0.5, 0.7310586, 0.26894143])
    assert classified(LOGITS[:, :1], Labels(("x",), "regression"))["prediction"].tolist() == [0.0, 2.0]


def test_padding_and_special_tokens_are_no_entities():
    logits = np.stack([LOGITS[:, :2], LOGITS[:, :2]])
    mask = np.array([[True, True], [True, False]])
    tokens = Tokens(mask, np.zeros((2, 2), bool), np.zeros((2, 2, 2), int), [["x", "y"], ["x", "y"]])
    first, second = map(json.loads, entities(logits, Labels(("O", "PLACE"), None), tokens)["entities"])
    assert first == [{"entity": "PLACE", "score": 0.7311, "word": "x", "start": 0, "end": 0}]
    assert second == first


@pytest.mark.parametrize(("mode", "want"), [("mean", [2.0, 0.0]), ("cls", [1.0, 0.0]), ("max", [3.0, 0.0])])
def test_padding_is_not_pooled(mode, want):
    hidden = np.array([[[1, 0], [3, 0], [100, 100]]], np.float32)
    mask = np.array([[True, True, False]])
    assert embedded(hidden, mask, Pooling(mode))["embedding"].tolist() == [want]
    assert np.allclose(embedded(hidden, mask, Pooling(mode, normalize=True))["embedding"], [[1, 0]])
