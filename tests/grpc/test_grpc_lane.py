"""The short way of gRPC calls: it takes usual ones, and answers them as the long way does."""

from __future__ import annotations

import asyncio
import json
import math
import re
import struct
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire import PREFACE, block, call, data, fields, frame, headers, message

from tests.lanes import FLOATS, Rooms, Sums, Wire, passes, record_of
from turnout.core.errors import Code, Failure, InvalidInput, ModelFailed, WorkerDied
from turnout.core.signature import Signature, TensorSpec
from turnout.entrypoints.grpc import GrpcLimits, lane
from turnout.entrypoints.grpc import connection as connections
from turnout.entrypoints.grpc.calls import Calls
from turnout.entrypoints.grpc.connection import Connection
from turnout.monitoring.access_log import AccessLog
from turnout.monitoring.fanout import Fanout
from turnout.monitoring.metrics import Metrics
from turnout.monitoring.record import Observer
from turnout.protocols.grpc import GrpcMethod
from turnout.protocols.grpc_messages import message_class
from turnout.protocols.v2_grpc import GRPC_METHODS
from turnout.protocols.v2_grpc_infer import JOIN_BELOW, ModelInferCodec
from turnout.runtime.batch_policy import BatchPolicy
from turnout.runtime.predict import Outcome
from turnout.runtime.replica import Inline

pytestmark = pytest.mark.skipif(lane.receive is lane.nothing, reason="the lane is not compiled here")

INFER = "/inference.GRPCInferenceService/ModelInfer"
Request, Response = message_class("inference.ModelInferRequest"), message_class("inference.ModelInferResponse")


houses: list[House] = []


class House(Rooms):
    """A gRPC door with one model, and connections to it that are no sockets. Lives in a running loop."""

    def __init__(
        self, signature: Signature = FLOATS, *, held: bool = False, observer: Observer | None = None,
        policy: BatchPolicy | None = None, deadline: float = 30.0, limits: GrpcLimits | None = None,
    ) -> None:  # fmt: skip
        super().__init__(signature, held=held, policy=policy)
        loop, seen = asyncio.get_running_loop(), observer or self.records
        fresh = [GrpcMethod(one.path, infer=ModelInferCodec()) if one.infer else one for one in GRPC_METHODS]
        self.calls = Calls(loop, self.serving, fresh, seen, limits or GrpcLimits(), deadline)
        self.lines: list[Line] = []
        houses.append(self)

    def connect(self, **settings: int) -> Line:
        line = Line(self, {int(name[1:]): value for name, value in settings.items()})
        self.lines.append(line)
        return line

    def opened(self, _connection: Connection) -> str:
        return ""

    def closed(self, _connection: Connection) -> None:
        """Keeps no count."""

    async def ask(self, *messages: bytes, **changes: str | None) -> bytes:
        """The answers to one call after the other on one connection."""
        line = self.connect()
        for number, one in enumerate(messages):
            line.send(call(2 * number + 1, one, fields(INFER, **changes)))
            await passes()
        return line.wire.written


class Line:
    """One connection, greeted."""

    def __init__(self, house: House, settings: dict[int, int]) -> None:
        self.connection = Connection(house.calls, memoryview(bytearray(1 << 18)), house)
        self.wire = Pipe()
        self.connection.connection_made(self.wire)
        self.send(PREFACE + frame(4, 0, 0, b"".join(struct.pack(">HI", *one) for one in settings.items())))

    def send(self, sent: bytes) -> None:
        self.connection.get_buffer(-1)[: len(sent)] = sent
        self.connection.buffer_updated(len(sent))


class Pipe(Wire):
    """Keeps what is written, also in parts."""

    def writelines(self, list_of_data: Any) -> None:
        self.written += b"".join(map(bytes, list_of_data))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


def infer(*rows: Any, id: str = "r-1", datatype: str = "FP32", shape: Any = None, **more: Any) -> bytes:
    flat = np.array([value for row in rows for value in row], more.pop("dtype", np.float32))
    request = Request(model_name="m", id=id, **more)
    request.inputs.add(name="x", datatype=datatype, shape=[len(rows), len(rows[0])] if shape is None else shape)
    request.raw_input_contents.append(flat.tobytes())
    made: bytes = request.SerializeToString()
    return made


def masked(answers: bytes) -> bytes:
    """Without what differs from answer to answer."""
    return re.sub(rb"R0-0-[0-9a-f]{24}", b"R0-0-" + b"I" * 24, answers)


@pytest.fixture
def took(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes of each piece went the short way; what is given back to the connection does not count."""
    said: list[int] = []

    def receive(connection: Any, received: Any) -> int:
        given = 0

        class Seen:
            def __getattr__(self, name: str) -> Any:
                return getattr(connection, name)

            def _frame(self, *frame: Any) -> None:
                nonlocal given
                given += 9 + len(frame[-1])
                connection._frame(*frame)

        done = lane.receive(Seen(), received)
        said.append(done - given)
        return done

    monkeypatch.setattr(connections, "receive", receive)
    return said


def both(ask: Callable[[], Any]) -> tuple[Any, Any]:
    """The same on the short way and on the long one."""
    short = asyncio.run(left(ask))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connections, "receive", lane.nothing)
        return short, asyncio.run(left(ask))


async def left(ask: Callable[[], Any]) -> Any:
    """What it gives; then all clients leave, so that nothing goes on waiting."""
    houses.clear()
    found = await ask()
    for house in houses:
        for line in house.lines:
            line.connection.connection_lost(None)
    await passes()
    return found


def answered(written: bytes) -> dict[int, Any]:
    """The messages of the answers by their streams."""
    found, at = {}, 0
    while at < len(written):
        word, _, stream = struct.unpack_from(">IBI", written, at)
        if word & 255 == 0:
            found[stream] = Response.FromString(written[at + 14 : at + 9 + (word >> 8)])
        at += 9 + (word >> 8)
    return found


USUAL = [
    infer([1, 2.5, -3e2, 0.1]),
    infer([1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]),
    infer([0.1, math.nan, math.inf, -0.0], id=""),
    infer([1, 2, 3, 4], id="x" * 300),
]
FOUR = infer([1, 2, 3, 4])
ODD = [
    b"",
    b"\x0a",
    b"\x0a\x05m",
    infer([1, 2, 3, 4], model_version="1"),
    infer([1, 2, 3, 4], model_version="7"),
    infer([1, 2, 3, 4], model_version="seven"),
    infer([1, 2, 3, 4], id="ü"),
    infer([1, 2, 3, 4], id="\n"),
    infer([1, 2, 3, 4], datatype="FP64"),
    infer([1, 2, 3, 4], datatype="INT32"),
    infer([1, 2, 3, 4], datatype="WHAT"),
    infer([1, 2, 3]),
    infer([1, 2, 3, 4, 5], shape=[1, 4]),
    infer([1, 2, 3], shape=[1, 4]),
    infer([1, 2, 3, 4], shape=[4]),
    infer([1, 2, 3, 4], shape=[0, 4]),
    infer([1, 2, 3, 4], shape=[-1, 4]),
    infer([1, 2, 3, 4], shape=[2**62, 4]),
    infer([1, 2, 3, 4], outputs=[{"name": "z"}]),
    infer([1, 2, 3, 4], outputs=[{"name": "q"}]),
    infer([1, 2, 3, 4], parameters={"a": {"int64_param": 1}}),
    infer([1, 2, 3, 4], parameters={"explain": {"bool_param": True}}),
    infer([666, 2, 3, 4]),
    infer([13, 2, 3, 4]),
    FOUR + FOUR,
    FOUR + b"\x1a\x01b",
    FOUR[:-1],
    FOUR + b"\x3a\x00",
    FOUR + b"\x3a\x80\x00",
    FOUR + b"\x42\x00",
    b"\x1a\x02id" + FOUR.replace(b"\x1a\x03r-1", b""),
    FOUR.replace(b"\x1a\x03r-1", b"\x1a\x00"),
    FOUR.replace(b"\x1a\x03r-1", b"\x1a\x83\x00r-1"),
    FOUR.replace(b"\x1a\x03r-1", b"\x1a\x03r\xff1"),
    FOUR.replace(b"\x1a\x03r-1", b"\x1a\x03r-1\x1a\x03r-2"),
]


def timeless(answers: bytes) -> bytes:
    """Without what an explanation says of times, the sizes of which differ with them."""
    return b"" if b"seconds" in answers else masked(answers)


@pytest.mark.parametrize("sent", USUAL)
def test_a_usual_call_is_taken_and_answered_as_any_other(sent: bytes, took: list[int]) -> None:
    async def ask() -> bytes:
        return await House().ask(sent, sent, sent)

    short, long = both(ask)
    whole = len(call(1, sent, fields(INFER)))
    assert took[-3:] == [0, whole, whole]  # the first head has to be read by who knows how
    assert masked(short) == masked(long)
    assert len(answered(short)) == 3


@pytest.mark.parametrize("sent", ODD)
def test_any_other_call_is_answered_as_if_there_were_no_lane(sent: bytes) -> None:
    async def ask() -> bytes:
        return await House().ask(USUAL[0], sent, sent, USUAL[0])

    short, long = both(ask)
    assert timeless(short) == timeless(long)


@given(st.data())
def test_a_damaged_call_is_answered_as_if_there_were_no_lane(drawn: st.DataObject) -> None:
    sent = bytearray(drawn.draw(st.sampled_from(USUAL)))
    for _ in range(drawn.draw(st.integers(1, 3))):
        place = drawn.draw(st.integers(0, len(sent) - 1))
        kind = drawn.draw(st.sampled_from(["set", "drop", "put"]))
        if kind == "set":
            sent[place] = drawn.draw(st.integers(0, 255))
        elif kind == "drop":
            del sent[place]
        else:
            sent[place:place] = bytes([drawn.draw(st.sampled_from([0, 1, 10, 26, 42, 50, 58, 128, 255]))])

    async def ask() -> bytes:
        return await House().ask(USUAL[0], bytes(sent), bytes(sent), USUAL[0])

    short, long = both(ask)
    assert masked(short) == masked(long)


@given(st.data())
def test_frames_may_come_in_any_pieces_and_any_order(drawn: st.DataObject) -> None:
    """Calls, control frames and cut-off frames on one connection, cut anywhere."""
    kinds = st.sampled_from(["call", "call", "call", "ping", "window", "slow", "bare", "reset", "other", "padded"])
    sent, number, open_ = b"", -1, []
    for kind in drawn.draw(st.lists(kinds, min_size=1, max_size=12)):
        number += 2
        if kind == "call":
            sent += call(number, USUAL[number // 2 % 3], fields(INFER))
        elif kind == "ping":
            sent += frame(6, 0, 0, b"12345678")
        elif kind == "window":
            sent += frame(8, 0, drawn.draw(st.sampled_from([0, 1, 3])), struct.pack(">I", 1000))
        elif kind == "slow":
            sent += headers(number, block(fields(INFER)))
            open_.append(number)
        elif kind == "bare" and open_:
            sent += data(open_.pop(), message(FOUR), end=True)
        elif kind == "reset":
            sent += frame(3, 0, drawn.draw(st.integers(0, number // 2)) * 2 + 1, b"\0\0\0\x08")
        elif kind == "other":
            sent += call(number, b"", fields("/inference.GRPCInferenceService/ServerLive"))
        elif kind == "padded":
            sent += headers(number, block(fields(INFER))) + frame(0, 9, number, b"\x02" + message(FOUR) + b"\0\0")
    cuts = sorted(drawn.draw(st.lists(st.integers(0, len(sent)), max_size=6)))

    async def ask() -> bytes:
        house = House()
        line = house.connect()
        for start, stop in zip([0, *cuts], [*cuts, len(sent)], strict=True):
            if start < stop and not line.wire.closed:
                line.send(sent[start:stop])
            await passes()
        return line.wire.written

    short, long = both(ask)
    assert masked(short) == masked(long)


@pytest.mark.parametrize("datatype", ["FP32", "FP64", "INT32", "INT64"])
def test_it_takes_every_type_that_it_says(datatype: str, took: list[int]) -> None:
    signature = Signature(
        (TensorSpec("x", datatype, (-1, 2, 3)),),
        (TensorSpec("y", datatype, (-1, 3, 2)), TensorSpec("b", "BOOL", (-1,)), TensorSpec("h", "INT8", (-1, 1))),
    )
    rows = [1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]
    sent = infer(*rows, shape=[2, 2, 3], datatype=datatype, dtype=signature.inputs[0].dtype)

    async def ask() -> bytes:
        return await House(signature).ask(sent, sent)

    short, long = both(ask)
    assert took[-1] > 0
    assert masked(short) == masked(long)
    assert answered(short)[3].outputs[0].shape == [2, 3, 2]


def test_what_is_no_array_of_plain_numbers_goes_the_long_way() -> None:
    signature = Signature((TensorSpec("x", "FP32", (-1, 4)),), (TensorSpec("y", "BYTES", (-1,)),))

    async def ask() -> bytes:
        house = House(signature, held=True)
        line = house.connect()
        for number, made in enumerate((np.array([b"one"], object), np.array([[1.0]], ">f4"), np.zeros((0,), np.int8))):
            line.send(call(2 * number + 1, FOUR, fields(INFER)))
            await passes()
            house.place.end(Outcome({"y": made}, (), 0.001))
            await passes()
        return line.wire.written

    short, long = both(ask)
    assert masked(short) == masked(long)


def test_an_answer_that_is_too_long_for_the_short_way_is_not_copied_for_it() -> None:
    class Counted(np.ndarray[Any, Any]):
        copies = 0

        def tobytes(self, order: Any = None) -> bytes:
            Counted.copies += 1
            return super().tobytes(order)

    async def ask() -> tuple[list[int], bytes]:
        house = House(held=True)
        line = house.connect()
        copies = []
        for number, width in enumerate((3, 3, JOIN_BELOW // 4, 3)):
            line.send(call(2 * number + 1, FOUR, fields(INFER)))
            await passes()
            made = np.arange(width, dtype=np.float32).reshape(1, width)
            Counted.copies = 0
            house.place.end(Outcome({"y": made.view(Counted)}, (), 0.001))
            await passes()
            copies.append(Counted.copies)
        return copies, line.wire.written

    (short_copies, short), (long_copies, long) = both(ask)
    assert masked(short) == masked(long)
    assert long_copies[2] == short_copies[2], "the long way makes its own, and only once"
    assert short_copies[1] == 1


def test_an_array_of_another_size_than_it_says_goes_the_long_way() -> None:
    class Odd(np.ndarray[Any, Any]):
        def tobytes(self, order: Any = None) -> bytes:
            return super().tobytes(order) * 100

    async def ask() -> bytes:
        house = House(held=True)
        line = house.connect()
        for number in range(3):
            line.send(call(2 * number + 1, FOUR, fields(INFER)))
            await passes()
            made = np.ones((1, 3), np.float32).view(Odd)
            house.place.end(Outcome({"y": made}, (), 0.001))
            await passes()
        return line.wire.written

    short, long = both(ask)
    assert masked(short) == masked(long)


def test_a_tensor_without_dimensions_goes_the_long_way(caplog: pytest.LogCaptureFixture) -> None:
    async def ask() -> bytes:
        return await House().ask(FOUR, infer([1.0], shape=[]), infer([1.0], shape=[]), FOUR)

    with caplog.at_level("INFO"):
        short, long = both(ask)
    assert masked(short) == masked(long)
    assert not [record for record in caplog.records if record.exc_info]


def test_each_gets_the_rows_that_are_his(took: list[int]) -> None:
    async def ask() -> list[tuple[int, Any]]:
        house = House(held=True)
        lines = [house.connect() for _ in range(3)]
        for warm in (1, 2, 3):  # so that all heads are known
            lines[0].send(call(2 * warm - 1, infer(*[[0, 0, 0, 0]] * warm), fields(INFER)))
            await passes()
            house.place.answer()
        lines[0].send(call(7, FOUR, fields(INFER)))
        await passes()
        asked = []
        for number in range(1, 13):
            line, stream = lines[number % 3], 2 * number + 11
            rows = [[float(number), row, 0, 0] for row in range(1 + number % 3)]
            line.send(call(stream, infer(*rows, id=f"n{number}"), fields(INFER)))
            asked.append((number, line, stream))
        await passes()
        house.place.answer()
        await passes()
        assert len(house.place.batches[0].items) == 12
        house.place.answer()
        await passes()
        return [(number, answered(line.wire.written)[stream]) for number, line, stream in asked]

    for number, answer in asyncio.run(ask()):
        assert answer.id == f"n{number}"
        rows = 1 + number % 3
        assert list(answer.outputs[0].shape) == [rows, 3]
        sums = np.frombuffer(answer.raw_output_contents[0], np.float32).tolist()
        assert sums == [value for row in range(rows) for value in (number, row, 0)]
        assert np.frombuffer(answer.raw_output_contents[1], np.float64).tolist() == [number] * rows
    assert sum(count > 0 for count in took) >= 8  # the first call of a connection has headers to be read


@pytest.mark.parametrize(
    "failure", [WorkerDied("gone", retry_after=2.0), ModelFailed("it failed"), InvalidInput("bad", field="x")]
)
def test_a_failure_is_told_as_on_the_long_way(failure: Failure, took: list[int]) -> None:
    async def ask() -> tuple[bytes, list[Any], list[Any]]:
        house = House(held=True)
        line = house.connect()
        for number in range(3):
            line.send(call(2 * number + 1, FOUR, fields(INFER)))
            await passes()
            if number == 0:
                house.place.answer()
                continue
            house.place.end(Outcome({}, [failure], 0.001))
            await passes()
        kinds = [(one.variant, one.outcome, one.count) for one in house.version.servable.counts.all()]
        return line.wire.written, [record_of(one) for one in house.records.records], kinds

    short, long = both(ask)
    assert took[-1] > 0
    assert masked(short[0]) == masked(long[0])
    assert short[1:] == long[1:]


def test_counts_records_and_metrics_are_those_of_the_long_way() -> None:
    sent = [*[USUAL[0]] * 5, ODD[0], *USUAL, *USUAL]

    async def ask() -> tuple[list[Any], list[Any], dict[str, Any]]:
        house = House()
        await house.ask(*sent, x_request_id="mine")
        kinds = [(one.variant, one.outcome, one.count) for one in house.version.servable.counts.all()]
        metrics = Metrics()
        counted = House(observer=Fanout(metrics, AccessLog("off")))
        await counted.ask(*sent)
        taken = metrics.snapshot()
        sizes = ("turnout_requests_total", "turnout_request_bytes_total", "turnout_response_bytes_total")
        counts = {name: taken[name] for name in (*sizes, "turnout_request_rows_total")}
        for name in ("turnout_stage_duration_seconds", "turnout_request_duration_seconds"):
            counts[name] = [(labels, sum(values[1:])) for labels, values in taken[name]]
        return [record_of(one) for one in house.records.records], kinds, counts

    short, long = both(ask)
    assert short == long


def test_the_log_gets_its_share_of_records(tmp_path: Any) -> None:
    async def ask() -> list[dict[str, Any]]:
        path = tmp_path / "log"
        path.unlink(missing_ok=True)
        log = AccessLog(str(path), successes=3)
        await House(observer=Fanout(Metrics(), log)).ask(*[USUAL[0]] * 10)
        log.close()
        return [json.loads(line) for line in path.read_text().splitlines()]

    short, long = both(ask)
    for one in (short, long):
        assert [line["event"] for line in one] == ["request"] * 3 + ["left_out"]
        assert one[-1]["successes"] == 7
    assert short[1].keys() == long[1].keys()


@pytest.mark.parametrize("leaves", ["reset", "connection"])
def test_a_client_that_leaves_is_not_waited_for(leaves: str, took: list[int]) -> None:
    async def ask() -> tuple[list[Any], list[Any], bytes]:
        house = House(held=True)
        line = house.connect()
        line.send(call(1, FOUR, fields(INFER)))
        await passes()
        house.place.answer()
        blocking = house.connect()
        blocking.send(call(1, FOUR, fields(INFER)))
        await passes()
        line.wire.written = b""
        line.send(call(3, FOUR, fields(INFER)))
        waiting = house.version.batching.waiting
        assert waiting.rows == 1
        if leaves == "reset":
            line.send(frame(3, 0, 3, b"\0\0\0\x08"))
        else:
            line.connection.connection_lost(None)
        await passes()
        assert waiting.rows == 0
        assert not line.connection.streams.open
        house.place.answer()
        await passes()
        kinds = [(one.outcome, one.count) for one in house.version.servable.counts.all()]
        return [record_of(one) for one in house.records.records], kinds, line.wire.written

    short, long = both(ask)
    assert max(took) > 0
    assert short == long
    assert [one[3] for one in short[0]] == [Code.OK, Code.CANCELLED, Code.OK]
    assert not short[2]


def test_a_client_that_leaves_while_its_batch_runs_costs_the_others_nothing() -> None:
    async def ask() -> tuple[bytes, list[Any]]:
        house = House(held=True)
        line = house.connect()
        line.send(call(1, FOUR, fields(INFER)))
        await passes()
        house.place.answer()
        line.send(call(3, infer([1, 2, 3, 4]), fields(INFER)) + call(5, infer([5, 6, 7, 8]), fields(INFER)))
        await passes()
        line.send(frame(3, 0, 3, b"\0\0\0\x08"))
        await passes()
        house.place.answer()
        await passes()
        return line.wire.written, [one.code for one in house.records.records]

    short, long = both(ask)
    assert masked(short[0]) == masked(long[0])
    assert list(answered(short[0])) == [1, 5]
    assert np.frombuffer(answered(short[0])[5].raw_output_contents[0], np.float32).tolist() == [5, 6, 7]
    assert sorted(one.name for one in short[1]) == sorted(one.name for one in long[1]) == ["CANCELLED", "OK", "OK"]


def test_a_deadline_that_passes_in_the_queue_is_told_in_time(took: list[int]) -> None:
    async def ask() -> bytes:
        house = House(held=True)
        line = house.connect()
        for number, timeout in enumerate(("3S", "30m", "30m")):
            line.send(call(2 * number + 1, FOUR, fields(INFER, grpc_timeout=timeout)))
            await passes()
            if number == 0:
                house.place.answer()
                continue
            for _ in range(100):
                if len(line.connection.streams.open) == 0:
                    break
                await asyncio.sleep(0.01)
            house.place.answer()
            await passes()
        return line.wire.written

    short, long = both(ask)
    assert took[-1] > 0
    assert masked(short) == masked(long)
    assert short.count(b"grpc-status\x014") == 2


def test_a_full_queue_refuses_as_on_the_long_way() -> None:
    async def ask() -> list[bytes]:
        house = House(held=True, policy=BatchPolicy(queue_rows=2, max_rows=1))
        line = house.connect()
        for number in range(6):
            line.send(call(2 * number + 1, FOUR, fields(INFER)))
            await passes()
        refused = masked(line.wire.written)
        while house.place.batches:
            house.place.answer()
            await passes()
        return [refused, masked(line.wire.written)]

    short, long = both(ask)
    assert short[0].count(b"grpc-status\x0214") == long[0].count(b"grpc-status\x0214") > 0
    assert len(answered(short[1])) == len(answered(long[1]))


@pytest.mark.parametrize("settings", [{"s4": 0}, {"s4": 60}, {"s5": 16384}])
def test_what_a_window_does_not_let_out_waits_for_it(settings: dict[str, int], took: list[int]) -> None:
    async def ask() -> bytes:
        house = House()
        line = house.connect(**settings)
        for number in range(3):
            line.send(call(2 * number + 1, FOUR, fields(INFER)))
            await passes()
        before = line.wire.written
        for number in range(3):
            line.send(frame(8, 0, 2 * number + 1, struct.pack(">I", 10_000)))
            await passes()
        line.send(frame(4, 0, 0, struct.pack(">HI", 4, 70_000)))
        line.send(call(7, FOUR, fields(INFER)))
        await passes()
        return before + b"|" + line.wire.written

    short, long = both(ask)
    assert max(took) > 0
    assert masked(short) == masked(long)
    assert b"grpc-status" in short.rpartition(b"|")[2]


def test_the_windows_of_the_connection_are_opened_again_in_time() -> None:
    async def ask() -> tuple[int, int]:
        house = House(limits=GrpcLimits(connection_window_bytes=65_535))
        line = house.connect()
        for number in range(3000):
            line.send(call(2 * number + 1, FOUR, fields(INFER)))
            if number % 50 == 49:
                await passes()
                line.send(frame(8, 0, 0, struct.pack(">I", 20_000)))
        await passes()
        return len(answered(line.wire.written)), line.wire.written.count(b"\0\0\x04\x08\0\0\0\0\0")

    short, long = both(ask)
    assert short[0] == long[0] == 3000
    assert short[1] == long[1] > 3


def test_too_many_streams_are_refused() -> None:
    async def ask() -> bytes:
        house = House(held=True, limits=GrpcLimits(max_streams=3))
        line = house.connect()
        line.send(call(1, FOUR, fields(INFER)))
        await passes()
        house.place.answer()
        line.send(b"".join(call(number, FOUR, fields(INFER)) for number in (3, 5, 7, 9, 11)))
        await passes()
        house.place.answer()
        await passes()
        return line.wire.written

    short, long = both(ask)
    assert masked(short) == masked(long)
    assert sorted(answered(short)) == [1, 3, 5, 7]


def test_calls_that_come_in_one_long_piece_are_all_answered(took: list[int]) -> None:
    async def ask() -> bytes:
        house = House()
        line = house.connect()
        line.send(frame(8, 0, 0, struct.pack(">I", 1 << 20)) + call(1, FOUR, fields(INFER)))
        await passes()
        line.send(b"".join(call(2 * n + 1, infer([n, 0, 0, 0], id=f"n{n}"), fields(INFER)) for n in range(1000, 1900)))
        await passes(8)
        return line.wire.written

    short, long = both(ask)
    assert took[-1] > 1 << 17
    assert masked(short) == masked(long)
    for stream, answer in answered(short).items():
        assert struct.unpack_from("<f", answer.raw_output_contents[0]) == (stream // 2 or 1,)


@pytest.mark.parametrize("stream", [1, 2, 5, 0])
def test_a_stream_identifier_that_may_not_come_is_refused(stream: int) -> None:
    async def ask() -> bytes:
        house = House()
        line = house.connect()
        line.send(call(5, FOUR, fields(INFER)))
        await passes()
        line.send(call(stream, FOUR, fields(INFER)))
        await passes()
        return line.wire.written

    short, long = both(ask)
    assert masked(short) == masked(long)
    assert list(answered(short)) == [5]


def test_a_connection_that_drains_answers_what_it_has() -> None:
    async def ask() -> tuple[bytes, bool]:
        house = House(held=True)
        line = house.connect()
        line.send(frame(4, 1, 0))
        line.send(call(1, FOUR, fields(INFER)))
        await passes()
        house.place.answer()
        line.send(call(3, FOUR, fields(INFER)))
        await passes()
        line.connection.drain()
        line.send(call(5, FOUR, fields(INFER)))
        line.send(frame(6, 1, 0, b"draining"))
        await passes()
        while house.place.batches:
            house.place.answer()
            await passes()
        return line.wire.written, line.wire.closed

    short, long = both(ask)
    assert masked(short[0]) == masked(long[0])
    assert short[1] == long[1]


def test_another_model_behind_the_same_head_is_found_at_once(took: list[int]) -> None:
    async def ask() -> list[bytes]:
        house = House()
        line = house.connect()
        told = []

        async def one(times: int = 1) -> None:
            for _ in range(times):
                line.wire.written = b""
                line.send(call(2 * len(told) + 1, FOUR, fields(INFER)))
                await passes()
                told.append(masked(line.wire.written))

        await one(3)
        other = Signature((TensorSpec("x", "FP32", (-1, 4)),), (TensorSpec("q", "FP32", (-1, 1)),))
        house.serving.model = house.made(other, "2")
        house.serving.model.batching.add_place(Inline("m", Sums(other), house.serving.model.batching.done))
        await one(3)
        house.serving.model.servable.identify("2", "sha256:other")
        await one(3)
        house.serving.model = None
        await one()
        return told

    short, long = both(ask)
    assert short == long
    assert [b"\x0a\x01q" in one for one in short] == [False] * 3 + [True] * 6 + [False]
    assert [b"sha256:other" in one for one in short] == [False] * 6 + [True] * 3 + [False]
    assert [count > 0 for count in took[-10:]] == [False, True, True, False, True, True, False, True, True, False]


def test_what_is_said_of_a_version_is_said_of_its_answers_under_way_too() -> None:
    async def ask() -> bytes:
        house = House(held=True)
        line = house.connect()
        for number in range(3):
            line.send(call(2 * number + 1, FOUR, fields(INFER)))
            await passes()
            if number == 2:
                house.version.servable.identify("1", "sha256:other")
            house.place.answer()
            await passes()
        return line.wire.written

    short, long = both(ask)
    assert masked(short) == masked(long)
    assert short.count(b"sha256:other") == 1


def test_the_twin_that_has_answered_is_named() -> None:
    async def ask() -> bytes:
        house = House(held=True)
        line = house.connect()
        for number, twin in enumerate(("onnx", "onnx", "native", "onnx+native")):
            line.send(call(2 * number + 1, FOUR, fields(INFER)))
            await passes()
            house.place.answer(twin=twin)
            await passes()
        return line.wire.written

    short, long = both(ask)
    assert masked(short) == masked(long)


@pytest.mark.parametrize(
    "changes",
    [
        {"grpc_encoding": "gzip"}, {"grpc_encoding": "gzip", "grpc_accept_encoding": "gzip"}, {"x_explain": "true"},
        {"x_request_id": "mine"}, {"content_length": str(len(message(USUAL[0])))}, {"content_length": "3"},
        {"grpc_timeout": "0n"}, {"grpc_timeout": "soon"}, {"p_method": "GET"}, {"content_type": "text/plain"},
    ],
)  # fmt: skip
def test_a_call_that_asks_for_more_is_given_it(changes: dict[str, str]) -> None:
    async def ask() -> bytes:
        return await House().ask(USUAL[0], USUAL[0], USUAL[0], **changes)

    short, long = both(ask)
    assert timeless(short) == timeless(long)


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What models say to nobody is not shown with a failed test."""
    with caplog.at_level("CRITICAL"):
        yield
