"""What is refused before any library is asked: none of the libraries these formats need is installed here."""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
from pathlib import Path

import pytest

from turnout import formats
from turnout.core.errors import FormatUnknown, LoadFailed, MissingExtra, PickleRefused
from turnout.formats import Artifact, LoadOptions
from turnout.formats.elf import Damaged, read_library
from turnout.formats.treelite_trees import check_checkpoint

PMML = '<PMML xmlns="http://www.dmg.org/PMML-4_4" version="4.4"><Header/>{}</PMML>'
SYMBOL = {"nodes": [{"op": "null", "name": "data", "inputs": []}], "arg_nodes": [0], "heads": [[0, 0, 0]]}
INI = "[info]\ncategory = {}\n[columns]\na\n[domains]\n"


def refusal(path: Path, kind: type[LoadFailed] = LoadFailed, **options: bool) -> str:
    with pytest.raises(kind) as found:
        formats.load(path, LoadOptions(**options))
    return str(found.value)


def found(path: Path) -> str:
    return formats.detect(Artifact.of(path)).name


@pytest.mark.parametrize(
    ("head", "body", "said"),
    [
        ('<!DOCTYPE PMML [<!ENTITY x SYSTEM "file:///etc/hostname">]>', "<TreeModel>&x;</TreeModel>", "document type"),
        ('<!DOCTYPE PMML [<!ENTITY a "aa"><!ENTITY b "&a;&a;&a;">]>', "<TreeModel>&b;</TreeModel>", "document type"),
        ('<?xml version="1.0" encoding="UTF-7"?>', "<TreeModel/>", "UTF-7"),
        ("", "<TreeModel>&nothing;</TreeModel>", "damaged"),
        ("", "", "0 models"),
        ("", "<TreeModel/><RegressionModel/>", "2 models"),
        ("", "<TreeModel>" + "<Node>" * 20_000, "nested deeper"),
    ],
)
def test_pmml(tmp_path: Path, head: str, body: str, said: str) -> None:
    path = tmp_path / "model.pmml"
    path.write_text(head + PMML.format(body))
    try:
        assert found(path) == "pmml"
    except LoadFailed:
        assert "UTF-7" in said  # what it is cannot be read, so it is refused as what it promises to be
        return
    assert said in refusal(path)


def test_a_sound_document_asks_for_its_library(tmp_path: Path) -> None:
    path = tmp_path / "model.pmml"
    path.write_text(PMML.format("<TreeModel/>"))
    assert "turnout[pmml]" in refusal(path, MissingExtra)


@pytest.mark.parametrize(
    ("graph", "weights", "said"),
    [
        ('<net><layers><data offset="0" size="64"/></layers></net>', 8, "asks for 64 bytes"),
        ('<net><layers><data offset="-8" size="4"/></layers></net>', 8, "nowhere"),
        ('<net><layers><data offset="0" size="8"/></layers></net>', None, "not there"),
        ("<net><layers>", 8, "damaged"),
        ('<!DOCTYPE net SYSTEM "http://localhost/x"><net/>', 8, "document type"),
    ],
)
def test_openvino(tmp_path: Path, graph: str, weights: int | None, said: str) -> None:
    (tmp_path / "graph.xml").write_text(graph)
    if weights is not None:
        (tmp_path / "graph.bin").write_bytes(b"\0" * weights)
    assert found(tmp_path / "graph.xml") == "openvino"
    assert said in refusal(tmp_path / "graph.xml")


def params(count: int, size: int) -> bytes:
    """One array of a type and shape, in a file that says it has `count`."""
    array = struct.pack("<IiIqiii", 0xF993FAC9, 0, 1, size, 1, 0, 0) + b"\0" * 16
    return struct.pack("<QQQ", 0x112, 0, count) + array + struct.pack("<QQ", 1, 1) + b"w"


@pytest.mark.parametrize(
    ("symbol", "arrays", "said"),
    [
        ({**SYMBOL, "heads": [[7, 0, 0]]}, params(1, 4), "node 1 is made of node 7"),
        ({**SYMBOL, "nodes": [{"op": "null", "name": "x", "inputs": [[0, 0, 0]]}]}, params(1, 4), "comes later"),
        ({**SYMBOL, "arg_nodes": [9]}, params(1, 4), "no input"),
        (SYMBOL, params(2, 4), "damaged"),
        (SYMBOL, params(1 << 60, 4), "damaged"),
        (SYMBOL, params(1, 1 << 40), "ends after the file"),
        (SYMBOL, params(1, -4), "damaged"),
        (SYMBOL, params(1, 4) + b"more", "left over"),
        (SYMBOL, params(1, 4)[:-1], "damaged"),
        (SYMBOL, params(1, 4), "numpy below 1.24"),
    ],
)
def test_mxnet(tmp_path: Path, symbol: dict, arrays: bytes, said: str) -> None:
    (tmp_path / "net-symbol.json").write_text(json.dumps(symbol))
    (tmp_path / "net-0000.params").write_bytes(arrays)
    for path in (tmp_path, tmp_path / "net-symbol.json", tmp_path / "net-0000.params"):
        assert found(path) == "mxnet"
        assert said in refusal(path)


def test_a_native_library_needs_trust_and_is_not_opened_when_it_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "model.so"
    fields = struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 1 << 20, 0, 64, 56, 1, 64, 9, 0)
    header = b"\x7fELF\x02\x01\x01" + b"\0" * 9 + fields
    path.write_bytes(header + b"\0" * 100 + b"__tvm_ffi__library_bin\0")
    assert found(path) == "tvm"
    assert "machine code" in refusal(path, PickleRefused)
    assert "cut off" in refusal(path, trust_pickle=True)
    with pytest.raises(Damaged):
        read_library(path)
    path.write_bytes(header)
    assert "native" in refusal(path)


@pytest.mark.parametrize("trees", [1, 1 << 31])
def test_treelite(tmp_path: Path, trees: int) -> None:
    path = tmp_path / "model.tl"
    path.write_bytes(struct.pack("<iiiBBQiBB", 4, 8, 1, 2, 2, trees, 3, 1, 0) + struct.pack("<IQ", 1, 1 << 50))
    assert found(path) == "treelite"
    assert "more than are left" in refusal(path)
    path.write_bytes(struct.pack("<iiiBBQiBB", 3, 9, 0, 2, 2, 1, 3, 1, 0))
    with pytest.raises(LoadFailed, match="treelite 3"):
        check_checkpoint(path)


def mojo(path: Path, category: str, extra: bytes = b"") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.ini", INI.format(category))
        archive.writestr("trees/t00.bin", extra)
    return path


def test_h2o(tmp_path: Path) -> None:
    assert "WordEmbedding" in refusal(mojo(tmp_path / "words.zip", "WordEmbedding"))
    assert "unpacks to" in refusal(mojo(tmp_path / "bomb.zip", "Binomial", b"\0" * (90 << 20)))
    sound = mojo(tmp_path / "sound.zip", "Binomial", b"abc" * 50)
    (tmp_path / "h2o-genmodel.jar").write_bytes(b"PK")
    assert "--trust-pickle only" in refusal(sound, MissingExtra)
    data = bytearray(sound.read_bytes())
    data[data.index(b"trees/t00.bin") + 15] ^= 1
    (tmp_path / "broken.zip").write_bytes(data)
    assert "damaged" in refusal(tmp_path / "broken.zip")


def stage(directory: Path, kind: str, parameters: dict) -> None:
    (directory / "metadata").mkdir(parents=True)
    text = json.dumps({"class": kind, "uid": "x", "paramMap": parameters, "defaultParamMap": {}})
    (directory / "metadata" / "part-00000").write_text(text)


@pytest.mark.parametrize("kind", ["org.apache.spark.ml.feature.SQLTransformer", "com.example.Stage", "os.path.join"])
def test_spark_stages_that_run_code_need_trust(tmp_path: Path, kind: str) -> None:
    stage(tmp_path / "pipeline", "org.apache.spark.ml.PipelineModel", {"stageUids": ["x"]})
    assert "not all of them are there" in refusal(tmp_path / "pipeline")
    stage(tmp_path / "pipeline" / "stages" / "0_x", kind, {"inputCol": "a", "outputCol": "b"})
    assert found(tmp_path / "pipeline") == "spark"
    assert kind in refusal(tmp_path / "pipeline", PickleRefused)
    assert "turnout[spark]" in refusal(tmp_path / "pipeline", MissingExtra, trust_pickle=True)


def test_a_pickle_of_statsmodels_is_told_from_others_without_being_read(tmp_path: Path) -> None:
    named = b"\x80\x02cstatsmodels.regression.linear_model\nResults\n."
    (tmp_path / "results.pickle").write_bytes(named)
    assert found(tmp_path / "results.pickle") == "statsmodels"
    assert "statsmodels" in refusal(tmp_path / "results.pickle", PickleRefused)
    assert "turnout[statsmodels]" in refusal(tmp_path / "results.pickle", MissingExtra, trust_pickle=True)
    (tmp_path / "other.pickle").write_bytes(pickle.dumps([1, 2]))
    assert found(tmp_path / "other.pickle") == "sklearn"


def test_nothing_of_this_is_taken_for_something_else(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<html><body>PMML</body></html>")
    with pytest.raises(FormatUnknown):
        formats.detect(Artifact.of(tmp_path / "page.html"))
