"""Snapshots as Prometheus and OpenMetrics read them: the one file that speaks to prometheus_client.

The library is imported by the first scrape: it costs 8 MB and 60 ms, which a router that nobody scrapes
does not pay. `render` shares nothing with the event loop, so it may run in a thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from turnout.monitoring.families import FAMILIES, Family, Kind
from turnout.monitoring.snapshot import Snapshot, Values, merge

if TYPE_CHECKING:
    from prometheus_client.core import Metric


def render(accept: str, snapshots: Iterable[Snapshot]) -> tuple[str, bytes]:
    """The content type and the page for the sum of the snapshots, in the format the Accept header asks for."""
    from prometheus_client.exposition import choose_encoder

    encode, content_type = choose_encoder(accept)
    return content_type, encode(_Page(merge(snapshots)))


class _Page:
    """What the library takes for a registry: it yields each family that has values."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        """The families in the order of their table."""
        for family in FAMILIES.values():
            rows = self._snapshot.get(family.name)
            if rows:
                yield _metric(family, rows)


def _metric(family: Family, rows: Sequence[Values]) -> Metric:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    if family.kind is Kind.HISTOGRAM:
        histogram = HistogramMetricFamily(family.name, family.help, labels=family.labels)
        bounds = [*(repr(float(bound)) for bound in family.bounds), "+Inf"]
        for labels, (total, *counts) in rows:
            histogram.add_metric(labels, list(zip(bounds, accumulate(counts), strict=True)), total)
        return histogram
    kind = CounterMetricFamily if family.kind is Kind.COUNTER else GaugeMetricFamily
    metric = kind(family.name, family.help, labels=family.labels)
    for labels, (value,) in rows:
        metric.add_metric(labels, value)
    return metric
