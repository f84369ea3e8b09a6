"""What guiding costs a request that goes well, as a share of its latency: `python -m benchmarks.endpoint`.

One server serves each model twice: by itself, and as the champion of an endpoint with a split, a circuit breaker, an
output check and a fallback within a deadline. One client asks both by turns, so that whatever else the machine does
falls on both; what is shown are medians over all rounds, and between what the ratio lies (a bootstrap over rounds).
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import models
from turnout.testing.server import Client, Server, serving

#: By name: the features of one row, and how many requests a round has.
MODELS = {"tiny": (4, 300), "mlp": (784, 200), "heavy": (784, 20)}
_DRAWS = 2000


def document(folder: Path) -> str:
    """Each model by itself, and as champion of an endpoint that has a simpler one and a constant to fall back to."""
    said: dict[str, object] = {
        "server": {"access_log": "off"},
        "models": [{"name": name, "artifact": str(folder / f"{name}.onnx")} for name in MODELS],
        "endpoints": {
            f"guided-{name}": {
                "versions": {
                    "v1": {"model": str(folder / f"{name}.onnx"), "circuit_breaker": {}, "outputs": {}},
                    "v2": {"model": str(folder / f"{name}.onnx"), "circuit_breaker": {}, "outputs": {}},
                },
                "traffic": {"v1": 100, "v2": 0},
                "fallback": ["v2"],
                "deadline": 5,
            }
            for name in MODELS
        },
    }
    return json.dumps(said)


@contextmanager
def served() -> Iterator[Server]:
    """The server; ends with the block."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models.write(folder)
        path = folder / "turnout.yaml"
        path.write_text(document(folder))
        with serving("--spec", str(path)) as server:
            yield server


def latency(client: Client, name: str, body: bytes, count: int) -> float:
    """The median seconds of so many requests, one after the other."""
    found = []
    for _ in range(count):
        started = time.perf_counter()
        answer = client.request("POST", f"/v2/models/{name}/infer", body, {"content-type": "application/json"})
        found.append(time.perf_counter() - started)
        assert answer.status == 200, answer.body
    return statistics.median(found)


def interval(alone: list[float], guided: list[float]) -> tuple[float, float]:
    """Between what the ratio of the medians lies, 95 of 100 times, were the rounds drawn anew."""
    drawn, chance = [], random.Random(0)  # noqa: S311  no secret
    for _ in range(_DRAWS):
        rounds = [chance.randrange(len(alone)) for _ in alone]
        drawn.append(statistics.median(guided[i] for i in rounds) / statistics.median(alone[i] for i in rounds))
    drawn.sort()
    return drawn[int(0.025 * _DRAWS)], drawn[int(0.975 * _DRAWS)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.endpoint", description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    rounds = parser.parse_args().rounds
    print("| model | by itself (ms) | guided (ms) | ratio | between |")
    print("|---|---|---|---|---|")
    with served() as server:
        client = server.client()
        for name, (features, count) in MODELS.items():
            inputs = [{"name": "x", "datatype": "FP32", "shape": [1, features], "data": [0.5] * features}]
            body = json.dumps({"inputs": inputs}).encode()
            found: dict[str, list[float]] = {name: [], f"guided-{name}": []}
            for which in found:
                latency(client, which, body, count)
            for number in range(rounds):
                for which in sorted(found, reverse=number % 2 == 1):
                    found[which].append(latency(client, which, body, count))
            alone, guided = found[name], found[f"guided-{name}"]
            low, high = interval(alone, guided)
            middle = statistics.median(alone), statistics.median(guided)
            print(
                f"| {name} | {middle[0] * 1e3:.3f} | {middle[1] * 1e3:.3f} | {middle[1] / middle[0]:.3f} "
                f"| {low:.3f} to {high:.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
