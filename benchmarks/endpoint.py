"""What guiding costs a request that goes well, as a share of its latency: `python -m benchmarks.endpoint`.

One server serves each model three times: by itself; as an endpoint, whose answers say who gave them; and as champion of
an endpoint that has a split, a circuit breaker, an output check and a fallback within a deadline besides. One client
asks all by turns, so that whatever else the machine does falls on each. What is shown are medians over all rounds: of
the latencies, of the ratio in each round, and between what that median lies (a bootstrap over rounds).
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks import models
from turnout.testing.server import Client, Server, serving

#: By name: the features of one row, and how many requests a round has.
MODELS = {"tiny": (4, 100), "mlp": (784, 100), "heavy": (784, 10)}
KINDS = ("alone", "plain", "guided")
_DRAWS = 2000


def document(folder: Path) -> str:
    """Each model in the three ways."""
    endpoints: dict[str, object] = {}
    for name in MODELS:
        model = {"model": str(folder / f"{name}.onnx")}
        endpoints[f"plain-{name}"] = {"versions": {"v1": model}, "traffic": {"v1": 100}}
        checked = {**model, "circuit_breaker": {}, "outputs": {}}
        endpoints[f"guided-{name}"] = {
            "versions": {"v1": checked, "v2": checked},
            "traffic": {"v1": 100, "v2": 0},
            "fallback": ["v2"],
            "deadline": 5,
        }
    alone = [{"name": f"alone-{name}", "artifact": str(folder / f"{name}.onnx")} for name in MODELS]
    return json.dumps({"server": {"access_log": "off"}, "models": alone, "endpoints": endpoints})


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


def ratio(later: Sequence[float], earlier: Sequence[float]) -> str:
    """The median ratio of the rounds, and between what it lies, 95 of 100 times, were they drawn anew."""
    ratios = [one / other for one, other in zip(later, earlier, strict=True)]
    chance = random.Random(0)
    drawn = sorted(statistics.median(chance.choices(ratios, k=len(ratios))) for _ in range(_DRAWS))
    return f"{statistics.median(ratios):.3f} ({drawn[_DRAWS // 40]:.3f} to {drawn[-_DRAWS // 40]:.3f})"


def measure(client: Client, name: str, rounds: int) -> Mapping[str, list[float]]:
    """The median latency of each round, by kind."""
    features, count = MODELS[name]
    inputs = [{"name": "x", "datatype": "FP32", "shape": [1, features], "data": [0.5] * features}]
    body = json.dumps({"inputs": inputs}).encode()
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for number in range(-1, rounds):  # the first warms up
        order = KINDS if number % 2 else KINDS[::-1]
        for kind in order:
            taken = latency(client, f"{kind}-{name}", body, count)
            if number >= 0:
                found[kind].append(taken)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.endpoint", description=__doc__)
    parser.add_argument("--rounds", type=int, default=150)
    rounds = parser.parse_args().rounds
    print("| model | by itself (ms) | endpoint (ms) | guided (ms) | guided / endpoint | guided / by itself |")
    print("|---|---|---|---|---|---|")
    with served() as server:
        client = server.client()
        for name in MODELS:
            found = measure(client, name, rounds)
            times = " | ".join(f"{statistics.median(found[kind]) * 1e3:.3f}" for kind in KINDS)
            ratios = " | ".join(ratio(found["guided"], found[kind]) for kind in ("plain", "alone"))
            print(f"| {name} | {times} | {ratios} |", flush=True)


if __name__ == "__main__":
    main()
