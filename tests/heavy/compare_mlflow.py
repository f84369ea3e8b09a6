"""Answers the same calls as MLflow's scoring server did, and says where the answers differ.

Arguments: the directory that `make_mlflow.py` has filled, then names of models ("" for all). Prints JSON by model:
a list of differences, or the refusal, and whether MLflow was imported.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from turnout import formats
from turnout.core.errors import Failure
from turnout.core.messages import Context, InferResponse
from turnout.protocols.http import HttpRequest
from turnout.protocols.mlflow import MlflowInvocations
from turnout.runtime.predict import run_model


def difference(ours: Any, theirs: Any, place: str = "") -> str:
    """Where two documents differ; numbers may differ by what a 32-bit number written in decimals leaves open."""
    if isinstance(ours, dict) and isinstance(theirs, dict) and list(ours) == list(theirs):
        return next(filter(None, (difference(ours[key], theirs[key], f"{place}.{key}") for key in ours)), "")
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        pairs = enumerate(zip(ours, theirs, strict=True))
        return next(filter(None, (difference(a, b, f"{place}[{at}]") for at, (a, b) in pairs)), "")
    numbers = isinstance(ours, (int, float)) and isinstance(theirs, (int, float))
    if numbers and isinstance(ours, bool) == isinstance(theirs, bool):
        return "" if math.isclose(ours, theirs, rel_tol=1e-7, abs_tol=1e-12) else f"{place}: {ours} and {theirs}"
    return "" if ours == theirs else f"{place}: {str(ours)[:200]} and {str(theirs)[:200]}"


def answers(path: Path, calls: list[dict[str, str]]) -> list[str]:
    """The differences of one model's answers."""
    model = formats.load(path, formats.LoadOptions(trust_pickle=True))
    served: Any = SimpleNamespace(name=path.name, version="1", signature=model.signature)
    codec = MlflowInvocations()
    found = []
    for number, call in enumerate(calls):
        http = HttpRequest("POST", "/invocations", "", {"content-type": call["type"]}, call["body"].encode())
        try:
            request = codec.decode(http, served, Context())
            outputs = run_model(model, request.inputs, request.rows)
            body: Any = codec.encode(http, request, InferResponse(outputs, path.name, "1")).body
        except Failure as failure:
            found.append(f"call {number}: {failure}")
            continue
        ours = json.loads(body if isinstance(body, bytes) else b"".join(body))
        if differs := difference(ours, json.loads(call["answer"])):
            found.append(f"call {number}: {differs}")
    return found


def main() -> None:
    root, only = Path(sys.argv[1]), sys.argv[2:]
    calls = json.loads((root / "calls.json").read_text())
    report: dict[str, Any] = {}
    for name in only or sorted(calls):
        try:
            found: Any = answers(root / name, calls.get(name, []))
        except Failure as failure:
            found = f"{type(failure).__name__}: {failure}"
        report[name] = {"found": found, "calls": len(calls.get(name, [])), "mlflow": "mlflow" in sys.modules}
        sys.modules.pop("mlflow", None)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
