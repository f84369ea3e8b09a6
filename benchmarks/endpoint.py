"""What guiding costs a request that goes well, as a share of its latency: `python -m benchmarks.endpoint`.

One endpoint is changed to and fro while it serves: a version and nothing else; the same with a fallback within a
deadline; and with a circuit breaker and an output check besides. It is the same router and the same worker all the
time: two workers of one model are not equally fast, by up to 4 %. What is shown are medians over all rounds: of the
latencies, of the ratio in each round, and between what that median lies (a bootstrap over rounds).
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import models
from turnout.entrypoints.remote import ask_here
from turnout.testing.server import Client, serving

#: By name: the features of one row, and how many requests a round has.
MODELS = {"tiny": (4, 300), "mlp": (784, 300), "heavy": (784, 20)}
FORMS = ("plain", "fallback", "guided")
_WARM = 30
_DRAWS = 2000


def document(artifact: Path, form: str) -> str:
    """The endpoint in one of its forms; all have both versions loaded."""
    model: dict[str, object] = {"model": str(artifact)}
    if form == "guided":
        model |= {"circuit_breaker": {}, "outputs": {}}
    endpoint: dict[str, object] = {} if form == "plain" else {"fallback": ["v2"], "deadline": 5}
    endpoint |= {"versions": {"v1": model, "v2": model}, "traffic": {"v1": 100, "v2": 0}}
    return json.dumps({"server": {"access_log": "off"}, "endpoints": {"e": endpoint}})


def latency(client: Client, body: bytes, count: int) -> float:
    """The median seconds of so many requests, one after the other."""
    found = []
    for _ in range(count):
        started = time.perf_counter()
        answer = client.request("POST", "/v2/models/e/infer", body, {"content-type": "application/json"})
        found.append(time.perf_counter() - started)
        assert answer.status == 200, answer.body
    return statistics.median(found)


def ratio(later: Sequence[float], earlier: Sequence[float]) -> str:
    """The median ratio of the rounds, and between what it lies, 95 of 100 times, were they drawn anew."""
    ratios = [one / other for one, other in zip(later, earlier, strict=True)]
    chance = random.Random(0)
    drawn = sorted(statistics.median(chance.choices(ratios, k=len(ratios))) for _ in range(_DRAWS))
    return f"{statistics.median(ratios):.3f} ({drawn[_DRAWS // 40]:.3f} to {drawn[-_DRAWS // 40]:.3f})"


def measure(folder: Path, name: str, rounds: int) -> Mapping[str, list[float]]:
    """The median latency of each round, by form."""
    features, count = MODELS[name]
    inputs = [{"name": "x", "datatype": "FP32", "shape": [1, features], "data": [0.5] * features}]
    body = json.dumps({"inputs": inputs}).encode()
    path = folder / "turnout.yaml"
    path.write_text(document(folder / f"{name}.onnx", "plain"))
    found: dict[str, list[float]] = {form: [] for form in FORMS}
    with serving("--spec", str(path)) as server:
        client, workers = server.client(), server.workers()
        for number in range(rounds):
            for form in FORMS if number % 2 else FORMS[::-1]:
                said = document(folder / f"{name}.onnx", form)
                ask_here(server.port, {"do": "apply_document", "document": said, "path": str(path)})
                latency(client, body, _WARM)
                found[form].append(latency(client, body, count))
        assert server.workers() == workers, "it is the same worker"
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.endpoint", description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    rounds = parser.parse_args().rounds
    print("| model | plain (ms) | with a fallback | with all |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        models.write(folder)
        for name in MODELS:
            found = measure(folder, name, rounds)
            plain = found["plain"]
            ratios = " | ".join(ratio(found[form], plain) for form in FORMS[1:])
            print(f"| {name} | {statistics.median(plain) * 1e3:.3f} | {ratios} |", flush=True)


if __name__ == "__main__":
    main()
