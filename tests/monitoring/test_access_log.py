"""What is logged, what is left out and said so, and that no destination can hurt the server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.monitoring.records import RECORD, records
from turnout.core.errors import Code
from turnout.monitoring.access_log import AccessLog
from turnout.monitoring.fanout import Fanout
from turnout.monitoring.log_file import LogFile
from turnout.monitoring.metrics import Metrics
from turnout.monitoring.record import RequestRecord


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def counts(log: AccessLog) -> dict[str, float]:
    return {
        ".".join((sample.name.removeprefix("turnout_log_"), *sample.labels)): sample.value for sample in log.samples()
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "access.log"


def test_a_line_says_what_happened(path: Path) -> None:
    log = AccessLog(str(path))
    before = datetime.now(UTC)
    log.request(RECORD._replace(variant="2", degraded="timeout", prediction_id="R3-1-00"))
    log.close()
    (line,) = lines(path)
    assert (
        before.timestamp() - 0.001
        <= datetime.fromisoformat(line.pop("ts")).timestamp()
        <= datetime.now(UTC).timestamp()
    )
    assert line == {
        "level": "info",
        "event": "request",
        "model": "iris",
        "version": "1",
        "variant": "2",
        "degraded": "timeout",
        "prediction_id": "R3-1-00",
        "protocol": "v2",
        "code": "OK",
        "rows": 3,
        "total_ms": 2.5,
        "decode_ms": 0.02,
        "queue_ms": 0.3,
        "predict_ms": 2.0,
        "encode_ms": 0.01,
        "batch_rows": 8,
        "id": "id-1",
        "peer": "127.0.0.1:5000",
        "bytes_in": 120,
        "bytes_out": 80,
    }


@pytest.mark.parametrize(
    ("code", "level"),
    [
        (Code.INTERNAL, "error"),
        (Code.UNAVAILABLE, "warning"),
        (Code.DEADLINE_EXCEEDED, "warning"),
        (Code.INVALID_ARGUMENT, "info"),
    ],
)
def test_the_level_says_whose_fault_it_is(path: Path, code: Code, level: str) -> None:
    log = AccessLog(str(path))
    log.request(RECORD._replace(code=code))
    log.close()
    assert [(line["code"], line["level"]) for line in lines(path)] == [(code.name, level)]


def test_successes_are_sampled_and_failures_are_not(path: Path) -> None:
    log = AccessLog(str(path), successes=10)
    for _ in range(500):
        log.request(RECORD)
        log.request(RECORD._replace(code=Code.INVALID_ARGUMENT))
    for _ in range(50):
        log.request(RECORD._replace(code=Code.INTERNAL))
    log.close()
    *requests, summary = lines(path)
    logged = [line["code"] for line in requests]
    assert [logged.count(code) for code in ("OK", "INVALID_ARGUMENT", "INTERNAL")] == [10, 10, 50]
    assert summary["event"] == "left_out"
    assert (summary["successes"], summary["caller_failures"], summary["failures"]) == (490, 490, 0)


def test_the_server_s_failures_are_bounded_too(path: Path) -> None:
    log = AccessLog(str(path), failures=20)
    for _ in range(100):
        log.request(RECORD._replace(code=Code.UNAVAILABLE))
    log.close()
    *requests, summary = lines(path)
    assert len(requests) == 20
    assert summary["failures"] == 80


def test_each_second_has_its_own_share(path: Path) -> None:
    log = AccessLog(str(path), successes=2)
    start = log._renewed  # the clock the test turns by hand
    for second in range(3):
        for _ in range(5):
            log.request(RECORD)
        log.write(start + second + 0.5)  # half-way through a second nothing is given out
        log.request(RECORD)
        log.write(start + second + 1.0)
    log.close()
    events = [line["event"] for line in lines(path)]
    assert events == ["request", "request", "left_out"] * 3
    assert [line["successes"] for line in lines(path) if line["event"] == "left_out"] == [4, 4, 4]


def test_what_waits_is_bounded_and_the_rest_counted(path: Path) -> None:
    log = AccessLog(str(path), waiting=5)
    for _ in range(8):
        log.request(RECORD)
    assert counts(log)["lines_lost_total.queue"] == 3
    log.close()
    *requests, summary = lines(path)
    assert len(requests) == 5
    assert summary["dropped"] == 3


@given(st.lists(records, max_size=80), st.lists(st.booleans(), min_size=80, max_size=80))
def test_every_record_is_a_line_or_counted(sent: list[RequestRecord], writes: list[bool]) -> None:
    reader, writer = os.pipe()
    log = AccessLog(LogFile(f"/dev/fd/{writer}"), successes=7, failures=5, waiting=4)
    now = log._renewed
    for record, write in zip(sent, writes, strict=False):
        log.request(record)
        if write:
            now += 0.4
            log.write(now)
    log.close()
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        events = [json.loads(line) for line in pipe.read().splitlines()]
    logged = sum(event["event"] == "request" for event in events)
    told = [
        event[key]
        for event in events
        for key in ("successes", "caller_failures", "failures", "dropped")
        if key in event
    ]
    assert logged + sum(told) == len(sent)
    after = counts(log)
    assert after["lines_total"] == len(events)
    assert after["lines_lost_total.sampled"] + after["lines_lost_total.queue"] == sum(told)


@pytest.mark.parametrize("text", ['"}\n{"forged": true}', "\x00\x1b[31m", "a\u2028b", "\ud800", "x" * 10_000])
def test_a_caller_s_text_cannot_break_a_line(path: Path, text: str) -> None:
    log = AccessLog(str(path))
    log.request(RECORD._replace(request_id=text))
    log.close()
    data = path.read_bytes()
    assert data.count(b"\n") == 1
    (line,) = lines(path)
    assert len(line["id"]) <= 256
    assert line["code"] == "OK"


def test_the_thread_writes_by_itself_and_close_writes_the_rest(path: Path) -> None:
    written = threading.Event()

    class Watched(LogFile):
        def write(self, lines: Any) -> None:
            super().write(lines)
            written.set()

    log = AccessLog(Watched(str(path)), interval=0.001)
    log.start()
    log.request(RECORD)
    assert written.wait(5)
    log.request(RECORD._replace(request_id="last"))
    log.close()
    assert [line["id"] for line in lines(path)] == ["id-1", "last"]


def test_a_moved_file_is_opened_anew(path: Path) -> None:
    log = AccessLog(str(path))
    log.request(RECORD)
    log.write(0)
    path.rename(path.with_suffix(".1"))
    log.request(RECORD._replace(request_id="between"))
    log.write(0)
    log.reopen()
    log.request(RECORD._replace(request_id="after"))
    log.close()
    assert [line["id"] for line in lines(path.with_suffix(".1"))] == ["id-1", "between"]
    assert [line["id"] for line in lines(path)] == ["after"]


def test_a_file_that_cannot_be_opened_anew_is_written_on(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    log = AccessLog(LogFile(str(folder / "access.log")))
    folder.rename(tmp_path / "moved")
    log.reopen()
    log.request(RECORD)
    log.close()
    assert len(lines(tmp_path / "moved" / "access.log")) == 1


def test_a_path_that_cannot_be_opened_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        LogFile(str(tmp_path / "nowhere" / "access.log"))


def test_a_full_disk_is_counted_and_logging_goes_on_after_it() -> None:
    log = AccessLog(LogFile("/dev/full"))
    log.request(RECORD)
    log.request(RECORD)
    log.write(0)
    assert counts(log)["lines_lost_total.destination"] == 2
    assert counts(log)["lines_total"] == 0
    log.close()


def test_a_reader_that_goes_away_is_counted() -> None:
    reader, writer = os.pipe()
    log = AccessLog(LogFile(f"/dev/fd/{writer}"))
    os.close(reader)
    os.close(writer)
    log.request(RECORD)
    log.close()
    assert counts(log)["lines_lost_total.destination"] == 1


_TORN = """
import resource, signal, sys
from turnout.monitoring.log_file import LogFile
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
file = LogFile(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (25, resource.RLIM_INFINITY))
file.write([b'{"line": 1}\\n', b'{"line": 2}\\n', b'{"line": 3}\\n'])
print(file.lines, file.lost_lines)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
file.write([b'{"line": 4}\\n'])
print(file.lines, file.lost_lines)
"""


def test_a_line_that_broke_off_spoils_only_itself(path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", _TORN, str(path)], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["2", "1", "3", "1"]
    first, second, torn, last = path.read_text().splitlines()
    assert (first, second, last) == ('{"line": 1}', '{"line": 2}', '{"line": 4}')
    assert '{"line": 3}'.startswith(torn)


def test_a_destination_that_blocks_does_not_keep_the_server_from_stopping() -> None:
    reader, writer = os.pipe()
    log = AccessLog(LogFile(f"/dev/fd/{writer}"), successes=100_000, waiting=100_000, interval=0.001)
    log.start()
    for _ in range(5_000):  # more than a pipe holds
        log.request(RECORD)
    log.close()
    os.close(reader)
    os.close(writer)


def test_off_is_off() -> None:
    log = AccessLog("off")
    log.start()
    for code in (Code.OK, Code.INTERNAL):
        log.request(RECORD._replace(code=code))
    log.reopen()
    log.close()
    assert list(log.samples()) == []


def test_standard_error_takes_lines_and_stays_open() -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); from tests.monitoring.records import RECORD\n"
        "from turnout.monitoring.access_log import AccessLog; from turnout.monitoring.log_file import LogFile\n"
        "log = AccessLog(LogFile('stderr')); log.request(RECORD); log.close(); print('after', file=sys.stderr)"
    )
    command = [sys.executable, "-c", script, str(Path(__file__).parents[2])]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    first, second = ended.stderr.splitlines()
    assert json.loads(first)["model"] == "iris"
    assert second == "after"


def test_metrics_and_log_see_the_same_requests(path: Path) -> None:
    metrics, log = Metrics(), AccessLog(str(path))
    metrics.add_source(log.samples)
    both = Fanout(metrics, log)
    for _ in range(3):
        both.request(RECORD)
    log.close()
    snapshot = metrics.snapshot()
    assert snapshot["turnout_requests_total"] == [(["iris", "1", "v2", "OK"], [3])]
    assert snapshot["turnout_log_lines_total"] == [([], [3])]
    assert len(lines(path)) == 3


def test_requests_leave_nothing_behind() -> None:
    metrics, log = Metrics(), AccessLog(LogFile("/dev/null"), waiting=100)
    both = Fanout(metrics, log)
    guess = RECORD._replace(model="guess", code=Code.NOT_FOUND)

    def serve(times: int) -> None:
        for _ in range(times):
            both.request(RECORD)
            both.request(guess)

    serve(1000)
    tracemalloc.start()
    try:
        serve(20_000)
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    log.close()
    assert grown < 4096
