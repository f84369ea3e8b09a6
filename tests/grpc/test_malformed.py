"""What is wrong on the wire, and what it costs the peer: its connection, its stream, its call or nothing.

Each case is also given to the `h2` library as a server. Where it sees things otherwise, the case says why.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

import h2.config
import h2.connection
import h2.exceptions
import pytest
from grpc_door import CHAT, ECHO, DoorThread
from hyperframe import frame as hf
from wire import PREFACE, Wire, block, call, data, fields, frame, headers, message, outcome

NO, PROTOCOL, FLOW, CLOSED, SIZE, REFUSED, CANCEL, COMPRESSION, CALM = 0, 1, 3, 5, 6, 7, 8, 9, 11


class Case(NamedTuple):
    """`sent` after the preface and SETTINGS; `h2` is that library's opinion where it differs, with the reason."""

    name: str
    sent: bytes
    expected: str
    h2: str = ""
    why: str = ""


def settings(*items: tuple[int, int]) -> bytes:
    return frame(4, 0, 0, b"".join(struct.pack(">HI", *item) for item in items))


def update(stream_id: int, increment: int) -> bytes:
    return frame(8, 0, stream_id, struct.pack(">I", increment))


OPEN = headers(1)
MALFORMED = "RFC 9113 makes a malformed request a stream error"
QUIET = "nothing"
GONE = f"stream {CLOSED}"


def malformed(name: str, **changes: str | None) -> Case:
    return Case(name, call(1, headers_=fields(**changes)), f"stream {PROTOCOL}", f"connection {PROTOCOL}", MALFORMED)


CASES = [
    # frames that do not belong where they are
    Case("DATA on stream 0", data(0, b"x"), f"connection {PROTOCOL}"),
    Case("DATA on an idle stream", data(1, b"x"), f"connection {PROTOCOL}"),
    Case("HEADERS on stream 0", headers(0), f"connection {PROTOCOL}"),
    Case("HEADERS on an even stream", headers(2), f"connection {PROTOCOL}"),
    Case("RST_STREAM on an idle stream", frame(3, 0, 1, b"\0\0\0\x08"), f"connection {PROTOCOL}"),
    Case("RST_STREAM on stream 0", frame(3, 0, 0, b"\0\0\0\x08"), f"connection {PROTOCOL}"),
    Case("WINDOW_UPDATE on an idle stream", update(1, 5), f"connection {PROTOCOL}"),
    Case("SETTINGS on a stream", frame(4, 0, 1), f"connection {PROTOCOL}"),
    Case("PING on a stream", frame(6, 0, 1, b"12345678"), f"connection {PROTOCOL}"),
    Case("GOAWAY on a stream", frame(7, 0, 1, bytes(8)), f"connection {PROTOCOL}"),
    Case("PUSH_PROMISE from a client", OPEN + frame(5, 4, 1, b"\0\0\0\2" + block(fields())), f"connection {PROTOCOL}"),
    Case("CONTINUATION alone", frame(9, 4, 1, b""), f"connection {PROTOCOL}"),
    Case("PRIORITY on stream 0", frame(2, 0, 0, b"\0\0\0\3\1"), f"connection {PROTOCOL}"),
    Case("an unknown frame type", frame(200, 255, 7, b"what") + call(1, b"missing:"), "status 5", QUIET, "no model"),
    # sizes
    Case("PING of 7 bytes", frame(6, 0, 0, b"1234567"), f"connection {SIZE}"),
    Case("SETTINGS of 5 bytes", frame(4, 0, 0, b"12345"), f"connection {SIZE}"),
    Case("SETTINGS acknowledged with entries", frame(4, 1, 0, bytes(6)), f"connection {SIZE}", f"connection {PROTOCOL}",
         "RFC 9113 6.5"),
    Case("RST_STREAM of 3 bytes", OPEN + frame(3, 0, 1, b"123"), f"connection {SIZE}"),
    Case("WINDOW_UPDATE of 3 bytes", frame(8, 0, 0, b"123"), f"connection {SIZE}"),
    Case("GOAWAY of 7 bytes", frame(7, 0, 0, b"1234567"), f"connection {SIZE}"),
    Case("PRIORITY of 4 bytes", OPEN + frame(2, 0, 1, b"1234"), f"stream {SIZE}", f"connection {SIZE}", "RFC 9113 6.3"),
    Case("a frame over the announced size", b"\xff\xff\xff\0\0\0\0\0\1", f"connection {SIZE}", QUIET,
         "h2 waits for the whole frame"),
    Case("HEADERS with priority, too short", headers(1, b"123", flags=0x24), f"connection {SIZE}", "", "length"),
    # padding
    Case("DATA with too much padding", OPEN + frame(0, 8, 1, b"\x05abcd"), f"connection {PROTOCOL}"),
    Case("HEADERS with too much padding", headers(1, b"\xff\x82", flags=0x0C), f"connection {PROTOCOL}"),
    Case("padded DATA without padding length", OPEN + frame(0, 8, 1), f"connection {SIZE}"),
    # settings
    Case("ENABLE_PUSH of 2", settings((2, 2)), f"connection {PROTOCOL}"),
    Case("a window over 2^31-1", settings((4, 2**31)), f"connection {FLOW}"),
    Case("a frame size of 16,383", settings((5, 16_383)), f"connection {PROTOCOL}"),
    Case("a frame size of 2^24", settings((5, 2**24)), f"connection {PROTOCOL}"),
    Case("an unknown setting", settings((99, 1), (8, 1)) + call(1, b"missing:"), "status 5", QUIET, "no model"),
    Case("a hundred settings and more", settings(*[(3, 1)] * 101), f"connection {CALM}", QUIET, "no limit in h2"),
    # windows
    Case("WINDOW_UPDATE of nothing", update(0, 0), f"connection {PROTOCOL}"),
    Case("WINDOW_UPDATE of nothing on a stream", OPEN + update(1, 0), f"stream {PROTOCOL}", f"connection {PROTOCOL}",
         "RFC 9113 6.9 says stream error"),
    Case("the connection window over 2^31-1", update(0, 2**31 - 1), f"connection {FLOW}"),
    Case("a stream window over 2^31-1", OPEN + update(1, 2**31 - 1), f"stream {FLOW}"),
    Case("SETTINGS that lift a stream window over 2^31-1", OPEN + update(1, 2**31 - 1 - 65_535) + settings((4, 65_536)),
         f"connection {FLOW}"),
    # header blocks
    Case("a block that is interrupted", headers(1, flags=0) + frame(6, 0, 0, b"12345678"), f"connection {PROTOCOL}"),
    Case("a block continued elsewhere", headers(1, flags=0) + frame(9, 4, 3), f"connection {PROTOCOL}"),
    Case("a broken block", headers(1, b"\x80"), f"connection {COMPRESSION}", f"connection {PROTOCOL}", "RFC 9113 4.3"),
    Case("a broken Huffman code", headers(1, b"\x00\x81\xff\x00"), f"connection {COMPRESSION}",
         f"connection {PROTOCOL}", "RFC 9113 4.3"),
    Case("a broken block in trailers", OPEN + headers(1, b"\x80", end=True), f"connection {COMPRESSION}",
         f"connection {PROTOCOL}", "RFC 9113 4.3"),
    # states
    Case("HEADERS on a stream that is over", call(1) + headers(1), f"connection {CLOSED}", GONE, "half-closed in h2"),
    Case("a stream identifier that goes back", call(5) + headers(3), f"connection {CLOSED}", f"connection {PROTOCOL}",
         "skipped streams are closed; either code is right"),
    Case("DATA after the end", call(1, b"wait:") + data(1, b"x"), GONE),
    Case("HEADERS after the end", call(1, b"wait:") + headers(1), GONE),
    Case("trailers that do not end the stream", OPEN + headers(1), f"stream {PROTOCOL}", f"connection {PROTOCOL}",
         MALFORMED),
    Case("trailers with a pseudo-header", OPEN + headers(1, end=True), f"stream {PROTOCOL}", f"connection {PROTOCOL}",
         MALFORMED),
    Case("RST_STREAM twice", OPEN + frame(3, 0, 1, b"\0\0\0\x08") * 2, QUIET),
    Case("WINDOW_UPDATE after RST_STREAM", OPEN + frame(3, 0, 1, b"\0\0\0\x08") + update(1, 5), QUIET),
    Case("DATA after RST_STREAM", OPEN + frame(3, 0, 1, b"\0\0\0\x08") + data(1, b"x"), GONE),
    Case("PRIORITY anywhere", frame(2, 0, 1, b"\0\0\0\3\1") + frame(2, 0, 9, b"\0\0\0\3\1"), QUIET),
    Case("GOAWAY from the client", frame(7, 0, 0, bytes(8)), QUIET),
    # requests
    malformed("no :method", p_method=None),
    malformed("no :path", p_path=None),
    malformed("an empty :path", p_path=""),
    malformed("no :scheme", p_scheme=None),
    malformed("an unknown pseudo-header", p_what="x"),
    malformed(":status in a request", p_status="200"),
    malformed("te: gzip", te="gzip"),
    malformed("connection: close", connection="close"),
    malformed("transfer-encoding", transfer_encoding="chunked"),
    malformed("an upper-case name", Upper="x"),
    malformed("a line break in a value", x="a\nb"),
    malformed("a space before a value", x=" a"),
    malformed("content-length that is no number", content_length="ten"),
    Case("a pseudo-header after others", call(1, headers_=[*fields()[1:], fields()[0]]), f"stream {PROTOCOL}",
         f"connection {PROTOCOL}", MALFORMED),
    Case("a pseudo-header twice", call(1, headers_=[fields()[0], *fields()]), f"stream {PROTOCOL}",
         f"connection {PROTOCOL}", MALFORMED),
    malformed("less DATA than content-length", content_length="11"),
    malformed("more DATA than content-length", content_length="9"),
    Case("content-length without DATA", headers(1, block(fields(content_length="5")), end=True), f"stream {PROTOCOL}",
         QUIET, "h2 counts DATA frames only"),
    # calls that are no proper gRPC: HTTP is content with them
    Case("GET", call(1, headers_=fields(p_method="GET")), "http 405", QUIET, "HTTP"),
    Case("JSON", call(1, headers_=fields(content_type="application/json")), "http 415", QUIET, "HTTP"),
    Case("gRPC-Web", call(1, headers_=fields(content_type="application/grpc-web")), "http 415", QUIET, "HTTP"),
    Case("no content type", call(1, headers_=fields(content_type=None)), "http 415", QUIET, "HTTP"),
    Case("an unknown method", call(1, headers_=fields("/a/b")), "status 12", QUIET, "gRPC"),
    Case("an unknown compression", call(1, headers_=fields(grpc_encoding="snappy")), "status 12", QUIET, "gRPC"),
    Case("a bad timeout", call(1, headers_=fields(grpc_timeout="1")), "status 3", QUIET, "gRPC"),
    Case("a timeout of nine digits", call(1, headers_=fields(grpc_timeout="123456789S")), "status 3", QUIET, "gRPC"),
    Case("a timeout of nothing", call(1, headers_=fields(grpc_timeout="0n")), "status 4", QUIET, "gRPC"),
    Case("no message", headers(1, end=True), "status 12", QUIET, "gRPC"),
    Case("no message, an empty DATA", OPEN + data(1, b"", end=True), "status 12", QUIET, "gRPC"),
    Case("two messages", OPEN + data(1, message(b"a") + message(b"b"), end=True), "status 12", QUIET, "gRPC"),
    Case("half a prefix", OPEN + data(1, b"\0\0\0", end=True), "status 3", QUIET, "gRPC"),
    Case("half a message", OPEN + data(1, message(b"hello")[:-1], end=True), "status 3", QUIET, "gRPC"),
    Case("a flag of 2", OPEN + data(1, message(b"a", 2), end=True), "status 3", QUIET, "gRPC"),
    Case("compressed, but by nothing", OPEN + data(1, message(b"a", 1), end=True), "status 13", QUIET, "gRPC"),
    Case("compressed, but broken",
         headers(1, block(fields(grpc_encoding="gzip"))) + data(1, message(b"a", 1), end=True),
         "status 3", QUIET, "gRPC"),
    Case("a message that is too large", OPEN + data(1, b"\0\xff\xff\xff\xff"), "status 8", QUIET, "gRPC"),
]  # fmt: skip


@pytest.fixture(scope="module")
def served() -> Iterator[DoorThread]:
    door = DoorThread()
    yield door
    door.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_outcome(served: DoorThread, case: Case) -> None:
    with Wire(served.port) as wire:
        wire.send(case.sent)
        assert outcome(wire) == case.expected
        if not case.expected.startswith("connection"):
            wire.send(call(101, b"still here"))
            assert wire.answer(101) == (message(b"still here"), {"grpc-status": "0"})
    served.call(served.echo.release)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_opinion_of_h2(case: Case) -> None:
    server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    server.initiate_connection()
    server.local_settings.max_frame_size = 2**20
    server.max_inbound_frame_size = 2**20
    server.data_to_send()
    try:
        server.receive_data(PREFACE + frame(4, 0, 0) + case.sent)
    except h2.exceptions.ProtocolError:
        kind = "connection"
    else:
        kind = "stream"
    sent, codes = server.data_to_send(), []
    while sent:
        parsed, length = hf.Frame.parse_frame_header(memoryview(sent[:9]))
        parsed.parse_body(memoryview(sent[9 : 9 + length]))
        sent = sent[9 + length :]
        wanted = hf.GoAwayFrame if kind == "connection" else hf.RstStreamFrame
        if isinstance(parsed, wanted):
            codes.append(int(parsed.error_code))
    opinion = f"{kind} {codes[0]}" if codes else QUIET
    assert opinion == (case.h2 or case.expected), case.why


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (PREFACE + headers(1), f"connection {PROTOCOL}"),  # no SETTINGS first
        (PREFACE + frame(4, 1, 0), f"connection {PROTOCOL}"),  # an acknowledgement of nothing
        (PREFACE[:-1] + b"x" + frame(4, 0, 0), "http1"),  # nearly a preface
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "http1"),
        (b"POST /v2/models/m/infer HTTP/1.1\r\n", "http1"),
        (b"\x16\x03\x01\x02\x00\x01\x00", f"connection {PROTOCOL}"),  # TLS
        (b"\0" * 30, f"connection {PROTOCOL}"),
    ],
)
def test_greetings(served: DoorThread, sent: bytes, expected: str) -> None:
    with Wire(served.port, greet=False) as wire:
        wire.send(sent)
        if expected == "http1":
            answer = b""
            while got := wire.socket.recv(4096):
                answer += got
            assert answer.startswith(b"HTTP/1.1 400 ")
            assert b"This is the gRPC port" in answer
        else:
            assert outcome(wire) == expected


def test_a_malformed_call_on_a_stream_does_not_disturb_others(served: DoorThread) -> None:
    with Wire(served.port) as wire:
        wire.send(call(1, b"wait:") + call(3, headers_=fields(te="gzip")) + call(5, headers_=fields(CHAT)))
        assert wire.answer(3) == (b"", {"reset": str(PROTOCOL)})
        assert wire.answer(5)[1] == {"grpc-status": "0"}
        served.call(served.echo.release)
        assert wire.answer(1) == (message(b"wait:"), {"grpc-status": "0"})


def test_an_answer_before_the_end_of_the_request(served: DoorThread) -> None:
    """A call that is refused early: its status, then a reset without fault, and what still comes is ignored."""
    with Wire(served.port) as wire:
        wire.send(headers(1, block(fields("/a/b"))))
        seen = wire.until(lambda f: isinstance(f, hf.RstStreamFrame))
        assert seen[-1].error_code == NO
        assert seen[-2].fields["grpc-status"] == "12"
        wire.send(data(1, b"x" * 1000) + data(1, b"", end=True) + headers(1, end=True))
        assert outcome(wire) == QUIET


def test_plain_answers_can_be_read_by_a_person(served: DoorThread) -> None:
    with Wire(served.port) as wire:
        wire.send(call(1, headers_=fields(ECHO, content_type="application/json")))
        frames = wire.until(lambda f: "END_STREAM" in f.flags)
        assert frames[-2].fields[":status"] == "415"
        assert b"application/grpc" in frames[-1].data
        assert int(frames[-2].fields["content-length"]) == len(frames[-1].data)


def test_draining(served: DoorThread) -> None:
    """First a warning, after the client's sign of life the last stream; what was begun is answered, no more is."""
    door = DoorThread()
    with Wire(door.port) as wire:
        wire.send(call(1, b"wait:"))
        wire.until(lambda f: isinstance(f, hf.SettingsFrame) and "ACK" in f.flags)
        drained = door.begin(door.door.drain())
        seen = wire.until(lambda f: isinstance(f, hf.PingFrame))
        assert (seen[-2].last_stream_id, seen[-2].error_code) == (2**31 - 1, NO)
        wire.send(call(3, b"wait:") + frame(6, 1, 0, seen[-1].opaque_data) + call(5))
        last = wire.until(lambda f: isinstance(f, hf.GoAwayFrame))[-1]
        assert (last.last_stream_id, last.error_code) == (3, NO)
        assert wire.answer(5) == (b"", {"reset": str(REFUSED)})
        assert not drained.done()
        door.call(door.echo.release)
        assert wire.answer(1) == (message(b"wait:"), {"grpc-status": "0"})
        assert wire.answer(3) == (message(b"wait:"), {"grpc-status": "0"})
        assert wire.rest() == []
    drained.result(10)
    with pytest.raises(ConnectionRefusedError):
        Wire(door.port)
    door.close()
