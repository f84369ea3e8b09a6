"""What is read out of a call's headers, and how answers end."""

from __future__ import annotations

import contextlib
import math
from urllib.parse import unquote

import pytest
from grpc_door import ECHO
from hypothesis import given
from hypothesis import strategies as st
from wire import fields

from turnout.core.errors import InvalidInput, QueueFull
from turnout.entrypoints.grpc import GrpcLimits
from turnout.entrypoints.grpc.answers import failure_fields, percent
from turnout.entrypoints.grpc.frames import StreamFault
from turnout.entrypoints.grpc.header_blocks import Block
from turnout.entrypoints.grpc.heads import Head, read_head, read_timeout
from turnout.protocols.grpc import GrpcMethod

METHODS = {ECHO.encode(): GrpcMethod(ECHO, answer=lambda message, _serving: bytes(message))}


def head(**changes: str | None) -> Head:
    wanted = [(name.encode(), value.encode("latin-1")) for name, value in fields(**changes)]
    return read_head(Block(wanted, too_large=False), METHODS)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1H", 3600.0),
        ("2M", 120.0),
        ("3S", 3.0),
        ("4m", 0.004),
        ("5u", 0.000005),
        ("6n", 0.000000006),
        ("0S", 0.0),
        ("00000001S", 1.0),
        ("99999999H", 99_999_999 * 3600.0),
    ],
)
def test_timeouts(text: str, seconds: float) -> None:
    assert read_timeout(text.encode()) == pytest.approx(seconds)
    assert head(grpc_timeout=text).timeout == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "S", "1", "1s", "1 S", "-1S", "+1S", "1.5S", "100000000S", "1SS", "1H1M", "\N{FULLWIDTH DIGIT ONE}S"]
)
def test_bad_timeouts(text: str) -> None:
    with pytest.raises(InvalidInput, match="grpc-timeout: not a timeout; expected one to eight digits"):
        read_timeout(text.encode())


def test_no_timeout() -> None:
    assert read_timeout(None) == math.inf


@given(st.binary(max_size=12))
def test_any_timeout_is_read_or_refused(text: bytes) -> None:
    with contextlib.suppress(InvalidInput):
        assert 0 <= read_timeout(text) < 4e11


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/grpc", 0),
        ("application/grpc+proto", 0),
        ("Application/gRPC; charset=utf-8", 0),
        ("application/grpc+json", 415),
        ("application/grpc-web", 415),
        ("application/grpcx", 415),
        ("text/plain", 415),
        ("", 415),
    ],
)
def test_content_types(content_type: str, status: int) -> None:
    assert head(content_type=content_type).status == status


@pytest.mark.parametrize(
    ("encoding", "accepted", "answer"),
    [
        (None, "gzip", "identity"),
        ("identity", "gzip", "identity"),
        ("gzip", "identity, deflate, gzip", "gzip"),
        ("deflate", "identity,deflate", "deflate"),
        ("gzip", "deflate", "identity"),
        ("gzip", None, "identity"),
    ],
)
def test_answers_are_compressed_where_requests_are_and_it_can_be_read(
    encoding: str | None, accepted: str | None, answer: str
) -> None:
    found = head(grpc_encoding=encoding, grpc_accept_encoding=accepted)
    assert (found.encoding, found.answer_encoding) == (encoding or "identity", answer)


def test_te_may_be_missing_but_not_wrong() -> None:
    assert head(te=None).method is not None
    with pytest.raises(StreamFault):
        head(te="trailers, gzip")


def test_ids_are_cut() -> None:
    assert head(x_request_id="i" * 500).request_id == "i" * 128
    assert head(x_request_id="\xff").request_id == "\N{REPLACEMENT CHARACTER}"


@given(st.text(max_size=100))
def test_messages_are_percent_encoded(text: str) -> None:
    encoded = percent(text)
    assert all(0x20 <= octet <= 0x7E for octet in encoded)
    shown = text.encode("utf-8", "replace").decode()
    assert unquote(encoded.decode()) == shown


@given(st.sampled_from(["a", "%", "ü", "€", "\N{SNOWMAN}"]), st.integers(1, 5000))
def test_long_messages_are_cut_between_characters(letter: str, count: int) -> None:
    encoded = percent(letter * count)
    assert len(encoded) <= 2048
    text = unquote(encoded.decode(), errors="strict")
    assert text.rstrip(".") == letter * len(text.rstrip("."))


def test_a_failure_that_may_be_tried_again_says_when() -> None:
    assert failure_fields(QueueFull("full", retry_after=0.0101)) == [
        (b"grpc-status", b"14"),
        (b"grpc-message", b"full"),
        (b"grpc-retry-pushback-ms", b"11"),
    ]
    assert len(failure_fields(QueueFull("full"))) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_streams": 0},
        {"max_frame_bytes": 16_383},
        {"max_frame_bytes": 2**24},
        {"stream_window_bytes": 65_534},
        {"connection_window_bytes": 2**31},
        {"max_message_bytes": 2**31},
        {"max_message_bytes": 2**30, "max_buffered_bytes": 2**29},
    ],
)
def test_limits_that_cannot_be_announced(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"expected \d+ to \d+; got"):
        GrpcLimits(**wrong)
