"""The counters of one process: plain numbers that are added to on the hot path and read when somebody scrapes.

One request costs about a microsecond here, a label look-up of a metrics library alone more than that. Nothing
is locked: requests and batches are counted on the event loop's thread, and a reader sees each number whole.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence

import turnout
from turnout.core.errors import Code
from turnout.monitoring.families import FAMILIES, ROWS, SECONDS, STAGES, Sample
from turnout.monitoring.process import resident_bytes
from turnout.monitoring.record import RequestRecord
from turnout.monitoring.snapshot import Snapshot, Values
from turnout.monitoring.tally import TIMED, Tally, Usual, counts_of

#: A process with more versions than this counts the others under the empty name, so that memory stays bounded.
MAX_VERSIONS = 10_000

Source = Callable[[], Iterable[Sample]]


class _Histogram:
    """Counts below fixed bounds, and the sum of what was observed."""

    __slots__ = ("counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def values(self) -> list[float]:
        """The sum, then the counts."""
        return [self.sum, *self.counts]


class _Version:
    """What is counted for one version of a model, whichever protocol asked for it."""

    __slots__ = (
        *("batch_rows", "batch_seconds", "failed", "rows"),
        *("decode", "queue", "predict", "encode", "total"),
    )

    def __init__(self) -> None:
        self.rows = 0
        self.decode = _Histogram(SECONDS)
        self.queue = _Histogram(SECONDS)
        self.predict = _Histogram(SECONDS)
        self.encode = _Histogram(SECONDS)
        self.total = _Histogram(SECONDS)
        self.failed: dict[Code, _Histogram] = {}
        self.batch_rows = _Histogram(ROWS)
        self.batch_seconds = _Histogram(SECONDS)


class _Door:
    """What is counted for one version as one protocol asks for it, and where its times go."""

    __slots__ = ("bytes_in", "bytes_out", "failed", "ok", "version")

    def __init__(self, version: _Version) -> None:
        self.version = version
        self.ok = 0
        self.failed: dict[Code, int] = {}
        self.bytes_in = 0
        self.bytes_out = 0


class Metrics:
    """Counts requests and batches, and reads the sources when a snapshot is taken.

    `router` names this process among those that serve together. A model name becomes a label once it was
    declared or has answered; a failed request for any other name is counted under the empty name.
    """

    def __init__(self, router: str = "0") -> None:
        self._router = router
        self._versions: dict[tuple[str, str], _Version] = {}
        self._doors: dict[tuple[str, str, str], _Door] = {}
        self._tallies: dict[tuple[str, str, str], Tally] = {}
        self._sources: list[Source] = []
        self._source_failures = 0

    def declare(self, model: str, version: str) -> None:
        """Says that the version is served, so that its series are there, at 0, before the first request."""
        self._version(model, version)

    def add_source(self, source: Source) -> None:
        """Adds what gives samples when asked: queue depth, worker state, connections. It is called once a scrape."""
        self._sources.append(source)

    def request(self, record: RequestRecord) -> None:
        """Counts one answered request. The stages are counted for requests answered with OK."""
        _, _, _, code, rows, decode, queue, predict, encode, total, _, _, _, bytes_in, bytes_out, _, _, _ = record
        door = self._doors.get(record[:3])
        if door is None:
            door = self._open(*record[:3], code)
        door.bytes_in += bytes_in
        door.bytes_out += bytes_out
        version = door.version
        if code is not Code.OK:
            door.failed[code] = door.failed.get(code, 0) + 1
            histogram = version.failed.get(code)
            if histogram is None:
                histogram = version.failed[code] = _Histogram(SECONDS)
            histogram.sum += total
            histogram.counts[bisect_left(SECONDS, total)] += 1
            return
        door.ok += 1
        version.rows += rows
        histogram = version.decode
        histogram.sum += decode
        histogram.counts[bisect_left(SECONDS, decode)] += 1
        histogram = version.queue
        histogram.sum += queue
        histogram.counts[bisect_left(SECONDS, queue)] += 1
        histogram = version.predict
        histogram.sum += predict
        histogram.counts[bisect_left(SECONDS, predict)] += 1
        histogram = version.encode
        histogram.sum += encode
        histogram.counts[bisect_left(SECONDS, encode)] += 1
        histogram = version.total
        histogram.sum += total
        histogram.counts[bisect_left(SECONDS, total)] += 1

    def usual(self, model: str, version: str, protocol: str) -> Usual:
        """Where the usual answers of a version are counted by compiled code."""
        return Usual(self._tallies.setdefault((model, version, protocol), Tally()))

    def _fold(self) -> None:
        for (model, version, protocol), tally in self._tallies.items():
            numbers, seconds = tally.take()
            if not numbers[0]:
                continue
            door = self._doors.get((model, version, protocol)) or self._open(model, version, protocol, Code.OK)
            door.ok += numbers[0]
            door.version.rows += numbers[1]
            door.bytes_in += numbers[2]
            door.bytes_out += numbers[3]
            for place, stage in enumerate(TIMED):
                histogram: _Histogram = getattr(door.version, stage)
                histogram.sum += seconds[place]
                histogram.counts = [a + b for a, b in zip(histogram.counts, counts_of(numbers, place), strict=True)]

    def batch(self, model: str, version: str, rows: int, predict_seconds: float) -> None:
        """Counts one batch that a model has predicted."""
        found = self._versions.get((model, version)) or self._version(model, version)
        histogram = found.batch_rows
        histogram.sum += rows
        histogram.counts[bisect_left(ROWS, rows)] += 1
        histogram = found.batch_seconds
        histogram.sum += predict_seconds
        histogram.counts[bisect_left(SECONDS, predict_seconds)] += 1

    def _open(self, model: str, version: str, protocol: str, code: Code) -> _Door:
        """The door of a record that has none yet: under the empty name where the model is not known here."""
        served = (model, version)
        if served not in self._versions and (code is not Code.OK or len(self._versions) >= MAX_VERSIONS):
            served = ("", "")
        key = (*served, protocol)
        if key not in self._doors:
            self._doors[key] = _Door(self._version(*served))
        return self._doors[key]

    def _version(self, model: str, version: str) -> _Version:
        key = (model, version)
        if key not in self._versions and len(self._versions) >= MAX_VERSIONS:
            key = ("", "")
        return self._versions.setdefault(key, _Version())

    def snapshot(self) -> Snapshot:
        """Everything counted so far and what the sources say now, as plain data that JSON can carry."""
        self._fold()
        taken: Snapshot = {name: [] for name in FAMILIES}
        for (model, version, protocol), door in self._doors.items():
            labels = [model, version, protocol]
            by_code = {**({Code.OK: door.ok} if door.ok else {}), **door.failed}
            taken["turnout_requests_total"] += [([*labels, code.name], [n]) for code, n in by_code.items()]
            taken["turnout_request_bytes_total"].append((labels, [door.bytes_in]))
            taken["turnout_response_bytes_total"].append((labels, [door.bytes_out]))
        for (model, version), counted in self._versions.items():
            self._take_version(taken, [model, version], counted)
        for sample in self._samples():
            taken[sample.name].append((list(sample.labels), [sample.value]))
        return taken

    @staticmethod
    def _take_version(taken: Snapshot, labels: list[str], counted: _Version) -> None:
        def take(family: str, histogram: _Histogram, *more: str) -> None:
            values: Values = ([*labels, *more], histogram.values())
            taken[family].append(values)

        taken["turnout_request_rows_total"].append((labels, [counted.rows]))
        take("turnout_request_duration_seconds", counted.total, Code.OK.name)
        for code, histogram in counted.failed.items():
            take("turnout_request_duration_seconds", histogram, code.name)
        for stage in STAGES:
            take("turnout_stage_duration_seconds", getattr(counted, stage), stage)
        take("turnout_batch_rows", counted.batch_rows)
        take("turnout_batch_duration_seconds", counted.batch_seconds)

    def _samples(self) -> Iterable[Sample]:
        """What the sources say. One that raises, or names what is no metric, is counted and left out whole."""
        for source in self._sources:
            try:
                samples = list(source())
                for sample in samples:
                    if len(sample.labels) != len(FAMILIES[sample.name].labels):
                        raise ValueError(f"{sample.name} needs {FAMILIES[sample.name].labels}")
            except Exception:  # noqa: BLE001  a source is another part's code: its fault must not cost the scrape
                self._source_failures += 1
            else:
                yield from samples
        router = (self._router,)
        yield Sample("turnout_router_memory_bytes", router, resident_bytes())
        yield Sample("turnout_router_cpu_seconds_total", router, time.process_time())
        yield Sample("turnout_metrics_failures_total", router, self._source_failures)
        if self._router == "0":  # infos do not add: one process of several says it
            yield Sample("turnout_build_info", (turnout.__version__,), 1)
