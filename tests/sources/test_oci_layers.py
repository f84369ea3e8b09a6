"""Layers that strangers made: what they may not do, and what a later one does to an earlier one."""

from __future__ import annotations

import contextlib
import gzip
import io
import random
import tarfile
from pathlib import Path

import pytest

from turnout.core.errors import LoadFailed, SourceFailed
from turnout.deploy.sources.oci_layers import Unpacking, layers_of, only_file

Member = tuple[str, bytes | str]
DIGEST = f"sha256:{'0' * 64}"


def tar_of(*members: Member, kind: bytes = tarfile.SYMTYPE) -> bytes:
    """Members with content, or (where it is text) links to it."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type, member.linkname = kind, content
                tar.addfile(member)
            else:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return made.getvalue()


def unpacked(into: Path, *layers: bytes, below: str = "models", limit: int = 1 << 30) -> dict[str, bytes]:
    aside = into / ".archives"
    aside.mkdir(parents=True)
    unpacking = Unpacking(into, "the image", below, limit)
    for number, content in enumerate(layers):
        path = aside / str(number)
        path.write_bytes(content)
        unpacking.unpack(path, "gzip" if content.startswith(b"\x1f\x8b") else "tar")
    files = [path for path in into.rglob("*") if path.is_file() and aside not in path.parents]
    return {path.relative_to(into).as_posix(): path.read_bytes() for path in files}


def test_later_layers_lie_over_earlier_ones(tmp_path: Path) -> None:
    first = tar_of(("models/a", b"1"), ("/models/b/c", b"1"), ("./models/d/e", b"1"), ("models/f", b"1"))
    second = tar_of(("models/a/x", b"2"), ("models/.wh.b", b""), ("models/d/.wh..wh..opq", b""), ("models/d/g", b"2"))
    assert unpacked(tmp_path / "a", first, second) == {"a/x": b"2", "d/g": b"2", "f": b"1"}
    third = tar_of((".wh.models", b""), ("models/new", b"3"))
    assert unpacked(tmp_path / "b", first, gzip.compress(third)) == {"new": b"3"}
    assert (
        unpacked(tmp_path / "c", first, tar_of(("models/b", b"a file"), ("models/.wh.nothing", b"")))["b"] == b"a file"
    )


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_only_files_are_taken_and_what_lies_elsewhere_is_passed_over(tmp_path: Path, kind: bytes) -> None:
    elsewhere = tar_of(("bin/sh", "/bin/busybox"), ("../../etc/cron", b"x"), ("models/m", b"1"), kind=kind)
    assert unpacked(tmp_path / "a", elsewhere) == {"m": b"1"}
    with pytest.raises(SourceFailed, match="only plain files are unpacked"):
        unpacked(tmp_path / "b", tar_of(("models/m", "/etc/passwd"), kind=kind))


@pytest.mark.parametrize(
    "name", ["models/../../out", "models/a\\b", "models/" + "a/" * 99 + "b", "models/.wh...", "models/.wh."]
)
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(LoadFailed, match=r"no name inside|too long or too deep"):
        unpacked(tmp_path / "into", tar_of((name, b"x")))
    assert not (tmp_path / "out").exists()


def test_more_than_was_agreed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceFailed, match="max_artifact_bytes"):
        unpacked(tmp_path / "a", tar_of(("models/m", b"x" * 5000)), tar_of(("models/n", b"x" * 6000)), limit=10_000)
    bomb = gzip.compress(tar_of(("elsewhere", bytes(20 << 20)), ("models/m", b"1")))
    with pytest.raises(SourceFailed, match="more than 200 times its size"):
        unpacked(tmp_path / "b", bomb)


def test_damage_of_any_kind_is_one_failure(tmp_path: Path) -> None:
    whole = gzip.compress(tar_of(("models/m", bytes(range(256)) * 40), ("models/n", b"1")))
    chance = random.Random(7)
    for number in range(100):
        content = bytearray(whole)
        if number % 2:
            del content[chance.randrange(2, len(content)) :]
        else:
            content[chance.randrange(2, len(content))] ^= 1 << chance.randrange(8)
        with contextlib.suppress(SourceFailed):  # and no other: some changes do no harm
            unpacked(tmp_path / str(number), bytes(content))


def test_what_the_layers_of_a_manifest_are() -> None:
    image = {"mediaType": "application/vnd.docker.container.image.v1+json"}

    def entry(kind: str, **notes: str) -> dict[str, object]:
        return {"mediaType": kind, "digest": DIGEST, "size": 1, "annotations": notes}

    title = {"org.opencontainers.image.title": "model.onnx"}
    layers, is_image = layers_of({"config": image, "layers": [entry("application/x", **title)]}, "it")
    assert (only_file(layers), is_image) == ("model.onnx", False)
    docker = "application/vnd.docker.image.rootfs.diff.tar.gzip"
    layers, is_image = layers_of({"config": image, "layers": [entry(docker)]}, "it")
    assert ([one.archive for one in layers], only_file(layers), is_image) == (["gzip"], "", True)
    foreign = {**entry("application/vnd.oci.image.layer.nondistributable.v1.tar"), "urls": ["https://x"]}
    odd = ([{**entry("a"), "size": -1}], [{**entry("a"), "digest": "md5:0"}], [foreign, entry("b")], "none", [7], None)
    for layers_found in odd:
        with pytest.raises(SourceFailed, match=r"^it has"):
            layers_of({"config": {}, "layers": layers_found}, "it")
