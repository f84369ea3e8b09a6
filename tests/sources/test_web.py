"""A server that misbehaves: what is tried again, where credentials go, and what a question may take."""

from __future__ import annotations

import gzip
import http.client
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from web_server import WebServer

from turnout.core.errors import SourceFailed
from turnout.deploy.sources.download import Tally, WebFile, download
from turnout.deploy.sources.http_words import is_loopback, shown
from turnout.deploy.sources.source import SourceSettings
from turnout.deploy.sources.web import Web

SETTINGS = SourceSettings(attempts=3, timeout=5.0, retry_wait=0.01)
LARGE = bytes(range(256)) * 4096


@pytest.fixture
def server() -> Iterator[WebServer]:
    with WebServer() as found:
        found.has_ranges = False
        yield found


def web(server: WebServer, settings: SourceSettings = SETTINGS, *, elsewhere: bool = False) -> Web:
    address = server.url("").replace("://", "://user:secret@")
    return Web("the place", address, settings, authorize=lambda _: "Bearer secret", elsewhere=elsewhere)


def fetch(server: WebServer, into: Path, *files: WebFile, settings: SourceSettings = SETTINGS) -> list[int]:
    told: list[int] = []
    tally = Tally(0, settings.max_artifact_bytes, lambda _, done, __: told.append(done))
    download(web(server, settings), files, into, tally)
    return told


def test_what_passes_is_asked_again(server: WebServer) -> None:
    server.files["/a"] = b'{"x": 1}'
    server.statuses = [503, 429]
    assert web(server).json("/a") == (200, {"x": 1})
    server.statuses = [500, 502, 504]
    with pytest.raises(SourceFailed, match=r"the place did not answer GET .*: it answered 504") as caught:
        web(server).ask("/a")
    assert caught.value.retryable
    assert "secret" not in str(caught.value)
    assert len(server.asked) == 6
    assert web(server).ask("/none").status == 404


def test_a_place_that_says_when_to_come_back_is_obeyed_within_the_time_out(server: WebServer) -> None:
    server.files["/a"] = b"{}"
    server.statuses = [429]
    began = time.monotonic()
    assert web(server).ask("/a").status == 200
    assert time.monotonic() - began < 3


def test_a_place_that_says_nothing_is_given_up_at_the_time_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = Web("the place", f"http://127.0.0.1:{silent.getsockname()[1]}", SourceSettings(timeout=0.3))
        began = time.monotonic()
        with pytest.raises(SourceFailed, match="no answer in time") as caught:
            place.ask("/")
        assert caught.value.retryable
        assert time.monotonic() - began < 3


def test_a_place_that_drips_is_given_up_at_the_time_out() -> None:
    ended = threading.Event()

    def drip(listener: socket.socket) -> None:
        client, _ = listener.accept()
        with client:
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
            while not ended.wait(0.02):
                try:
                    client.sendall(b"x")
                except OSError:
                    return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=(listener,))
        thread.start()
        settings = SourceSettings(timeout=0.3, attempts=1)
        place = Web("the place", f"http://127.0.0.1:{listener.getsockname()[1]}", settings)
        with pytest.raises(SourceFailed, match="no answer in time"):
            place.ask("/")
        ended.set()
        thread.join()


def test_credentials_go_to_their_own_server_only(server: WebServer, tmp_path: Path) -> None:
    with WebServer() as other:
        other.files["/there"] = b"content"
        server.redirects["/a"] = other.url("/there?signature=x")
        server.redirects["/b"] = "/c"
        server.files["/c"] = b"{}"
        with pytest.raises(SourceFailed, match=r"redirects from http://127.0.0.1:\d+/a to another server") as caught:
            web(server).ask("/a")
        assert not caught.value.retryable
        assert web(server, elsewhere=True).ask("/a").body == b"content"
        assert web(server).ask("/b").status == 200
        assert {headers.get("Authorization") for _, _, headers in server.asked} == {"Bearer secret"}
        assert [headers.get("Authorization") for _, _, headers in other.asked] == [None]


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://x/y", "http://[::bad", "", "http://x:99999/", "/loop"])
def test_redirects_to_no_place_are_refused(server: WebServer, target: str) -> None:
    server.redirects["/loop"] = target
    with pytest.raises(SourceFailed, match=r"redirect|not followed"):
        web(server, elsewhere=True).ask("/loop")


def test_answers_that_are_none_are_refused(server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for content in (b"<html>", b"\xff\xfe", b"[" * 100_000, b""):
        server.files["/a"] = content
        with pytest.raises(SourceFailed, match="answered what is not JSON"):
            web(server).json("/a")
    monkeypatch.setattr("turnout.deploy.sources.web._MAX_BODY_BYTES", 1000)
    server.files["/a"] = LARGE
    with pytest.raises(SourceFailed, match="larger than 1000 bytes"):
        web(server).ask("/a")


@pytest.mark.parametrize("address", ["", "host", "ftp://host", "http://", "http://host:port", "https://host:70000"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(SourceFailed, match="address"):
        Web("the place", address, SETTINGS)


def test_a_url_in_a_message_has_nothing_secret() -> None:
    assert shown("https://user:secret@host:8/a?signature=secret#secret") == "https://host:8/a"


def test_files_come_several_at_once_and_begin_anew_where_they_cannot_go_on(server: WebServer, tmp_path: Path) -> None:
    names = [f"d{number % 3}/{number}" for number in range(20)]
    server.files = {f"/{name}": LARGE[: len(LARGE) - number] for number, name in enumerate(names)}
    server.cut_after = [500_000, 10, 300_000]
    told = fetch(server, tmp_path, *(WebFile(name, f"/{name}") for name in names))
    for number, name in enumerate(names):
        assert (tmp_path / name).read_bytes() == LARGE[: len(LARGE) - number]
    assert told[-1] == sum(map(len, server.files.values()))


def test_the_first_failure_stops_the_rest(server: WebServer, tmp_path: Path) -> None:
    server.files = {f"/{number}": LARGE for number in range(200)}
    files = [WebFile("missing", "/missing"), *(WebFile(str(number), f"/{number}") for number in range(200))]
    with pytest.raises(SourceFailed, match="has no file 'missing': 404"):
        fetch(server, tmp_path, *files)
    assert len(server.asked) < 100


def test_sizes_and_limits_are_kept(server: WebServer, tmp_path: Path) -> None:
    server.files["/a"] = LARGE
    for size, why in ((len(LARGE) + 1, "not the 1048577 announced"), (1000, "more than the 1000 bytes")):
        with pytest.raises(SourceFailed, match=why):
            fetch(server, tmp_path, WebFile("a", "/a", size))
    with pytest.raises(SourceFailed, match="max_artifact_bytes"):
        fetch(server, tmp_path, WebFile("a", "/a"), settings=SourceSettings(max_artifact_bytes=1000))
    server.extra = {"Content-Encoding": "gzip"}
    server.files["/a"] = gzip.compress(b"x")
    with pytest.raises(SourceFailed, match="encoded, which was not asked for"):
        fetch(server, tmp_path, WebFile("a", "/a"))


def test_a_disk_that_cannot_take_it_is_said_to_be_the_reason(server: WebServer) -> None:
    server.files["/a"] = LARGE
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no disk that is always full")
    with pytest.raises(SourceFailed, match="No space left on device"):
        fetch(server, full.parent, WebFile("full", "/a"))


def test_what_a_server_says_is_passed_on(server: WebServer) -> None:
    server.statuses = [403]
    with pytest.raises(SourceFailed, match=r"the place does not allow it \(403\): GET http://127.0.0.1:\d+/a$"):
        web(server).ask("/a")


def test_what_means_this_machine() -> None:
    """To which one may speak without TLS; a name that only looks like such an address is anybody's."""
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.8.9.1", "::1")))
    assert not any(map(is_loopback, ("127.example.org", "localhost.example.org", "10.0.0.1", "")))


def test_an_answer_is_closed_where_nobody_gives_a_login_for_it(
    server: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What asks for a token raises amid another answer, whose socket would stay open until it is collected."""

    def refuse(_: str) -> bool:
        raise SourceFailed("nobody gives a token")

    closed: list[bool] = []
    close = http.client.HTTPResponse.close
    monkeypatch.setattr(http.client.HTTPResponse, "close", lambda self: (closed.append(True), close(self))[1])
    server.statuses = [401]
    place = Web("the place", server.url(""), SETTINGS, challenge=refuse)
    with pytest.raises(SourceFailed, match="nobody gives a token") as caught:
        place.ask("/a")
    assert closed, "it is closed while whoever catches this still holds its frames"
    assert caught.value
