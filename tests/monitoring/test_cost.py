"""What counting and logging cost a request. The bounds are twice what was measured: other machines are slower.

`.venv/bin/pytest -m slow -s tests/monitoring/test_cost.py` prints the figures of docs/decisions/metrics.md.
"""

from __future__ import annotations

from collections.abc import Callable
from time import thread_time

import pytest

from tests.monitoring.records import RECORD
from turnout.core.errors import Code
from turnout.monitoring.access_log import AccessLog
from turnout.monitoring.fanout import Fanout
from turnout.monitoring.log_file import LogFile
from turnout.monitoring.metrics import Metrics
from turnout.monitoring.record import RequestRecord

pytestmark = pytest.mark.slow

ROUNDS, TIMES = 7, 100_000
SENT = [
    RECORD._replace(
        decode=5e-6 * (1 + i % 7), queue=1e-5 * (i % 50), predict=1e-4 * (1 + i % 9), total=2e-4 + 1e-5 * (i % 77)
    )
    for i in range(1000)
]
REFUSED = [record._replace(code=Code.UNAVAILABLE) for record in SENT]


def microseconds(observe: Callable[[RequestRecord], None], sent: list[RequestRecord]) -> float:
    """The best of some rounds, for one record."""
    best = float("inf")
    for _ in range(ROUNDS):
        began = thread_time()
        for _ in range(TIMES // len(sent)):
            for record in sent:
                observe(record)
        best = min(best, thread_time() - began)
    return best / TIMES * 1e6


def test_the_price_of_a_request() -> None:
    metrics, log = Metrics(), AccessLog(LogFile("/dev/null"))
    log.start()
    both = Fanout(metrics, log)
    for name, observe, bound in (("metrics", metrics.request, 2.4), ("both", both.request, 3.0)):
        for kind, sent in (("answered", SENT), ("refused", REFUSED)):
            price = microseconds(observe, sent)
            print(f"{name}, {kind}: {price:.2f} us")
            assert price < bound
    log.close()


def test_the_price_of_a_batch() -> None:
    metrics = Metrics()
    price = microseconds(lambda _: metrics.batch("iris", "1", 8, 0.001), SENT)
    print(f"batch: {price:.2f} us")
    assert price < 1.0
