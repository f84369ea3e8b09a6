"""Real models of heavy frameworks, each in its own environment: the conformance suite, and what the framework says."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.heavy.conftest import HERE, run_in
from tests.heavy.keeping import arrays, cases, check
from turnout.core.tensors import DTYPES
from turnout.deploy.environments.environment import Environment
from turnout.testing.formats import Tolerance
from turnout.testing.server import Client, serving

pytestmark = [pytest.mark.formats, pytest.mark.timeout(900)]
#: The maker, and the environment that it and the model run in.
MAKERS = [
    ("tensorflow", "tensorflow"),
    ("keras", "tensorflow"),
    ("keras", "jax"),
    ("keras", "torch"),
    ("jax", "jax"),
    ("torch", "torch"),
    ("transformers", "torch"),
    ("tvm", "tvm"),
    ("mxnet", "mxnet"),
    ("small", "small"),
    ("h2o", "h2o"),
]
#: Not for a server: one job of Spark takes longer than a caller waits.
BATCH_ONLY = [("spark", "spark")]
BATCH = 100
NOISE = re.compile(r"oneDNN|cuda|absl::|computation_placer|TF-TRT|Warning|WARNING", re.IGNORECASE)


@pytest.mark.parametrize(("maker", "where"), [*MAKERS, *BATCH_ONLY])
def test_the_conformance_suite_holds_in_the_environment(
    maker: str, where: str, made: Callable[[str, str], Path], environment: Callable[[str], Environment]
) -> None:
    folder = made(maker, where)
    ended = run_in(environment(where), HERE / "inside.py", str(folder))
    lines = [line.removeprefix("CASE ") for line in ended.stdout.splitlines() if line.startswith("CASE ")]
    problems = [f"{name}:\n{problem}" for name, problem, _ in map(json.loads, lines) if problem]
    print(*lines, sep="\n")
    assert not problems, "\n".join(problems)
    assert len(lines) == len(cases(folder)), ended.stdout[-2000:] + ended.stderr[-4000:]


@pytest.mark.parametrize(("maker", "where"), MAKERS)
def test_a_server_with_the_environment_gives_the_framework_s_answers(
    maker: str, where: str, made: Callable[[str, str], Path], environment: Callable[[str], Environment]
) -> None:
    folder = made(maker, where)
    served = [case for case in cases(folder) if case["served"]]
    assert served
    words = [f"{case['name']}={folder / case['artifact']}" for case in served]
    if any(case.get("trust_pickle") for case in served):
        words.append("--trust-pickle")
    with serving(*words, "--environment", str(environment(where).python), ready_seconds=180.0) as server:
        client = server.client(60.0)
        for case in served:
            rows, expected = arrays(folder, case, "rows"), arrays(folder, case, "expected")
            for at in range(0, len(next(iter(rows.values()))), BATCH):
                part = {name: array[at : at + BATCH] for name, array in rows.items()}
                answer = infer(client, case["name"], part)
                for name, want in expected.items():
                    check(case, name, answer[name], want[at : at + BATCH], Tolerance(*case["split"]))
        client.close()
        assert not NOISE.search(server.log), server.log


def infer(client: Client, model: str, rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The answer over the Open Inference Protocol."""
    types = {dtype: name for name, dtype in DTYPES.items()}
    inputs = [
        {
            "name": name,
            "datatype": types[array.dtype],
            "shape": array.shape,
            "data": [v.decode() for v in array.ravel()] if array.dtype.kind == "O" else array.ravel().tolist(),
        }
        for name, array in rows.items()
    ]
    answer = client.request("POST", f"/v2/models/{model}/infer", {"inputs": inputs})
    assert answer.status == 200, answer.body
    return {output["name"]: _array(output) for output in answer.json()["outputs"]}


def _array(output: dict[str, Any]) -> np.ndarray:
    made = np.array(output["data"], dtype=DTYPES[output["datatype"]]).reshape(output["shape"])
    if output["datatype"] == "BYTES":
        return np.array([v.encode() for v in made.ravel()], dtype=object).reshape(made.shape)
    return made
