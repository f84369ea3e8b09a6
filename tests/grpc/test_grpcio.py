"""Google's own clients, unchanged, against the door: every kind of call, and the odd things people do to them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_door import CHAT, COUNT, ECHO, PARTS, SLEEP, TOTAL, UPPER, DoorThread, until

from turnout.core.errors import Code
from turnout.entrypoints.grpc import GrpcLimits

BIG = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
]


@pytest.fixture
def channel(door: DoorThread) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"127.0.0.1:{door.port}", options=BIG) as channel:
        yield channel


def status(error: pytest.ExceptionInfo[grpc.RpcError]) -> tuple[grpc.StatusCode, str]:
    return error.value.code(), error.value.details()


def test_unary(channel: grpc.Channel) -> None:
    for size in (0, 1, 100, 16_379, 16_380, 65_535, 65_536, 300_000):
        message = bytes(range(256)) * (size // 256) + b"." * (size % 256)
        assert channel.unary_unary(ECHO)(message, timeout=10) == message
        assert channel.unary_unary(PARTS)(message, timeout=10) == message
    assert channel.unary_unary(UPPER)(b"abc") == b"ABC"


@pytest.mark.parametrize("size", [10_000_000, 64 * 1024 * 1024])
def test_large_messages_both_ways(channel: grpc.Channel, size: int) -> None:
    message = b"0123456789abcdef" * (size // 16)
    assert channel.unary_unary(PARTS)(message, timeout=30) == message


def test_a_message_over_the_limit(new_door: Callable[..., DoorThread]) -> None:
    door = new_door(limits=GrpcLimits(max_message_bytes=1000))
    with grpc.insecure_channel(f"127.0.0.1:{door.port}", options=BIG) as channel:
        call = channel.unary_unary(ECHO)
        assert call(b"x" * 1000) == b"x" * 1000
        for size in (1001, 100_000, 5_000_000):
            with pytest.raises(grpc.RpcError) as error:
                call(b"x" * size)
            assert status(error)[0] == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "at most 1000" in status(error)[1]
        with pytest.raises(grpc.RpcError) as error:
            call(b"x" * 100_000, compression=grpc.Compression.Gzip)
        assert status(error)[0] == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert call(b"still") == b"still"


@pytest.mark.parametrize(
    ("message", "code", "details"),
    [
        (b"bad:", grpc.StatusCode.INVALID_ARGUMENT, "inputs[0]: not good; expected good; got bad"),
        (b"missing:", grpc.StatusCode.NOT_FOUND, "there is no model 'missing'"),
        (b"late:", grpc.StatusCode.DEADLINE_EXCEEDED, "too late: 100 % ünfair\n"),
        (b"full:", grpc.StatusCode.UNAVAILABLE, "the queue is full"),
    ],
)
def test_failures(channel: grpc.Channel, message: bytes, code: grpc.StatusCode, details: str) -> None:
    with pytest.raises(grpc.RpcError) as error:
        channel.unary_unary(ECHO)(message)
    assert status(error) == (code, details)
    if message == b"full:":
        assert ("grpc-retry-pushback-ms", "1500") in error.value.trailing_metadata()


def test_an_unknown_exception_tells_nothing(channel: grpc.Channel, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(grpc.RpcError) as error:
        channel.unary_unary(ECHO)(b"raise:")
    code, details = status(error)
    assert code == grpc.StatusCode.INTERNAL
    assert "secret" not in details
    assert "RuntimeError" not in details
    assert "a secret of /home/somebody" in caplog.text


def test_an_unknown_method(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as error:
        channel.unary_unary("/no.Such/Thing")(b"")
    assert status(error) == (grpc.StatusCode.UNIMPLEMENTED, "there is no method /no.Such/Thing")


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compression_both_ways(channel: grpc.Channel, compression: grpc.Compression) -> None:
    for size in (10, 5_000, 2_000_000):
        message = b"abcdefgh" * (size // 8)
        answer, call = channel.unary_unary(PARTS).with_call(message, compression=compression)
        assert answer == message
        assert dict(call.initial_metadata()).get("grpc-accept-encoding", "gzip")
    answers = channel.stream_stream(CHAT)(iter([b"x" * 5000, b"y", b"z" * 90_000]), compression=compression)
    assert list(answers) == [b"x" * 5000, b"y", b"z" * 90_000]


def test_metadata(door: DoorThread, channel: grpc.Channel) -> None:
    metadata = [("x-request-id", "id-1"), ("a", "b"), ("a", "c"), ("blob-bin", bytes(range(256))), ("empty", "")]
    channel.unary_unary(ECHO)(b"m", metadata=metadata)
    assert door.codec.contexts[-1].id == "id-1"
    assert door.records.records[-1].request_id == "id-1"
    channel.unary_unary(ECHO)(b"m")
    assert door.codec.contexts[-1].id == ""


def test_too_much_metadata_ends_only_the_call(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as error:
        channel.unary_unary(ECHO)(b"m", metadata=[("big", "x" * 20_000)])
    assert status(error)[0] == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert channel.unary_unary(ECHO)(b"m") == b"m"


def test_records(door: DoorThread, channel: grpc.Channel) -> None:
    channel.unary_unary(ECHO)(b"12345")
    record = door.records.records[-1]
    assert (record.model, record.version, record.protocol, record.code) == ("echo", "1", "grpc", Code.OK)
    assert (record.rows, record.bytes_in, record.bytes_out, record.batch_rows) == (1, 5, 10, 1)
    assert record.peer.startswith("127.0.0.1:")
    assert 0 <= record.decode <= record.total < 5
    with pytest.raises(grpc.RpcError):
        channel.unary_unary(ECHO)(b"missing:")
    record = door.records.records[-1]
    assert (record.model, record.code) == ("", Code.NOT_FOUND)


def test_a_deadline_ends_the_prediction(door: DoorThread, channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as error:
        channel.unary_unary(ECHO)(b"wait:", timeout=0.1)
    assert status(error)[0] == grpc.StatusCode.DEADLINE_EXCEEDED
    until(lambda: door.echo.cancelled == 1)


def test_the_default_deadline(new_door: Callable[..., DoorThread]) -> None:
    door = new_door(default_deadline=0.1)
    with grpc.insecure_channel(f"127.0.0.1:{door.port}", options=BIG) as channel:
        with pytest.raises(grpc.RpcError) as error:
            channel.unary_unary(ECHO)(b"wait:")
        assert status(error)[0] == grpc.StatusCode.DEADLINE_EXCEEDED
    assert door.records.records[-1].code == Code.DEADLINE_EXCEEDED


def test_cancelling_ends_the_prediction(door: DoorThread, channel: grpc.Channel) -> None:
    call = channel.unary_unary(ECHO).future(b"wait:")
    until(lambda: len(door.echo.waiting) == 1)
    call.cancel()
    until(lambda: door.echo.cancelled == 1)
    until(lambda: bool(door.records.records))
    assert door.records.records[-1].code == Code.CANCELLED
    assert channel.unary_unary(ECHO)(b"next") == b"next"


def test_closing_the_channel_ends_everything(door: DoorThread) -> None:
    channel = grpc.insecure_channel(f"127.0.0.1:{door.port}", options=BIG)
    calls = [channel.unary_unary(ECHO).future(b"wait:") for _ in range(10)]
    chat = channel.stream_stream(SLEEP)(iter([b"one"]))
    assert next(chat) == b"one"
    until(lambda: len(door.echo.waiting) == 10)
    channel.close()
    until(lambda: door.echo.cancelled == 10 and door.streams.ended == 1)
    assert all(call.done() for call in calls)


def test_streams(channel: grpc.Channel) -> None:
    sent = [b"a", b"", b"b" * 100_000, b"c" * 3_000_000]
    assert list(channel.stream_stream(CHAT)(iter(sent))) == sent
    assert list(channel.stream_stream(CHAT)(iter([]))) == []
    assert len(list(channel.unary_stream(COUNT)(b"1000 10"))) == 1000
    assert [len(m) for m in channel.unary_stream(COUNT)(b"3 2000000")] == [2_000_000] * 3
    assert channel.stream_unary(TOTAL)(iter(b"x" * n for n in range(500))) == str(sum(range(500))).encode()


def test_a_conversation(channel: grpc.Channel) -> None:
    """Each answer is there before the next question is asked."""
    questions: list[bytes] = [b"0"]
    turn = threading.Semaphore(1)

    def ask() -> Iterator[bytes]:
        for _ in range(20):
            assert turn.acquire(timeout=10)
            yield questions[-1]

    for answer in channel.stream_stream(CHAT)(ask()):
        assert answer == questions[-1]
        questions.append(str(len(questions)).encode())
        turn.release()
    assert len(questions) == 21


@pytest.mark.parametrize(
    ("word", "code"), [(b"fail", grpc.StatusCode.INVALID_ARGUMENT), (b"raise", grpc.StatusCode.INTERNAL)]
)
def test_a_stream_that_fails_in_the_middle(
    door: DoorThread, channel: grpc.Channel, word: bytes, code: grpc.StatusCode
) -> None:
    answers = channel.stream_stream(CHAT)(iter([b"one", word, b"two"]))
    assert next(answers) == b"one"
    with pytest.raises(grpc.RpcError) as error:
        next(answers)
    assert status(error)[0] == code
    assert "secret" not in status(error)[1]
    until(lambda: door.streams.ended == 1)


def test_a_stream_cancelled_or_late_closes_its_generator(door: DoorThread, channel: grpc.Channel) -> None:
    answers = channel.stream_stream(SLEEP)(iter([b"one", b"two"]))
    assert next(answers) == b"one"
    answers.cancel()
    until(lambda: door.streams.ended == 1)
    answers = channel.stream_stream(SLEEP)(iter([b"one", b"two"]), timeout=0.2)
    with pytest.raises(grpc.RpcError) as error:
        list(answers)
    assert status(error)[0] == grpc.StatusCode.DEADLINE_EXCEEDED
    until(lambda: door.streams.ended == 2)


def test_a_reader_that_stops_stops_the_generator(door: DoorThread, channel: grpc.Channel) -> None:
    """Nothing runs ahead of a client that does not read: windows and buffers fill, then the method waits."""
    answers = channel.unary_stream(COUNT)(b"100000 10000")
    next(answers)
    seen = -1
    pause = threading.Event()
    while seen != door.streams.produced:
        seen = door.streams.produced
        pause.wait(0.15)
    assert seen < 5_000
    answers.cancel()
    until(lambda: door.streams.ended == 1)


def test_a_writer_is_held_back_by_a_method_that_does_not_read(new_door: Callable[..., DoorThread]) -> None:
    door = new_door(limits=GrpcLimits(stream_window_bytes=100_000))
    with grpc.insecure_channel(f"127.0.0.1:{door.port}", options=BIG) as channel:
        written = 0

        def write() -> Iterator[bytes]:
            nonlocal written
            for _ in range(10_000):
                written += 1
                yield b"x" * 10_000

        answers = channel.stream_stream(SLEEP)(write())
        next(answers)
        seen = -1
        pause = threading.Event()
        while seen != written:
            seen = written
            pause.wait(0.15)
        assert door.call(lambda: door.door._calls.held) <= 110_000
        assert written < 100
        answers.cancel()
        until(lambda: door.streams.ended == 1)
        assert door.call(lambda: door.door._calls.held) == 0


def test_keepalive_without_calls(new_door: Callable[..., DoorThread]) -> None:
    door = new_door()
    options = [
        *BIG,
        ("grpc.keepalive_time_ms", 100),
        ("grpc.keepalive_timeout_ms", 1000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]
    with grpc.insecure_channel(f"127.0.0.1:{door.port}", options=options) as channel:
        assert channel.unary_unary(ECHO)(b"m") == b"m"
        states: list[grpc.ChannelConnectivity] = []
        channel.subscribe(states.append)
        threading.Event().wait(0.6)
        assert grpc.ChannelConnectivity.TRANSIENT_FAILURE not in states
        assert door.door.connections == 1
        assert channel.unary_unary(ECHO)(b"m") == b"m"


def test_wait_for_ready(new_door: Callable[..., DoorThread]) -> None:
    first = new_door()
    with grpc.insecure_channel(f"127.0.0.1:{first.port}", options=BIG) as channel:
        assert channel.unary_unary(ECHO)(b"1", wait_for_ready=True, timeout=10) == b"1"


def test_a_thousand_concurrent_calls(door: DoorThread) -> None:
    async def run() -> None:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{door.port}", options=BIG) as channel:
            call = channel.unary_unary(ECHO)
            waiting = [asyncio.ensure_future(call(b"wait:%d" % n)) for n in range(1000)]
            while len(door.echo.waiting) < 1000:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            others = channel.stream_stream(CHAT)
            door.call(door.echo.release)
            assert await asyncio.gather(*waiting) == [b"wait:%d" % n for n in range(1000)]
            stream = others()
            for n in range(50):
                await stream.write(b"%d" % n)
                assert await stream.read() == b"%d" % n
            await stream.done_writing()
            assert await stream.read() is grpc.aio.EOF
            assert await stream.code() == grpc.StatusCode.OK

    asyncio.run(run())


def test_aio_cancel_and_deadline(door: DoorThread) -> None:
    async def run() -> None:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{door.port}", options=BIG) as channel:
            call = channel.unary_unary(ECHO)(b"wait:")
            while not door.echo.waiting:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await channel.unary_unary(ECHO)(b"wait:", timeout=0.05)
            assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED

    asyncio.run(run())
    until(lambda: door.echo.cancelled == 2)


def test_draining_loses_nothing(new_door: Callable[..., DoorThread]) -> None:
    """Calls go on while one server drains and another is there: every single one is answered."""
    first, second = new_door(), new_door()
    answered: list[bytes] = []
    failed: list[Any] = []
    stop = threading.Event()
    options = [*BIG, ("grpc.lb_policy_name", "pick_first")]
    target = f"ipv4:127.0.0.1:{first.port},127.0.0.1:{second.port}"

    def work(number: int) -> None:
        with grpc.insecure_channel(target, options=options) as channel:
            call = channel.unary_unary(ECHO)
            count = 0
            while not stop.is_set():
                message = b"%d/%d" % (number, count)
                count += 1
                try:
                    answered.append(call(message, timeout=10))
                except grpc.RpcError as error:
                    failed.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: len(answered) > 200)
    with grpc.insecure_channel(f"127.0.0.1:{first.port}", options=BIG) as channel:
        slow = [channel.unary_unary(ECHO).future(b"wait:%d" % n) for n in range(20)]
        until(lambda: len(first.echo.waiting) == 20)
        draining = first.begin(first.door.drain())
        before = len(answered)
        until(lambda: len(answered) > before + 200)
        assert not draining.done()
        first.call(first.echo.release)
        assert [call.result(10) for call in slow] == [b"wait:%d" % n for n in range(20)]
        draining.result(10)
    stop.set()
    for thread in threads:
        thread.join(10)
    assert failed == []
    assert first.door.connections == 0
    assert second.echo.started > 0


def test_closing_the_door_tells_the_clients(new_door: Callable[..., DoorThread]) -> None:
    door = new_door()
    with grpc.insecure_channel(f"127.0.0.1:{door.port}", options=BIG) as channel:
        call = channel.unary_unary(ECHO).future(b"wait:")
        until(lambda: len(door.echo.waiting) == 1)
        door.run(door.door.close())
        with pytest.raises(grpc.RpcError) as error:
            call.result(10)
        assert status(error)[0] == grpc.StatusCode.UNAVAILABLE
        assert door.echo.cancelled == 1
