"""https: resumes, pins and verifies; and goes nowhere it should not, whatever names and redirects say."""

from __future__ import annotations

import hashlib
import io
import os
import socket
import ssl
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest
from web_server import WebServer, make_certificate

from turnout.core.errors import LoadFailed, SourceFailed
from turnout.deploy.sources import source_of, transfer
from turnout.deploy.sources.addresses import connectable, is_listed
from turnout.deploy.sources.cache import ArtifactCache
from turnout.deploy.sources.source import SourceSettings


@pytest.fixture
def web() -> Iterator[WebServer]:
    with WebServer() as server:
        yield server


@pytest.fixture
def allowed(quick: SourceSettings) -> SourceSettings:
    """This machine, by its address; nothing else."""
    return replace(quick, allowed_hosts=("127.0.0.1",))


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(transfer, "PIECE_BYTES", 1 << 20)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def packed(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def test_a_file(web: WebServer, cache: ArtifactCache, allowed: SourceSettings) -> None:
    web.files["/models/model%20v1.onnx"] = b"content"
    fetched = cache.fetch(web.url("/models/model v1.onnx"), allowed)
    assert (fetched.path.name, fetched.path.read_bytes()) == ("model v1.onnx", b"content")
    asked = len(web.asked)
    again = cache.fetch(web.url("/models/model v1.onnx"), allowed)
    assert again.from_cache
    assert [method for method, _, _ in web.asked[asked:]] == ["HEAD"]
    web.files["/models/model%20v1.onnx"] = b"another"
    assert cache.fetch(web.url("/models/model v1.onnx"), allowed).path.read_bytes() == b"another"


def test_a_cut_connection_goes_on_where_it_broke_off(
    web: WebServer, cache: ArtifactCache, allowed: SourceSettings
) -> None:
    body = os.urandom((3 << 20) + 5)
    web.files["/m"] = body
    web.cut_after = [300_000, 700_000, 1, 500_000]
    assert cache.fetch(web.url("/m"), allowed).path.read_bytes() == body
    assert web.cut_after == []
    assert web.sent == len(body), "not a byte came twice"


def test_a_line_that_gives_nothing_is_given_up(web: WebServer, cache: ArtifactCache, allowed: SourceSettings) -> None:
    web.files["/m"] = bytes(1000)
    web.cut_after = [0] * 50
    with pytest.raises(SourceFailed, match="the connection ended at byte 0") as failed:
        cache.fetch(web.url("/m"), allowed)
    assert failed.value.retryable
    assert 50 - len(web.cut_after) == allowed.attempts


@pytest.mark.parametrize("kind", ["no ranges", "no tags", "no length", "no head"])
def test_servers_that_offer_less(web: WebServer, cache: ArtifactCache, allowed: SourceSettings, kind: str) -> None:
    web.has_ranges, web.has_tags = kind not in {"no ranges", "no length"}, kind != "no tags"
    web.has_length, web.has_head = kind != "no length", kind != "no head"
    web.files["/m"] = os.urandom(100_000)
    assert cache.fetch(web.url("/m"), allowed).path.read_bytes() == web.files["/m"]
    if web.has_length:
        web.files["/m"] = os.urandom(100_001)
        web.cut_after = [50_000]
        assert cache.fetch(web.url("/m"), allowed).path.read_bytes() == web.files["/m"]


def test_a_server_that_says_nothing_of_its_files(web: WebServer, cache: ArtifactCache, allowed: SourceSettings) -> None:
    web.files["/m"] = b"content"
    web.has_tags = web.has_times = False
    with pytest.raises(SourceFailed, match="Add #sha256="):
        cache.fetch(web.url("/m"), allowed)
    sha = hashlib.sha256(b"content").hexdigest()
    assert cache.fetch(web.url(f"/m#sha256={sha}"), allowed).path.read_bytes() == b"content"


def test_a_server_that_is_busy_for_a_moment(web: WebServer, cache: ArtifactCache, allowed: SourceSettings) -> None:
    web.files["/m"] = b"x"
    web.statuses = [503, 429]
    assert cache.fetch(web.url("/m"), allowed).path.read_bytes() == b"x"
    web.statuses = [500] * 10
    with pytest.raises(SourceFailed, match="answered 500") as failed:
        cache.fetch(web.url("/m2"), allowed)
    assert failed.value.retryable
    assert len(web.statuses) == 10 - allowed.attempts


@pytest.mark.parametrize(("status", "said"), [(401, "netrc"), (404, "no such thing"), (410, "any more"), (400, "400")])
def test_a_server_that_says_no(
    web: WebServer, cache: ArtifactCache, allowed: SourceSettings, status: int, said: str
) -> None:
    web.statuses = [status] * 3
    with pytest.raises(SourceFailed, match=said) as failed:
        cache.fetch(web.url("/m?signature=hush"), allowed)
    assert not failed.value.retryable
    assert "hush" not in failed.value.message
    assert len(web.statuses) == 2


def test_a_file_replaced_in_the_middle_is_fetched_anew(
    web: WebServer, cache: ArtifactCache, allowed: SourceSettings
) -> None:
    web.files["/m"] = bytes(2 << 20)
    new = os.urandom(2 << 20)
    web.before_body = lambda: web.files.update({"/m": new})
    web.cut_after = [1000]
    assert cache.fetch(web.url("/m"), allowed).path.read_bytes() == new


def test_a_digest_in_the_uri(web: WebServer, cache: ArtifactCache, allowed: SourceSettings) -> None:
    web.files["/m"] = b"content"
    sha = hashlib.sha256(b"content").hexdigest()
    fetched = cache.fetch(web.url(f"/m#sha256={sha}"), allowed)
    assert fetched.path.read_bytes() == b"content"
    del web.files["/m"]
    asked = len(web.asked)
    assert cache.fetch(web.url(f"/m#sha256={sha}"), allowed).from_cache
    assert len(web.asked) == asked, "nobody has to be asked"
    web.files["/n"] = b"tampered"
    with pytest.raises(SourceFailed, match=f"expected {sha}"):
        cache.fetch(web.url(f"/n#sha256={sha}"), allowed)
    with pytest.raises(SourceFailed, match="64 hexadecimal digits"):
        cache.fetch(web.url("/n#sha256=beef"), allowed)
    assert len(cache.entries()) == 1


def test_archives(web: WebServer, cache: ArtifactCache, allowed: SourceSettings, tmp_path: Path) -> None:
    web.files["/m.tar.gz"] = packed({"MLmodel": b"x", "data/model.bin": b"y"})
    fetched = cache.fetch(web.url("/m.tar.gz"), allowed)
    assert [file.name for file in fetched.manifest.files] == ["MLmodel", "data/model.bin"]
    assert fetched.path.is_dir()
    kept = cache.fetch(web.url("/m.tar.gz#unpack=no"), allowed)
    assert kept.path.name == "m.tar.gz"
    web.files["/evil.tar.gz"] = packed({"../../../evil": b"x"})
    with pytest.raises(LoadFailed, match="no name inside a directory"):
        cache.fetch(web.url("/evil.tar.gz"), allowed)
    assert not list(tmp_path.rglob("evil*"))
    assert not list((cache.root / "partial").iterdir())


def test_limits_hold_while_it_streams(web: WebServer, cache: ArtifactCache, allowed: SourceSettings) -> None:
    web.files["/m"] = bytes(3 << 20)
    small = replace(allowed, max_artifact_bytes=1 << 20)
    with pytest.raises(SourceFailed, match="max_artifact_bytes"):
        cache.fetch(web.url("/m"), small)
    assert web.sent == 0
    web.has_length = web.has_ranges = False
    with pytest.raises(SourceFailed, match="max_artifact_bytes"):
        cache.fetch(web.url("/m"), small)
    assert not list((cache.root / "partial").iterdir())


def test_it_is_off_unless_allowed(web: WebServer, cache: ArtifactCache, quick: SourceSettings) -> None:
    with pytest.raises(SourceFailed, match="--allow-https"):
        cache.fetch("https://example.com/m", quick)
    with pytest.raises(SourceFailed, match="nothing to tell a server from somebody in between"):
        cache.fetch(web.url("/m"), replace(quick, allow_https=True))
    assert not web.asked


FORBIDDEN = [
    *("127.0.0.1", "127.9.9.9", "localhost", "0.0.0.0", "0", "127.1", "2130706433", "0x7f000001", "0177.0.0.1"),
    *("10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254", "169.254.170.2", "192.0.0.192"),
    *("198.18.0.1", "224.0.0.1", "255.255.255.255", "240.0.0.1", "[::1]", "[::]", "[fe80::1]", "[fc00::1]"),
    *("[fd00:ec2::254]", "[::ffff:127.0.0.1]", "[::ffff:10.0.0.1]", "[::ffff:169.254.169.254]", "[::127.0.0.1]"),
    *("[64:ff9b::7f00:1]", "[64:ff9b::a9fe:a9fe]", "[2002:7f00:1::]", "[2002:a00:1::]", "[2001:0:7f00:1::]"),
    *("[ff02::1]", "[2001:db8::1]", "[::ffff:0:127.0.0.1]", "[fec0::1]", "[0:0:0:0:0:ffff:7f00:1]"),
]


@pytest.mark.parametrize("host", FORBIDDEN)
def test_no_address_but_those_of_the_public(
    cache: ArtifactCache, quick: SourceSettings, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Any] = []
    monkeypatch.setattr(socket.socket, "connect", lambda self, address: tried.append(address))
    with pytest.raises(SourceFailed) as failed:
        cache.fetch(f"https://{host}/latest/meta-data", replace(quick, allow_https=True, attempts=1))
    assert "nothing is fetched from there" in failed.value.message
    assert not tried


@pytest.mark.parametrize("host", ["169.254.169.254", "[fe80::1]", "[::ffff:169.254.169.254]", "224.0.0.1", "0.0.0.0"])
def test_not_even_if_the_host_is_allowed_by_name(cache: ArtifactCache, quick: SourceSettings, host: str) -> None:
    with pytest.raises(SourceFailed, match="nothing is fetched from there"):
        cache.fetch(f"https://{host}/m", replace(quick, allowed_hosts=(host, host.strip("[]"))))


def test_a_redirect_is_checked_like_a_beginning(web: WebServer, cache: ArtifactCache, allowed: SourceSettings) -> None:
    web.files["/m"] = b"x"
    web.redirects = {
        "/there": "/m",
        "/loop": "/loop",
        "/meta": "http://169.254.169.254/",
        "/file": "file:///etc/passwd",
    }
    web.redirects |= {"/private": "https://10.0.0.1/m", "/ftp": "ftp://127.0.0.1/m", "/user": "http://a:b@127.0.0.1/m"}
    assert cache.fetch(web.url("/there"), allowed).path.read_bytes() == b"x"
    for path in ("/loop", "/meta", "/file", "/private", "/ftp", "/user"):
        with pytest.raises(SourceFailed):
            cache.fetch(web.url(path), replace(allowed, allow_https=True))
    assert len(cache.entries()) == 1


def resolver(answers: dict[str, list[str]], asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Names are what this says; each answer is given once, the last for ever."""

    def getaddrinfo(host: str, port: int, *more: Any, **named: Any) -> list[Any]:
        asked.append(host)
        if host not in answers:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        address = answers[host].pop(0) if len(answers[host]) > 1 else answers[host][0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def test_a_name_that_changes_its_mind(
    web: WebServer, cache: ArtifactCache, quick: SourceSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First a public address, to pass the check; then this machine, to be connected to."""
    asked: list[str] = []
    resolver({"rebinding.example": ["93.184.216.34", "127.0.0.1"]}, asked, monkeypatch)
    tried: list[Any] = []

    def connect(self: socket.socket, address: Any) -> None:
        tried.append(address)
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(socket.socket, "connect", connect)
    with pytest.raises(SourceFailed):
        cache.fetch("https://rebinding.example/m", replace(quick, allow_https=True))
    assert {address for address, _ in tried} == {"93.184.216.34"}
    assert len(tried) == 1, "the second answer was refused before anybody connected"


def test_a_public_host_may_not_send_us_to_a_listed_one_inside(
    web: WebServer, quick: SourceSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from turnout.deploy.sources import checked_http

    class Stranger:
        status = 302

        def header(self, name: str) -> str:
            return "https://127.0.0.1/m"

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *at: object) -> None:
            """Nothing to close."""

    resolver({"public.example": ["93.184.216.34"], "127.0.0.1": ["127.0.0.1"]}, [], monkeypatch)
    monkeypatch.setattr(checked_http, "_once", lambda *arguments, **named: Stranger())
    with pytest.raises(SourceFailed, match="redirects"):
        checked_http.ask("https://public.example/m", replace(quick, allow_https=True))
    seen: list[bool] = []

    def once(parts: Any, *arguments: Any, listed: bool) -> Stranger:
        seen.append(listed)
        return Stranger()

    monkeypatch.setattr(checked_http, "_once", once)
    with pytest.raises(SourceFailed):
        checked_http.ask("https://public.example/m", replace(quick, allow_https=True, allowed_hosts=("127.0.0.1",)))
    assert not any(seen), "what a stranger names is not trusted, although we would trust it ourselves"


def test_the_name_is_verified_although_an_address_is_connected_to(
    cache: ArtifactCache, quick: SourceSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = make_certificate(tmp_path, "right.example")
    resolver({name: ["127.0.0.1"] for name in ("right.example", "wrong.example")}, [], monkeypatch)
    settings = replace(quick, allowed_hosts=("right.example", "wrong.example"))
    with WebServer(certificate) as web:
        web.files["/m"] = b"secret model"
        with pytest.raises(SourceFailed, match=r"certificate of .* is not trusted: self.signed"):
            cache.fetch(web.url("/m", "right.example"), settings)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
        assert cache.fetch(web.url("/m", "right.example"), settings).path.read_bytes() == b"secret model"
        with pytest.raises(SourceFailed, match="is not trusted: Hostname mismatch") as failed:
            cache.fetch(web.url("/m", "wrong.example"), settings)
        assert not failed.value.retryable
        web.redirects["/plain"] = "http://right.example/m"
        with pytest.raises(SourceFailed, match="not followed"):
            cache.fetch(web.url("/plain", "right.example"), settings)


def test_credentials_come_from_netrc_and_go_to_their_host_over_tls_only(
    cache: ArtifactCache, quick: SourceSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine right.example login me password hush\ndefault login x password y\n")
    (tmp_path / "netrc").chmod(0o600)
    certificate = make_certificate(tmp_path, "right.example")
    resolver({name: ["127.0.0.1"] for name in ("right.example", "127.0.0.1")}, [], monkeypatch)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
    settings = replace(quick, allowed_hosts=("right.example", "127.0.0.1"))
    with WebServer(certificate) as web, WebServer() as plain:
        web.files["/m"] = plain.files["/m"] = b"x"
        cache.fetch(web.url("/m", "right.example"), settings)
        cache.fetch(plain.url("/m"), settings)
        assert all(headers.get("Authorization", "").startswith("Basic ") for _, _, headers in web.asked)
        assert not any("Authorization" in headers for _, _, headers in plain.asked)
    with pytest.raises(SourceFailed, match="put them into") as failed:
        cache.fetch("https://me:hush@right.example/m", settings)
    assert "hush" not in failed.value.message


def test_what_is_no_file(web: WebServer, cache: ArtifactCache, allowed: SourceSettings) -> None:
    for path in ("/", "/folder/", "", "/..", "/%2e%2e", "/a%2fb%5cc", "/%00", "/a%0ab"):
        with pytest.raises(SourceFailed):
            cache.fetch(web.url(path), allowed)
    for uri in ("https://", "https:///x", "https://h:99999/x", "https://[::1/x", "http://exa mple/x"):
        with pytest.raises(LoadFailed):
            cache.fetch(uri, replace(allowed, allow_https=True, allowed_hosts=("exa mple",)))
    assert not web.asked


def test_a_body_that_came_encoded_is_refused(web: WebServer, cache: ArtifactCache, allowed: SourceSettings) -> None:
    web.files["/m"] = b"x"
    web.extra = {"Content-Encoding": "gzip"}
    with pytest.raises(SourceFailed, match="encoded"):
        cache.fetch(web.url("/m"), allowed)


def test_a_server_that_hangs_is_left(web: WebServer, cache: ArtifactCache, allowed: SourceSettings) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/m"
        with pytest.raises(SourceFailed, match="no answer in time") as failed:
            cache.fetch(url, replace(allowed, timeout=0.2, attempts=2))
        assert failed.value.retryable


def test_which_hosts_are_listed() -> None:
    assert is_listed("Example.COM.", 443, ["example.com"])
    assert is_listed("example.com", 8443, ["example.com:8443"])
    assert is_listed("::1", 443, ["[::1]:443"])
    assert is_listed("::1", 443, ["::1"])
    assert not is_listed("example.com", 443, ["example.com:8443"])
    assert not is_listed("sub.example.com", 443, ["example.com"])
    assert not is_listed("example.com.evil", 443, ["example.com"])


def test_a_public_address_is_fine() -> None:
    assert connectable("93.184.216.34", 443, listed=False) == [(socket.AF_INET, ("93.184.216.34", 443))]
    assert connectable("2606:4700::1111", 443, listed=False)[0][1] == ("2606:4700::1111", 443)
    with pytest.raises(SourceFailed, match="not known") as failed:
        connectable("no-such-host.invalid", 443, listed=True)
    assert failed.value.retryable


def test_tls_is_as_strict_as_the_standard_library() -> None:
    context = ssl.create_default_context()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert source_of("https://h/p") is source_of("http://h/p")
