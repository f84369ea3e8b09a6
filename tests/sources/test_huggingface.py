"""Models of a hub: pinned to a commit, checked by its digests, and tokens that go to nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cutting import CuttingProxy
from hub import TOKEN, Hub, Repository

from turnout.core.errors import LoadFailed, SourceFailed
from turnout.deploy.sources.huggingface import HuggingFaceSource
from turnout.deploy.sources.source import SourceSettings

SETTINGS = SourceSettings(attempts=3, timeout=10.0, retry_wait=0.01)
LARGE = bytes(range(256)) * 4096
FILES = {
    "config.json": b"{}",
    "model.safetensors": LARGE,
    "pytorch_model.bin": b"the same once more",
    "onnx/model.onnx": b"onnx",
    "onnx/model_quantized.onnx": b"small",
    ".gitattributes": b"*.bin filter=lfs",
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with Hub() as found:
        found.repositories["org/iris"] = Repository()
        found.repositories["org/iris"].commit(FILES)
        monkeypatch.setenv("HF_ENDPOINT", found.address)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "nobody"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield found


def fetched(uri: str, into: Path, settings: SourceSettings = SETTINGS) -> dict[str, bytes]:
    pinned = HuggingFaceSource().resolve(uri, settings)
    again = HuggingFaceSource().resolve(pinned.pinned, settings)
    assert (again.pinned, again.facts, again.file) == (pinned.pinned, pinned.facts, pinned.file)
    into.mkdir(exist_ok=True)
    HuggingFaceSource().fetch(pinned, into, settings, lambda *_: None)
    files = {path.relative_to(into).as_posix(): path.read_bytes() for path in into.rglob("*") if path.is_file()}
    assert sum(map(len, files.values())) == pinned.nbytes
    assert not pinned.file or list(files) == [pinned.file]
    return files


def test_a_branch_is_pinned_to_its_commit(hub: Hub, tmp_path: Path) -> None:
    old = HuggingFaceSource().resolve("hf://org/iris", SETTINGS)
    assert old.pinned == f"hf://org/iris@{hub.repositories['org/iris'].refs['main']}"
    hub.repositories["org/iris"].commit({"config.json": b"new"})
    assert HuggingFaceSource().resolve("hf://org/iris@main", SETTINGS).pinned != old.pinned
    assert fetched(old.pinned, tmp_path / "old")["model.safetensors"] == LARGE
    assert fetched("hf://org/iris", tmp_path / "new") == {"config.json": b"new"}


def test_the_same_weights_in_older_forms_are_left_out_unless_asked_for(hub: Hub, tmp_path: Path) -> None:
    names = {"config.json", "model.safetensors", "onnx/model.onnx", "onnx/model_quantized.onnx"}
    assert set(fetched("hf://org/iris", tmp_path / "all")) == names
    assert set(fetched("hf://org/iris?include=*.bin&include=*.json", tmp_path / "some")) == {
        "config.json",
        "pytorch_model.bin",
    }
    assert set(fetched("hf://org/iris@main?exclude=*.safetensors&exclude=onnx/*", tmp_path / "rest")) == {
        "config.json",
        "pytorch_model.bin",
    }


def test_a_directory_or_a_file_of_a_repository(hub: Hub, tmp_path: Path) -> None:
    assert fetched("hf://org/iris/onnx", tmp_path / "a") == {"model.onnx": b"onnx", "model_quantized.onnx": b"small"}
    assert fetched("hf://org/iris@main/onnx/model.onnx", tmp_path / "b") == {"model.onnx": b"onnx"}
    hub.repositories["org/iris"].commit({"m": b"of a request"}, "refs/pr/7")
    assert fetched("hf://org/iris@refs/pr/7", tmp_path / "c") == {"m": b"of a request"}
    assert fetched("hf://org/iris@refs%2Fpr%2F7/m", tmp_path / "d") == {"m": b"of a request"}


def test_a_token_goes_to_the_hub_and_nowhere_else(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repositories["org/iris"].gated = True
    with pytest.raises(SourceFailed, match=r"\(401\).*GET .*Access to this model is restricted.*HF_TOKEN"):
        HuggingFaceSource().resolve("hf://org/iris", SETTINGS)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert fetched("hf://org/iris", tmp_path / "into")["model.safetensors"] == LARGE
    assert {who for server, _, who, _ in hub.seen if server == "cdn"} == {""}
    assert f"Bearer {TOKEN}" in {who for server, _, who, _ in hub.seen if server == "hub"}
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(SourceFailed, match="does not know who asks") as caught:
        HuggingFaceSource().resolve("hf://org/iris", SETTINGS)
    assert "hf_wrong" not in str(caught.value)


def test_a_token_that_was_kept_in_a_file_is_used(hub: Hub, tmp_path: Path) -> None:
    hub.repositories["org/iris"].gated = True
    (tmp_path / "nobody").mkdir()
    (tmp_path / "nobody" / "token").write_text(f"{TOKEN}\n")
    assert HuggingFaceSource().resolve("hf://org/iris/config.json", SETTINGS).file == "config.json"


def test_a_cut_connection_is_resumed_where_it_broke(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repositories["org/small"] = Repository()
    content = bytes(range(256)) * 200
    hub.repositories["org/small"].commit({"model.bin": content})
    with CuttingProxy(hub.port) as proxy:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{proxy.port}")
        proxy.cuts = [20_000]
        assert fetched("hf://org/small", tmp_path / "into") == {"model.bin": content}
    ranges = [asked for _, path, _, asked in hub.seen if "/resolve/" in path]
    assert len(ranges) == 2
    assert int(ranges[1].removeprefix("bytes=").rstrip("-")) > 15_000


def test_damage_is_found_by_either_digest(hub: Hub, tmp_path: Path) -> None:
    pinned = HuggingFaceSource().resolve("hf://org/iris", SETTINGS)
    by_name = {name: digest.partition(":")[0] for name, _, digest in pinned.facts["files"]}
    assert (by_name["model.safetensors"], by_name["config.json"]) == ("sha256", "git")
    hub.damaged.add(next(digest for name, _, digest in pinned.facts["files"] if name == "model.safetensors")[7:])
    with pytest.raises(SourceFailed, match=r"'model.safetensors' .* is not what it should be: its sha256 is"):
        HuggingFaceSource().fetch(pinned, tmp_path, SETTINGS, lambda *_: None)
    commits = hub.repositories["org/iris"].commits
    commits[str(pinned.facts["commit"])] = {**FILES, "config.json": b"[]"}
    into = tmp_path / "git"
    into.mkdir()
    with pytest.raises(SourceFailed, match=r"is not what it should be: its (git|sha256) is"):
        HuggingFaceSource().fetch(pinned, into, SETTINGS, lambda *_: None)


def test_what_is_not_there_is_named_with_what_is(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceFailed, match="has no revision 'v2'; there are: main"):
        HuggingFaceSource().resolve("hf://org/iris@v2", SETTINGS)
    with pytest.raises(SourceFailed, match=r"no files at 'tf' as asked for; it has: \.gitattributes, config\.json"):
        HuggingFaceSource().resolve("hf://org/iris/tf", SETTINGS)
    with pytest.raises(SourceFailed, match=r"Repository not found.*misspelt"):
        HuggingFaceSource().resolve("hf://org/irs", SETTINGS)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(SourceFailed, match=r"has no model repository 'org/irs'.*misspelt"):
        HuggingFaceSource().resolve("hf://org/irs", SETTINGS)


def test_a_hub_that_is_down_may_come_back(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(SourceFailed, match="nobody listens there") as caught:
        HuggingFaceSource().resolve("hf://org/iris", SETTINGS)
    assert caught.value.retryable
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.invalid")
    with pytest.raises(SourceFailed, match="without TLS"):
        HuggingFaceSource().resolve("hf://org/iris", SETTINGS)


def test_more_than_is_allowed_is_refused_before_it_is_fetched(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(SourceFailed, match="max_artifact_bytes"):
        fetched("hf://org/iris", tmp_path / "into", SourceSettings(max_artifact_bytes=1000))
    assert not any("/resolve/" in path for _, path, _, _ in hub.seen)


def test_names_that_lead_out_are_refused(hub: Hub, tmp_path: Path) -> None:
    hub.repositories["org/iris"].commit({"../out": b"x"})
    with pytest.raises(LoadFailed, match="no name inside a directory"):
        fetched("hf://org/iris", tmp_path / "into")


@pytest.mark.parametrize("uri", ["hf://", "hf://a/b@", "hf://user:secret@host/a", "hf:org/name", "hf://a/b?revision=3"])
def test_what_is_no_uri_is_refused_without_its_secrets(hub: Hub, uri: str) -> None:
    with pytest.raises(SourceFailed) as caught:
        HuggingFaceSource().resolve(uri, SETTINGS)
    assert "secret" not in str(caught.value)
