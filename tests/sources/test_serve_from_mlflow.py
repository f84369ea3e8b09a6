"""The whole way: a registered model is fetched, gets its environment, is served; its alias moves; its registry goes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow_place import Place
from sklearn.datasets import load_iris

from tests.versions.repository import status, turnout
from turnout.testing.server import Server, serving

pytestmark = [pytest.mark.registry, pytest.mark.timeout(600)]
ROWS = load_iris().data


@pytest.fixture(autouse=True)
def answering(place: Place) -> None:
    """Another file's tests end with the server stopped."""
    if not place.server.running:
        place.server.start()


def environment(place: Place, home: Path) -> dict[str, str]:
    return {
        **place.s3.environment,
        "MLFLOW_TRACKING_URI": place.server.address,
        "TURNOUT_HOME": str(home),
    }


def predict(server: Server) -> list[int]:
    got = server.request("POST", "/invocations", {"inputs": ROWS.tolist()})
    assert got.status == 200, got.body
    return [int(label) for label in got.json()["predictions"]]


def test_from_a_cold_cache_to_answers_and_again_at_once(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.alias("champion", "1")
    variables = environment(place, tmp_path)
    words = ("models:/iris@champion", "--trust-pickle", "--watch", "0.2", "--access-log", "off")
    started = time.monotonic()
    with serving(*words, env=variables, ready_seconds=300) as server:
        cold = time.monotonic() - started
        assert "fetching" in server.log
        assert predict(server) == place.made[0]["predicted"]
        monkeypatch.setenv("TURNOUT_HOME", str(tmp_path))
        (version,) = status(server, "iris")["versions"]
        assert version["pinned"] == f"models:/iris/1#{place.made[0]['model_id']}"
        assert version["digest"].startswith("sha256:")
        assert version["environment"], "it brought requirements, so it has an environment of its own"
        assert version["self_test"]

        place.alias("champion", "2")
        server.wait_until(lambda: predict(server) == place.made[1]["predicted"], 60, "the version of the moved alias")
        server.wait_until(
            lambda: [one["version"] for one in status(server, "iris")["versions"]] == ["2"], 60, "one version only"
        )

        place.server.stop()
        try:
            server.wait_until(lambda: status(server, "iris")["problem"], 60, "said that the registry is away")
            assert "nobody listens there" in turnout(server, "status")[1]
            assert predict(server) == place.made[1]["predicted"], "what is served goes on being served"
            began = time.monotonic()
            with serving(*words, env=variables, ready_seconds=300) as second:
                warm = time.monotonic() - began
                assert "nobody listens there" in second.log
                assert predict(second) == place.made[1]["predicted"]
        finally:
            place.server.start()
        server.wait_until(lambda: not status(server, "iris")["problem"], 120, "said that the registry is back")
    began = time.monotonic()
    with serving(*words, env=variables, ready_seconds=300) as third:
        again = time.monotonic() - began
        assert predict(third) == place.made[1]["predicted"]
    print(f"\nready in {cold:.1f} s cold; {again:.2f} s again; {warm:.2f} s without the registry")


def test_a_change_that_is_only_planned(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place.alias("planned", "1")
    monkeypatch.setenv("TURNOUT_HOME", str(tmp_path))
    words: tuple[Any, ...] = ("iris=models:/iris@planned", "--trust-pickle", "--environment", "none")
    with serving(
        *words, "--watch", "0.2", "--on-change", "plan", env=environment(place, tmp_path), ready_seconds=120
    ) as server:
        place.alias("planned", "2")
        server.wait_until(lambda: status(server, "iris")["watch"]["pending"], 60)
        assert predict(server) == place.made[0]["predicted"]
        assert turnout(server, "apply", "iris") == (0, "iris: serves 2\n")
        assert predict(server) == place.made[1]["predicted"]


def test_the_same_model_as_a_function_and_from_the_shell(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import turnout as library

    for name, value in environment(place, tmp_path).items():
        monkeypatch.setenv(name, value)
    model = library.load("models:/iris/1", trust_pickle=True)
    answer = model.predict(ROWS)
    assert model.name == "iris"
    assert np.array_equal(next(iter(answer.values())), place.made[0]["predicted"])
