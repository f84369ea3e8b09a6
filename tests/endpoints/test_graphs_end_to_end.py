"""Ensembles and cascades of models in processes of their own, behind one endpoint."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.endpoints.models import write_model
from turnout.core.errors import Conflict, Failure, NotReady
from turnout.entrypoints.remote import ask_here
from turnout.testing.server import serving

SPEC = """\
server: {access_log: "off"}
models: [{name: clean, artifact: clean.py}]
endpoints:
  fraud:
    versions:
      small: {model: small.py}
      large: {model: large.py}
      both:
        ensemble:
          steps:
            cleaned: {use: clean}
            a: {use: small, inputs: {x: cleaned.score}}
            b: {use: large, inputs: {x: cleaned.score}, soft: true}
          outputs: {score: {combine: weighted_mean, of: [a.score, b.score], weights: [1, 3]}}
      careful: {cascade: {steps: [small, large], output: score, measure: value, threshold: 100}}
    traffic: {both: 100}
"""


_OTHER = """
import numpy as np

example = {"x": np.array([1.0]), "y": np.array([1.0])}


def predict(inputs):
    return {"score": inputs["x"] + inputs["y"]}
"""


def test_what_a_graph_is_made_of_is_neither_taken_away_nor_changed_under_it(tmp_path: Path) -> None:
    for name, factor in (("clean", 10.0), ("small", 2.0), ("large", 4.0), ("next", 20.0)):
        write_model(tmp_path / f"{name}.py", factor)
    (tmp_path / "other.py").write_text(_OTHER)
    path = tmp_path / "turnout.yaml"
    path.write_text(SPEC)
    with serving("--spec", str(path)) as server:

        def score() -> float:
            answer = server.request("POST", "/predict/fraud", {"x": [1.0]})
            assert answer.status == 200, answer.body
            return float(answer.json()["predictions"][0]["score"])

        with pytest.raises(Conflict, match=r"is used at endpoints\.fraud\.versions\.both\.ensemble\.steps\.cleaned"):
            ask_here(server.port, {"do": "unload", "model": "clean"})
        with pytest.raises(NotReady, match="uses it with the inputs and outputs of version 1"):
            ask_here(server.port, {"do": "load", "model": "clean", "artifact": str(tmp_path / "other.py")})
        assert score() == 35.0
        ask_here(server.port, {"do": "load", "model": "clean", "artifact": str(tmp_path / "next.py")})
        assert score() == 70.0
        # In a document both may change: nobody uses it any more.
        alone = SPEC.replace("clean.py", "other.py").replace("{use: clean}", "{use: small}")
        ask_here(server.port, {"do": "apply_document", "document": alone, "path": str(path)})
        assert score() == 7.0
        ask_here(server.port, {"do": "unload", "model": "clean"})


def test_graphs_answer_behind_an_endpoint_and_are_proved_before(tmp_path: Path) -> None:
    for name, factor in (("clean", 10.0), ("small", 2.0), ("large", 4.0)):
        write_model(tmp_path / f"{name}.py", factor)
    path = tmp_path / "turnout.yaml"
    path.write_text(SPEC)
    with serving("--spec", str(path)) as server:
        answer = server.request("POST", "/predict/fraud", {"x": [1.0, 2.0]})
        assert [row["score"] for row in answer.json()["predictions"]] == [35.0, 70.0]
        assert answer.headers["x-served-by"] == "fraud@both"
        body = {"inputs": [{"name": "x", "datatype": "FP64", "shape": [3], "data": [1.0, 60.0, 40.0]}]}
        answer = server.request("POST", "/v2/models/fraud/versions/careful/infer?explain", body)
        assert answer.json()["outputs"][0]["data"] == [4.0, 120.0, 160.0], answer.body
        steps = answer.json()["parameters"]["explain"]["steps"]
        assert [(step["name"], step["detail"]) for step in steps if step["node"] == "step"] == [
            ("small", "3 rows"),
            ("large", "2 rows"),
        ]
        tree = "\n".join(ask_here(server.port, {"do": "endpoint", "endpoint": "fraud"})["tree"])
        assert "Ensemble(both: cleaned, a, b -> score)" in tree
        assert "Beside(clean)" in tree
        for right, wrong, words in (
            ("cleaned.score}}\n", "cleaned.scor}}\n", "steps.a.inputs.x: there is no such tensor"),
            ("use: small,", "use: smal,", "steps.a.use: there is no such version"),
        ):
            changed = SPEC.replace(right, wrong, 1)
            assert changed != SPEC
            question = {"do": "apply_document", "document": changed, "path": str(path)}
            with pytest.raises(Failure, match="fraud") as refused:
                ask_here(server.port, question)
            assert f"versions.both.ensemble.{words}" in str(refused.value)
        assert server.request("POST", "/predict/fraud", {"x": [1.0]}).status == 200
