"""Archives made to harm: each is refused with a reason, and not a byte of it is left, inside or outside."""

from __future__ import annotations

import gzip
import io
import os
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turnout.core.errors import LoadFailed
from turnout.deploy.sources import archives, manifest
from turnout.deploy.sources.archives import unpack

GOOD = {"MLmodel": b"x", "data/model.bin": os.urandom(70_000), "data/" + "long" * 40: b"", "ü": b"\xc3"}
LIMIT = 1 << 30


def packed_tar(
    path: Path, add: Callable[[tarfile.TarFile], object], mode: str = "w:gz", kind: int = tarfile.PAX_FORMAT
) -> Path:
    with tarfile.open(path, mode, format=kind) as archive:
        add(archive)
    return path


def member(
    name: str, content: bytes = b"x", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> Callable[[tarfile.TarFile], None]:
    def add(archive: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.size = kind, link, len(content) if kind == tarfile.REGTYPE else 0
        archive.addfile(info, io.BytesIO(content))

    return add


def all_of(*adds: Callable[..., object]) -> Callable[..., None]:
    return lambda archive: [add(archive) for add in adds] and None


def packed_zip(path: Path, *names_and_contents: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in names_and_contents:
            archive.writestr(name, content)
    return path


def content(path: Path) -> dict[str, bytes]:
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()}


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("mode", ["w:gz", "w"])
def test_every_kind_of_tar(tmp_path: Path, kind: int, mode: str) -> None:
    files = {name: body for name, body in GOOD.items() if kind != tarfile.USTAR_FORMAT or len(name) < 100}

    def add(archive: tarfile.TarFile) -> None:
        folder = tarfile.TarInfo("./data")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, body in files.items():
            member(f"./{name}", body)(archive)

    archive = packed_tar(tmp_path / "m.tar.gz", add, mode, kind)
    unpack(archive, tmp_path / "out", max_bytes=LIMIT)
    assert content(tmp_path / "out") == files


def test_a_tar_of_the_system_s_own(tmp_path: Path) -> None:
    (tmp_path / "in" / "data").mkdir(parents=True)
    for name, body in GOOD.items():
        (tmp_path / "in" / name).write_bytes(body)
    assert os.spawnlp(os.P_WAIT, "tar", "tar", "-C", str(tmp_path / "in"), "-czf", str(tmp_path / "m.tgz"), ".") == 0
    unpack(tmp_path / "m.tgz", tmp_path / "out", max_bytes=LIMIT)
    assert content(tmp_path / "out") == GOOD


def test_a_zip(tmp_path: Path) -> None:
    unpack(packed_zip(tmp_path / "m.zip", *GOOD.items(), ("empty/", b"")), tmp_path / "out", max_bytes=LIMIT)
    assert content(tmp_path / "out") == GOOD
    assert all(not file.stat().st_mode & 0o111 for file in (tmp_path / "out").rglob("*") if file.is_file())


def zip_link(name: str, to: bytes) -> tuple[zipfile.ZipInfo, bytes]:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info, to


OUT = ["../out", "/tmp/turnout-was-here", "a/../../out", "..", "a\\..\\..\\out", "C:\\x", "a/./b", "x\ny"]


@pytest.mark.parametrize("name", OUT)
def test_names_that_lead_out(tmp_path: Path, name: str) -> None:
    for archive in (packed_tar(tmp_path / "m.tar.gz", member(name)), packed_zip(tmp_path / "m.zip", (name, b"x"))):
        refused(archive, "no name inside a directory|both as|clash")


TARS = {
    "symlink": member("l", kind=tarfile.SYMTYPE, link="/etc/passwd"),
    "symlink, then through it": all_of(member("l", kind=tarfile.SYMTYPE, link="/tmp"), member("l/x")),
    "hard link": all_of(member("a"), member("l", kind=tarfile.LNKTYPE, link="a")),
    "hard link out": member("l", kind=tarfile.LNKTYPE, link="/etc/passwd"),
    "character device": member("d", kind=tarfile.CHRTYPE),
    "block device": member("d", kind=tarfile.BLKTYPE),
    "pipe": member("d", kind=tarfile.FIFOTYPE),
    "old sparse file": member("d", kind=tarfile.GNUTYPE_SPARSE),
    "twice the same name": all_of(member("a"), member("a")),
    "case clash": all_of(member("a"), member("A")),
    "unicode clash": all_of(member("é"), member("e\N{COMBINING ACUTE ACCENT}")),
    "file and directory": all_of(member("a"), member("a/b")),
    "directory and file": all_of(member("a/b"), member("a")),
    "nothing": lambda archive: None,
    "name too long": member("a/" * 600 + "b"),
    "name too deep": member("a/" * 100 + "b"),
}


@pytest.mark.parametrize("what", TARS)
def test_tars_made_to_harm(tmp_path: Path, what: str) -> None:
    refused(packed_tar(tmp_path / "m.tar.gz", TARS[what]), "")


def test_zips_made_to_harm(tmp_path: Path) -> None:
    for number, members in enumerate(
        (
            [zip_link("l", b"/etc/passwd")],
            [zip_link("l", b"/tmp"), ("l/x", b"")],
            [("a", b"1"), ("A", b"2")],
            [("a", b"1"), ("a/b", b"2")],
            [],
        )
    ):
        refused(packed_zip(tmp_path / f"{number}.zip", *members), "")


def test_a_zip_with_a_name_twice(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        archive = packed_zip(tmp_path / "m.zip", ("a", b"1"), ("a", b"2"))
    refused(archive, "")


def test_a_sparse_file_of_the_newer_kind(tmp_path: Path) -> None:
    def add(archive: tarfile.TarFile) -> None:
        info = tarfile.TarInfo("x")
        info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9"}
        archive.addfile(info)

    refused(packed_tar(tmp_path / "m.tar", add, "w"), "sparse")


def test_a_header_of_a_gigabyte_is_not_read(tmp_path: Path) -> None:
    """A long name is content like any other, and compresses as well; whoever reads it whole runs out of memory."""
    for kind in (b"L", b"x", b"g"):
        info = tarfile.TarInfo("././@LongLink")
        info.type, info.size = kind, 1 << 30
        archive = tmp_path / "m.tar.gz"
        archive.write_bytes(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(100_000)))
        refused(archive, "names are not that long")


def test_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "_FREE_BYTES", 1 << 20)
    zeros = bytes(8 << 20)
    refused(packed_tar(tmp_path / "m.tar.gz", member("z", zeros)), "unpacks to more than")
    refused(packed_zip(tmp_path / "m.zip", ("z", zeros)), "unpacks to more than")
    refused(packed_zip(tmp_path / "n.zip", *((f"z{number}", zeros[: 1 << 19]) for number in range(8))), "more than")
    noise = os.urandom(1 << 20)
    unpack(packed_tar(tmp_path / "ok.tar.gz", member("z", noise)), tmp_path / "ok", max_bytes=1 << 20)
    refused(packed_tar(tmp_path / "ok.tar.gz", member("z", noise)), "unpacks to more than", max_bytes=(1 << 20) - 1)


def test_a_zip_that_lies_about_its_sizes(tmp_path: Path) -> None:
    archive = packed_zip(tmp_path / "m.zip", ("z", bytes(1 << 20)))
    raw = bytearray(archive.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<L", raw, raw.index(signature) + offset, 10)
    archive.write_bytes(raw)
    refused(archive, "")


def test_too_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_FILES", 20)
    monkeypatch.setattr(manifest, "MAX_FILES", 20)
    refused(packed_tar(tmp_path / "m.tar", all_of(*(member(f"f{n}") for n in range(21))), "w"), "more than 20 files")
    refused(packed_zip(tmp_path / "m.zip", *((f"f{n}", b"") for n in range(21))), "more than 20 files")


def test_encrypted_or_of_another_kind(tmp_path: Path) -> None:
    archive = packed_zip(tmp_path / "m.zip", ("a", b"secret"))
    raw = bytearray(archive.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        raw[raw.index(signature) + offset] |= 1
    archive.write_bytes(raw)
    refused(archive, "encrypted")
    for suffix in (".zip", ".tar.gz", ".tar"):
        other = tmp_path / f"other{suffix}"
        for body in (b"", b"PK", b"\x1f\x8b", b"<html>not found</html>" * 100, bytes(1000), b"PK\x05\x06" + bytes(18)):
            other.write_bytes(body)
            refused(other, "")


@settings(max_examples=60)
@given(st.data())
def test_damage_is_an_error_of_ours_or_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("damage")
    suffix = data.draw(st.sampled_from([".tar", ".tar.gz", ".zip"]))
    path = folder / f"m{suffix}"
    if suffix == ".zip":
        packed_zip(path, ("a", b"hello" * 50), ("b/c", b"x" * 300))
    else:
        packed_tar(
            path, all_of(member("a", b"hello" * 50), member("b/c", b"x" * 300)), "w:gz" if "gz" in suffix else "w"
        )
    raw = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        del raw[data.draw(st.integers(0, len(raw) - 1)) :]
    for _ in range(data.draw(st.integers(0, 3))):
        if raw:
            raw[data.draw(st.integers(0, min(len(raw), 2000) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw)
    try:
        unpack(path, folder / "out", max_bytes=1 << 20)
    except LoadFailed:
        assert not (folder / "out").exists()
    assert {one.name for one in folder.iterdir()} <= {path.name, "out"}


def refused(archive: Path, said: str, max_bytes: int = LIMIT) -> None:
    before = {one for one in archive.parent.iterdir() if one.name != "ok"}
    with pytest.raises(LoadFailed, match=said or None):
        unpack(archive, archive.parent / "out", max_bytes=max_bytes)
    assert {one for one in archive.parent.iterdir() if one.name != "ok"} == before, "nothing is left"
    assert not Path("/tmp/turnout-was-here").exists()
