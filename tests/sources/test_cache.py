"""The cache: fetched once, by whoever comes first; whole or not at all; verified each time; no larger than allowed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from web_server import WebServer

from turnout.core.errors import LoadFailed, SourceFailed
from turnout.deploy.sources import source_of
from turnout.deploy.sources.cache import ArtifactCache
from turnout.deploy.sources.manifest import ManifestMismatch
from turnout.deploy.sources.source import SourceSettings

FETCH = """
import json, sys
from pathlib import Path
from turnout.deploy.sources import transfer
from turnout.deploy.sources.cache import ArtifactCache
from turnout.deploy.sources.source import SourceSettings

root, uri, piece = sys.argv[1:]
transfer.PIECE_BYTES = int(piece)
cache = ArtifactCache(Path(root))
settings = SourceSettings(allowed_hosts=("127.0.0.1",), timeout=20, attempts=3, retry_wait=0.02)

def tell(what, done, total):
    print(json.dumps([what, done, total]), flush=True)

fetched = cache.fetch(uri, settings, tell)
print(json.dumps(["fetched", fetched.digest, fetched.from_cache]), flush=True)
sys.stdin.read()
"""


class Fetching:
    """A process that fetches, and then holds what it fetched until it is told to end."""

    def __init__(self, root: Path, uri: str, piece: int = 1 << 20) -> None:
        command = [sys.executable, "-c", FETCH, str(root), uri, str(piece)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def lines(self) -> Iterator[list[object]]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            yield json.loads(line)

    def fetched(self) -> list[object]:
        return next(line for line in self.lines() if line[0] == "fetched")

    def until(self, nbytes: int) -> None:
        """Returns when that much has arrived."""
        assert any(isinstance(line[1], int) and line[1] >= nbytes for line in self.lines())

    def end(self, sign: int = signal.SIGKILL) -> None:
        self.process.send_signal(sign)
        self.process.wait(20)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


@pytest.fixture
def web() -> Iterator[WebServer]:
    with WebServer() as server:
        yield server


@pytest.fixture
def allowed(quick: SourceSettings) -> SourceSettings:
    return replace(quick, allowed_hosts=("127.0.0.1",), timeout=20)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory to fetch from."""
    folder = tmp_path / "place"
    (folder / "data").mkdir(parents=True)
    (folder / "MLmodel").write_bytes(b"x")
    (folder / "data" / "model.bin").write_bytes(bytes(range(256)) * 100)
    return folder


def test_a_file_uri_is_a_copy_and_a_plain_path_is_not(cache: ArtifactCache, quick: SourceSettings, place: Path) -> None:
    copied = cache.fetch(f"file://{place}", quick)
    there = cache.fetch(str(place), quick)
    assert copied.digest == there.digest
    assert there.in_place
    assert there.path == place
    assert cache.root in copied.path.parents
    (place / "MLmodel").write_bytes(b"y")
    assert (copied.path / "MLmodel").read_bytes() == b"x"
    assert cache.fetch(f"file://{place}", quick).digest == cache.fetch(str(place), quick).digest != copied.digest
    cache.release(copied.digest)
    cache.remove(copied.digest)
    with pytest.raises(SourceFailed, match="no longer what was pinned"):
        cache.fetch(copied.pinned.pinned, quick)


def test_nothing_in_the_cache_can_be_written(cache: ArtifactCache, quick: SourceSettings, place: Path) -> None:
    fetched = cache.fetch(f"file://{place}", quick)
    inside = [fetched.path.parent, *fetched.path.parent.rglob("*")]
    assert len(inside) == 6
    assert not any(path.stat().st_mode & 0o222 for path in inside)
    assert cache.root.stat().st_mode & 0o077 == 0


def test_which_words_are_uris(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for plain in (
        "model.onnx",
        "./a:b",
        "/x/y",
        "models:Churn",
        "package.module:attr",
        "python:model.py:Churn",
        "x:y/z",
    ):
        assert source_of(plain) is None, plain
    for uri, name in (
        ("file:///x", "file"),
        ("S3://b/k", "s3"),
        ("gs://b/k", "gs"),
        ("az://b/k", "az"),
        ("file:/x", "file"),
    ):
        source = source_of(uri)
        assert source is not None, uri
        assert source.name == name
    with pytest.raises(SourceFailed, match=r"ftp: is no place .*known are file:, https:"):
        source_of("ftp://h/p")


def test_a_flipped_bit_is_found_and_fetched_again(cache: ArtifactCache, quick: SourceSettings, place: Path) -> None:
    uri = f"file://{place}"
    first = cache.fetch(uri, quick)
    victim = first.path / "data" / "model.bin"
    before = victim.stat()
    victim.chmod(0o644)
    content = bytearray(victim.read_bytes())
    content[1234] ^= 1
    victim.write_bytes(content)
    os.utime(victim, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(ManifestMismatch, match=r"'data/model.bin' is not what it was"):
        cache.verify(first.digest)
    with pytest.raises(SourceFailed, match="remove it from the cache"):
        cache.open(first.digest)
    said: list[str] = []
    again = cache.fetch(uri, quick, lambda what, done, total: said.append(what))
    assert any("damaged" in what for what in said)
    assert not again.from_cache
    assert again.digest == first.digest
    cache.verify(first.digest)


@pytest.mark.parametrize("damage", ["manifest", "manifest gone", "record", "file gone", "file more", "lock gone"])
def test_no_damage_to_the_cache_is_served(
    cache: ArtifactCache, quick: SourceSettings, place: Path, damage: str
) -> None:
    uri = f"file://{place}"
    first = cache.fetch(uri, quick)
    entry = first.path.parent
    for path in (entry, first.path, first.path / "data"):
        path.chmod(0o755)
    match damage:
        case "manifest":
            (entry / "manifest.json").chmod(0o644)
            (entry / "manifest.json").write_text('{"manifest": {"manifest": 1, "files": []}}')
        case "manifest gone":
            (entry / "manifest.json").unlink()
        case "record":
            for path in (cache.root / "records").iterdir():
                path.write_text("{]")
        case "file gone":
            (first.path / "MLmodel").unlink()
        case "file more":
            (first.path / "data" / "more").write_bytes(b"")
        case _:
            for path in (cache.root / "locks").iterdir():
                path.unlink()
    again = cache.fetch(uri, quick)
    assert again.digest == first.digest
    cache.verify(again.digest)
    assert (again.path / "MLmodel").read_bytes() == b"x"


def test_bytecode_that_a_worker_left_is_no_damage(cache: ArtifactCache, quick: SourceSettings, place: Path) -> None:
    first = cache.fetch(f"file://{place}", quick)
    first.path.chmod(0o755)
    (first.path / "__pycache__").mkdir()
    (first.path / "__pycache__" / "model.pyc").write_bytes(b"code")
    assert cache.fetch(f"file://{place}", quick).from_cache
    assert not (first.path / "__pycache__").exists(), "nor is it ever run"


def test_two_processes_fetch_once(cache: ArtifactCache, web: WebServer) -> None:
    web.files["/m.bin"] = os.urandom(8 << 20)
    both = [Fetching(cache.root, web.url("/m.bin")) for _ in range(3)]
    try:
        found = [one.fetched() for one in both]
        assert len({digest for _, digest, _ in found}) == 1
        assert sorted(bool(from_cache) for _, _, from_cache in found) == [False, True, True]
        assert web.sent == 8 << 20
    finally:
        for one in both:
            one.end()


def test_threads_fetch_once(cache: ArtifactCache, web: WebServer, allowed: SourceSettings) -> None:
    web.files["/m.bin"] = os.urandom(4 << 20)
    digests: list[str] = []
    threads = [
        threading.Thread(target=lambda: digests.append(cache.fetch(web.url("/m.bin"), allowed).digest))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(digests) == 6
    assert len(set(digests)) == 1
    assert web.sent == 4 << 20


def test_killed_in_the_middle_it_goes_on_where_it_was(cache: ArtifactCache, web: WebServer) -> None:
    size, piece = 24 << 20, 1 << 20
    web.files["/m.bin"] = os.urandom(size)
    fetching = Fetching(cache.root, web.url("/m.bin"), piece)
    fetching.until(6 << 20)
    fetching.end(signal.SIGKILL)
    assert cache.entries() == [], "nothing half-done is to be seen"
    fetching = Fetching(cache.root, web.url("/m.bin"), piece)
    try:
        assert fetching.fetched()[2] is False
        again = max(number for number, (method, _, _) in enumerate(web.asked) if method == "HEAD")
        ranges = [headers["Range"].removeprefix("bytes=").split("-") for _, _, headers in web.asked[again + 1 :]]
        came = sum(int(stop) + 1 - int(start) for start, stop in ranges)
        assert 0 < came <= size - (6 << 20), "what had arrived did not come again"
        (entry,) = cache.entries()
        assert (entry.path / "m.bin").read_bytes() == web.files["/m.bin"]
        assert not list((cache.root / "partial").iterdir())
    finally:
        fetching.end()


def test_what_is_not_resumed_is_begun_anew(
    cache: ArtifactCache, web: WebServer, allowed: SourceSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the machine was started anew, what lies there is not believed."""
    from turnout.deploy.sources import transfer

    monkeypatch.setattr(transfer, "PIECE_BYTES", 1 << 20)
    web.files["/m.bin"] = os.urandom(3 << 20)
    web.cut_after = [1000] * 30
    monkeypatch.setattr(transfer, "_running_since", lambda: "yesterday")
    with pytest.raises(SourceFailed):
        cache.fetch(web.url("/m.bin"), replace(allowed, attempts=1))
    (partial,) = (cache.root / "partial").iterdir()
    (partial / "files" / "left").write_bytes(b"of another")
    monkeypatch.setattr(transfer, "_running_since", lambda: "today")
    web.cut_after = []
    before = web.sent
    fetched = cache.fetch(web.url("/m.bin"), allowed)
    assert fetched.path.read_bytes() == web.files["/m.bin"]
    assert web.sent - before == 3 << 20
    assert [file.name for file in fetched.manifest.files] == ["m.bin"]


def test_the_least_recently_used_goes_first_and_what_is_in_use_stays(
    tmp_path: Path, web: WebServer, allowed: SourceSettings
) -> None:
    cache = ArtifactCache(tmp_path / "small", max_bytes=3_500_000)
    for name in "abcd":
        web.files[f"/{name}"] = os.urandom(1_000_000)
    digests = {name: cache.fetch(web.url(f"/{name}"), allowed).digest for name in "abc"}
    for number, name in enumerate("abc"):
        os.utime(cache.root / "locks" / f"whole-{digests[name][7:]}", (number, number))
    with pytest.raises(SourceFailed, match="3000000 bytes are in use by running servers, the limit is 3500000"):
        cache.fetch(web.url("/d"), allowed)
    cache.release(digests["b"])
    cache.release(digests["c"])
    other = Fetching(cache.root, web.url("/b"))
    try:
        other.fetched()
        cache.fetch(web.url("/d"), allowed)
        assert {entry.uri.rpartition("/")[2] for entry in cache.entries()} == {"a", "b", "d"}
        with pytest.raises(SourceFailed, match="in use by a running process"):
            cache.remove(digests["b"])
    finally:
        other.end()
    cache.remove(digests["b"])
    with pytest.raises(SourceFailed, match="holds no artifact"):
        cache.remove(digests["b"])
    with pytest.raises(SourceFailed, match=r"more than the whole cache|the limit is 3500000"):
        web.files["/huge"] = bytes(4_000_000)
        cache.fetch(web.url("/huge"), allowed)
    assert {entry.uri.rpartition("/")[2] for entry in cache.entries() if entry.in_use} == {"a", "d"}


def test_partial_fetches_make_room_too(tmp_path: Path, web: WebServer, allowed: SourceSettings) -> None:
    cache = ArtifactCache(tmp_path / "small", max_bytes=3_500_000)
    web.files = {"/a": os.urandom(2_000_000), "/b": os.urandom(2_000_000)}
    web.cut_after = [1_900_000]
    with pytest.raises(SourceFailed):
        cache.fetch(web.url("/a"), replace(allowed, attempts=1))
    assert len(list((cache.root / "partial").iterdir())) == 1
    cache.fetch(web.url("/b"), allowed)
    assert list((cache.root / "partial").iterdir()) == []


def test_a_disk_that_is_full(
    cache: ArtifactCache, web: WebServer, allowed: SourceSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from turnout.deploy.sources import disk

    monkeypatch.setattr(disk, "SPARE_BYTES", 1 << 60)
    web.files["/a"] = b"x"
    with pytest.raises(SourceFailed, match=r"no room for 1 bytes .*and the disk has"):
        cache.fetch(web.url("/a"), allowed)


def test_a_disk_that_fills_up_on_the_way(cache: ArtifactCache, web: WebServer) -> None:
    web.files["/m.bin"] = os.urandom(4 << 20)
    script = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n" + FETCH
    command = [sys.executable, "-c", script, str(cache.root), web.url("/m.bin"), str(1 << 20)]
    ended = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    assert "SourceFailed: cannot write the artifact to disk: File too large" in ended.stderr
    assert not list((cache.root / "partial").iterdir())
    assert not cache.entries()


def test_this_machine_may_be_asked_offline(cache: ArtifactCache, quick: SourceSettings, place: Path) -> None:
    assert not cache.fetch(f"file://{place}", replace(quick, offline=True)).stale


def test_a_place_that_cannot_be_written_to(tmp_path: Path, quick: SourceSettings, place: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SourceFailed, match="set TURNOUT_HOME"):
        ArtifactCache(tmp_path / "file" / "artifacts").fetch(f"file://{place}", quick)


@pytest.mark.parametrize("bad", ["nowhere", "empty", "pipe", "case"])
def test_what_is_no_artifact(cache: ArtifactCache, quick: SourceSettings, tmp_path: Path, bad: str) -> None:
    folder = tmp_path / "bad"
    if bad != "nowhere":
        folder.mkdir()
    if bad == "pipe":
        os.mkfifo(folder / "pipe")
    if bad == "case":
        (folder / "a").touch()
        (folder / "A").touch()
    with pytest.raises(LoadFailed):
        cache.fetch(f"file://{folder}", quick)
    assert cache.entries() == []
    assert not list((cache.root / "partial").iterdir())


def test_open_by_digest(cache: ArtifactCache, quick: SourceSettings, place: Path) -> None:
    fetched = cache.fetch(f"file://{place}/MLmodel", quick)
    opened = ArtifactCache(cache.root).open(fetched.digest)
    assert opened.path == fetched.path
    assert opened.path.read_bytes() == b"x"
    assert opened.manifest == fetched.manifest
    for digest in ("sha256:" + "0" * 64, "sha256:../../etc", "md5:0", ""):
        with pytest.raises(SourceFailed):
            cache.open(digest)


def test_the_same_content_is_kept_once(
    cache: ArtifactCache, quick: SourceSettings, place: Path, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "MLmodel").write_bytes(b"x")
    one = cache.fetch(f"file://{place}/MLmodel", quick)
    directory = cache.fetch(f"file://{tmp_path}/other", quick)
    assert one.digest == directory.digest
    assert one.path == directory.path / "MLmodel", "each as its URI means it"
    assert len(cache.entries()) == 1
    cache.release(one.digest)
    assert cache.entries()[0].in_use
    cache.release(one.digest)
    assert not cache.entries()[0].in_use
