"""The short way: it takes usual requests, and answers them as the long way does."""

from __future__ import annotations

import asyncio
import json
import math
import re
import shutil
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.lanes import FLOATS, Rooms, Sums, Wire, passes, record_of
from turnout.core.errors import Code, InvalidInput, ModelFailed, WorkerDied
from turnout.core.signature import Signature, TensorSpec
from turnout.entrypoints.http import lane, reading
from turnout.entrypoints.http.connection import Connection
from turnout.entrypoints.http.door import HttpDoor
from turnout.monitoring.access_log import AccessLog
from turnout.monitoring.fanout import Fanout
from turnout.monitoring.metrics import Metrics
from turnout.monitoring.record import Observer
from turnout.protocols.v2_rest import V2Rest
from turnout.runtime.batch_policy import BatchPolicy
from turnout.runtime.predict import Outcome
from turnout.runtime.replica import Inline

pytestmark = pytest.mark.skipif(lane.take is lane.never, reason="the lane is not compiled here")


def test_it_is_compiled_where_there_is_a_compiler() -> None:
    assert lane.take is not lane.never or not (shutil.which("cc") or shutil.which("gcc"))


class House(Rooms):
    """An HTTP door with one model, and connections to it that are no sockets. Lives in a running loop."""

    def __init__(
        self, signature: Signature = FLOATS, *, held: bool = False, observer: Observer | None = None,
        policy: BatchPolicy | None = None, deadline: float = 30.0,
    ) -> None:  # fmt: skip
        super().__init__(signature, held=held, policy=policy)
        self.door = HttpDoor(self.serving, [V2Rest()], observer or self.records, default_deadline=deadline)

    def connect(self) -> tuple[Connection, Wire]:
        connection, wire = self.door.connection(), Wire()
        connection.connection_made(wire)
        return connection, wire

    async def ask(self, *bodies: bytes, **headers: str) -> bytes:
        """The answers to one request after the other on one connection."""
        connection, wire = self.connect()
        for body in bodies:
            connection.data_received(post(body, **headers))
            await passes()
        return wire.written


def post(body: bytes, **headers: str) -> bytes:
    fields = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"POST /v2/models/m/infer HTTP/1.1\r\nHost: h\r\n{fields}Content-Length: {len(body)}\r\n\r\n".encode() + body


def body(*rows: Any, id: str | None = "r-1", datatype: str = "FP32", name: str = "x", shape: Any = None) -> bytes:
    flat = [value for row in rows for value in row]
    shape = [len(rows), len(rows[0])] if shape is None else shape
    said: dict[str, Any] = {} if id is None else {"id": id}
    said["inputs"] = [{"name": name, "shape": shape, "datatype": datatype, "data": flat}]
    return json.dumps(said).encode()


def masked(answers: bytes) -> bytes:
    """Without what differs from answer to answer: ids and dates."""
    answers = re.sub(rb"R0-0-[0-9a-f]{24}", b"R0-0-ID", answers)
    return re.sub(rb"Date: [^\r]*", b"Date: D", answers)


@pytest.fixture
def took(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """What the lane said of each piece of data."""
    said: list[bool] = []

    def take(connection: Any, data: bytes) -> bool:
        said.append(lane.take(connection, data))
        return said[-1]

    monkeypatch.setattr(reading, "take", take)
    return said


def both(ask: Callable[[], Any]) -> tuple[Any, Any]:
    """The same on the short way and on the long one."""
    short = asyncio.run(ask())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "take", lane.never)
        return short, asyncio.run(ask())


USUAL = [
    body([1, 2.5, -3e2, 0.1]),
    body([1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]),
    body([0.1, 1e-45, 3.4028234e38, -0.0], id=None),
    b' {"inputs" : [ { "datatype":"FP32",\n"shape" :[ 1 ,4],"name":"x","data": [ 1 , 2,3,4 ] } ] , "id":"a"}\t',
    body([123456789012345678901234567890, 1.0000000596046448, 0.30000000000000004, 1e-300]),
    body([2**53 + 1, 9007199254740993.0, 1.7976931348623157e10, 5e-324]),
]
FOUR = body([1, 2, 3, 4])
ODD = [
    b"",
    b"{",
    b"[]",
    b"{}",
    b"nothing",
    b'{"inputs":[]}',
    b'{"inputs":[{}]}',
    b'{"inputs":{}}',
    b'{"inputs":null}',
    body([1, 2, 3, 4], id=""),
    body([1, 2, 3, 4], id='q"\\'),
    body([1, 2, 3, 4], id="ü"),
    body([1, 2, 3, 4], name="y"),
    body([1, 2, 3, 4], datatype="FP64"),
    body([1, 2, 3, 4], datatype="FP16"),
    body([1, 2, 3, 4], datatype="INT64"),
    body([1, 2, 3, 4], datatype="WHAT"),
    body([1, 2, 3]),
    body([1, 2, 3, 4, 5]),
    body([1, 2, 3, 4], shape=[2, 4]),
    body([1, 2, 3, 4], shape=[1, 3]),
    body([1, 2, 3, 4], shape=[4]),
    body([1, 2, 3, 4], shape=[1, 4, 1]),
    body([1, 2, 3, 4], shape=[-1, 4]),
    body([1, 2, 3, 4], shape=[1.0, 4]),
    body([1, 2, 3, 4], shape=[]),
    body([1, 2, 3, 4], shape=[0, 4]),
    body([1, 2, 3, 4], shape=[10**30, 4]),
    body([1, 2, 3, 4], shape=["1", 4]),
    body([1, 2, 3, 4], shape=[1000, 4]),
    body([1, 2, 3, "4"]),
    body([1, 2, 3, None]),
    body([1, 2, 3, True]),
    body([1, 2, 3, [4]]),
    body([[1, 2, 3, 4]], shape=[1, 4]),
    body([1, 2, 3, 1e39]),
    body([1, 2, 3, math.nan]),
    body([1, 2, 3, math.inf]),
    body([666, 2, 3, 4]),
    body([13, 2, 3, 4]),
    FOUR.replace(b"4]", b"04]"),
    FOUR.replace(b"4]", b"+4]"),
    FOUR.replace(b"4]", b"4.]"),
    FOUR.replace(b"4]", b".4]"),
    FOUR.replace(b"4]", b"4e]"),
    FOUR.replace(b"4]", b"-]"),
    FOUR.replace(b"4]", b"4,]"),
    FOUR.replace(b"4]", b"0x4]"),
    FOUR.replace(b"4]", b"1e999]"),
    FOUR.replace(b"4]", b"1e-9999999999]"),
    FOUR.replace(b'"id"', b'"inputs"'),
    FOUR[:-1] + b',"id":"b"}',
    FOUR[:-1] + b',"inputs":[]}',
    FOUR + b"}",
    FOUR[:-1],
    FOUR[:-1] + b',"parameters":{"a":1}}',
    FOUR[:-1] + b',"outputs":[{"name":"z"}]}',
    FOUR[:-1] + b',"other":1}',
    FOUR.replace(b'"name"', b'"parameters":{},"name"'),
    b'{"inputs":[{"name":"x","data":[1,2,3,4],"shape":[1,4],"datatype":"FP32"}]}',
    b"\xef\xbb\xbf" + FOUR,
    FOUR.replace(b"r-1", b"r\x00"),
    FOUR.replace(b"r-1", b"r\xff"),
    FOUR.replace(b"1.", b"1\x00"),
]


@pytest.mark.parametrize("sent", USUAL)
def test_a_usual_request_is_taken_and_answered_as_any_other(sent: bytes, took: list[bool]) -> None:
    async def ask() -> bytes:
        return await House().ask(sent, sent, sent)

    short, long = both(ask)
    assert took == [False, True, True]  # the first head has to be read by who knows how
    assert masked(short) == masked(long)
    assert short.count(b"HTTP/1.1 200 OK") == 3


@pytest.mark.parametrize("sent", ODD)
def test_any_other_request_is_answered_as_if_there_were_no_lane(sent: bytes) -> None:
    async def ask() -> bytes:
        return await House().ask(USUAL[0], sent, sent, USUAL[0])

    short, long = both(ask)
    assert masked(short) == masked(long)


_PIECES = st.sampled_from([b"0", b",", b'"', b"]", b"[", b"}", b"e", b".", b"-", b" ", b"\\"])


@given(st.data())
def test_a_damaged_request_is_answered_as_if_there_were_no_lane(data: st.DataObject) -> None:
    sent = bytearray(data.draw(st.sampled_from(USUAL)))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(sent) - 1))
        kind = data.draw(st.sampled_from(["set", "drop", "put"]))
        if kind == "set":
            sent[place] = data.draw(st.integers(0, 255))
        elif kind == "drop":
            del sent[place]
        else:
            sent[place:place] = data.draw(_PIECES)

    async def ask() -> bytes:
        return await House().ask(bytes(sent), bytes(sent))

    short, long = both(ask)
    assert masked(short) == masked(long)


_NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.floats(width=32, allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-(2**70), 2**70).map(str),
    st.decimals(allow_nan=False, allow_infinity=False).map(lambda value: f"{value:E}"),
    st.from_regex(r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?", fullmatch=True),
)


@pytest.mark.parametrize("datatype", ["FP32", "FP64", "INT32", "INT64"])
@given(rows=st.lists(st.lists(_NUMBERS, min_size=2, max_size=2), min_size=1, max_size=3))
def test_a_number_is_read_as_the_long_way_reads_it(datatype: str, rows: list[list[str]]) -> None:
    signature = Signature((TensorSpec("x", datatype, (-1, 2)),), (TensorSpec("y", datatype, (-1, 2)),))
    data = ",".join(number for row in rows for number in row)
    sent = f'{{"inputs":[{{"name":"x","shape":[{len(rows)},2],"datatype":"{datatype}","data":[{data}]}}]}}'.encode()

    async def ask() -> bytes:
        return await House(signature).ask(sent, sent)

    short, long = both(ask)
    assert masked(short) == masked(long)


@pytest.mark.parametrize("rows", [1, 3, 40])
def test_a_long_body_is_read_as_the_long_way_reads_it(rows: int, took: list[bool]) -> None:
    signature = Signature((TensorSpec("x", "FP32", (-1, 784)),), (TensorSpec("y", "FP32", (-1, 784)),))
    made = np.random.default_rng(rows)
    values = made.standard_normal((rows, 784)) * 10.0 ** made.integers(-30, 30, (rows, 784))
    sent = body(*values.tolist())

    async def ask() -> bytes:
        return await House(signature).ask(sent, sent)

    short, long = both(ask)
    assert took == [False, True]
    assert masked(short) == masked(long)


def test_it_takes_every_type_that_it_says(took: list[bool]) -> None:
    for datatype in ("FP32", "FP64", "INT32", "INT64"):
        signature = Signature((TensorSpec("x", datatype, (-1, 2, 3)),), (TensorSpec("y", datatype, (-1, 3, 2)),))
        sent = body([1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12], shape=[2, 2, 3], datatype=datatype)

        async def ask(signature: Signature = signature, sent: bytes = sent) -> bytes:
            return await House(signature).ask(sent, sent)

        took.clear()
        short, long = both(ask)
        assert took == [False, True]
        assert masked(short) == masked(long)
        assert b'"shape":[2,3,2],"data":[1' in short


def test_each_gets_the_rows_that_are_his(took: list[bool]) -> None:
    async def ask() -> list[dict[str, Any]]:
        house = House(held=True)
        lines = [house.connect() for _ in range(8)]
        lines[0][0].data_received(post(body([0, 0, 0, 0])))
        await passes()
        for number, (connection, _) in enumerate(lines[1:], 1):
            rows = [[float(number), row, 0, 0] for row in range(1 + number % 3)]
            connection.data_received(post(body(*rows, id=f"n{number}")))
        await passes()
        house.place.answer()
        await passes()
        assert len(house.place.batches[0].items) == 7
        house.place.answer()
        return [json.loads(wire.written.partition(b"\r\n\r\n")[2]) for _, wire in lines[1:]]

    for number, answer in enumerate(asyncio.run(ask()), 1):
        assert answer["id"] == f"n{number}"
        rows = 1 + number % 3
        assert answer["outputs"][0]["shape"] == [rows, 3]
        assert answer["outputs"][0]["data"] == [value for row in range(rows) for value in (number, row, 0)]
        assert answer["outputs"][1]["data"] == [number] * rows
    assert took.count(True) == 4  # those whose heads were known


def test_what_json_has_no_number_for_goes_the_long_way() -> None:
    async def ask() -> bytes:
        house = House(held=True)
        connection, wire = house.connect()
        for value in (math.nan, math.inf, 1.0):
            connection.data_received(post(body([1, 2, 3, 4])))
            await passes()
            made = {"y": np.full((1, 3), value, np.float32), "z": np.array([1.0])}
            house.place.end(Outcome(made, (), 0.001))
        return wire.written

    short, long = both(ask)
    assert masked(short) == masked(long)
    assert b"[NaN,NaN,NaN]" in short


@pytest.mark.parametrize(
    "failure", [WorkerDied("gone"), ModelFailed("the model failed"), InvalidInput("bad", field="x")]
)
def test_a_failure_is_told_as_on_the_long_way(failure: Exception) -> None:
    async def ask() -> tuple[bytes, list[Any], list[Any]]:
        house = House(held=True)
        connection, wire = house.connect()
        for _ in range(2):
            connection.data_received(post(body([1, 2, 3, 4])))
            await passes()
            house.place.end(Outcome({}, [failure], 0.001))
            await passes()
        kinds = [(one.variant, one.outcome, one.count) for one in house.version.servable.counts.all()]
        return wire.written, [record_of(one) for one in house.records.records], kinds

    short, long = both(ask)
    assert masked(short[0]) == masked(long[0])
    assert short[1:] == long[1:]


def test_counts_records_and_metrics_are_those_of_the_long_way() -> None:
    async def ask() -> tuple[list[Any], list[Any], dict[str, Any]]:
        house = House()
        await house.ask(*[USUAL[0]] * 5, *[ODD[0]], *USUAL)
        kinds = [(one.variant, one.outcome, one.count) for one in house.version.servable.counts.all()]
        metrics = Metrics()
        counted = House(observer=Fanout(metrics, AccessLog("off")))
        await counted.ask(*[USUAL[0]] * 5, *[ODD[0]], *USUAL)
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
        house = House(observer=Fanout(Metrics(), log))
        await house.ask(*[USUAL[0]] * 10)
        log.close()
        return [json.loads(line) for line in path.read_text().splitlines()]

    short, long = both(ask)
    for one in (short, long):
        assert [line["event"] for line in one] == ["request"] * 3 + ["left_out"]
        assert one[-1]["successes"] == 7
    assert [line["protocol"] for line in short[:3]] == ["v2"] * 3
    assert short[1].keys() == long[1].keys()


def test_times_add_up() -> None:
    async def ask() -> Any:
        metrics = Metrics()
        house = House(observer=metrics)
        await house.ask(*[USUAL[0]] * 20)
        return metrics.snapshot(), metrics.snapshot()

    first, second = asyncio.run(ask())
    stages = {labels[2]: values for labels, values in first["turnout_stage_duration_seconds"]}
    (total,) = [values for labels, values in first["turnout_request_duration_seconds"] if labels[2] == "OK"]
    assert all(sum(values[1:]) == 20 for values in (*stages.values(), total))
    assert 0 < sum(values[0] for values in stages.values()) <= total[0]
    assert second["turnout_stage_duration_seconds"] == first["turnout_stage_duration_seconds"]  # nothing counts twice


@pytest.mark.parametrize(("ago", "wish"), [(0.05, {}), (0.05, {"X_Request_Deadline_Ms": "10000"})])
def test_what_has_waited_in_the_kernel_is_taken_with_what_is_left_of_its_deadline(
    ago: float, wish: dict[str, str], took: list[bool]
) -> None:
    async def ask() -> tuple[float, float]:
        house = House(held=True, deadline=20.0)
        connection, _ = house.connect()
        connection.data_received(post(FOUR, **wish))
        await passes()
        house.place.answer()
        began = connection._sent = monotonic() - ago
        connection.data_received(post(FOUR, **wish))
        await passes()
        left = house.place.batches[0].items[0].deadline - began
        house.place.answer()
        return left, connection._sent

    short, long = both(ask)
    assert took == [False, True]
    assert short == pytest.approx(long, abs=0.03)
    assert short[0] == pytest.approx(10.0 if wish else 20.0 + ago, abs=0.03)


def test_what_has_waited_in_the_kernel_for_too_long_is_turned_away(took: list[bool]) -> None:
    async def ask() -> tuple[bytes, list[Any]]:
        house = House()
        connection, wire = house.connect()
        connection.data_received(post(FOUR, X_Request_Deadline_Ms="5000"))
        await passes()
        connection._sent = monotonic() - 6.0
        connection.data_received(post(FOUR, X_Request_Deadline_Ms="5000"))
        await passes()
        return wire.written, [record_of(one) for one in house.records.records]

    short, long = both(ask)
    assert took == [False, False]
    assert masked(short[0]) == masked(long[0])
    assert b"504" in short[0]
    assert short[1] == long[1]


def test_a_client_that_leaves_is_not_waited_for(took: list[bool]) -> None:
    async def ask() -> tuple[list[Any], int, list[Any], list[Any]]:
        house = House(held=True)
        blocking, _ = house.connect()
        blocking.data_received(post(body([1, 2, 3, 4])))
        await passes()
        connection, wire = house.connect()
        connection.data_received(post(body([1, 2, 3, 4])))
        await passes()
        waiting = house.version.batching.waiting
        assert waiting.rows == 1
        connection.connection_lost(None)
        await passes()
        assert waiting.rows == 0
        house.place.answer()
        await passes()
        assert not wire.written
        kinds = [(one.outcome, one.count) for one in house.version.servable.counts.all()]
        told = [(*record_of(one)[:5], one.peer, one.bytes_in, one.bytes_out) for one in house.records.records]
        return [one.code for one in house.records.records], len(house.place.batches), kinds, told

    short, long = both(ask)
    assert True in took
    assert short == long
    assert short[:2] == ([Code.CANCELLED, Code.OK], 0)


def test_a_client_that_leaves_while_its_batch_runs_costs_the_others_nothing() -> None:
    async def ask() -> tuple[bytes, list[Any]]:
        house = House(held=True)
        warm, _ = house.connect()
        warm.data_received(post(body([1, 2, 3, 4])))
        await passes()
        house.place.answer()
        first, _ = house.connect()
        second, wire = house.connect()
        first.data_received(post(body([1, 2, 3, 4])))
        second.data_received(post(body([5, 6, 7, 8])))
        await passes()
        first.connection_lost(None)
        await passes()
        house.place.answer()
        await passes()
        return wire.written, [one.code for one in house.records.records]

    short, long = both(ask)
    assert masked(short[0]) == masked(long[0])
    assert b'"data":[5.0,6.0,7.0]' in short[0]
    assert sorted(one.name for one in short[1]) == sorted(one.name for one in long[1]) == ["CANCELLED", "OK", "OK"]


def test_a_deadline_that_passes_in_the_queue_is_told_in_time() -> None:
    async def ask() -> bytes:
        house = House(held=True)
        connection, wire = house.connect()
        for _ in range(2):
            connection.data_received(post(body([1, 2, 3, 4]), X_Request_Deadline_Ms="30"))
            await passes()
            for _ in range(100):
                if wire.written.count(b"HTTP/1.1") > wire.written.count(b"seen"):
                    break
                await asyncio.sleep(0.01)
            wire.written += b"seen"
            if house.place.batches:
                house.place.answer()
            await passes()
        return wire.written

    short, long = both(ask)
    assert masked(short) == masked(long)
    assert short.count(b"504 Gateway Timeout") == 2


def test_a_full_queue_refuses_as_on_the_long_way() -> None:
    async def ask() -> list[bytes]:
        house = House(held=True, policy=BatchPolicy(queue_rows=2, max_rows=1))
        lines = [house.connect() for _ in range(6)]
        for connection, _ in lines:
            connection.data_received(post(body([1, 2, 3, 4])))
            await passes()
        refused = [masked(wire.written) for _, wire in lines]
        while house.place.batches:
            house.place.answer()
            await passes()
        return refused + [masked(wire.written) for _, wire in lines]

    short, long = both(ask)
    assert [one[:12] for one in short] == [one[:12] for one in long]
    assert any(b"503" in one for one in short[:6])


def test_answers_leave_in_the_order_of_their_requests(took: list[bool]) -> None:
    async def ask() -> bytes:
        house = House(held=True)
        connection, wire = house.connect()
        connection.data_received(post(body([1, 1, 1, 1], id="warm-")))
        await passes()
        house.place.answer()
        connection.data_received(post(body([1, 2, 3, 4], id="first")))
        connection.data_received(post(body([5, 6, 7, 8], id="after")))
        connection.data_received(b"GET /v2/health/live HTTP/1.1\r\nHost: h\r\n\r\n")
        await passes()
        while house.place.batches:
            house.place.answer()
            await passes()
        connection.data_received(post(body([1, 2, 3, 4], id="again")) * 3)
        await passes()
        while house.place.batches:
            house.place.answer()
            await passes()
        return wire.written

    short, long = both(ask)
    assert took[:3] == [False, True, False]
    assert masked(short) == masked(long)
    assert short.count(b"HTTP/1.1 200") == 7


def test_the_last_answer_of_a_door_that_closes_says_so() -> None:
    async def ask() -> bytes:
        house = House(held=True)
        connection, wire = house.connect()
        connection.data_received(post(body([1, 2, 3, 4])))
        await passes()
        house.place.answer()
        connection.data_received(post(body([1, 2, 3, 4])))
        await passes()
        draining = asyncio.ensure_future(house.door.drain())
        await passes()
        house.place.answer()
        await passes()
        connection.connection_lost(None)
        await asyncio.wait_for(draining, 5)
        return wire.written

    short, long = both(ask)
    assert masked(short) == masked(long)
    assert b"Connection: close" in short


def test_another_model_behind_the_same_head_is_found_at_once(took: list[bool]) -> None:
    async def ask() -> list[bytes]:
        house = House()
        connection, wire = house.connect()
        told = []

        async def one(row: list[float]) -> None:
            wire.written = b""
            connection.data_received(post(body(row)))
            await passes()
            told.append(masked(wire.written))

        for _ in range(3):
            await one([1, 2, 3, 4])
        other = Signature((TensorSpec("x", "FP32", (-1, 4)),), (TensorSpec("q", "FP32", (-1, 1)),))
        house.serving.model = house.made(other, "2")
        house.serving.model.batching.add_place(Inline("m", Sums(other), house.serving.model.batching.done))
        for _ in range(3):
            await one([1, 2, 3, 4])
        house.serving.model.servable.identify("2", "sha256:other")
        for _ in range(3):
            await one([1, 2, 3, 4])
        house.serving.model = None
        await one([1, 2, 3, 4])
        return told

    short, long = both(ask)
    assert short == long
    assert [b'"name":"q"' in one for one in short] == [False] * 3 + [True] * 6 + [False]
    assert [b"sha256:other" in one for one in short] == [False] * 6 + [True] * 3 + [False]
    assert b"404" in short[-1]
    assert took[1:3] == [True, True]
    assert took[4:6] == [True, True]  # the head was read already: only the model had to be looked at


def test_the_twin_that_has_answered_is_named() -> None:
    async def ask() -> bytes:
        house = House(held=True)
        connection, wire = house.connect()
        for twin in ("onnx", "onnx", "native", "onnx+native"):
            connection.data_received(post(body([1, 2, 3, 4])))
            await passes()
            house.place.answer(twin=twin)
        return wire.written

    short, long = both(ask)
    assert masked(short) == masked(long)
    assert short.count(b"X-Twin: onnx\r\n") == 2


@pytest.mark.parametrize(
    "headers",
    [
        {"Connection": "close"}, {"X-Explain": "true"}, {"Content-Encoding": "gzip"}, {"Accept-Encoding": "gzip"},
        {"X-Request-Id": "mine"}, {"Inference-Header-Content-Length": "5"}, {"X-Request-Deadline-Ms": "0"},
        {"Expect": "100-continue"},
    ],
)  # fmt: skip
def test_a_head_that_asks_for_more_is_given_it(headers: dict[str, str]) -> None:
    async def ask() -> bytes:
        house = House()
        return b"".join([await house.ask(USUAL[0], USUAL[2], **headers) for _ in range(2)])

    def timeless(answers: bytes) -> bytes:
        return re.sub(rb'seconds":[0-9.e-]+', b'seconds":0', masked(answers))

    short, long = both(ask)
    assert re.sub(rb"Content-Length: \d+", b"", timeless(short)) == re.sub(rb"Content-Length: \d+", b"", timeless(long))


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What models say to nobody is not shown with a failed test."""
    with caplog.at_level("CRITICAL"):
        yield
