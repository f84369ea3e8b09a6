"""Every metric Turnout has, in one table: name, kind, meaning, labels.

Names follow the Prometheus conventions: base units, the unit in the name, and labels over which a sum means
something. The values of a label come from what is served, never from what a caller sends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import NamedTuple

#: Upper bounds in seconds: what a router needs for one row (5 us) to the longest deadline anybody waits for.
SECONDS: tuple[float, ...] = (
    *(5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3),
    *(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
#: Upper bounds in rows.
ROWS: tuple[float, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384)

#: The parts of a request's time, in their order.
STAGES = ("decode", "queue", "predict", "encode")


class Kind(Enum):
    """How values move, and so how those of several processes are put together: all of them add."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Family(NamedTuple):
    """One metric. `name` is what stands in the exposition; a histogram adds `_bucket`, `_sum` and `_count` to it."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...]
    bounds: tuple[float, ...] = ()


class Sample(NamedTuple):
    """One value that is read when somebody scrapes: `labels` are values in the order of the family's labels.

    Samples of one name with equal labels add up, in one process and over several.
    """

    name: str
    labels: Sequence[str]
    value: float


_MODEL = ("model", "version")
_DOOR = ("model", "version", "protocol")
_WORKER = ("model", "version", "worker")
_VARIANT = ("endpoint", "variant")

_TABLE = (
    Family("turnout_requests_total", Kind.COUNTER, "Prediction requests answered.", (*_DOOR, "code")),
    Family("turnout_request_rows_total", Kind.COUNTER, "Rows in requests answered with OK.", _MODEL),
    Family("turnout_request_bytes_total", Kind.COUNTER, "Bytes of the request bodies.", _DOOR),
    Family("turnout_response_bytes_total", Kind.COUNTER, "Bytes of the response bodies.", _DOOR),
    Family(
        "turnout_request_duration_seconds",
        Kind.HISTOGRAM,
        "From a whole request to its answer, by the answer's code.",
        (*_MODEL, "code"),
        SECONDS,
    ),
    Family(
        "turnout_stage_duration_seconds",
        Kind.HISTOGRAM,
        "The parts of the time of requests answered with OK: decode, queue, predict, encode.",
        (*_MODEL, "stage"),
        SECONDS,
    ),
    Family("turnout_batch_rows", Kind.HISTOGRAM, "Rows in each batch given to the model.", _MODEL, ROWS),
    Family("turnout_batch_duration_seconds", Kind.HISTOGRAM, "Time the model took for each batch.", _MODEL, SECONDS),
    Family("turnout_queue_requests", Kind.GAUGE, "Requests waiting to be put into a batch.", _MODEL),
    Family("turnout_queue_rows", Kind.GAUGE, "Rows waiting to be put into a batch.", _MODEL),
    Family("turnout_queue_bytes", Kind.GAUGE, "Bytes of tensors waiting to be put into a batch.", _MODEL),
    Family("turnout_model_ready", Kind.GAUGE, "Processes in which the version is ready to answer.", _MODEL),
    Family("turnout_replicas_ejected", Kind.GAUGE, "Replicas that routers leave out as outliers now.", _MODEL),
    Family("turnout_replica_ejections_total", Kind.COUNTER, "Times a router left out a replica as outlier.", _MODEL),
    Family("turnout_worker_state", Kind.GAUGE, "1 for the state the worker is in.", (*_WORKER, "state")),
    Family("turnout_worker_restarts_total", Kind.COUNTER, "Times the worker was started again.", _WORKER),
    Family("turnout_worker_memory_bytes", Kind.GAUGE, "Resident memory of the worker's process.", _WORKER),
    Family(
        "turnout_endpoint_requests_total",
        Kind.COUNTER,
        "Requests by the version they were assigned to and how they ended: answered, degraded, or the failure's code.",
        (*_VARIANT, "outcome"),
    ),
    Family(
        "turnout_fallback_total",
        Kind.COUNTER,
        "Requests assigned to one version that another one answered, and why.",
        ("endpoint", "from", "to", "reason"),
    ),
    Family(
        "turnout_fallback_failures_total",
        Kind.COUNTER,
        "Requests that no step of the fallback could answer, by why the first did not.",
        ("endpoint", "reason"),
    ),
    Family("turnout_fallback_hedges_total", Kind.COUNTER, "Fallback steps started beside a slow one.", ("endpoint",)),
    Family("turnout_fallback_hedges_used_total", Kind.COUNTER, "Of those, answers that were used.", ("endpoint",)),
    Family(
        "turnout_fallback_drills_total",
        Kind.COUNTER,
        "Fallback drills, by the step that answered; late past the deadline, empty where none did.",
        ("endpoint", "step"),
    ),
    Family(
        "turnout_split_choices_total",
        Kind.COUNTER,
        "How requests found their version: direct, rule, sticky, random.",
        ("endpoint", "kind"),
    ),
    Family(
        "turnout_circuit_breaker_state",
        Kind.GAUGE,
        "Routers in which the circuit is in this state: closed, open, half-open.",
        (*_VARIANT, "state"),
    ),
    Family("turnout_circuit_breaker_opened_total", Kind.COUNTER, "Times the circuit was opened.", _VARIANT),
    Family("turnout_retries_total", Kind.COUNTER, "Requests tried again.", _VARIANT),
    Family("turnout_retries_refused_total", Kind.COUNTER, "Retries that the budget did not allow.", _VARIANT),
    Family("turnout_cascade_rows_total", Kind.COUNTER, "Rows by the step that answered them.", (*_VARIANT, "step")),
    Family(
        "turnout_cascade_unsure_rows_total",
        Kind.COUNTER,
        "Rows of which nobody was sure, because the next step failed.",
        _VARIANT,
    ),
    Family("turnout_limits_active", Kind.GAUGE, "Requests within the endpoint's limits at this moment.", ("endpoint",)),
    Family("turnout_limits_refused_total", Kind.COUNTER, "Requests refused by the endpoint's limits.", ("endpoint",)),
    Family(
        "turnout_cache_requests_total",
        Kind.COUNTER,
        "Requests by what the cache did: hit, stale (answered, asked anew), joined (waited for an equal one), miss.",
        (*_VARIANT, "outcome"),
    ),
    Family("turnout_cache_answers", Kind.GAUGE, "Answers kept.", _VARIANT),
    Family("turnout_cache_bytes", Kind.GAUGE, "Bytes of the answers kept.", _VARIANT),
    Family(
        "turnout_shadow_requests_total",
        Kind.COUNTER,
        "Requests drawn for a shadow: answered, failed, left (the caller went away), skipped, dropped (it was busy).",
        (*_VARIANT, "outcome"),
    ),
    Family(
        "turnout_shadow_pairs_total",
        Kind.COUNTER,
        "Answers of a shadow compared with those of the version that answered the caller.",
        ("endpoint", "variant", "shadow"),
    ),
    Family("turnout_connections", Kind.GAUGE, "Open connections.", ("protocol",)),
    Family("turnout_connections_parked", Kind.GAUGE, "Connections not read from for a while, having been refused.", ()),
    Family("turnout_connections_total", Kind.COUNTER, "Connections accepted.", ("protocol",)),
    Family("turnout_connections_refused_total", Kind.COUNTER, "Connections ended by a limit.", ("protocol", "limit")),
    Family("turnout_log_lines_total", Kind.COUNTER, "Access log lines written.", ()),
    Family(
        "turnout_log_lines_lost_total",
        Kind.COUNTER,
        "Access log lines not written: left out by sampling, queue at its bound, destination not writable.",
        ("reason",),
    ),
    Family("turnout_router_memory_bytes", Kind.GAUGE, "Resident memory of the router's process.", ("router",)),
    Family("turnout_router_cpu_seconds_total", Kind.COUNTER, "Processor time the router has used.", ("router",)),
    Family("turnout_metrics_failures_total", Kind.COUNTER, "Sources that raised when they were read.", ("router",)),
    Family("turnout_build_info", Kind.GAUGE, "1, with the version of Turnout.", ("version",)),
)

#: Every family by its name, in the order of the exposition.
FAMILIES: Mapping[str, Family] = {family.name: family for family in _TABLE}
