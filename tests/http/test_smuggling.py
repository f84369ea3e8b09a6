"""No two servers may read our requests differently: what is ambiguous is refused, and the connection ends."""

from __future__ import annotations

import h11
import pytest
from running import Running, chunked, get, post
from smuggling import CASES, OTHER_CASES

HIDDEN = b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n"
ALL = [(name, raw, 400) for name, raw in CASES] + OTHER_CASES


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 120
    assert len({name for name, _, _ in ALL}) == len({raw for _, raw, _ in ALL}) == len(ALL)


@pytest.mark.parametrize(("raw", "status"), [case[1:] for case in ALL], ids=[case[0] for case in ALL])
def test_what_is_ambiguous_is_refused_and_nothing_after_it_is_answered(
    running: Running, raw: bytes, status: int
) -> None:
    with running.connect() as client:
        client.send(raw + HIDDEN)
        reply = client.reply()
        assert (reply.status, reply.closes) == (status, True)
        assert len(reply.json["error"]) > 20
        assert client.ended()


@pytest.mark.parametrize(("raw", "status"), [case[1:] for case in ALL], ids=[case[0] for case in ALL])
def test_byte_by_byte_too(running: Running, raw: bytes, status: int) -> None:
    with running.connect() as client:
        connection = running.call(running.door.connection)

        class Transport:
            """Collects what is written."""

            def __init__(self) -> None:
                self.out = b""
                self.closed = False

            def write(self, data: bytes) -> None:
                self.out += data

            def write_eof(self) -> None:
                self.closed = True

            close = write_eof

            def can_write_eof(self) -> bool:
                return True

            def get_extra_info(self, name: str) -> None:
                return None

            def set_write_buffer_limits(self, high: int) -> None:
                pass

            def get_write_buffer_size(self) -> int:
                return 0

        transport = Transport()

        def feed() -> None:
            connection.connection_made(transport)  # type: ignore[arg-type]
            for byte in raw + HIDDEN:
                connection.data_received(bytes([byte]))
            connection.connection_lost(None)

        running.call(feed)
        client.send(raw + HIDDEN)
        reply = client.reply()
        assert transport.closed
        assert transport.out.startswith(b"HTTP/1.1 %d " % status)
        assert transport.out.partition(b"\r\n\r\n")[2] == reply.body  # and nothing after it


def test_a_request_before_it_is_answered_first(running: Running) -> None:
    with running.connect() as client:
        client.send(post("/predict/held", {"key": "before"}) + CASES[0][1] + HIDDEN)
        running.release("before")
        assert client.reply().json["key"] == "before"
        assert client.reply().status == 400
        assert client.ended()


def _requests_of_h11(raw: bytes) -> list[tuple[bytes, bytes, bytes]]:
    """What another strict parser makes of the bytes: method, target and body of each request, until it gives up."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(raw)
    found: list[tuple[bytes, bytes, bytes]] = []
    line: tuple[bytes, bytes] | None = None
    body = b""
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError:
            return found
        if isinstance(event, h11.Request):
            line, body = (event.method, event.target), b""
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            assert line is not None
            found.append((*line, body))
            if line[0] == b"CONNECT":
                return found
            connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
            connection.send(h11.EndOfMessage())
            if connection.our_state is not h11.DONE:
                return found
            connection.start_next_cycle()
        else:
            return found


VALID = [
    get("/"),
    get("/v2/models/double?a=b&c=%20"),
    get("http://test/"),
    post("/echo", b"hello"),
    post("/echo", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    post("/echo", b"", headers={"Content-Length": "0"}),
    post("/echo", b"hello", headers={"Content-Length": "0005"}),
    post("/echo", b"hello", headers={"Content-Length": "5 \t"}),
    chunked("/echo", b"5\r\nhello\r\n0\r\n\r\n"),
    chunked("/echo", b"5;a=b\r\nhello\r\n00\r\n\r\n"),
    chunked("/echo", b"5\r\nhello\r\n0\r\nX: y\r\n\r\n"),
    chunked("/echo", b"1b\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n\r\n0\r\n\r\n"),
    get("/", headers={"X": "", "Y": "\tä b\t".encode().decode("latin-1")}),
    get("/", headers={"Transfer-Encoding": "Chunked"}) + b"0\r\n\r\n",
    get("/", headers={"Upgrade": "h2c", "Connection": "upgrade"}),
]


@pytest.mark.parametrize("raw", VALID)
def test_what_is_taken_is_read_as_another_strict_parser_reads_it(running: Running, raw: bytes) -> None:
    """One answer each for the request, for the request after it, and the echoed body is the one that h11 finds."""
    if b"h2c" not in raw:  # h11 waits after an offer to change the protocol; this door answers it
        first, second = _requests_of_h11(raw + HIDDEN)
        assert second == (b"GET", b"/v2/health/live", b"")
    with running.connect() as client:
        client.send(raw + HIDDEN)
        reply = client.reply()
        assert reply.status == 200
        if raw.startswith(b"POST"):
            assert reply.body == first[2]
        assert client.reply().json == {"live": True}


@pytest.mark.parametrize("raw", [case[1] for case in ALL], ids=[case[0] for case in ALL])
def test_where_another_strict_parser_refuses_so_do_we_and_the_other_way_round_is_safe(
    running: Running, raw: bytes
) -> None:
    """h11 is more lenient in places (leading empty lines, equal lengths). Wherever the two differ, ours ends the
    connection, so nothing that h11 would read as a second request is ever answered."""
    theirs = _requests_of_h11(raw + HIDDEN)
    with running.connect() as client:
        client.send(raw + HIDDEN)
        ours = 0
        try:
            while client.reply().status == 200:
                ours += 1
        except EOFError:
            pytest.fail("ended without an answer")
        assert client.ended()
    assert ours == 0 <= len(theirs)
