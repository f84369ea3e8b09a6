"""Values find their version by the id of their prediction, once each, however late they come."""

from __future__ import annotations

import json

import pytest

from turnout.core.errors import InvalidInput, VersionNotFound
from turnout.deploy.rollout.metrics import Metrics
from turnout.deploy.rollout.statistics import Sums

REVISIONS = {3: ["v8", "v7"], 4: ["v9", "v7", "v8"]}


def made(memory: int = 100) -> Metrics:
    return Metrics(lambda endpoint, revision: REVISIONS.get(revision) if endpoint == "fraud" else None, memory)


def prediction(revision: int, variant: int | str, token: int) -> str:
    return f"R{revision}-{variant}-{token:024x}"


def test_values_are_summed_by_version() -> None:
    metrics = made()
    for value in (1.0, 2.0):
        metrics.record("fraud", "v7", "loss", value)
    metrics.record("fraud", "v8", "loss", 5.0)
    metrics.record("fraud", "v8", "clicks", 1.0)
    assert metrics.of("fraud", "loss") == {"v7": Sums(2, 3.0, 5.0), "v8": Sums(1, 5.0, 25.0)}
    metrics.forget("fraud")
    assert metrics.of("fraud", "loss") == {}


def test_a_prediction_id_names_a_version_of_its_own_revision() -> None:
    metrics = made()
    assert metrics.record_prediction("fraud", prediction(3, 1, 1), "clicks", 1.0)
    assert metrics.record_prediction("fraud", prediction(4, 2, 2), "clicks", 0.0)
    assert metrics.of("fraud", "clicks") == {"v8": Sums(1, 1.0, 1.0), "v9": Sums(1, 0.0, 0.0)}


def test_a_value_that_is_reported_twice_counts_once_for_each_metric() -> None:
    metrics = made()
    assert metrics.record_prediction("fraud", prediction(3, 0, 1), "clicks", 1.0)
    assert not metrics.record_prediction("fraud", prediction(3, 0, 1), "clicks", 1.0)
    assert metrics.record_prediction("fraud", prediction(3, 0, 1), "revenue", 9.0)
    assert metrics.of("fraud", "clicks")["v7"].size == 1


def test_what_is_remembered_is_bounded_and_goes_through_json() -> None:
    metrics = made(memory=10)
    for token in range(30):
        metrics.record_prediction("fraud", prediction(3, 0, token), "clicks", 1.0)
    kept = made(memory=10)
    kept.take_json(json.loads(json.dumps(metrics.to_json())))
    assert kept.of("fraud", "clicks") == {"v7": Sums(30, 30.0, 30.0)}
    assert not kept.record_prediction("fraud", prediction(3, 0, 29), "clicks", 1.0)
    assert kept.record_prediction("fraud", prediction(3, 0, 0), "clicks", 1.0), "the oldest are forgotten"


@pytest.mark.parametrize(
    ("said", "failure"),
    [
        ((prediction(9, 0, 1), "clicks", 1.0), VersionNotFound),
        ((prediction(3, 7, 1), "clicks", 1.0), VersionNotFound),
        ((prediction(3, "x", 1), "clicks", 1.0), VersionNotFound),
        (("R3-0-short", "clicks", 1.0), InvalidInput),
        ((prediction(3, 0, 1), " ", 1.0), InvalidInput),
        ((prediction(3, 0, 1), "clicks", float("nan")), InvalidInput),
        ((prediction(3, 0, 1), "clicks", 1e200), InvalidInput),
    ],
)
def test_what_cannot_be_counted_is_refused(said: tuple[str, str, float], failure: type[Exception]) -> None:
    metrics = made()
    with pytest.raises(failure):
        metrics.record_prediction("fraud", *said)
    assert metrics.of("fraud", "clicks") == {}


def test_the_number_of_metrics_is_bounded() -> None:
    metrics = made()
    for place in range(1000):
        metrics.record("fraud", "v7", f"metric {place}", 1.0)
    with pytest.raises(InvalidInput, match="too many metrics"):
        metrics.record("fraud", "v7", "one more", 1.0)
    metrics.record("fraud", "v7", "metric 1", 1.0)
