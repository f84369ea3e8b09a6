"""The access log: one JSON line for a request, written by a thread of its own.

The event loop only decides whether a request is logged and keeps its record; both are a few dozen
nanoseconds. Failures of the server or a model are logged one and all, successes and callers' mistakes up to a
number a second, and a summary line says how many were left out.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime

import orjson

from turnout.core.errors import Code
from turnout.monitoring.families import Sample
from turnout.monitoring.log_file import LogFile
from turnout.monitoring.record import RequestRecord
from turnout.monitoring.tally import Usual

#: The destination that is none.
OFF = "off"
#: Text that a caller chose (its id) is cut after so many characters.
MAX_TEXT = 256
#: Seconds for which `close` waits for a destination that does not take the last lines.
CLOSE_SECONDS = 1.0

_LEVELS = {Code.INTERNAL: "error", Code.UNAVAILABLE: "warning", Code.DEADLINE_EXCEEDED: "warning"}
_WINDOW_SECONDS = 1.0


class _Share:
    """How many records of one kind may be kept in this second.

    `seen` and `taken` are only ever added to on the event loop and `allowed` and `told` only set by the writing
    thread, so that no count is lost although nothing is locked.
    """

    __slots__ = ("allowed", "per_second", "seen", "taken", "told")

    def __init__(self, per_second: int) -> None:
        self.per_second = per_second
        self.allowed = per_second
        self.seen = 0
        self.taken = 0
        self.told = 0

    def renew(self) -> int:
        """Allows another second's worth. Returns how many were left out since the last time."""
        self.allowed = self.taken + self.per_second
        left_out = self.seen - self.taken - self.told
        self.told += left_out
        return left_out


class AccessLog:
    """Keeps records on the hot path and writes them, as JSON lines, every `interval` seconds.

    `destination` is a path, "stderr", "stdout" or "off"; OSError where it cannot be opened.
    `successes` and `failures` are lines a second, the latter for what is the server's or the model's fault;
    requests that fail by the caller's fault share the successes' number, apart from them. At most `waiting`
    records wait to be written; more are dropped and counted.
    """

    def __init__(
        self,
        destination: str | LogFile,
        *,
        successes: int = 100,
        failures: int = 1000,
        waiting: int = 10_000,
        interval: float = 0.1,
    ) -> None:
        if isinstance(destination, LogFile):
            self._file: LogFile | None = destination
        else:
            self._file = None if destination == OFF else LogFile(destination)
        if self._file is None:
            successes = failures = 0
        self._interval = interval
        self._waiting = waiting
        self._records: deque[tuple[float, RequestRecord]] = deque()
        self._successes = _Share(successes)
        self._mistakes = _Share(successes)
        self._failures = _Share(failures)
        self._dropped = 0
        self._dropped_told = 0
        self._renewed = time.monotonic()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def request(self, record: RequestRecord) -> None:
        """Keeps the record of an answered request if its share of this second is not used up."""
        code = record[3]
        if code is Code.OK:
            share = self._successes
        else:
            share = self._failures if code in _LEVELS else self._mistakes
        share.seen += 1
        if share.taken < share.allowed:
            share.taken += 1
            if len(self._records) < self._waiting:
                self._records.append((time.time(), record))
            else:
                self._dropped += 1

    def usual(self, _model: str, _version: str, _protocol: str) -> Usual:
        """Successes are wanted up to their share."""
        return Usual(share=self._successes, record=self.request)

    def start(self) -> None:
        """Starts the writing thread. Records kept before are written too."""
        if self._file is None:
            return
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._thread.start()

    def reopen(self) -> None:
        """Opens the file anew before the next write, after somebody has moved it. For a SIGHUP handler."""
        if self._file is not None:
            self._file.reopen()

    def close(self) -> None:
        """Writes what waits and stops. Gives up after a second where the destination takes nothing."""
        self._stop.set()
        if self._thread is None:
            self._finish()
        else:
            self._thread.join(CLOSE_SECONDS)

    def samples(self) -> Iterable[Sample]:
        """What was written and what was not, for the metrics; nothing where the log is off."""
        if self._file is None:
            return
        shares = (self._successes, self._mistakes, self._failures)
        yield Sample("turnout_log_lines_total", (), self._file.lines)
        lost = "turnout_log_lines_lost_total"
        yield Sample(lost, ("sampled",), sum(share.seen - share.taken for share in shares))
        yield Sample(lost, ("queue",), self._dropped)
        yield Sample(lost, ("destination",), self._file.lost_lines)

    def write(self, now: float) -> None:
        """Writes what waits in one go; `now` is on the monotonic clock. The thread's work, also for tests."""
        if self._file is None:
            return
        records = self._records
        lines = [_line(*records.popleft()) for _ in range(len(records))]
        if now - self._renewed >= _WINDOW_SECONDS:
            self._renewed = now
            lines += self._summary()
        if lines:
            self._file.write(lines)

    def _summary(self) -> list[bytes]:
        successes, mistakes, failures = (share.renew() for share in (self._successes, self._mistakes, self._failures))
        dropped = self._dropped - self._dropped_told
        self._dropped_told += dropped
        if not (successes or mistakes or failures or dropped):
            return []
        fields = {
            "ts": _timestamp(time.time()),
            "level": "info",
            "event": "left_out",
            "successes": successes,
            "caller_failures": mistakes,
            "failures": failures,
            "dropped": dropped,
        }
        return [orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)]

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            self.write(time.monotonic())
        self._finish()

    def _finish(self) -> None:
        self.write(self._renewed + _WINDOW_SECONDS)
        if self._file is not None:
            self._file.close()


def _timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _line(finished: float, record: RequestRecord) -> bytes:
    """One request as a JSON line. Control characters are escaped by JSON, so a caller cannot forge a line."""
    fields = {
        "ts": _timestamp(finished),
        "level": _LEVELS.get(record.code, "info"),
        "event": "request",
        "model": record.model[:MAX_TEXT],
        "version": record.version[:MAX_TEXT],
        "variant": record.variant[:MAX_TEXT],
        "degraded": record.degraded[:MAX_TEXT],
        "prediction_id": record.prediction_id,
        "protocol": record.protocol,
        "code": record.code.name,
        "rows": record.rows,
        "total_ms": round(record.total * 1e3, 3),
        "decode_ms": round(record.decode * 1e3, 3),
        "queue_ms": round(record.queue * 1e3, 3),
        "predict_ms": round(record.predict * 1e3, 3),
        "encode_ms": round(record.encode * 1e3, 3),
        "batch_rows": record.batch_rows,
        "id": record.request_id[:MAX_TEXT],
        "peer": record.peer,
        "bytes_in": record.bytes_in,
        "bytes_out": record.bytes_out,
    }
    try:
        return orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # text that is no UTF-8 (a lone surrogate)
        clean = {
            name: value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value
            for name, value in fields.items()
        }
        return orjson.dumps(clean, option=orjson.OPT_APPEND_NEWLINE)
