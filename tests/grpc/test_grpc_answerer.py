"""Every answer through the gRPC door says in its trailing metadata who gave it, as Google's client reads it."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest
from grpc_door import CHAT, ECHO, PARTS, UPPER, DoorThread

from turnout.core.errors import Code
from turnout.core.messages import InferRequest, InferResponse
from turnout.entrypoints.grpc.header_blocks import Block
from turnout.entrypoints.grpc.heads import read_flag, read_head
from turnout.graph.endpoint import Endpoint, EndpointPolicy, parse_prediction_id

Said = dict[str, str]


class Guided:
    """Marks each request as a split does, and as a fallback does where the caller's metadata say why."""

    def __init__(self, door: DoorThread) -> None:
        self.door = door

    async def infer(self, request: InferRequest) -> InferResponse:
        journey, attributes = request.context.journey, request.context.attributes
        assert journey is not None
        assert attributes is not None
        journey.variant = attributes.header("x-cohort") or "1"
        journey.degraded = attributes.header("x-why") or ""
        assert (attributes.cookie("a"), attributes.argument("a"), attributes.header("x-none")) == (None, None, None)
        return await self.door.echo.infer(request)


@pytest.fixture
def channel(door: DoorThread) -> Iterator[grpc.Channel]:
    versions = {"1": "sha256:11", "2": ""}
    policy = EndpointPolicy(deadline=0.2)
    door.echo.root = Endpoint("echo", Guided(door), revision=7, versions=versions, policy=policy)
    with grpc.insecure_channel(f"127.0.0.1:{door.port}", options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield channel


def answered(channel: grpc.Channel, path: str, message: bytes, *metadata: tuple[str, str]) -> Said:
    answer, call = channel.unary_unary(path).with_call(message, metadata=metadata, timeout=10)
    assert answer == message
    return {name: value for name, value in call.trailing_metadata() if name.startswith("x-")}


def identity(said: Said) -> tuple[int, int | None]:
    return parse_prediction_id(said.pop("x-prediction-id"))[:2]


@pytest.mark.parametrize("path", [ECHO, PARTS])
@pytest.mark.parametrize("size", [3, 70_000])
def test_an_answer_says_who_gave_it(channel: grpc.Channel, path: str, size: int) -> None:
    for _ in range(2):  # the first answer of a connection goes another way than the next
        said = answered(channel, path, b"x" * size)
        assert identity(said) == (7, 0)
        assert said == {"x-served-by": "echo@1", "x-variant": "1", "x-revision": "7"}


@pytest.mark.parametrize("size", [100, 300_000])  # compressed at once, and in a thread
def test_a_compressed_answer_says_it_too(channel: grpc.Channel, size: int) -> None:
    message = b"x" * size
    answer, call = channel.unary_unary(ECHO).with_call(message, compression=grpc.Compression.Gzip, timeout=10)
    assert answer == message
    assert dict(call.trailing_metadata())["x-served-by"] == "echo@1"


def test_a_degraded_answer_says_why(channel: grpc.Channel, door: DoorThread) -> None:
    said = answered(channel, ECHO, b"x", ("x-cohort", "2"), ("x-why", "predicted_timeout"))
    record = door.records.records[-1]
    assert record.prediction_id == said["x-prediction-id"]
    assert (record.version, record.variant, record.degraded) == ("1", "2", "predicted_timeout")
    assert identity(said) == (7, 1)
    assert said == {
        "x-served-by": "echo@1",
        "x-variant": "2",
        "x-revision": "7",
        "x-degraded": "predicted_timeout",
    }


@pytest.mark.parametrize(
    ("message", "code"), [(b"full:", "UNAVAILABLE"), (b"raise:", "INTERNAL"), (b"wait:", "DEADLINE_EXCEEDED")]
)
def test_a_failure_says_whose_it_is(channel: grpc.Channel, door: DoorThread, message: bytes, code: str) -> None:
    with pytest.raises(grpc.RpcError) as error:
        channel.unary_unary(ECHO)(message, timeout=10)
    assert error.value.code().name == code
    said = {name: value for name, value in error.value.trailing_metadata() if name.startswith("x-")}
    assert identity(said) == (7, 0)
    assert said == {"x-served-by": "echo@1", "x-variant": "1", "x-revision": "7"}
    assert door.records.records[-1].version == "1"
    assert (door.records.records[-1].code is Code.DEADLINE_EXCEEDED) == (message == b"wait:")


def test_names_are_safe_in_metadata(channel: grpc.Channel, door: DoorThread) -> None:
    door.echo.root = Endpoint("\u00e4 \r\nx", Guided(door), versions={"1": ""})
    said = answered(channel, ECHO, b"x")
    assert said["x-served-by"] == "%C3%A4%20%0D%0Ax@1"


def test_without_an_endpoint_nothing_is_said(channel: grpc.Channel, door: DoorThread) -> None:
    door.echo.root = door.echo
    assert answered(channel, ECHO, b"x") == {}
    assert channel.unary_unary(UPPER)(b"abc") == b"ABC"
    assert list(channel.stream_stream(CHAT)(iter([b"a", b"b"]))) == [b"a", b"b"]


def test_steps_are_asked_for_by_metadata(channel: grpc.Channel, door: DoorThread) -> None:
    for value, wanted in (("true", True), ("0", False), (None, False)):
        answered(channel, ECHO, b"x", *([("x-explain", value)] if value else []))
        journey = door.codec.contexts[-1].journey
        assert journey is not None
        assert (journey.steps is not None) == wanted
        if wanted:
            assert [step.node for step in journey.steps or ()] == ["version", "endpoint"]
    with pytest.raises(grpc.RpcError) as error:
        channel.unary_unary(ECHO)(b"x", metadata=[("x-explain", "maybe")], timeout=10)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "x-explain: neither yes nor no" in error.value.details()


def test_metadata_that_is_no_text_is_readable() -> None:
    fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/x"), (b"content-type", b"application/grpc")]
    head = read_head(Block([*fields, (b"x-odd", b"\xff\xfe"), (b"x-odd", b"later")], too_large=False), {})
    assert head.header("x-odd") == "\ufffd\ufffd"
    assert not read_flag(None)
