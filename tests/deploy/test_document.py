"""The whole desired state: equal meaning is equal text, nothing gets lost, and every mistake is told where it is."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.deploy.documents import documents, endpoints, said_otherwise
from turnout.core.errors import InvalidInput, ModelNotFound
from turnout.deploy.document import Document, parse_document, read_document
from turnout.deploy.endpoint_spec import EndpointSpec, parse_endpoint
from turnout.deploy.problems import Refused
from turnout.deploy.spec_file import read_spec

WHOLE = """
endpoints:
  fraud:
    versions:
      v7: {model: "models:/fraud/7", replicas: 2}
      v8: {model: "s3://models/fraud/8", outputs: {score: {min: 0}}, circuit_breaker: false}
      rules: {model: "python:rules.py:Rules"}
      both: {ensemble: {steps: {a: {use: v7}, b: {use: v8}}, outputs: {score: {combine: mean, of: [a.score, b.score]}}}}
      fast: {cascade: {steps: [v7, v8], output: score}}
    traffic: {v7: 90, v8: 10}
    sticky: {header: x-account-id}
    rules: [{when: {header: {x-cohort: beta}}, to: v8}]
    shadow: {v8: 100}
    fallback: {steps: [v7, rules, {last_good: {key: {header: x-account-id}}}, {default: {score: 0.0}}], on: [error]}
    hedge: 0.9
    deadline: 0.15
    outputs: {finite: true, score: {min: 0, max: 1}}
    circuit_breaker: true
    outlier: {failures: 3}
    retry: {attempts: 3}
    limits: {rate: 100, per_caller: {rate: 5}}
    cache: {ttl: 5}
    rollout: {to: v8, steps: [1, 5, 25, 50, 100]}
"""


@settings(max_examples=40)
@given(documents())
def test_the_normal_form_is_its_own_normal_form(said: dict[str, Any]) -> None:
    document = parse_document(said)
    text = document.to_text()
    again = Document.from_text(text)
    assert again.to_text() == text
    assert again.digest == document.digest
    assert parse_document(text).to_text() == text, "it is a document that may be applied"
    assert parse_document(yaml.safe_dump(json.loads(text), sort_keys=False)).to_text() == text


@settings(max_examples=40)
@given(documents())
def test_equal_meaning_is_equal_digest(said: dict[str, Any]) -> None:
    assert parse_document(said_otherwise(said)).to_text() == parse_document(said).to_text()


@given(endpoints())
def test_an_endpoint_travels_as_json(said: dict[str, Any]) -> None:
    endpoint = parse_endpoint("fraud", said)
    again = EndpointSpec.from_json(json.loads(json.dumps(endpoint.to_json())))
    assert again.to_json() == endpoint.to_json()
    assert EndpointSpec.from_json(again.to_json()) == again
    assert sum(endpoint.traffic.values()) == pytest.approx(100)
    assert set(endpoint.traffic) == {version.name for version in endpoint.versions}


@settings(max_examples=50)
@given(documents(), st.data())
def test_whatever_stands_anywhere_is_taken_or_refused_by_its_path(said: dict[str, Any], data: st.DataObject) -> None:
    """No value at any place ends in anything but a document or a refusal that names a place."""
    said = copy.deepcopy(said)  # what a strategy gives is shared with other examples
    place: Any = said
    while isinstance(place, dict) and place:
        key = data.draw(st.sampled_from(sorted(place)))
        if not isinstance(place[key], dict) or data.draw(st.booleans()):
            odd = st.sampled_from(
                [None, True, -1, 1e308, "", "x" * 200, [], [[]], {}, {"": 1}, {"x": {"y": []}}, "${A}"]
            )
            place[key] = data.draw(odd)
            break
        place = place[key]
    problem = None
    try:
        document = parse_document(said)
    except InvalidInput as caught:
        problem = caught
    else:
        assert Document.from_text(document.to_text()).to_text() == document.to_text()
    assert problem is None or problem.field


def test_everything_that_an_endpoint_says_is_typed() -> None:
    document = parse_document(WHOLE, "/models/turnout.yaml")
    fraud = document.endpoint("fraud")
    v7, v8, rules, both, fast = fraud.versions
    assert v7.model is not None
    assert (v7.model.name, v7.model.artifact, v7.model.replicas) == ("fraud", "models:/fraud/7", 2)
    assert rules.model is not None
    assert rules.model.artifact == "python:/models/rules.py:Rules", "a path counts from the file"
    assert (both.kind, both.uses, fast.kind, fast.uses) == ("ensemble", ("v7", "v8"), "cascade", ("v7", "v8"))
    assert v7.circuit_breaker is not None, "what is said of all holds for each"
    assert v8.circuit_breaker is None, "unless it says something else"
    assert (v7.outputs and v7.outputs.each["score"].max, v8.outputs and v8.outputs.each["score"].max) == (1.0, None)
    assert v7.outlier is not None
    assert v7.outlier.failures == 3
    assert fraud.traffic == {"v7": 90.0, "v8": 10.0, "rules": 0.0, "both": 0.0, "fast": 0.0}
    assert [step.version or step.default or "last_good" for step in fraud.steps] == [
        "v7", "rules", "last_good", {"score": 0.0},
    ]  # fmt: skip
    assert (fraud.fallback.on, fraud.fallback.hedge, fraud.policy.deadline) == (("error",), 0.9, 0.15)
    assert fraud.limits is not None
    assert fraud.limits.per_caller is not None
    assert fraud.rollout is not None
    assert fraud.rollout.steps == (1.0, 5.0, 25.0, 50.0, 100.0)


def test_the_first_version_answers_where_nothing_else_is_said() -> None:
    fraud = parse_endpoint("fraud", {"versions": {"v2": {"model": "a.onnx"}, "v1": {"model": "b.onnx"}}})
    assert fraud.default == "v2"
    assert EndpointSpec.from_json(fraud.to_json()).default == "v2"


def test_weights_change_alone() -> None:
    document = parse_document(WHOLE)
    moved = document.with_traffic("fraud", {"v8": 100})
    assert moved.endpoint("fraud").traffic["v8"] == 100.0
    assert moved.with_traffic("fraud", {"v7": 90, "v8": 10}).digest == document.digest
    with pytest.raises(ModelNotFound, match="there is fraud"):
        document.with_traffic("frod", {})


MISTAKES: list[tuple[str, str, str]] = [
    (
        "traffic: {v7: 90, v8: 10}",
        "traffic: {v7: 90, v9: 10}",
        r"endpoints\.fraud\.traffic\.v9: there is no such version; expected one of v7, v8, .*works: v[78]: 10",
    ),
    (
        "traffic: {v7: 90, v8: 10}",
        "traffic: {v7: 90, v8: 20}",
        r"endpoints\.fraud\.traffic: the shares do not sum to 100; .* got 110\. .*traffic: \{v7: 81\.82, v8: 18\.18\}",
    ),
    (
        "traffic: {v7: 90, v8: 10}",
        "traffic: {v7: 110, v8: -10}",
        r"traffic\.v7: not a share.*\n.*traffic\.v8: not a share",
    ),
    (
        "traffic: {v7: 90, v8: 10}",
        "traffic: {v7: .nan, v8: 10}",
        r"traffic\.v7: not a number; expected a finite number",
    ),
    (
        "traffic: {v7: 90, v8: 10}",
        "trafic: {v7: 90, v8: 10}",
        r'turnout\.yaml:10: endpoints\.fraud\.trafic: unknown; .*works: traffic: \{"v7": 90, "v8": 10\}',
    ),
    ("replicas: 2", "replica: 2", r"versions\.v7\.replica: unknown; .*works: replicas: 2"),
    ("replicas: 2", "replicas: -2", r"versions\.v7\.replicas: replicas and threads start at 1"),
    (
        "replicas: 2",
        "replicas: '${N}'",
        r"versions\.v7\.replicas: only addresses and secrets come from the environment",
    ),
    ("to: v8}]", "to: v88}]", r"rules\[0\]\.to: there is no such version; .*works: to: v8"),
    ("x-cohort: beta", "x-cohort: {prefx: b}", r"rules\[0\]\.when\.header\.x-cohort\.prefx: unknown; .*prefix"),
    ("shadow: {v8: 100}", "shadow: {v6: 100}", r"shadow\.v6: there is no such version"),
    ("shadow: {v8: 100}", "shadow: {v8: {percent: 101}}", r"shadow\.v8\.percent: not a share"),
    ("[v7, rules, ", "[v7, rule, ", r"fallback\.steps\[1\]: there is no such version; .*works: rules"),
    ("{default: {score", "{defaults: {score", r"fallback\.steps\[3\]\.defaults: unknown; .*works: default: "),
    ("[v7, rules, ", "[v7, v7, ", r"fallback\.steps\[1\]: stands twice; .* got v7"),
    ("{default: {score: 0.0}}]", "{default: {score: 0.0}}, v8]", r"fallback\.steps\[4\]: never reached"),
    ("on: [error]", "on: [eror]", r"fallback\.on: no reason; expected error, timeout"),
    ("rollout: {to: v8", "rollout: {to: v9", r"rollout\.to: there is no such version"),
    ("steps: [1, 5, 25, 50, 100]", "steps: [5, 1]", r"rollout\.steps: not possible; expected rising percents"),
    (
        "a: {use: v7}",
        "a: {use: v17}",
        r"versions\.both\.ensemble\.steps\.a\.use: there is no such version, model or endp",
    ),
    (
        "steps: [v7, v8], out",
        "steps: [v7, v0], out",
        r"versions\.fast\.cascade\.steps\[1\]: there is no such version, model",
    ),
    ("a: {use: v7}", "a: {use: both}", r"endpoints\.fraud: they go in a circle: fraud@both -> fraud@both"),
    ("a: {use: v7}", "a: {use: fraud}", r"they go in a circle: fraud -> fraud@both -> fraud"),
    ("output: score}", "outputs: score}", r"cascade\.outputs: unknown; .*\n.*cascade\.output: missing"),
    (
        "outputs: {score: {min: 0}}",
        "outputs: {score: {mim: 0}}",
        r"versions\.v8\.outputs\.score\.mim: unknown; .*min: 0",
    ),
    ("deadline: 0.15", "deadline: -1", r"endpoints\.fraud\.deadline: not a duration"),
    ("deadline: 0.15", "deadline: soon", r"endpoints\.fraud\.deadline: of the wrong kind; expected a number"),
    (
        '{model: "models:/fraud/7", replicas: 2}',
        "{replicas: 2}",
        r"versions\.v7: not one kind of version; .*none of them",
    ),
    ("cache: {ttl: 5}", "cache: {ttl: 5}\n    cache: {ttl: 6}", r"turnout\.yaml:23: not YAML \('cache' stands twice\)"),
    ("fraud:\n", "fra/ud:\n", r"endpoints\.fra/ud: not a name"),
    (
        "endpoints:\n",
        "models: [{name: fraud, artifact: a.onnx}]\nendpoints:\n",
        r"endpoints\.fraud: two are called 'fraud'",
    ),
    ("endpoints:\n", "endpoint: {}\nendpoints:\n", r"turnout\.yaml:2: endpoint: unknown; .*works: endpoints: "),
]


@pytest.mark.parametrize(("good", "bad", "said"), MISTAKES, ids=[bad.strip() for _, bad, _ in MISTAKES])
def test_mistakes_are_told_with_what_would_work(tmp_path: Path, good: str, bad: str, said: str) -> None:
    assert WHOLE.count(good) == 1
    path = tmp_path / "turnout.yaml"
    path.write_text(WHOLE.replace(good, bad))
    with pytest.raises(InvalidInput, match=said):
        read_document(path)


def test_all_mistakes_are_told_at_once_each_with_its_line() -> None:
    text = WHOLE.replace("replicas: 2", "replica: 2").replace("v8: 10}", "v8: 20}").replace("ttl: 5", "tl: 5")
    with pytest.raises(Refused) as refused:
        parse_document(text, "/models/turnout.yaml")
    fields = [problem.field for problem in refused.value.problems]
    assert fields == [
        "turnout.yaml:5: endpoints.fraud.versions.v7.replica",
        "turnout.yaml:10: endpoints.fraud.traffic",
        "turnout.yaml:22: endpoints.fraud.cache.tl",
    ]
    assert refused.value.message.splitlines()[0] == "3 things are wrong:"


def test_a_circle_over_endpoints_is_found() -> None:
    one = {"versions": {"v": {"cascade": {"steps": ["a", "two"], "output": "y"}}, "a": {"model": "a.onnx"}}}
    two = {"versions": {"w": {"cascade": {"steps": ["b", "one@v"], "output": "y"}}, "b": {"model": "b.onnx"}}}
    with pytest.raises(
        InvalidInput, match=r"in a circle: one -> one@v -> two -> two@w -> one@v|one@v -> two -> two@w -> one"
    ):
        parse_document({"endpoints": {"one": one, "two": two}})
    two["versions"]["w"]["cascade"]["steps"] = ["b", "one@a"]
    parse_document({"endpoints": {"one": one, "two": two}})


def test_the_order_of_an_ensembles_outputs_is_kept() -> None:
    ensemble = {"steps": {"s": {"use": "m"}}, "outputs": {"z": "s.z", "a": "s.a"}}
    said = {"endpoints": {"e": {"versions": {"v": {"ensemble": ensemble}, "m": {"model": "a.onnx"}}}}}
    again = Document.from_text(parse_document(said).to_text())
    version = again.endpoint("e").version("v")
    assert version is not None
    assert version.ensemble is not None
    assert [*version.ensemble.outputs] == ["z", "a"]


def test_keys_are_texts_and_numbers_numbers(tmp_path: Path) -> None:
    """YAML 1.1 takes `on` for true and 1e-3 for a text."""
    path = tmp_path / "turnout.yaml"
    path.write_text(
        "endpoints: {7: {versions: {1: {model: a.onnx}, on: {model: b.onnx}}, traffic: {1: 1e+1, on: 90}, "
        "deadline: 1e-3}}"
    )
    seven = read_document(path).endpoint("7")
    assert seven.traffic == {"1": 10.0, "on": 90.0}
    assert seven.policy.deadline == 0.001


def test_a_spec_file_gives_its_document_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "turnout.yaml"
    path.write_text(WHOLE + "server: {port: '${TURNOUT_TEST_PORT}', memory_limit: 2GiB}\n")
    with pytest.raises(InvalidInput, match=r"turnout\.yaml:24: server\.port: the environment has no TURNOUT_TEST_PORT"):
        read_spec(path)
    monkeypatch.setenv("TURNOUT_TEST_PORT", "9090")
    found = read_spec(path)
    assert (found.spec.port, found.spec.memory_limit, found.spec.models) == (9090, 2 << 30, ())
    assert found.document.settings["server"] == {"port": "${TURNOUT_TEST_PORT}", "memory_limit": 2 << 30}
    assert "9090" not in found.document.to_text(), "what is kept is the reference"
    monkeypatch.setenv("TURNOUT_TEST_PORT", "web")
    with pytest.raises(InvalidInput, match=r"server\.port: not a port"):
        read_spec(path)


def test_an_empty_document_is_refused_and_an_empty_state_is_not() -> None:
    with pytest.raises(InvalidInput, match="at least one model or endpoint is needed"):
        parse_document({})
    assert Document.from_text(Document().to_text()) == Document()
