"""However the bytes are cut, the answers are the same; whatever the bytes are, the door goes on."""

from __future__ import annotations

import re
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from running import Client, Running, chunked, get, post
from smuggling import CASES, OTHER_CASES

GOOD = [
    get("/"),
    get("/v2/models/double?x=y", method="HEAD"),
    get("/nowhere"),
    get("/later"),
    post("/predict/double", {"x": [1, 2, 3]}),
    post("/predict/soon", {"x": [4]}, headers={"x-request-id": "same"}),
    post("/predict/double", b"{"),
    post("/predict/broken", {}),
    post("/predict/full", b"[]"),
    post("/echo", b"a" * 3_000),
    post("/echo", b"a" * 70_000, headers={"Content-Encoding": "gzip"}),
    post("/predict/double", b"\r\n\r\nGET / HTTP/1.1\r\n\r\n", headers={"Content-Type": "application/octet-stream"}),
    chunked("/echo", b"3\r\nabc\r\n10;x=y\r\n0123456789abcdef\r\n0\r\nX: y\r\n\r\n"),
    chunked("/nowhere", b"3\r\nabc\r\n0\r\n\r\n"),
    post("/predict/double", {"x": [1]}, headers={"Connection": "close"}),
    post("/echo", b"abc", headers={"Expect": "100-continue"}),
    post("/nowhere", b"a" * 70_000),
    b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
]
BAD = [raw for _, raw in CASES] + [raw for _, raw, _ in OTHER_CASES]
_DATE = re.compile(rb"Date: [^\r]+\r\n")
_INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"


def _answers(client: Client) -> bytes:
    """All that the server sends until it ends the connection."""
    parts = []
    while True:
        try:
            data = client.sock.recv(1 << 20)
        except ConnectionResetError:
            break
        if not data:
            break
        parts.append(data)
    return _DATE.sub(b"", b"".join(parts)).replace(_INTERIM, b"")


def _ask(running: Running, pieces: list[bytes]) -> bytes:
    """What comes back for the pieces. The last request asks to close, so the connection always ends."""
    with running.connect() as client:
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            try:
                client.send(piece)
            except OSError:
                break
            running.call(lambda: None)  # a loop pass, so that the piece comes alone
        return _answers(client)


@given(
    requests=st.lists(st.sampled_from(GOOD), max_size=4),
    bad=st.one_of(st.none(), st.sampled_from(BAD)),
    data=st.data(),
)
@settings(max_examples=250)
def test_any_split_gives_the_same_answers(
    shared: Running, requests: list[bytes], bad: bytes | None, data: st.DataObject
) -> None:
    raw = b"".join(requests) + (bad or b"") + get("/", headers={"Connection": "close"})
    cuts = sorted(data.draw(st.sets(st.integers(1, len(raw) - 1), max_size=12)))
    pieces = [raw[start:end] for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    assert _ask(shared, pieces) == _ask(shared, [raw])


@pytest.mark.parametrize("raw", [b"".join(GOOD[:14]) + GOOD[15] + GOOD[14], *GOOD[:5]])
def test_byte_by_byte_gives_the_same_answers(running: Running, raw: bytes) -> None:
    raw += get("/", headers={"Connection": "close"})
    step = max(1, len(raw) // 400)
    assert _ask(running, [raw[at : at + step] for at in range(0, len(raw), step)]) == _ask(running, [raw])


_PIECES = st.sampled_from(
    b"GET |POST |/|/echo| HTTP/1.1|\r\n|\r\n\r\n|\n|\r|Host: a\r\n|:| |0\r\n\r\n|hello|\x00|\xff|ffffffff\r\n|"
    b"Content-Length: 5\r\n|Transfer-Encoding: chunked\r\n|5\r\nhello\r\n".split(b"|")
)


@given(
    raw=st.one_of(
        st.binary(max_size=400),
        st.lists(_PIECES, max_size=25).map(b"".join),
        st.tuples(
            st.sampled_from(GOOD[:8] + GOOD[12:14] + BAD), st.integers(0, 300), st.binary(min_size=1, max_size=3)
        ).map(lambda mutation: mutation[0][: mutation[1]] + mutation[2] + mutation[0][mutation[1] + 1 :]),
    )
)
@settings(max_examples=400)
def test_no_bytes_crash_or_hang_it(shared: Running, raw: bytes) -> None:
    """The answers are well-formed, at most the last is a refusal, and when the client leaves nothing stays."""
    with shared.connect() as client:
        client.send(raw)
        client.sock.shutdown(socket.SHUT_WR)
        out = _answers(client)
    assert out == b"" or out.startswith(b"HTTP/1.1 ")
    for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", out):
        assert status != b"500" or b"/broken" in raw
    assert shared.ask(get("/")).status == 200


def test_nothing_stays_of_all_these_connections(running: Running) -> None:
    running.until(lambda: running.door.connections == 0)
    assert running.door._state.partial_bytes == 0
    assert not running.serving.held.waiting
