"""The identity of a model: equal for equal content, different for any other, and of sane content only."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from turnout.core.errors import LoadFailed
from turnout.deploy.sources import manifest as manifests
from turnout.deploy.sources.manifest import FileEntry, Manifest, ManifestMismatch, check_names, manifest_of, verify


def tree(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


FILES = {"MLmodel": b"x: 1", "data/b": b"", "data/a": b"a" * 100_000}


def test_a_digest_is_of_names_and_content_and_nothing_else(tmp_path: Path) -> None:
    one, two = tree(tmp_path / "one", FILES), tree(tmp_path / "two", dict(reversed(FILES.items())))
    os.utime(two / "MLmodel", (0, 0))
    (two / "MLmodel").chmod(0o700)
    assert manifest_of(one).digest == manifest_of(two).digest == manifest_of(two, strict=True).digest
    assert [file.name for file in manifest_of(one).files] == ["MLmodel", "data/a", "data/b"]
    for name, content in (("MLmodel", b"x: 2"), ("more", b"")):
        changed = tree(tmp_path / f"changed-{name}", {**FILES, name: content})
        assert manifest_of(changed).digest != manifest_of(one).digest


def test_the_canonical_form_is_for_ever(tmp_path: Path) -> None:
    """Another digest for the same content would be another model in every record that was ever kept."""
    found = manifest_of(tree(tmp_path / "m", {"a/é": b"1", "b": b""}))
    sha = {
        "1": "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b",
        "": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    }
    text = '{"files":[{"name":"a/é","sha256":"%s","size":1},{"name":"b","sha256":"%s","size":0}],"manifest":1}'
    assert found.canonical().decode() == text % (sha["1"], sha[""])
    assert found.digest == "sha256:d54b3c63768f9a87d4397f1cee17dd6a3f7536e8584cfa5654fcda1d7893e931"


def test_a_file_is_named_as_a_directory_that_holds_it_alone(tmp_path: Path) -> None:
    folder = tree(tmp_path / "m", {"model.onnx": b"1"})
    assert manifest_of(folder).digest == manifest_of(folder / "model.onnx").digest


def test_what_people_s_directories_have(tmp_path: Path) -> None:
    real = tree(tmp_path / "real", FILES)
    work = tree(tmp_path / "work", {"__pycache__/x.pyc": b"1", ".git/config": b"2", "MLmodel": b"x: 1"})
    (work / "data").symlink_to(real / "data")
    assert manifest_of(work).digest == manifest_of(real).digest
    (work / "data").unlink()
    (work / "data").symlink_to(work)
    with pytest.raises(LoadFailed, match="a link to a directory that it lies in"):
        manifest_of(work)


def test_what_was_fetched_has_no_link_of_any_kind(tmp_path: Path) -> None:
    root = tree(tmp_path / "m", FILES)
    (root / "link").symlink_to("MLmodel")
    with pytest.raises(LoadFailed, match="'link'; links are not followed"):
        manifest_of(root, strict=True)
    (root / "link").unlink()
    (root / "link").hardlink_to(root / "MLmodel")
    with pytest.raises(LoadFailed, match="a second name elsewhere"):
        manifest_of(root, strict=True)
    (root / "link").unlink()
    os.mkfifo(root / "pipe")
    with pytest.raises(LoadFailed, match="neither a file nor a directory"):
        manifest_of(root)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/a",
        "../a",
        "a/../b",
        "a//b",
        "a/",
        "./a",
        ".",
        "a\\b",
        "C:x",
        "a\nb",
        "a\x00",
        "é" * 200,
        "a/" * 64 + "b",
        "\ud800",
    ],
)
def test_names_that_no_file_may_have(name: str) -> None:
    with pytest.raises(LoadFailed):
        check_names(["ok", name])


@pytest.mark.parametrize(
    "names",
    [["a", "A"], ["é", "e\N{COMBINING ACUTE ACCENT}"], ["a", "a/b"], ["a/b", "a"], ["straße", "STRASSE"], ["x", "x"]],
)
def test_names_that_clash(names: list[str]) -> None:
    with pytest.raises(LoadFailed):
        check_names(names)


def test_absurdly_many_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "MAX_FILES", 10)
    check_names(f"f{number}" for number in range(10))
    with pytest.raises(LoadFailed, match="more than 10 files"):
        check_names(f"f{number}" for number in range(11))


@pytest.mark.parametrize("what", ["flip", "cut", "add", "remove", "rename", "link"])
def test_no_change_stays_unseen(tmp_path: Path, what: str) -> None:
    root = tree(tmp_path / "m", FILES)
    manifest = manifest_of(root, strict=True)
    verify(root, manifest)
    file = root / "data" / "a"
    match what:
        case "flip":
            file.write_bytes(b"a" * 99_999 + b"b")
        case "cut":
            os.truncate(file, 99_999)
        case "add":
            (root / "new").touch()
        case "remove":
            file.unlink()
        case "rename":
            file.rename(root / "data" / "c")
        case _:
            file.unlink()
            file.symlink_to("b")
    with pytest.raises(LoadFailed):
        verify(root, manifest)


NAMES = st.lists(st.text("abé/.", min_size=1, max_size=6), max_size=6)


@given(NAMES, st.integers(0, 1 << 60))
def test_a_manifest_survives_its_json(names: list[str], size: int) -> None:
    try:
        check_names(names)
    except LoadFailed:
        return
    manifest = Manifest(tuple(FileEntry(name, size, "0" * 64) for name in sorted(names)))
    again = Manifest.from_json(manifest.to_json())
    assert again == manifest
    assert again.digest == manifest.digest


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["manifest", "files", "name", "size", "sha256"]), inner, max_size=3)
    ),
)


@example({"manifest": True, "files": []})
@given(JSON)
def test_what_is_no_manifest_is_refused(found: object) -> None:
    for one in (found, {"manifest": 1, "files": found}, {"manifest": 1, "files": [found]}):
        try:
            Manifest.from_json(one)
        except LoadFailed:
            continue
        assert not found or one in [{"manifest": 1, "files": empty} for empty in ([], {})]


def test_a_manifest_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(ManifestMismatch):
        Manifest.from_json({"manifest": 2, "files": []})
    with pytest.raises(LoadFailed, match="neither a file nor a directory"):
        manifest_of(tmp_path / "nothing")
