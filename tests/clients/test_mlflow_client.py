"""MLflow's ScoringServerClient, unchanged, in an environment of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.environments import run_client
from tests.clients.running import Server, running

pytestmark = pytest.mark.clients

PACKAGES = ("mlflow-skinny==3.17.2", "scipy", "pandas>=2.2,<3")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server with one model only: MLflow's paths name none."""
    with running(tmp_path, "flowers") as found:
        yield found


def test_the_scoring_client(server: Server) -> None:
    table = server.models.table.iloc[48:52]
    host, port = server.http.split(":")
    split = json.dumps({"columns": list(table.columns), "data": table.to_numpy().tolist()})
    found = run_client("mlflow", PACKAGES, "mlflow_client.py", host, port, split)
    labels = server.models.flowers.predict(table).tolist()
    assert found["version"]
    assert found["table"] == found["reordered"] == found["inputs"]
    assert labels == _labels(found["table"]["predictions"])
    assert "400" in found["missing"]
    assert table.columns[0] in found["missing"]


def _labels(predictions: list[Any]) -> list[Any]:
    """The labels, whether they come alone or next to other outputs of each row."""
    return [one["label"] if isinstance(one, dict) else one for one in predictions]
