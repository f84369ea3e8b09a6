"""The numbers on the page are the requests and batches that were counted, read back by Prometheus' own parser."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

import turnout
from tests.monitoring.records import RECORD, records
from turnout.core.errors import Code
from turnout.monitoring import metrics as metrics_module
from turnout.monitoring.exposition import render
from turnout.monitoring.families import FAMILIES, Kind, Sample
from turnout.monitoring.metrics import Metrics
from turnout.monitoring.record import RequestRecord
from turnout.monitoring.snapshot import Snapshot, merge

OPENMETRICS = "application/openmetrics-text; version=1.0.0"

Page = dict[tuple[str, frozenset[tuple[str, str]]], float]


def page(*snapshots: Snapshot, accept: str = "") -> Page:
    """Every sample of the page by its name and labels."""
    _, body = render(accept, snapshots)
    parse = parse_openmetrics if accept else parse_text
    found: Page = {}
    for family in parse(body.decode()):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, f"{key} stands twice on the page"
            found[key] = sample.value
    return found


def value(found: Page, name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


def counted(sent: Iterable[RequestRecord]) -> Metrics:
    metrics = Metrics()
    for model in ("iris", "digits"):
        for version in ("1", "2"):
            metrics.declare(model, version)
    for record in sent:
        metrics.request(record)
    return metrics


def test_a_request_is_counted_where_it_belongs() -> None:
    metrics = Metrics()
    metrics.request(RECORD)
    metrics.request(RECORD._replace(total=0.3))
    found = page(metrics.snapshot())
    served = {"model": "iris", "version": "1"}
    assert value(found, "turnout_requests_total", **served, protocol="v2", code="OK") == 2
    assert value(found, "turnout_request_rows_total", **served) == 6
    assert value(found, "turnout_request_bytes_total", **served, protocol="v2") == 240
    assert value(found, "turnout_response_bytes_total", **served, protocol="v2") == 160
    duration = "turnout_request_duration_seconds"
    assert value(found, f"{duration}_count", **served, code="OK") == 2
    assert value(found, f"{duration}_sum", **served, code="OK") == pytest.approx(0.3025)
    assert value(found, f"{duration}_bucket", **served, code="OK", le="0.0025") == 1, "a bound belongs to its bucket"
    assert value(found, f"{duration}_bucket", **served, code="OK", le="0.25") == 1
    assert value(found, f"{duration}_bucket", **served, code="OK", le="0.5") == 2
    for stage, seconds in (("decode", 0.00004), ("queue", 0.0006), ("predict", 0.004), ("encode", 0.00002)):
        name = "turnout_stage_duration_seconds"
        assert value(found, f"{name}_count", **served, stage=stage) == 2
        assert value(found, f"{name}_sum", **served, stage=stage) == pytest.approx(seconds)


def test_a_failure_counts_by_its_code_and_leaves_the_stages_alone() -> None:
    metrics = counted([RECORD, RECORD._replace(code=Code.UNAVAILABLE, total=0.0001)])
    found = page(metrics.snapshot())
    served = {"model": "iris", "version": "1"}
    assert value(found, "turnout_requests_total", **served, protocol="v2", code="UNAVAILABLE") == 1
    assert value(found, "turnout_request_duration_seconds_count", **served, code="UNAVAILABLE") == 1
    assert value(found, "turnout_request_duration_seconds_count", **served, code="OK") == 1
    assert value(found, "turnout_stage_duration_seconds_count", **served, stage="predict") == 1
    assert value(found, "turnout_request_rows_total", **served) == 3


def test_a_batch_is_observed_once_whatever_it_was_made_of() -> None:
    metrics = Metrics()
    metrics.batch("iris", "1", 8, 0.002)
    metrics.batch("iris", "1", 9, 0.004)
    found = page(metrics.snapshot())
    served = {"model": "iris", "version": "1"}
    assert value(found, "turnout_batch_rows_count", **served) == 2
    assert value(found, "turnout_batch_rows_sum", **served) == 17
    assert value(found, "turnout_batch_rows_bucket", **served, le="8.0") == 1
    assert value(found, "turnout_batch_rows_bucket", **served, le="16.0") == 2
    assert value(found, "turnout_batch_duration_seconds_sum", **served) == pytest.approx(0.006)


def test_names_that_callers_invent_make_no_series() -> None:
    metrics = counted([])
    for number in range(500):
        metrics.request(RECORD._replace(model=f"guess-{number}", code=Code.NOT_FOUND))
        metrics.request(RECORD._replace(version=f"{number + 100}", code=Code.NOT_FOUND))
    found = page(metrics.snapshot())
    assert value(found, "turnout_requests_total", model="", version="", protocol="v2", code="NOT_FOUND") == 1000
    assert len({dict(labels)["model"] for name, labels in found if name == "turnout_request_rows_total"}) == 3


def test_versions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_module, "MAX_VERSIONS", 10)
    metrics = Metrics()
    for number in range(50):
        metrics.request(RECORD._replace(version=str(number)))
    found = page(metrics.snapshot())
    requests = {labels: n for (name, labels), n in found.items() if name == "turnout_requests_total"}
    assert len(requests) == 11
    assert sum(requests.values()) == 50


def test_what_is_declared_is_there_at_zero() -> None:
    metrics = Metrics()
    metrics.declare("iris", "1")
    found = page(metrics.snapshot())
    assert value(found, "turnout_request_duration_seconds_count", model="iris", version="1", code="OK") == 0
    assert value(found, "turnout_batch_rows_count", model="iris", version="1") == 0


def test_label_values_are_escaped() -> None:
    metrics = Metrics()
    odd = 'a"b\\c\nd'
    metrics.request(RECORD._replace(model=odd))
    for accept in ("", OPENMETRICS):
        found = page(metrics.snapshot(), accept=accept)
        assert value(found, "turnout_requests_total", model=odd, version="1", protocol="v2", code="OK") == 1


def test_sources_are_read_at_each_scrape() -> None:
    metrics = Metrics()
    depth = [0]
    metrics.add_source(lambda: [Sample("turnout_queue_rows", ("iris", "1"), depth[0])])
    for rows in (3, 7):
        depth[0] = rows
        assert value(page(metrics.snapshot()), "turnout_queue_rows", model="iris", version="1") == rows


def test_equal_samples_of_one_process_add() -> None:
    metrics = Metrics()
    metrics.add_source(lambda: [Sample("turnout_connections", ("http",), 2)])
    metrics.add_source(lambda: [Sample("turnout_connections", ("http",), 5)])
    assert value(page(metrics.snapshot()), "turnout_connections", protocol="http") == 7


def broken() -> Iterable[Sample]:
    yield Sample("turnout_connections", ("http",), 1)
    raise OSError("gone")


@pytest.mark.parametrize(
    "source",
    [
        broken,
        lambda: [Sample("turnout_of_nobody", (), 1)],
        lambda: [Sample("turnout_connections", ("http", "too", "many"), 1)],
    ],
)
def test_a_source_that_fails_costs_its_own_samples_only(source: metrics_module.Source) -> None:
    metrics = counted([RECORD])
    metrics.add_source(source)
    metrics.add_source(lambda: [Sample("turnout_connections", ("grpc",), 4)])
    found = page(metrics.snapshot())
    assert value(found, "turnout_metrics_failures_total", router="0") == 1
    assert value(found, "turnout_connections", protocol="grpc") == 4
    assert ("turnout_connections", frozenset({("protocol", "http")})) not in found


@pytest.mark.parametrize("accept", ["", "text/plain; version=0.0.4", OPENMETRICS, "*/*", "nonsense;;;,"])
def test_the_format_is_what_the_scraper_asks_for(accept: str) -> None:
    content_type, body = render(accept, [counted([RECORD]).snapshot()])
    if "openmetrics" in accept:
        assert content_type.startswith("application/openmetrics-text; version=1.0.0")
        assert body.endswith(b"# EOF\n")
    else:
        assert content_type.startswith("text/plain; version=0.0.4")
        assert b"# EOF" not in body


@settings(max_examples=30)
@given(st.lists(records, max_size=40), st.lists(st.integers(0, 2), min_size=40, max_size=40))
def test_routers_apart_and_merged_are_one_router(sent: list[RequestRecord], shares: list[int]) -> None:
    together = counted(sent).snapshot()
    apart = [counted(r for r, share in zip(sent, shares, strict=False) if share == n).snapshot() for n in range(3)]
    carried = [json.loads(json.dumps(snapshot)) for snapshot in apart]
    for name in [name for name in FAMILIES if "router" in FAMILIES[name].labels or name == "turnout_build_info"]:
        for snapshot in (together, *carried):
            del snapshot[name]
    one, merged = page(together, accept=OPENMETRICS), page(*carried, accept=OPENMETRICS)
    assert one.keys() == merged.keys()
    for key, expected in one.items():
        assert merged[key] == (pytest.approx(expected) if key[0].endswith("_sum") else expected)


@settings(max_examples=50)
@given(st.lists(records, max_size=60))
def test_every_request_is_on_the_page_exactly_once(sent: list[RequestRecord]) -> None:
    found = page(counted(sent).snapshot())
    expected = Counter((r.model, r.version, r.protocol, r.code.name) for r in sent)
    requests = {labels: n for (name, labels), n in found.items() if name == "turnout_requests_total"}
    assert requests == {
        frozenset(zip(FAMILIES["turnout_requests_total"].labels, key, strict=True)): n for key, n in expected.items()
    }
    durations = [n for (name, _), n in found.items() if name == "turnout_request_duration_seconds_count"]
    assert sum(durations) == len(sent)
    octets = [n for (name, _), n in found.items() if name == "turnout_request_bytes_total"]
    assert sum(octets) == sum(r.bytes_in for r in sent)


def test_merging_changes_none_of_its_parts() -> None:
    snapshot = counted([RECORD]).snapshot()
    before = json.dumps(snapshot)
    merge([snapshot, snapshot])
    assert json.dumps(snapshot) == before


def test_the_router_says_what_it_uses_and_which_version_it_is() -> None:
    found = page(Metrics(router="0").snapshot(), Metrics(router="1").snapshot())
    for router in ("0", "1"):
        assert value(found, "turnout_router_memory_bytes", router=router) > 5_000_000
        assert value(found, "turnout_router_cpu_seconds_total", router=router) > 0
    assert value(found, "turnout_build_info", version=turnout.__version__) == 1


def test_names_follow_the_conventions() -> None:
    for name, family in FAMILIES.items():
        assert name.startswith("turnout_")
        assert name.endswith("_total") == (family.kind is Kind.COUNTER)
        assert bool(family.bounds) == (family.kind is Kind.HISTOGRAM)
        assert list(family.bounds) == sorted(set(family.bounds))
        assert family.help.endswith(".")


def test_the_library_is_not_loaded_before_the_first_scrape() -> None:
    names = "turnout.monitoring.metrics, turnout.monitoring.exposition"
    script = f"import sys, {names}; print('prometheus_client' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "False"
