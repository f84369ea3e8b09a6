"""s3: against a real server; gs: and az:, which the same library brings, as far as that can be shown without theirs."""

from __future__ import annotations

import hashlib
import os
import uuid
from dataclasses import replace
from pathlib import Path

import pytest
from s3_server import S3Server
from web_server import WebServer, make_certificate

from turnout.core.errors import SourceFailed
from turnout.deploy.sources import source_of, transfer
from turnout.deploy.sources.cache import ArtifactCache
from turnout.deploy.sources.source import SourceMoved, SourceSettings


@pytest.fixture
def prefix() -> str:
    """Objects of one test do not meet those of another."""
    return uuid.uuid4().hex


def content(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_one_object_is_one_file(s3: S3Server, cache: ArtifactCache, quick: SourceSettings, prefix: str) -> None:
    s3.put(f"{prefix}/model.onnx", b"the model")
    fetched = cache.fetch(f"s3://models/{prefix}/model.onnx", quick)
    assert fetched.path.name == "model.onnx"
    assert fetched.path.read_bytes() == b"the model"
    assert not fetched.path.stat().st_mode & 0o222
    assert not fetched.path.parent.stat().st_mode & 0o222
    (file,) = fetched.manifest.files
    assert (file.name, file.size, file.sha256) == ("model.onnx", 9, hashlib.sha256(b"the model").hexdigest())
    assert fetched.pinned.uri != fetched.pinned.pinned
    again = cache.fetch(f"s3://models/{prefix}/model.onnx", quick)
    assert again.from_cache
    assert again.digest == fetched.digest


def test_a_prefix_is_a_directory_and_its_neighbours_are_not_in_it(
    s3: S3Server, cache: ArtifactCache, quick: SourceSettings, prefix: str
) -> None:
    files = {"MLmodel": b"flavors", "data/a b+c.bin": os.urandom(3000), "empty": b"", "data/deep/er/x": b"x"}
    for name, body in files.items():
        s3.put(f"{prefix}/iris/{name}", body)
    s3.put(f"{prefix}/iris2/other", b"no")
    for uri in (f"s3://models/{prefix}/iris", f"s3://models/{prefix}/iris/"):
        fetched = cache.fetch(uri, quick)
        assert content(fetched.path) == files
    assert len(cache.entries()) == 1


def test_a_large_object_comes_in_pieces(
    s3: S3Server, cache: ArtifactCache, quick: SourceSettings, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "PIECE_BYTES", 1 << 20)
    body = os.urandom((5 << 20) + 17)
    s3.put(f"{prefix}/big.bin", body)
    told: list[tuple[int, int]] = []
    fetched = cache.fetch(f"s3://models/{prefix}/big.bin", quick, lambda what, done, total: told.append((done, total)))
    assert fetched.path.read_bytes() == body
    assert (len(body), len(body)) in told
    counts = [done for done, total in told if total]
    assert counts == sorted(counts)


def test_a_new_object_is_a_new_model_and_the_old_one_stays(
    s3: S3Server, cache: ArtifactCache, quick: SourceSettings, prefix: str
) -> None:
    uri = f"s3://models/{prefix}/m"
    s3.put(f"{prefix}/m", b"one")
    first = cache.fetch(uri, quick)
    s3.put(f"{prefix}/m", b"two")
    second = cache.fetch(uri, quick)
    assert (first.path.read_bytes(), second.path.read_bytes()) == (b"one", b"two")
    assert first.digest != second.digest
    assert cache.fetch(first.pinned.pinned, quick).digest == first.digest, "what was pinned needs no server"


def test_what_is_gone_cannot_be_pinned_again(s3: S3Server, quick: SourceSettings, prefix: str) -> None:
    source = source_of("s3://x/y")
    assert source is not None
    s3.put(f"{prefix}/m", b"one")
    pinned = source.resolve(f"s3://models/{prefix}/m", quick)
    assert source.resolve(pinned.pinned, quick).pinned == pinned.pinned
    s3.put(f"{prefix}/m", b"two")
    with pytest.raises(SourceFailed, match="no longer what was pinned"):
        source.resolve(pinned.pinned, quick)


def test_an_object_replaced_before_it_is_fetched_is_noticed(
    s3: S3Server, quick: SourceSettings, prefix: str, tmp_path: Path
) -> None:
    source = source_of("s3://x/y")
    assert source is not None
    for name in ("a", "b"):
        s3.put(f"{prefix}/{name}", b"same size 1")
    pinned = source.resolve(f"s3://models/{prefix}", quick)
    s3.put(f"{prefix}/b", b"same size 2")
    with pytest.raises(SourceMoved, match="replaced"):
        source.fetch(pinned, tmp_path, quick, lambda *_: None)
    s3.delete(f"{prefix}/b")
    with pytest.raises(SourceMoved, match="replaced or deleted"):
        source.fetch(pinned, tmp_path, quick, lambda *_: None)


def test_an_object_replaced_in_the_middle_is_resolved_again(
    s3: S3Server, cache: ArtifactCache, quick: SourceSettings, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "PIECE_BYTES", 1 << 20)
    monkeypatch.setattr(transfer, "CONNECTIONS", 1)
    old, new = os.urandom(4 << 20), os.urandom(4 << 20)
    s3.put(f"{prefix}/m.bin", old)
    said: list[str] = []
    changed: list[bool] = []

    def progress(what: str, done: int, total: int) -> None:
        said.append(what)
        if done >= 1 << 20 and not changed:
            changed.append(True)
            s3.put(f"{prefix}/m.bin", new)

    fetched = cache.fetch(f"s3://models/{prefix}/m.bin", quick, progress)
    assert fetched.path.read_bytes() in {old, new}
    assert fetched.path.read_bytes() == new, "never a mixture, and the newest"
    assert any("looking again" in what for what in said)


@pytest.mark.parametrize(
    ("uri", "changed", "said"),
    [
        ("s3://no-such-bucket/m", {}, "no such bucket"),
        ("s3://models/no-such-object", {}, "no object 'no-such-object', and none below 'no-such-object/'"),
        ("s3://models/m", {"AWS_SECRET_ACCESS_KEY": "wrong"}, "the key is wrong"),
        ("s3://models/m", {"AWS_ACCESS_KEY_ID": "who"}, "the key is wrong|the key is not known"),
        ("s3://models/m?x=1", {}, "not of the form s3://BUCKET/NAME"),
        ("s3:///m", {}, "not of the form s3://BUCKET/NAME"),
        ("s3://models/m#nonsense", {}, "expected #name=value"),
    ],
)
def test_what_cannot_be_had_is_said_at_once(
    s3: S3Server,
    cache: ArtifactCache,
    quick: SourceSettings,
    monkeypatch: pytest.MonkeyPatch,
    uri: str,
    changed: dict[str, str],
    said: str,
) -> None:
    for name, value in changed.items():
        monkeypatch.setenv(name, value)
    told: list[str] = []
    with pytest.raises(SourceFailed, match=said) as failed:
        cache.fetch(uri, quick, lambda what, done, total: told.append(what))
    assert not failed.value.retryable
    assert not told, "nothing to try again"
    assert "not-much-of-a-secret" not in failed.value.message
    assert not cache.entries()


def test_a_server_that_is_down_is_asked_again_unless_what_was_there_can_be_used(
    s3: S3Server, cache: ArtifactCache, quick: SourceSettings, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.put(f"{prefix}/m", b"content")
    uri = f"s3://models/{prefix}/m"
    before = cache.fetch(uri, quick)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    told: list[str] = []
    down = cache.fetch(uri, quick, lambda what, done, total: told.append(what))
    assert "connection refused" in down.stale
    assert down.digest == before.digest
    assert not any("trying again in" in what for what in told)
    with pytest.raises(SourceFailed, match="connection refused") as failed:
        cache.fetch("s3://models/another", quick, lambda what, done, total: told.append(what))
    assert sum("trying again in" in what for what in told) == quick.attempts - 1
    assert failed.value.retryable


def test_offline_asks_nobody(s3: S3Server, cache: ArtifactCache, quick: SourceSettings, prefix: str) -> None:
    s3.put(f"{prefix}/m", b"content")
    cache.fetch(f"s3://models/{prefix}/m", quick)
    s3.put(f"{prefix}/m", b"newer")
    fetched = cache.fetch(f"s3://models/{prefix}/m", replace(quick, offline=True))
    assert fetched.path.read_bytes() == b"content"
    assert fetched.stale.startswith("offline")
    with pytest.raises(SourceFailed, match="nobody may be asked"):
        cache.fetch(f"s3://models/{prefix}/other", replace(quick, offline=True))


def test_an_endpoint_in_the_settings_and_no_secret_there(
    s3: S3Server, cache: ArtifactCache, quick: SourceSettings, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    s3.put(f"{prefix}/m", b"content")
    named = replace(quick, options={"s3": {"endpoint": s3.endpoint}})
    assert cache.fetch(f"s3://models/{prefix}/m", named).path.read_bytes() == b"content"
    for name in ("secret_access_key", "aws_secret_access_key", "access_key_id", "session_token"):
        with pytest.raises(SourceFailed, match="credential"):
            cache.fetch(f"s3://models/{prefix}/m", replace(quick, options={"s3": {name: "x"}}))
    with pytest.raises(SourceFailed, match="nonsense"):
        cache.fetch(f"s3://models/{prefix}/m", replace(quick, options={"s3": {"nonsense": "x"}}))


def test_a_limit_is_known_before_a_byte_is_fetched(
    s3: S3Server, cache: ArtifactCache, quick: SourceSettings, prefix: str
) -> None:
    s3.put(f"{prefix}/m", bytes(2000))
    with pytest.raises(SourceFailed, match="the limit is 1999"):
        cache.fetch(f"s3://models/{prefix}/m", replace(quick, max_artifact_bytes=1999))
    assert cache.fetch(f"s3://models/{prefix}/m", replace(quick, max_artifact_bytes=2000)).manifest.nbytes == 2000


@pytest.mark.parametrize(
    ("scheme", "path", "options"),
    [
        ("gs", "/box/m%2Fmodel%2Eonnx", {"base_url": "{url}"}),
        ("az", "/box/m/model.onnx", {"endpoint": "{url}", "account_name": "account"}),
        ("s3", "/box/m/model.onnx", {"endpoint": "{url}"}),
    ],
)
def test_where_each_store_is_asked(
    cache: ArtifactCache, quick: SourceSettings, scheme: str, path: str, options: dict[str, str]
) -> None:
    """Anonymously, of a server that has files and entity tags; what makes these stores special is the library's."""
    with WebServer() as web:
        web.files[path] = b"content"
        web.extra = {"Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}
        named = {name: value.format(url=web.url("")) for name, value in options.items()}
        settings = replace(quick, options={scheme: {**named, "skip_signature": "true"}})
        fetched = cache.fetch(f"{scheme}://box/m/model.onnx", settings)
        assert fetched.path.read_bytes() == b"content"
        assert "if-match" in {name.lower() for name in web.asked[-1][2]}


def test_an_authority_of_one_s_own(
    cache: ArtifactCache, quick: SourceSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = make_certificate(tmp_path, "localhost")
    with WebServer(certificate) as web:
        web.files["/box/m"] = b"content"
        web.extra = {"Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}
        options = {"s3": {"endpoint": web.url("", "localhost"), "skip_signature": "true"}}
        with pytest.raises(SourceFailed, match="certificate is not trusted") as failed:
            cache.fetch("s3://box/m", replace(quick, options=options))
        assert not failed.value.retryable
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
        assert cache.fetch("s3://box/m", replace(quick, options=options)).path.read_bytes() == b"content"


def test_a_connection_that_is_cut_goes_on_where_it_broke_off(
    cache: ArtifactCache, quick: SourceSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "PIECE_BYTES", 4 << 20)
    with WebServer() as web:
        web.files["/box/m"] = os.urandom(9 << 20)
        web.extra = {"Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}
        web.cut_after = [(2 << 20) + 100, 3 << 20]
        options = {"s3": {"endpoint": web.url(""), "skip_signature": "true"}}
        fetched = cache.fetch("s3://box/m", replace(quick, options=options))
        assert fetched.path.read_bytes() == web.files["/box/m"]
        assert web.cut_after == []
        assert web.sent < (9 << 20) + (2 << 20), "no more than the chunk that was on its way comes again"
